-- Short conditions and words that the others share.

-- A size is a whole number of pixels, so limits are made whole once and not compared as DOUBLE cell by cell.
CREATE MACRO below_counted(size_thresh) AS TRY_CAST(floor(size_thresh) AS BIGINT);

CREATE MACRO above_counted(size_thresh_upper) AS TRY_CAST(ceil(size_thresh_upper) AS BIGINT);

CREATE MACRO is_sized(area_px, below, above) AS area_px > below AND coalesce(area_px < above, true);

CREATE MACRO is_positive(od_mean, majority_positive, marker_max, marker_thresh, od_thresh_lower, od_thresh_upper) AS
  coalesce(round_even(od_mean, 0) >= od_thresh_lower, true) AND coalesce(round_even(od_mean, 0) <= od_thresh_upper, true)
  AND (majority_positive OR coalesce(marker_max > marker_thresh, false));

CREATE MACRO strength_of(dab_od_mean, weak, moderate, strong) AS
  (dab_od_mean >= weak)::TINYINT + (dab_od_mean >= moderate)::TINYINT + (dab_od_mean >= strong)::TINYINT;

CREATE MACRO is_known_region(region) AS
  CASE
    WHEN region IS NULL OR list_contains($classes, lower(region)) THEN true
    ELSE error('no slide has a region of class ''' || region || '''; there are '
               || coalesce(nullif(array_to_string($classes, ', '), ''), 'none')
               || '. Bring regions in with `deepliif-ray regions import`')
  END;

CREATE MACRO is_recorded(cutoffs, region) AS typeof(cutoffs) = '"NULL"' AND region IS NULL;

-- The name of the range that an index lies in; see `categories` of the view markers.
CREATE MACRO category_of(percent, categories) AS
  CASE WHEN percent IS NOT NULL THEN list_filter(
    categories,
    lambda c: c.to_percent IS NULL OR percent < c.to_percent OR (c.inclusive AND percent = c.to_percent)
  )[1].category END;

CREATE MACRO holds_everywhere(cutoffs) AS
  NOT is_cutoff_name(cutoffs) AND cutoff(cutoffs, 'size_thresh') IS NOT NULL
  AND coalesce(cutoff(cutoffs, 'marker_thresh') <> 'default', true);

CREATE MACRO some_slides(number, what) AS
  CASE WHEN number > 0 THEN number || CASE WHEN number = 1 THEN ' slide ' ELSE ' slides ' END || what END;

CREATE MACRO notes_of(brief, n_cells, min_cells, missing, standing) AS
  concat_ws(
    '; ', brief, missing, CASE WHEN n_cells < min_cells THEN 'too few cells (under ' || min_cells || ')' END,
    nullif(standing, '')
  );

CREATE MACRO slide_lacks(has_region, region) AS CASE WHEN NOT has_region THEN 'no region ''' || region || '''' END;

CREATE MACRO patient_lacks(n_without_region, region) AS
  some_slides(n_without_region, 'without region ''' || region || '''');
