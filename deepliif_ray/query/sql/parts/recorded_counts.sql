SELECT
  slide_id, patient_id, marker, true AS has_region, true AS is_from_record, true AS is_countable, tissue_mm2, n_called,
  n_positive, 100 * n_positive / nullif(n_called, 0) AS index_percent
FROM slides
