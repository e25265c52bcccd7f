REPLACE (
    CASE o.call WHEN 'positive' THEN true WHEN 'negative' THEN false ELSE c.positive END AS positive,
    CASE o.call WHEN 'positive' THEN greatest(c.strength, 1) WHEN 'negative' THEN 0 ELSE c.strength END AS strength
  )
