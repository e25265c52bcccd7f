-- An object of several slides, some of which have newer cells elsewhere: only those whose record names this one.
SELECT $columns
FROM read_parquet($file, hive_partitioning = true, hive_types = {'marker': VARCHAR})
WHERE slide_id IN (SELECT s.slide_id FROM slides AS s WHERE s.cells_path = $path)
