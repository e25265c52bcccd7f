-- What the others rest on, without what is behind it. DuckDB looks into everything below a macro or view when it makes
-- one, so each is made on these, and they are replaced last, from the top down.
CREATE MACRO cutoff(cutoffs, name) AS NULL::VARCHAR;

CREATE MACRO cutoff_number(cutoffs, name) AS NULL::DOUBLE;

CREATE MACRO is_cutoff_name(cutoffs) AS false;

CREATE MACRO are_sound(cutoffs) AS true;

CREATE MACRO wilson_lower_percent(positive, total) AS NULL::DOUBLE;

CREATE MACRO wilson_upper_percent(positive, total) AS NULL::DOUBLE;

CREATE MACRO clustered_lower_percent(positive, total, effective) AS NULL::DOUBLE;

CREATE MACRO clustered_upper_percent(positive, total, effective) AS NULL::DOUBLE;

CREATE MACRO effective_cells(
  positive, total, n_blocks, block_xx, block_xn, block_nn, window_xx, window_xn, window_nn
) AS NULL::DOUBLE;

CREATE MACRO patient_effective_cells(
  positive, total, n_blocks, block_xx, block_xn, block_nn, window_xx, window_xn, window_nn,
  n_slides, slide_xx, slide_xn, slide_nn
) AS NULL::DOUBLE;

CREATE MACRO cluster_sums(blocks) AS TABLE
SELECT
  NULL::VARCHAR AS slide_id, NULL::BIGINT AS n_blocks, NULL::HUGEINT AS block_xx, NULL::HUGEINT AS block_xn,
  NULL::HUGEINT AS block_nn, NULL::HUGEINT AS window_xx, NULL::HUGEINT AS window_xn, NULL::HUGEINT AS window_nn;

CREATE MACRO called_cells(cutoffs := NULL, region := NULL, corrections := true) AS TABLE
SELECT *, NULL::BOOLEAN AS positive, NULL::TINYINT AS strength FROM cells;

CREATE MACRO slide_counts(cutoffs := NULL, region := NULL, corrections := true) AS TABLE
SELECT
  NULL::VARCHAR AS slide_id, NULL::VARCHAR AS patient_id, NULL::VARCHAR AS marker, NULL::BOOLEAN AS has_region,
  NULL::BOOLEAN AS is_from_record, NULL::BOOLEAN AS is_countable, NULL::DOUBLE AS tissue_mm2,
  NULL::BIGINT AS n_called, NULL::BIGINT AS n_positive, NULL::DOUBLE AS index_percent;

CREATE MACRO slide_blocks(cutoffs := NULL, region := NULL, corrections := true) AS TABLE
SELECT
  NULL::VARCHAR AS slide_id, NULL::BIGINT AS n_blocks, NULL::BIGINT AS block_xx, NULL::BIGINT AS block_xn,
  NULL::BIGINT AS block_nn, NULL::BIGINT AS window_xx, NULL::BIGINT AS window_xn, NULL::BIGINT AS window_nn;

CREATE VIEW slide_counts AS
FROM slide_counts();

CREATE VIEW slide_blocks AS
FROM slide_blocks();

CREATE MACRO slide_strengths(cutoffs := NULL, region := NULL, corrections := true) AS TABLE
SELECT
  NULL::VARCHAR AS slide_id, NULL::VARCHAR AS patient_id, NULL::VARCHAR AS marker, NULL::BOOLEAN AS has_region,
  NULL::BOOLEAN AS is_graded, NULL::BIGINT AS n_called, NULL::BIGINT AS n_weak, NULL::BIGINT AS n_moderate,
  NULL::BIGINT AS n_strong, NULL::VARCHAR AS intensity_cutoffs;

CREATE MACRO patient_counts(cutoffs := NULL, region := NULL, corrections := true) AS TABLE
SELECT
  NULL::VARCHAR AS patient_id, NULL::VARCHAR AS marker, NULL::BIGINT AS n_slides, NULL::BIGINT AS n_without_region,
  NULL::BIGINT AS n_counted, NULL::HUGEINT AS slides_xx, NULL::HUGEINT AS slides_xn, NULL::HUGEINT AS slides_nn,
  NULL::BOOLEAN AS is_countable, NULL::BIGINT AS n_called, NULL::BIGINT AS n_positive,
  NULL::DOUBLE AS mean_of_slides_percent, NULL::DOUBLE AS tissue_mm2,
  NULL::DOUBLE AS index_percent;

CREATE MACRO patient_counts_of(counts) AS TABLE
FROM patient_counts();

CREATE MACRO patient_strengths(cutoffs := NULL, region := NULL, corrections := true) AS TABLE
SELECT
  NULL::VARCHAR AS patient_id, NULL::VARCHAR AS marker, NULL::BIGINT AS n_slides, NULL::BIGINT AS n_without_region,
  NULL::VARCHAR AS intensity_cutoffs, NULL::BOOLEAN AS is_graded, NULL::BIGINT AS n_called, NULL::BIGINT AS n_weak,
  NULL::BIGINT AS n_moderate, NULL::BIGINT AS n_strong;

CREATE MACRO slide_cutoffs(cutoffs := NULL) AS TABLE
SELECT
  NULL::VARCHAR AS slide_id, NULL::DOUBLE AS size_thresh, NULL::DOUBLE AS size_thresh_upper,
  NULL::DOUBLE AS marker_thresh, NULL::DOUBLE AS od_thresh_lower, NULL::DOUBLE AS od_thresh_upper,
  NULL::DOUBLE AS weak, NULL::DOUBLE AS moderate, NULL::DOUBLE AS strong;

CREATE VIEW slide_notes AS
SELECT
  s.slide_id, s.patient_id, s.marker, NULL::VARCHAR AS brief, NULL::BIGINT AS min_cells, m.categories,
  NULL::VARCHAR[] AS flags, NULL::BOOLEAN AS has_warnings, NULL::BOOLEAN AS is_left, NULL::VARCHAR AS standing
FROM slides AS s
LEFT JOIN markers AS m ON s.marker = m.name;

CREATE VIEW patient_notes AS
SELECT patient_id, marker, brief, min_cells, categories, standing FROM slide_notes;
