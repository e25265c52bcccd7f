-- Objects of which every row counts: a slide's own, and those of several slides none of which was scored again.
UNION ALL
SELECT $columns
FROM read_parquet([$files], hive_partitioning = true, hive_types = {'marker': VARCHAR}) AS c
