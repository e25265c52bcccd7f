-- cells: one row a cell, from exactly the objects that commit records name. What an interrupted or superseded
-- attempt left behind is never read. The marker is the partition, so that a filter on it opens only its objects.
CREATE VIEW cells AS
$selects;
