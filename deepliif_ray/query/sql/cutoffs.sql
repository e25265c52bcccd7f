-- Cut-offs are passed in one way to everything that takes them:
--   cutoffs := {'size_thresh': 50, 'weak': 0.15}   these values, and the defaults of what is not given
--   cutoffs := 'er-2026'                           a set that is kept beside the results (`deepliif-ray cutoffs`); the
--                                                  view cutoff_sets lists them
--   not given                                      the published defaults
-- The values:
--   size_thresh        count cells larger than this, px; by default each slide's own; 0: all cells
--   size_thresh_upper  count cells smaller than this, px; by default no limit
--   marker_thresh      a cell whose marker value exceeds this is positive whatever its majority; 'default': each
--                      slide's own; by default off
--   od_thresh_lower,   cells whose optical density x 100, rounded half to even, lies outside are negative;
--   od_thresh_upper    by default off
--   weak, moderate,    mean optical density of DAB over the nucleus from which a cell is 1+, 2+, 3+; by default
--   strong             QuPath's $weak, $moderate, $strong, which belong to its own stain vectors and background
CREATE OR REPLACE MACRO cutoff(cutoffs, name) AS to_json(cutoffs) ->> name;

CREATE OR REPLACE MACRO cutoff_number(cutoffs, name) AS TRY_CAST(to_json(cutoffs) ->> name AS DOUBLE);

CREATE OR REPLACE MACRO is_cutoff_name(cutoffs) AS typeof(cutoffs) = 'VARCHAR';

CREATE OR REPLACE MACRO are_rising(low, high) AS coalesce(low <= high, true);

-- True, or an error that says what is wrong.
CREATE OR REPLACE MACRO are_sound(cutoffs) AS
  CASE
    WHEN typeof(cutoffs) = '"NULL"' THEN true
    WHEN is_cutoff_name(cutoffs) THEN
      list_contains($sets, cutoffs::VARCHAR)
      OR error('there is no set of cut-offs ''' || cutoffs::VARCHAR || '''; there are ' || $named_sets)
    WHEN NOT starts_with(typeof(cutoffs), 'STRUCT') THEN
      error('cutoffs are values, such as {''size_thresh'': 50}, or the name of a set in quotes; not '
            || typeof(cutoffs))
    WHEN NOT list_has_all($keys, json_keys(to_json(cutoffs))) THEN
      error('unknown cut-offs in ' || to_json(cutoffs)::VARCHAR || '; known are $known')
    WHEN NOT list_bool_and(list_transform($keys, lambda key: coalesce(
      isfinite(TRY_CAST(cutoff(cutoffs, key) AS DOUBLE)), cutoff(cutoffs, key) IS NULL
      OR (key = 'marker_thresh' AND cutoff(cutoffs, key) = 'default')
    ))) THEN
      error('cut-offs are numbers (marker_thresh also ''default''), not ' || to_json(cutoffs)::VARCHAR)
    WHEN least(cutoff_number(cutoffs, 'size_thresh'), cutoff_number(cutoffs, 'size_thresh_upper')) < 0 THEN
      error('sizes of cells are not negative: ' || to_json(cutoffs)::VARCHAR)
    WHEN NOT (are_rising(cutoff_number(cutoffs, 'size_thresh'), cutoff_number(cutoffs, 'size_thresh_upper'))
      AND are_rising(cutoff_number(cutoffs, 'od_thresh_lower'), cutoff_number(cutoffs, 'od_thresh_upper'))
      AND coalesce(cutoff_number(cutoffs, 'weak'), $weak) <= coalesce(cutoff_number(cutoffs, 'moderate'), $moderate)
      AND coalesce(cutoff_number(cutoffs, 'moderate'), $moderate) <= coalesce(cutoff_number(cutoffs, 'strong'), $strong))
    THEN
      error('cut-offs are out of order: ' || to_json(cutoffs)::VARCHAR
            || '; weak, moderate, strong that are not given are $weak, $moderate, $strong')
    ELSE true
  END;
