-- An object of several slides, some of which have newer cells elsewhere: only those whose record names this one.
UNION ALL
SELECT $columns
FROM read_parquet([$files], hive_partitioning = true, hive_types = {'marker': VARCHAR}) AS c
WHERE c.slide_id IN (SELECT s.slide_id FROM stored.slides AS s WHERE s.cells_path = $path)
