LEFT JOIN region_areas AS a ON s.slide_id = a.slide_id AND lower(a.class) = lower(region)
LEFT JOIN (
  SELECT slide_id, any_value(slide_tissue_mm2) AS slide_tissue_mm2 FROM region_areas GROUP BY slide_id
) AS e ON s.slide_id = e.slide_id
