CASE o.call
    WHEN 'positive' THEN greatest(strength_of(stain_od, k.weak, k.moderate, k.strong), 1)
    WHEN 'negative' THEN 0
    ELSE strength_of(stain_od, k.weak, k.moderate, k.strong)
  END
