LEFT JOIN stored.corrected AS o ON corrections AND c.slide_id = o.slide_id AND c.cell_id = o.cell_id
