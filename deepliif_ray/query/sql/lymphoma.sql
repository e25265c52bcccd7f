-- Groups of large B-cell lymphomas, of each patient over all slides of the markers. A marker is 'unknown' with a reason
-- when there is no slide of it, when its slides have too few cells in all, or when slides that have enough disagree.
-- The percentages from which a marker is positive are those of schemas/markers.yaml where none is given.
CREATE MACRO marker_status(of_marker, from_percent, cutoffs := NULL, region := NULL, corrections := true) AS TABLE
WITH slide AS (
  SELECT
    c.*, m.min_cells, coalesce(from_percent, m.positive_from_percent) AS limit_percent,
    100 * c.n_positive / nullif(c.n_called, 0) >= limit_percent AS is_positive
  FROM slide_counts(cutoffs := cutoffs, region := region, corrections := corrections) AS c
  JOIN markers AS m ON c.marker = m.name
  WHERE c.marker = of_marker
),
patient AS (
  SELECT
    patient_id, 100 * sum(n_positive) / nullif(sum(n_called), 0) AS index_percent, sum(n_called) AS n_called,
    count(n_called) = count_if(has_region) AND count_if(has_region) > 0 AS is_countable,
    any_value(min_cells) AS min_cells, any_value(limit_percent) AS limit_percent,
    count_if(n_called >= min_cells AND is_positive)::BIGINT AS n_positive_slides,
    count_if(n_called >= min_cells AND NOT is_positive)::BIGINT AS n_negative_slides
  FROM slide
  GROUP BY patient_id
)
SELECT
  patient_id, index_percent,
  CASE
    WHEN NOT is_countable OR coalesce(n_called, 0) < greatest(min_cells, 1) THEN 'unknown'
    WHEN n_positive_slides > 0 AND n_negative_slides > 0 THEN 'unknown'
    WHEN index_percent >= limit_percent THEN 'positive'
    ELSE 'negative'
  END AS status,
  CASE
    WHEN NOT is_countable THEN of_marker || ' cannot be counted'
    WHEN coalesce(n_called, 0) < greatest(min_cells, 1) THEN
      of_marker || ' has too few cells (' || coalesce(n_called, 0) || ' of ' || min_cells || ')'
    WHEN n_positive_slides > 0 AND n_negative_slides > 0 THEN
      of_marker || ': slides disagree (' || n_positive_slides || ' from ' || limit_percent || ' % on, '
      || n_negative_slides || ' below)'
  END AS reason
FROM patient;

-- Hans et al. 2004: CD10 positive is germinal centre (GCB); else BCL6 negative is non-GCB; else MUM1 decides.
CREATE MACRO hans(
  cutoffs := NULL, region := NULL, corrections := true, cd10_percent := NULL, bcl6_percent := NULL,
  mum1_percent := NULL
) AS TABLE
WITH patient AS (
  SELECT DISTINCT patient_id FROM slides WHERE marker IN ('CD10', 'BCL6', 'MUM1')
)
SELECT
  p.patient_id,
  CASE
    WHEN c.status = 'positive' THEN 'GCB'
    WHEN c.status = 'negative' AND b.status = 'negative' THEN 'non-GCB'
    WHEN c.status = 'negative' AND b.status = 'positive' AND m.status = 'positive' THEN 'non-GCB'
    WHEN c.status = 'negative' AND b.status = 'positive' AND m.status = 'negative' THEN 'GCB'
    ELSE 'unknown'
  END AS subtype,
  CASE WHEN subtype = 'unknown' THEN
    CASE
      WHEN coalesce(c.status, 'unknown') = 'unknown' THEN coalesce(c.reason, 'no slide of CD10')
      WHEN coalesce(b.status, 'unknown') = 'unknown' THEN coalesce(b.reason, 'no slide of BCL6')
      ELSE coalesce(m.reason, 'no slide of MUM1')
    END
  END AS reason,
  c.index_percent AS cd10_percent, b.index_percent AS bcl6_percent, m.index_percent AS mum1_percent
FROM patient AS p
LEFT JOIN marker_status(
  'CD10', cd10_percent, cutoffs := cutoffs, region := region, corrections := corrections
) AS c ON p.patient_id = c.patient_id
LEFT JOIN marker_status(
  'BCL6', bcl6_percent, cutoffs := cutoffs, region := region, corrections := corrections
) AS b ON p.patient_id = b.patient_id
LEFT JOIN marker_status(
  'MUM1', mum1_percent, cutoffs := cutoffs, region := region, corrections := corrections
) AS m ON p.patient_id = m.patient_id
ORDER BY p.patient_id;

-- MYC and BCL2 both positive. One that is surely negative settles it, whatever the other is.
CREATE MACRO double_expressors(
  cutoffs := NULL, region := NULL, corrections := true, myc_percent := NULL, bcl2_percent := NULL
) AS TABLE
WITH patient AS (
  SELECT DISTINCT patient_id FROM slides WHERE marker IN ('MYC', 'BCL2')
)
SELECT
  p.patient_id,
  CASE
    WHEN m.status = 'negative' OR b.status = 'negative' THEN 'no'
    WHEN m.status = 'positive' AND b.status = 'positive' THEN 'yes'
    ELSE 'unknown'
  END AS double_expressor,
  CASE WHEN double_expressor = 'unknown' THEN
    concat_ws(
      '; ', CASE WHEN m.status IS NULL THEN 'no slide of MYC' ELSE m.reason END,
      CASE WHEN b.status IS NULL THEN 'no slide of BCL2' ELSE b.reason END
    )
  END AS reason,
  m.index_percent AS myc_percent, b.index_percent AS bcl2_percent
FROM patient AS p
LEFT JOIN marker_status(
  'MYC', myc_percent, cutoffs := cutoffs, region := region, corrections := corrections
) AS m ON p.patient_id = m.patient_id
LEFT JOIN marker_status(
  'BCL2', bcl2_percent, cutoffs := cutoffs, region := region, corrections := corrections
) AS b ON p.patient_id = b.patient_id
ORDER BY p.patient_id;

