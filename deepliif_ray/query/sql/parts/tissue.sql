CASE
    WHEN region IS NOT NULL THEN a.class_tissue_mm2
    WHEN e.slide_id IS NOT NULL THEN e.slide_tissue_mm2
    ELSE s.tissue_mm2
  END
