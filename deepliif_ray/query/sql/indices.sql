-- Indices by slide and by patient. The macros ending in _at take the thresholds of call_cells(…), the views are
-- the macros at the published defaults:
--   SELECT * FROM patient_indices_at(size_thresh := 50, marker_thresh := 'default') WHERE marker = 'Ki67';
--
-- index_percent is NULL where no cell was counted and is not rounded; a density is NULL where there is no tissue.

-- Of a slide whose cells are damaged nothing can be counted anew: null, for its patient and marker too.
-- At the defaults the counts are those of the commit records, and no cell is read: with no threshold given the
-- condition of "counted" is false before anything is opened.
CREATE MACRO slide_indices_at(
  size_thresh := NULL, size_thresh_upper := NULL, marker_thresh := NULL,
  od_thresh_lower := NULL, od_thresh_upper := NULL
) AS TABLE
WITH counted AS (
  SELECT c.slide_id, count(*) AS n_called, count_if(c.positive) AS n_positive
  FROM call_cells(
    size_thresh := size_thresh, size_thresh_upper := size_thresh_upper, marker_thresh := marker_thresh,
    od_thresh_lower := od_thresh_lower, od_thresh_upper := od_thresh_upper
  ) AS c
  WHERE coalesce(size_thresh::VARCHAR, size_thresh_upper::VARCHAR, marker_thresh::VARCHAR,
                 od_thresh_lower::VARCHAR, od_thresh_upper::VARCHAR) IS NOT NULL
  GROUP BY c.slide_id
),
counts AS (
  SELECT
    s.slide_id, s.patient_id, s.marker, s.tissue_mm2,
    CASE
      WHEN coalesce(size_thresh::VARCHAR, size_thresh_upper::VARCHAR, marker_thresh::VARCHAR,
                    od_thresh_lower::VARCHAR, od_thresh_upper::VARCHAR) IS NULL THEN s.n_called
      WHEN s.slide_id NOT IN (SELECT d.slide_id FROM damaged AS d WHERE d.kind = 'cells') THEN coalesce(k.n_called, 0)
    END AS n_called,
    CASE
      WHEN coalesce(size_thresh::VARCHAR, size_thresh_upper::VARCHAR, marker_thresh::VARCHAR,
                    od_thresh_lower::VARCHAR, od_thresh_upper::VARCHAR) IS NULL THEN s.n_positive
      WHEN s.slide_id NOT IN (SELECT d.slide_id FROM damaged AS d WHERE d.kind = 'cells') THEN coalesce(k.n_positive, 0)
    END::BIGINT AS n_positive
  FROM slides AS s
  LEFT JOIN counted AS k ON s.slide_id = k.slide_id
)
SELECT
  c.slide_id, c.patient_id, c.marker, c.n_called, c.n_positive,
  c.n_called - c.n_positive AS n_negative,
  100 * c.n_positive / nullif(c.n_called, 0) AS index_percent,
  c.tissue_mm2,
  c.n_called / nullif(c.tissue_mm2, 0) AS density_per_mm2,
  c.n_positive / nullif(c.tissue_mm2, 0) AS positive_density_per_mm2,
  wilson_lower_percent(c.n_positive, c.n_called) AS ci_lower_percent,
  wilson_upper_percent(c.n_positive, c.n_called) AS ci_upper_percent,
  concat_ws(
    '; ', n.brief, nullif(array_to_string(n.flags, ', '), ''), CASE WHEN n.has_warnings THEN 'has warnings' END,
    CASE WHEN n.is_left THEN 'not in the newest manifest' END
  ) AS notes
FROM counts AS c
JOIN slide_notes AS n ON c.slide_id = n.slide_id
ORDER BY c.patient_id, c.marker, c.slide_id;

CREATE VIEW slide_indices AS
SELECT * FROM slide_indices_at();

-- Cells are pooled over a patient's slides of one marker; a slide without a cell adds its tissue.
CREATE MACRO patient_indices_at(
  size_thresh := NULL, size_thresh_upper := NULL, marker_thresh := NULL,
  od_thresh_lower := NULL, od_thresh_upper := NULL
) AS TABLE
WITH pooled AS (
  SELECT
    i.patient_id, i.marker,
    count(*) AS n_slides,
    CASE WHEN count(i.n_called) = count(*) THEN sum(i.n_called) END::BIGINT AS n_called,
    CASE WHEN count(i.n_called) = count(*) THEN sum(i.n_positive) END::BIGINT AS n_positive,
    fsum(i.tissue_mm2) AS tissue_mm2  -- compensated, as the order of summing varies
  FROM slide_indices_at(
    size_thresh := size_thresh, size_thresh_upper := size_thresh_upper, marker_thresh := marker_thresh,
    od_thresh_lower := od_thresh_lower, od_thresh_upper := od_thresh_upper
  ) AS i
  GROUP BY i.patient_id, i.marker
)
SELECT
  p.patient_id, p.marker, p.n_slides, p.n_called, p.n_positive,
  100 * p.n_positive / nullif(p.n_called, 0) AS index_percent,
  p.n_called / nullif(p.tissue_mm2, 0) AS density_per_mm2,
  wilson_lower_percent(p.n_positive, p.n_called) AS ci_lower_percent,
  wilson_upper_percent(p.n_positive, p.n_called) AS ci_upper_percent,
  p.tissue_mm2,
  p.n_positive / nullif(p.tissue_mm2, 0) AS positive_density_per_mm2,
  n.notes
FROM pooled AS p
JOIN patient_notes AS n ON p.patient_id = n.patient_id AND p.marker = n.marker
ORDER BY p.patient_id, p.marker;

CREATE VIEW patient_indices AS
SELECT * FROM patient_indices_at();
