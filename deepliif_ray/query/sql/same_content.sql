-- The same picture under several names counts several times. Whether that is meant nobody here knows, so each such
-- slide gets a warning that names others: three at most, for thousands may be the same by mistake.
UPDATE stored.slides AS s SET warnings = list_append(
  s.warnings,
  'same content as slide '
  || list_aggregate(list_filter(same.named, lambda other: other.slide_id <> s.slide_id)[1:3].list_transform(
    lambda other: '''' || other.slide_id || ''' of patient ''' || other.patient_id || ''''
  ), 'string_agg', ', ')
  || CASE WHEN same.n > 4 THEN ' and ' || (same.n - 4) || ' more' ELSE '' END
  || '; its cells count once for each'
)
FROM (
  SELECT
    slide_fingerprint,
    image_asked,
    count(*) AS n,
    min_by({'slide_id': slide_id, 'patient_id': patient_id}, slide_id, 4) AS named
  FROM slides
  WHERE slide_version IS NOT NULL  -- older fingerprints are not of content
  GROUP BY ALL
  HAVING count(*) > 1
) AS same
WHERE s.slide_fingerprint = same.slide_fingerprint AND s.image_asked IS NOT DISTINCT FROM same.image_asked
  AND s.slide_version IS NOT NULL;
