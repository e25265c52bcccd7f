-- Published positivity and size rules (DeepLIIF 1.2.7), as scoring/calls.py has them.
--
-- call_cells(…) gives the counted cells and their calls at thresholds of your choice, without inference:
--   size_thresh        count cells larger than this, px; not given: each slide's own default; 0: all cells
--   size_thresh_upper  count cells smaller than this, px; not given: no limit
--   marker_thresh      a cell whose marker value exceeds this is positive whatever its majority;
--                      'default': each slide's own; not given: off
--   od_thresh_lower,   cells whose optical density x 100, rounded half to even, lies outside are negative;
--   od_thresh_upper    not given: off
-- For instance: SELECT slide_id, avg(positive::INT) FROM call_cells(size_thresh := 50, marker_thresh := 'default')
--               WHERE marker = 'Ki67' GROUP BY slide_id;
CREATE MACRO call_cells(
  size_thresh := NULL, size_thresh_upper := NULL, marker_thresh := NULL,
  od_thresh_lower := NULL, od_thresh_upper := NULL
) AS TABLE
SELECT
  c.*,
  CASE
    WHEN round_even(c.od_mean, 0) < od_thresh_lower OR round_even(c.od_mean, 0) > od_thresh_upper THEN false
    ELSE c.majority_positive OR coalesce(
      c.marker_max > CASE
        WHEN marker_thresh::VARCHAR = 'default' THEN s.marker_thresh
        ELSE marker_thresh::DOUBLE
      END,
      false
    )
  END AS positive
FROM cells AS c
JOIN slides AS s ON c.slide_id = s.slide_id
WHERE c.area_px > coalesce(size_thresh, s.size_thresh)
  AND (size_thresh_upper IS NULL OR c.area_px < size_thresh_upper);

CREATE VIEW called_cells AS
SELECT * FROM call_cells();
