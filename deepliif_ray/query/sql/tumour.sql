-- Scores that need to know which cells are tumour.

-- ER and PR (ASCO/CAP 2020): under low_percent negative, to high_percent low positive (said of ER alone), above positive.
CREATE MACRO er_pr_status(
  cutoffs := NULL, region := NULL, corrections := true, low_percent := 1, high_percent := 10
) AS TABLE
SELECT
  c.patient_id, c.marker, c.n_slides, c.n_called,
  100 * c.n_positive / nullif(c.n_called, 0) AS index_percent,
  CASE
    WHEN index_percent < low_percent THEN 'negative'
    WHEN index_percent <= high_percent AND c.marker = 'ER' THEN 'low_positive'
    WHEN index_percent IS NOT NULL THEN 'positive'
  END AS status,
  c.n_called < n.min_cells AS too_few_cells,
  notes_of(n.brief, c.n_called, n.min_cells, patient_lacks(c.n_without_region, region), n.standing) AS notes
FROM patient_counts(cutoffs := cutoffs, region := region, corrections := corrections) AS c
JOIN patient_notes AS n ON c.patient_id = n.patient_id AND c.marker = n.marker
WHERE c.marker IN ('ER', 'PR') AND CASE
  WHEN low_percent <= high_percent THEN true ELSE error('low_percent is at most high_percent')
END
ORDER BY c.patient_id, c.marker;

-- PD-L1: TPS is positive tumour cells per 100 tumour cells; CPS adds positive immune cells above the line, and is 100 at
-- most. Nothing here tells tumour cells from others, so a person has to: cells in regions of class `tumour` that are
-- not in one of class `immune` are tumour cells. Without these regions there is no score, and `reason` says what is
-- missing.
CREATE MACRO pd_l1_scores(
  cutoffs := NULL, corrections := true, tumour := 'Tumor', immune := 'Immune cells', of_marker := 'PDL1', least := 100
) AS TABLE
WITH drawn AS (
  SELECT slide_id, bool_or(lower(class) = lower(tumour)) AS has_tumour, bool_or(lower(class) = lower(immune)) AS has_immune
  FROM region_areas
  GROUP BY slide_id
),
placed AS (
  SELECT slide_id, cell_id, bool_or(lower(class) = lower(immune)) AS is_immune
  FROM region_cells
  WHERE lower(class) IN (lower(tumour), lower(immune))
  GROUP BY ALL
),
counted AS (
  SELECT
    c.slide_id, count_if(NOT p.is_immune)::BIGINT AS n_tumour, count_if(NOT p.is_immune AND c.positive)::BIGINT AS n_tumour_positive,
    count_if(p.is_immune AND c.positive)::BIGINT AS n_immune_positive
  FROM called_cells(cutoffs := cutoffs, corrections := corrections) AS c
  JOIN placed AS p ON c.slide_id = p.slide_id AND c.cell_id = p.cell_id
  WHERE c.marker = of_marker
  GROUP BY c.slide_id
)
SELECT
  s.slide_id, s.patient_id, coalesce(c.n_tumour, 0) AS n_tumour, coalesce(c.n_tumour_positive, 0) AS n_tumour_positive,
  coalesce(c.n_immune_positive, 0) AS n_immune_positive,
  CASE WHEN n_tumour >= least THEN 100 * n_tumour_positive / n_tumour END AS tps_percent,
  CASE WHEN n_tumour >= least AND d.has_immune
    THEN least(100, 100 * (n_tumour_positive + n_immune_positive) / n_tumour) END AS cps,
  CASE
    WHEN NOT coalesce(d.has_tumour, false) THEN
      'no region of class ''' || tumour || ''': which cells are tumour is not known; draw it and bring it in with '
      || '`deepliif-ray regions import`'
    WHEN coalesce(c.n_tumour, 0) < least THEN 'too few tumour cells (' || coalesce(c.n_tumour, 0) || ' of ' || least || ')'
    WHEN NOT d.has_immune THEN 'no CPS: no region of class ''' || immune || ''''
  END AS reason,
  notes_of(n.brief, NULL, NULL, NULL, n.standing) AS notes
FROM slides AS s
JOIN slide_notes AS n ON s.slide_id = n.slide_id
LEFT JOIN drawn AS d ON s.slide_id = d.slide_id
LEFT JOIN counted AS c ON s.slide_id = c.slide_id
WHERE s.marker = of_marker
ORDER BY s.patient_id, s.slide_id;

