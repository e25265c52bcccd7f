-- cells, where no slide with a cell is committed: the same columns and types, no rows.
CREATE VIEW cells AS
SELECT $columns
FROM (SELECT *, NULL::VARCHAR AS marker FROM no_cells);
