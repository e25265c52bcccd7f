-- What each column of a view, or parameter of a table macro, means:
--   SELECT name, type, unit, description FROM described('patient_indices');
-- (DESCRIBE is a word of DuckDB's own, so the macro cannot be called that.)
CREATE MACRO described(wanted) AS TABLE
SELECT d.*
FROM stored.described AS d
WHERE d.view = CASE
  WHEN wanted IN (SELECT known.view FROM stored.described AS known) THEN wanted
  ELSE error('nothing is called ''' || wanted || '''; FROM described has all views and table macros')
END;
