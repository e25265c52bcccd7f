-- Objects of an older version, which lack columns: the attempt is that of the slide's record, others are null.
UNION ALL
SELECT $columns
FROM read_parquet([$files], hive_partitioning = true, hive_types = {'marker': VARCHAR}) AS c
JOIN stored.slides AS s ON c.slide_id = s.slide_id AND ($path IS NULL OR s.cells_path = $path)
