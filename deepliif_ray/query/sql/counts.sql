-- What every score is made of: counts of each slide, and of each patient and marker. Parameters as of called_cells(…).
--
-- Counts at the defaults are those of the commit records, and no cell is read, but of slides of which somebody excluded
-- or corrected something. Of a slide whose cells are damaged nothing can be counted anew: null, for its patient too.
CREATE OR REPLACE MACRO slide_counts(cutoffs := NULL, region := NULL, corrections := true) AS TABLE
SELECT *, 100 * n_positive / nullif(n_called, 0) AS index_percent
FROM (
  SELECT
    s.slide_id, s.patient_id, s.marker,
    $has_region AS has_region,
    is_recorded(cutoffs, region) AND NOT $is_annotated AS is_from_record,
    has_region AND (is_from_record OR NOT $is_damaged) AS is_countable,
    $tissue_mm2 AS tissue_mm2,
    CASE WHEN is_countable THEN CASE WHEN is_from_record THEN s.n_called ELSE coalesce(k.n_called, 0) END END
      AS n_called,
    CASE WHEN is_countable THEN CASE WHEN is_from_record THEN s.n_positive ELSE coalesce(k.n_positive, 0) END END
      AS n_positive
  FROM slides AS s
  $joined
  LEFT JOIN (
    SELECT c.slide_id, count(*) AS n_called, count_if(c.positive)::BIGINT AS n_positive
    FROM called_cells(cutoffs := cutoffs, region := region, corrections := corrections) AS c
    WHERE NOT is_recorded(cutoffs, region)
    GROUP BY c.slide_id
    $recounted
  ) AS k ON s.slide_id = k.slide_id
  WHERE is_known_region(region)
);

-- Without parentheses they are views at the defaults, here and below. Where nobody excluded, corrected or lost anything
-- these are the commit records alone, and planning a question on them takes a tenth of the time.
CREATE OR REPLACE VIEW slide_counts AS
$counts_at_defaults;

-- Sums over blocks and windows of each slide, for the interval (intervals.sql). They add up over slides.
CREATE OR REPLACE MACRO slide_blocks(cutoffs := NULL, region := NULL, corrections := true) AS TABLE
WITH blocks AS (
  SELECT
    c.slide_id, floor(c.x_um / 250)::BIGINT AS block_x, floor(c.y_um / 250)::BIGINT AS block_y,
    count(*) AS n_called, count_if(c.positive)::BIGINT AS n_positive
  FROM called_cells(cutoffs := cutoffs, region := region, corrections := corrections) AS c
  WHERE NOT is_recorded(cutoffs, region) $or_recounted
  GROUP BY ALL
)
SELECT slide_id, n_blocks, block_xx, block_xn, block_nn, window_xx, window_xn, window_nn
FROM slides AS s
WHERE is_recorded(cutoffs, region) AND NOT $is_recounted
UNION ALL
SELECT
  slide_id, n_blocks, block_xx::BIGINT, block_xn::BIGINT, block_nn::BIGINT, window_xx::BIGINT, window_xn::BIGINT,
  window_nn::BIGINT
FROM cluster_sums(blocks);

CREATE OR REPLACE VIEW slide_blocks AS
$blocks_at_defaults;

-- Counted cells by strength of the stain; null where the cut-offs say nothing of the marker.
CREATE OR REPLACE MACRO slide_strengths(cutoffs := NULL, region := NULL, corrections := true) AS TABLE
SELECT
  s.slide_id, s.patient_id, s.marker,
  $has_region AS has_region,
  has_region AND NOT $is_damaged AND f.weak IS NOT NULL AS is_graded,
  CASE WHEN is_graded THEN coalesce(g.n_called, 0) END AS n_called,
  CASE WHEN is_graded THEN coalesce(g.n_weak, 0) END AS n_weak,
  CASE WHEN is_graded THEN coalesce(g.n_moderate, 0) END AS n_moderate,
  CASE WHEN is_graded THEN coalesce(g.n_strong, 0) END AS n_strong,
  CASE WHEN f.weak IS NOT NULL THEN
    CASE WHEN is_cutoff_name(cutoffs) THEN cutoffs::VARCHAR
         WHEN coalesce(cutoff(cutoffs, 'weak'), cutoff(cutoffs, 'moderate'), cutoff(cutoffs, 'strong')) IS NULL
           THEN '$builtin'
         ELSE 'given' END
    || ': ' || f.weak || ', ' || f.moderate || ', ' || f.strong
  END AS intensity_cutoffs
FROM slides AS s
JOIN slide_cutoffs(cutoffs := cutoffs) AS f ON s.slide_id = f.slide_id
$joined
LEFT JOIN (
  SELECT
    c.slide_id, count(*) AS n_called, count_if(c.strength = 1)::BIGINT AS n_weak, count_if(c.strength = 2)::BIGINT AS n_moderate,
    count_if(c.strength = 3)::BIGINT AS n_strong
  FROM called_cells(cutoffs := cutoffs, region := region, corrections := corrections) AS c
  GROUP BY c.slide_id
) AS g ON s.slide_id = g.slide_id
WHERE is_known_region(region);

-- Cells are pooled over a patient's slides of one marker; a slide without a cell adds its tissue. With a region, slides
-- that have none of its class are left out and told in the notes.
CREATE OR REPLACE MACRO patient_counts_of(counts) AS TABLE
SELECT
  patient_id, marker, n_slides, n_without_region, n_counted, slides_xx, slides_xn, slides_nn,
  n_slides > 0 AND n_countable = n_slides AS is_countable,
  CASE WHEN is_countable THEN sum_called END AS n_called,
  CASE WHEN is_countable THEN sum_positive END AS n_positive,
  CASE WHEN is_countable THEN mean_percent END AS mean_of_slides_percent,
  CASE WHEN n_with_tissue = n_slides THEN sum_tissue_mm2 END AS tissue_mm2,
  100 * n_positive / nullif(n_called, 0) AS index_percent
FROM (
  SELECT
    patient_id, marker,
    count_if(has_region)::BIGINT AS n_slides, count_if(NOT has_region)::BIGINT AS n_without_region,
    count(n_called) AS n_countable, sum(n_called)::BIGINT AS sum_called, sum(n_positive)::BIGINT AS sum_positive,
    avg(100 * n_positive / nullif(n_called, 0)) AS mean_percent,
    count(tissue_mm2) AS n_with_tissue,
    fsum(tissue_mm2) AS sum_tissue_mm2,  -- compensated, as the order of summing varies
    count_if(n_called > 0)::BIGINT AS n_counted, sum(n_positive::HUGEINT * n_positive) AS slides_xx,
    sum(n_positive::HUGEINT * n_called) AS slides_xn, sum(n_called::HUGEINT * n_called) AS slides_nn
  FROM query_table(counts)
  GROUP BY patient_id, marker
);

CREATE OR REPLACE MACRO patient_counts(cutoffs := NULL, region := NULL, corrections := true) AS TABLE
WITH counts AS (FROM slide_counts(cutoffs := cutoffs, region := region, corrections := corrections))
FROM patient_counts_of(counts);

CREATE OR REPLACE VIEW patient_counts AS
FROM patient_counts_of(slide_counts);

CREATE OR REPLACE MACRO patient_strengths(cutoffs := NULL, region := NULL, corrections := true) AS TABLE
SELECT
  patient_id, marker, n_slides, n_without_region, intensity_cutoffs,
  n_slides > 0 AND n_graded = n_slides AS is_graded,
  CASE WHEN is_graded THEN sum_called END AS n_called,
  CASE WHEN is_graded THEN sum_weak END AS n_weak,
  CASE WHEN is_graded THEN sum_moderate END AS n_moderate,
  CASE WHEN is_graded THEN sum_strong END AS n_strong
FROM (
  SELECT
    patient_id, marker, count_if(has_region)::BIGINT AS n_slides,
    count_if(NOT has_region)::BIGINT AS n_without_region,
    count(n_called) AS n_graded, sum(n_called)::BIGINT AS sum_called, sum(n_weak)::BIGINT AS sum_weak,
    sum(n_moderate)::BIGINT AS sum_moderate, sum(n_strong)::BIGINT AS sum_strong,
    string_agg(DISTINCT intensity_cutoffs, '; ' ORDER BY intensity_cutoffs) AS intensity_cutoffs
  FROM slide_strengths(cutoffs := cutoffs, region := region, corrections := corrections)
  GROUP BY patient_id, marker
);
