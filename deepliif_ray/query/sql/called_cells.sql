-- Published positivity and size rules (DeepLIIF 1.2.7), as scoring/calls.py has them, and strength of the stain.
--
-- called_cells(…) gives the counted cells and their calls, without inference:
--   cutoffs      see cutoffs.sql
--   region       only cells whose centroid lies in a region of this class; cells in regions to exclude never count
--   corrections  false: calls as measured, without what people said of single cells
-- `positive` is the published call; `strength` is 0, 1, 2 or 3 by the nucleus's DAB alone, as of an H-score.
-- For instance: SELECT slide_id, avg(positive::INT) FROM called_cells({'size_thresh': 50, 'marker_thresh': 'default'})
--               WHERE marker = 'Ki67' GROUP BY slide_id;
-- Values that hold on all slides are compared as they are. Only what differs between slides is looked up slide by slide,
-- which takes half as long again. Which of the two it is, DuckDB knows before it opens a file.
CREATE OR REPLACE MACRO called_cells(cutoffs := NULL, region := NULL, corrections := true) AS TABLE
SELECT c.* EXCLUDE (is_sized) $replaced
FROM (
  SELECT
    c.*,
    is_sized(
      c.area_px,
      -- In here, because DuckDB drops other conditions where it sees that no cell is of such a size.
      below_counted(CASE WHEN are_sound(cutoffs) THEN cutoff_number(cutoffs, 'size_thresh') END),
      above_counted(cutoff_number(cutoffs, 'size_thresh_upper'))
    ) AS is_sized,
    is_positive(
      c.od_mean, c.majority_positive, c.marker_max, TRY_CAST(cutoff(cutoffs, 'marker_thresh') AS DOUBLE),
      cutoff_number(cutoffs, 'od_thresh_lower'), cutoff_number(cutoffs, 'od_thresh_upper')
    ) AS positive,
    strength_of(
      c.dab_od_mean, coalesce(cutoff_number(cutoffs, 'weak'), $weak),
      coalesce(cutoff_number(cutoffs, 'moderate'), $moderate), coalesce(cutoff_number(cutoffs, 'strong'), $strong)
    ) AS strength
  FROM cells AS c
  WHERE holds_everywhere(cutoffs)
  UNION ALL
  SELECT
    c.*,
    is_sized(c.area_px, k.below, k.above) AS is_sized,
    is_positive(
      c.od_mean, c.majority_positive, c.marker_max, k.marker_thresh, k.od_thresh_lower, k.od_thresh_upper
    ) AS positive,
    strength_of(c.dab_od_mean, k.weak, k.moderate, k.strong) AS strength
  FROM cells AS c
  JOIN (
    SELECT *, below_counted(size_thresh) AS below, above_counted(size_thresh_upper) AS above
    FROM slide_cutoffs(cutoffs := cutoffs)
  ) AS k ON c.slide_id = k.slide_id
  WHERE NOT holds_everywhere(cutoffs)
) AS c
$corrected
WHERE are_sound(cutoffs)
  AND $counted
  $placed;

CREATE VIEW called_cells AS
SELECT * FROM called_cells();
