-- Positive cells per mm2 of tissue, for markers of immune cells such as CD3 and CD8. percentile_percent is the share of
-- this cohort's slides (or patients) of the marker that are as dense or less: a cohort's own percentile, and so no
-- Immunoscore, whose reference percentiles are not public (Pages et al. 2018).
CREATE MACRO slide_densities(cutoffs := NULL, region := NULL, corrections := true) AS TABLE
SELECT
  c.slide_id, c.patient_id, c.marker, c.n_called, c.n_positive, c.tissue_mm2,
  c.n_positive / nullif(c.tissue_mm2, 0) AS positive_density_per_mm2,
  CASE WHEN positive_density_per_mm2 IS NOT NULL THEN 100 * cume_dist() OVER (
    PARTITION BY c.marker, positive_density_per_mm2 IS NULL ORDER BY positive_density_per_mm2
  ) END AS percentile_percent,
  notes_of(n.brief, c.n_called, n.min_cells, slide_lacks(c.has_region, region), n.standing) AS notes
FROM slide_counts(cutoffs := cutoffs, region := region, corrections := corrections) AS c
JOIN slide_notes AS n ON c.slide_id = n.slide_id
ORDER BY c.marker, c.patient_id, c.slide_id;

CREATE MACRO patient_densities(cutoffs := NULL, region := NULL, corrections := true) AS TABLE
SELECT
  c.patient_id, c.marker, c.n_slides, c.n_called, c.n_positive, c.tissue_mm2,
  c.n_positive / nullif(c.tissue_mm2, 0) AS positive_density_per_mm2,
  CASE WHEN positive_density_per_mm2 IS NOT NULL THEN 100 * cume_dist() OVER (
    PARTITION BY c.marker, positive_density_per_mm2 IS NULL ORDER BY positive_density_per_mm2
  ) END AS percentile_percent,
  notes_of(n.brief, c.n_called, n.min_cells, patient_lacks(c.n_without_region, region), n.standing) AS notes
FROM patient_counts(cutoffs := cutoffs, region := region, corrections := corrections) AS c
JOIN patient_notes AS n ON c.patient_id = n.patient_id AND c.marker = n.marker
ORDER BY c.marker, c.patient_id;

-- CD8 over CD3, of patients who have both.
CREATE MACRO cd8_cd3_ratios(cutoffs := NULL, region := NULL, corrections := true) AS TABLE
WITH ratios AS (
  SELECT
    patient_id,
    any_value(positive_density_per_mm2) FILTER (marker = 'CD8') AS cd8_per_mm2,
    any_value(positive_density_per_mm2) FILTER (marker = 'CD3') AS cd3_per_mm2,
    count(*) AS n_markers
  FROM patient_densities(cutoffs := cutoffs, region := region, corrections := corrections)
  WHERE marker IN ('CD3', 'CD8')
  GROUP BY patient_id
)
SELECT patient_id, cd8_per_mm2, cd3_per_mm2, cd8_per_mm2 / nullif(cd3_per_mm2, 0) AS cd8_cd3_ratio
FROM ratios
WHERE n_markers = 2
ORDER BY patient_id;

