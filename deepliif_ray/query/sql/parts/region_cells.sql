UNION ALL
SELECT r.slide_id, r.cell_id, r.class, r.region_id, r.excludes
FROM read_parquet([$files]) AS r
JOIN stored.slides AS s ON r.slide_id = s.slide_id AND r.attempt = s.attempt
