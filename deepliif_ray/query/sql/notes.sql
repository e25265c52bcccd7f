-- What a reader of a number should have before the eyes, in short: where the marker's stain lies, what quality
-- control says, how many slides have warnings (read them in slides.warnings) or are in no manifest any more. And how
-- many cells the marker wants, and names of ranges of its index.
CREATE OR REPLACE VIEW slide_notes AS
SELECT
  s.slide_id, s.patient_id, s.marker,
  coalesce(m.brief, 'marker not in the registry') AS brief,
  coalesce(m.min_cells, $min_cells) AS min_cells,
  m.categories,
  q.flags,
  len(s.warnings) > 0 AS has_warnings,
  l.slide_id IS NOT NULL AS is_left,
  concat_ws(
    '; ', nullif(array_to_string(q.flags, ', '), ''), CASE WHEN has_warnings THEN 'has warnings' END,
    CASE WHEN is_left THEN 'not in the newest manifest' END
  ) AS standing
FROM slides AS s
JOIN slide_quality AS q ON s.slide_id = q.slide_id
LEFT JOIN markers AS m ON s.marker = m.name
LEFT JOIN leftovers AS l ON s.slide_id = l.slide_id;

CREATE OR REPLACE VIEW patient_notes AS
WITH flagged AS (
  SELECT patient_id, marker, flag, count(*) AS n
  FROM (SELECT patient_id, marker, unnest(flags) AS flag FROM slide_notes)
  GROUP BY ALL
),
listed AS (
  SELECT patient_id, marker, string_agg(flag || ' ' || n, ', ' ORDER BY flag) AS flags
  FROM flagged
  GROUP BY ALL
),
counted AS (
  SELECT
    patient_id, marker, any_value(brief) AS brief, any_value(min_cells) AS min_cells,
    any_value(categories) AS categories, count_if(has_warnings) AS n_warned, count_if(is_left) AS n_left
  FROM slide_notes
  GROUP BY patient_id, marker
)
SELECT
  c.patient_id, c.marker, c.brief, c.min_cells, c.categories,
  concat_ws(
    '; ', f.flags, some_slides(c.n_warned, 'with warnings'), some_slides(c.n_left, 'not in the newest manifest')
  ) AS standing
FROM counted AS c
LEFT JOIN listed AS f ON c.patient_id = f.patient_id AND c.marker = f.marker;
