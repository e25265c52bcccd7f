-- cells: one row a cell, from exactly the objects that commit records name. What an interrupted or superseded
-- attempt left behind is never read. The marker is the partition, so that a filter on it opens only its objects.
-- The first part has no rows: it gives columns and types, also where no cell is committed.
CREATE VIEW cells AS
SELECT $columns
FROM (SELECT *, NULL::VARCHAR AS marker FROM stored.no_cells)
$selects;
