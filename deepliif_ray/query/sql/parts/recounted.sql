UNION ALL
  SELECT c.slide_id, count(*) AS n_called, count_if(c.positive)::BIGINT AS n_positive
  FROM called_cells(corrections := corrections) AS c
  WHERE is_recorded(cutoffs, region) AND c.slide_id IN (SELECT slide_id FROM stored.annotated)
  GROUP BY c.slide_id
