-- Indices by slide and by patient. With parentheses they take cutoffs, region and corrections as called_cells(…) does,
-- without them they are views at the defaults:
--   SELECT * FROM patient_indices(cutoffs := {'size_thresh': 50}, region := 'Tumor') WHERE marker = 'Ki67';
--
-- slide_counts and patient_counts have the index without interval and notes, for large cohorts.
-- index_percent is NULL where no cell was counted and is not rounded; a density is NULL where there is no tissue.
-- ci_… is the interval that knows that cells cluster; wilson_… takes them for independent draws, which they are not. A
-- patient's ci_… is of the patient, for whom slides are clusters too; slides_… is of the tissue on these very slides.

CREATE MACRO slide_indices_of(counts, blocks, region) AS TABLE
SELECT
  c.slide_id, c.patient_id, c.marker, c.n_called, c.n_positive,
  c.n_called - c.n_positive AS n_negative,
  c.index_percent,
  clustered_lower_percent(c.n_positive, c.n_called, c.effective_cells) AS ci_lower_percent,
  clustered_upper_percent(c.n_positive, c.n_called, c.effective_cells) AS ci_upper_percent,
  category_of(c.index_percent, n.categories) AS category,
  c.n_called < n.min_cells AS too_few_cells,
  c.tissue_mm2,
  c.n_called / nullif(c.tissue_mm2, 0) AS density_per_mm2,
  c.n_positive / nullif(c.tissue_mm2, 0) AS positive_density_per_mm2,
  c.effective_cells,
  wilson_lower_percent(c.n_positive, c.n_called) AS wilson_lower_percent,
  wilson_upper_percent(c.n_positive, c.n_called) AS wilson_upper_percent,
  notes_of(n.brief, c.n_called, n.min_cells, slide_lacks(c.has_region, region), n.standing) AS notes
FROM (
  SELECT
    c.*,
    effective_cells(
      c.n_positive, c.n_called, b.n_blocks, b.block_xx, b.block_xn, b.block_nn, b.window_xx, b.window_xn, b.window_nn
    ) AS effective_cells
  FROM query_table(counts) AS c
  LEFT JOIN query_table(blocks) AS b ON c.slide_id = b.slide_id
) AS c
JOIN slide_notes AS n ON c.slide_id = n.slide_id
ORDER BY c.patient_id, c.marker, c.slide_id;

CREATE MACRO slide_indices(cutoffs := NULL, region := NULL, corrections := true) AS TABLE
WITH counts AS (FROM slide_counts(cutoffs := cutoffs, region := region, corrections := corrections)),
blocks AS (FROM slide_blocks(cutoffs := cutoffs, region := region, corrections := corrections))
FROM slide_indices_of(counts, blocks, region);

CREATE VIEW slide_indices AS
FROM slide_indices_of(slide_counts, slide_blocks, NULL);

CREATE MACRO patient_indices_of(counts, blocks, region) AS TABLE
SELECT
  c.patient_id, c.marker, c.n_slides, c.n_called, c.n_positive,
  c.index_percent,
  clustered_lower_percent(c.n_positive, c.n_called, c.effective_cells) AS ci_lower_percent,
  clustered_upper_percent(c.n_positive, c.n_called, c.effective_cells) AS ci_upper_percent,
  clustered_lower_percent(c.n_positive, c.n_called, c.effective_here) AS slides_lower_percent,
  clustered_upper_percent(c.n_positive, c.n_called, c.effective_here) AS slides_upper_percent,
  c.mean_of_slides_percent,
  category_of(c.index_percent, n.categories) AS category,
  c.n_called < n.min_cells AS too_few_cells,
  c.tissue_mm2,
  c.n_called / nullif(c.tissue_mm2, 0) AS density_per_mm2,
  c.n_positive / nullif(c.tissue_mm2, 0) AS positive_density_per_mm2,
  c.effective_cells,
  wilson_lower_percent(c.n_positive, c.n_called) AS wilson_lower_percent,
  wilson_upper_percent(c.n_positive, c.n_called) AS wilson_upper_percent,
  notes_of(n.brief, c.n_called, n.min_cells, patient_lacks(c.n_without_region, region), n.standing) AS notes
FROM (
  SELECT
    c.*,
    patient_effective_cells(
      c.n_positive, c.n_called, b.n_blocks, b.block_xx, b.block_xn, b.block_nn, b.window_xx, b.window_xn, b.window_nn,
      c.n_counted, c.slides_xx, c.slides_xn, c.slides_nn
    ) AS effective_cells,
    effective_cells(
      c.n_positive, c.n_called, b.n_blocks, b.block_xx, b.block_xn, b.block_nn, b.window_xx, b.window_xn, b.window_nn
    ) AS effective_here
  FROM patient_counts_of(counts) AS c
  LEFT JOIN (
    SELECT
      s.patient_id, s.marker, sum(b.n_blocks)::BIGINT AS n_blocks, sum(b.block_xx) AS block_xx,
      sum(b.block_xn) AS block_xn, sum(b.block_nn) AS block_nn, sum(b.window_xx) AS window_xx,
      sum(b.window_xn) AS window_xn, sum(b.window_nn) AS window_nn
    FROM query_table(blocks) AS b
    JOIN slides AS s ON b.slide_id = s.slide_id
    GROUP BY s.patient_id, s.marker
  ) AS b ON c.patient_id = b.patient_id AND c.marker = b.marker
) AS c
JOIN patient_notes AS n ON c.patient_id = n.patient_id AND c.marker = n.marker
ORDER BY c.patient_id, c.marker;

CREATE MACRO patient_indices(cutoffs := NULL, region := NULL, corrections := true) AS TABLE
WITH counts AS (FROM slide_counts(cutoffs := cutoffs, region := region, corrections := corrections)),
blocks AS (FROM slide_blocks(cutoffs := cutoffs, region := region, corrections := corrections))
FROM patient_indices_of(counts, blocks, region);

CREATE VIEW patient_indices AS
FROM patient_indices_of(slide_counts, slide_blocks, NULL);
