AND is_known_region(region)
  AND (region IS NULL OR EXISTS (
    FROM region_cells AS r WHERE r.slide_id = c.slide_id AND r.cell_id = c.cell_id AND lower(r.class) = lower(region)
  ))
  AND NOT EXISTS (
    FROM region_cells AS r WHERE r.slide_id = c.slide_id AND r.cell_id = c.cell_id AND r.excludes
  )
