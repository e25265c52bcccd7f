-- The same picture under several names counts several times. Whether that is meant nobody here knows, so each such
-- slide gets a warning that names the others.
UPDATE stored.slides AS s SET warnings = list_append(
  s.warnings,
  'same content as slide ' || others.named || '; its cells count once for each'
)
FROM (
  SELECT a.slide_id, string_agg('''' || b.slide_id || ''' of patient ''' || b.patient_id || '''', ', ' ORDER BY b.slide_id) AS named
  FROM slides AS a
  JOIN slides AS b
    ON a.slide_fingerprint = b.slide_fingerprint AND a.image_asked IS NOT DISTINCT FROM b.image_asked
    AND a.slide_id <> b.slide_id
  WHERE a.slide_version IS NOT NULL AND b.slide_version IS NOT NULL  -- older fingerprints are not of content
  GROUP BY a.slide_id
) AS others
WHERE s.slide_id = others.slide_id;
