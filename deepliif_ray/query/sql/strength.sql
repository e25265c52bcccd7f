-- Scores by strength of the stain, from the optical density of DAB over each counted nucleus: H-score, Allred, p53.
-- Whether a cell is stained is here a matter of the cut-off `weak` alone and not of the model's call, as in QuPath.
-- intensity_cutoffs names what was used. Where a named set says nothing of a marker, its scores are null.

-- H = 100 (n1 + 2 n2 + 3 n3) / n, from 0 to 300 (McCarty et al. 1985).
CREATE MACRO h_score_of(n_weak, n_moderate, n_strong, n) AS
  100 * (n_weak + 2 * n_moderate + 3 * n_strong) / nullif(n, 0);

CREATE MACRO slide_h_scores(cutoffs := NULL, region := NULL, corrections := true) AS TABLE
SELECT
  c.slide_id, c.patient_id, c.marker, c.n_called,
  100 * (c.n_called - c.n_weak - c.n_moderate - c.n_strong) / nullif(c.n_called, 0) AS percent_0,
  100 * c.n_weak / nullif(c.n_called, 0) AS percent_1,
  100 * c.n_moderate / nullif(c.n_called, 0) AS percent_2,
  100 * c.n_strong / nullif(c.n_called, 0) AS percent_3,
  h_score_of(c.n_weak, c.n_moderate, c.n_strong, c.n_called) AS h_score,
  c.intensity_cutoffs,
  c.n_called < n.min_cells AS too_few_cells,
  notes_of(n.brief, c.n_called, n.min_cells, slide_lacks(c.has_region, region), n.standing) AS notes
FROM slide_strengths(cutoffs := cutoffs, region := region, corrections := corrections) AS c
JOIN slide_notes AS n ON c.slide_id = n.slide_id
ORDER BY c.patient_id, c.marker, c.slide_id;

CREATE MACRO patient_h_scores(cutoffs := NULL, region := NULL, corrections := true) AS TABLE
SELECT
  c.patient_id, c.marker, c.n_slides, c.n_called,
  100 * (c.n_called - c.n_weak - c.n_moderate - c.n_strong) / nullif(c.n_called, 0) AS percent_0,
  100 * c.n_weak / nullif(c.n_called, 0) AS percent_1,
  100 * c.n_moderate / nullif(c.n_called, 0) AS percent_2,
  100 * c.n_strong / nullif(c.n_called, 0) AS percent_3,
  h_score_of(c.n_weak, c.n_moderate, c.n_strong, c.n_called) AS h_score,
  c.intensity_cutoffs,
  c.n_called < n.min_cells AS too_few_cells,
  notes_of(n.brief, c.n_called, n.min_cells, patient_lacks(c.n_without_region, region), n.standing) AS notes
FROM patient_strengths(cutoffs := cutoffs, region := region, corrections := corrections) AS c
JOIN patient_notes AS n ON c.patient_id = n.patient_id AND c.marker = n.marker
ORDER BY c.patient_id, c.marker;

-- Allred: proportion 0 to 5 and intensity 0 to 3, in all 0 or 2 to 8. Two sources draw the edges of the proportion and
-- take the intensity differently:
--   edges := 'qupath'  from 1 %, 10 %, a third and two thirds on; intensity is the mean of the stained cells, 2 above
--                      5/3 and 3 above 7/3
--   edges := 'cap'     1 to 10 %, to 33 %, to 66 %, so that exactly 10 % has 2 and not 3; intensity is the strength of
--                      most stained cells, the stronger of two that are as many (CAP template of breast biomarkers)
CREATE MACRO allred_proportion(stained, n, edges) AS
  CASE
    WHEN n = 0 THEN NULL
    WHEN stained = 0 THEN 0
    WHEN 100 * stained < n THEN 1
    WHEN edges = 'qupath' THEN
      CASE WHEN 10 * stained < n THEN 2 WHEN 3 * stained < n THEN 3 WHEN 3 * stained < 2 * n THEN 4 ELSE 5 END
    WHEN 10 * stained <= n THEN 2
    WHEN 3 * stained <= n THEN 3
    WHEN 3 * stained <= 2 * n THEN 4
    WHEN n IS NOT NULL THEN 5
  END;

CREATE MACRO allred_intensity(n_weak, n_moderate, n_strong, edges) AS
  CASE
    WHEN n_weak + n_moderate + n_strong = 0 THEN 0
    WHEN edges = 'cap' THEN
      CASE
        WHEN n_strong >= greatest(n_moderate, n_weak) THEN 3
        WHEN n_moderate >= n_weak THEN 2
        ELSE 1
      END
    WHEN 3 * (n_weak + 2 * n_moderate + 3 * n_strong) > 7 * (n_weak + n_moderate + n_strong) THEN 3
    WHEN 3 * (n_weak + 2 * n_moderate + 3 * n_strong) > 5 * (n_weak + n_moderate + n_strong) THEN 2
    WHEN n_weak IS NOT NULL THEN 1
  END;

CREATE MACRO are_edges(edges) AS
  CASE WHEN edges IN ('qupath', 'cap') THEN true ELSE error('edges is ''qupath'' or ''cap'', not ''' || edges || '''') END;

CREATE MACRO slide_allred(cutoffs := NULL, region := NULL, corrections := true, edges := 'qupath') AS TABLE
SELECT
  c.slide_id, c.patient_id, c.marker, c.n_called,
  100 * (c.n_weak + c.n_moderate + c.n_strong) / nullif(c.n_called, 0) AS stained_percent,
  allred_proportion(c.n_weak + c.n_moderate + c.n_strong, c.n_called, edges) AS proportion,
  CASE WHEN proportion IS NOT NULL THEN allred_intensity(c.n_weak, c.n_moderate, c.n_strong, edges) END AS intensity,
  proportion + intensity AS allred,
  c.intensity_cutoffs,
  c.n_called < n.min_cells AS too_few_cells,
  notes_of(n.brief, c.n_called, n.min_cells, slide_lacks(c.has_region, region), n.standing) AS notes
FROM slide_strengths(cutoffs := cutoffs, region := region, corrections := corrections) AS c
JOIN slide_notes AS n ON c.slide_id = n.slide_id
WHERE are_edges(edges)
ORDER BY c.patient_id, c.marker, c.slide_id;

CREATE MACRO patient_allred(cutoffs := NULL, region := NULL, corrections := true, edges := 'qupath') AS TABLE
SELECT
  c.patient_id, c.marker, c.n_slides, c.n_called,
  100 * (c.n_weak + c.n_moderate + c.n_strong) / nullif(c.n_called, 0) AS stained_percent,
  allred_proportion(c.n_weak + c.n_moderate + c.n_strong, c.n_called, edges) AS proportion,
  CASE WHEN proportion IS NOT NULL THEN allred_intensity(c.n_weak, c.n_moderate, c.n_strong, edges) END AS intensity,
  proportion + intensity AS allred,
  c.intensity_cutoffs,
  c.n_called < n.min_cells AS too_few_cells,
  notes_of(n.brief, c.n_called, n.min_cells, patient_lacks(c.n_without_region, region), n.standing) AS notes
FROM patient_strengths(cutoffs := cutoffs, region := region, corrections := corrections) AS c
JOIN patient_notes AS n ON c.patient_id = n.patient_id AND c.marker = n.marker
WHERE are_edges(edges)
ORDER BY c.patient_id, c.marker;

-- Patterns of p53 (Koebel et al. 2019), as candidates for a look through the microscope. Sources disagree on the share
-- of strong cells that is overexpression: 80 %, 50 %, and more than 10 % in the WHO's book on tumours of the brain.
-- Absence means something only beside cells that stain as they should: cells of a region of class `control` (stroma,
-- lymphocytes) of which at least control_percent are stained. These are left out of the shares, or a few of them would
-- make a tumour without stain look normal. The cytoplasmic pattern is not seen: nuclei are measured.
CREATE MACRO tp53_patterns(
  cutoffs := NULL, region := NULL, corrections := true, overexpression_percent := 80, null_percent := 1,
  control := 'Control', control_percent := 10
) AS TABLE
WITH control_cells AS (
  SELECT DISTINCT slide_id, cell_id
  FROM region_cells
  WHERE lower(class) = lower(control)
),
controls AS (
  SELECT c.slide_id, count(*) AS n_controls, 100 * count_if(c.strength > 0) / count(*) AS stained_control_percent
  FROM called_cells(cutoffs := cutoffs, corrections := corrections) AS c
  SEMI JOIN control_cells AS k ON c.slide_id = k.slide_id AND c.cell_id = k.cell_id
  WHERE c.marker = 'TP53'
  GROUP BY c.slide_id
),
others AS (
  SELECT
    c.slide_id, count(*) AS n_called, 100 * count_if(c.strength > 0) / count(*) AS stained_percent,
    100 * count_if(c.strength = 3) / count(*) AS strong_percent
  FROM called_cells(cutoffs := cutoffs, region := region, corrections := corrections) AS c
  ANTI JOIN control_cells AS k ON c.slide_id = k.slide_id AND c.cell_id = k.cell_id
  WHERE c.marker = 'TP53' AND c.strength IS NOT NULL
  GROUP BY c.slide_id
)
SELECT
  s.slide_id, s.patient_id,
  CASE WHEN s.is_graded THEN coalesce(o.n_called, 0) END AS n_called,
  o.stained_percent, o.strong_percent,
  coalesce(k.n_controls, 0) AS n_controls, k.stained_control_percent,
  CASE
    WHEN o.stained_percent IS NULL OR o.n_called < n.min_cells THEN 'unknown'
    WHEN o.strong_percent >= overexpression_percent THEN 'overexpression_candidate'
    WHEN o.stained_percent >= null_percent THEN 'wild_type_range'
    WHEN k.stained_control_percent >= control_percent THEN 'null_candidate'
    ELSE 'unknown'
  END AS pattern,
  CASE
    WHEN pattern <> 'unknown' THEN NULL
    WHEN o.stained_percent IS NULL THEN 'no cell to grade'
    WHEN o.n_called < n.min_cells THEN 'too few cells (under ' || n.min_cells || ')'
    WHEN k.n_controls IS NULL THEN
      'under ' || null_percent || ' % are stained, which means something only beside internal controls: draw a region '
      || 'of class ''' || control || ''' around cells that should stain'
    ELSE 'under ' || control_percent || ' % of the internal controls are stained: the stain may have failed'
  END AS reason,
  s.intensity_cutoffs,
  notes_of(n.brief, o.n_called, n.min_cells, slide_lacks(s.has_region, region), n.standing) AS notes
FROM slide_strengths(cutoffs := cutoffs, region := region, corrections := corrections) AS s
JOIN slide_notes AS n ON s.slide_id = n.slide_id
LEFT JOIN others AS o ON s.slide_id = o.slide_id
LEFT JOIN controls AS k ON s.slide_id = k.slide_id
WHERE s.marker = 'TP53'
ORDER BY s.patient_id, s.slide_id;
