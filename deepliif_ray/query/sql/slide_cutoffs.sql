-- What holds on each slide. Of a named set the most particular row that has a value counts: of the marker and a value
-- of an attribute, then of the marker, then of any. Where a set says nothing of a marker's strength there is none: no
-- other set's.
CREATE OR REPLACE MACRO slide_cutoffs(cutoffs := NULL) AS TABLE
SELECT
  slide_id,
  coalesce(cutoff_number(cutoffs, 'size_thresh'), kept.size_thresh, own_size) AS size_thresh,
  coalesce(cutoff_number(cutoffs, 'size_thresh_upper'), kept.size_thresh_upper) AS size_thresh_upper,
  CASE
    WHEN coalesce(cutoff(cutoffs, 'marker_thresh'), kept.marker_thresh) = 'default' THEN own_marker
    ELSE coalesce(cutoff(cutoffs, 'marker_thresh'), kept.marker_thresh)::DOUBLE
  END AS marker_thresh,
  coalesce(cutoff_number(cutoffs, 'od_thresh_lower'), kept.od_thresh_lower) AS od_thresh_lower,
  coalesce(cutoff_number(cutoffs, 'od_thresh_upper'), kept.od_thresh_upper) AS od_thresh_upper,
  coalesce(cutoff_number(cutoffs, 'weak'), kept.weak) AS weak,
  coalesce(cutoff_number(cutoffs, 'moderate'), kept.moderate) AS moderate,
  coalesce(cutoff_number(cutoffs, 'strong'), kept.strong) AS strong
FROM (
  SELECT
    s.slide_id, any_value(s.size_thresh) AS own_size, any_value(s.marker_thresh) AS own_marker,
    $most_particular
  FROM slides AS s
  LEFT JOIN stored.cutoff_sets AS k
    ON k.name = CASE WHEN is_cutoff_name(cutoffs) THEN cutoffs::VARCHAR ELSE '$builtin' END
    AND (k.marker IS NULL OR k.marker = s.marker)
    AND (k.attribute IS NULL OR s.attributes[k.attribute] = k.value)
  GROUP BY s.slide_id
) AS kept;
