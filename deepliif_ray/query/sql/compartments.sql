-- Scores by the stain where the marker has it: over the nucleus, or around it. `positive` and all other scores stay what
-- they are, calls on nuclei. `compartment` says where to look:
--   not given         by the marker's localisation (schemas/markers.yaml): nuclear and markers without one 'nucleus';
--                     membranous and cytoplasmic 'rim'; both nuclear and one of these 'nucleus or rim'
--   'nucleus'         mean DAB over the nucleus, as of an H-score: dab_od_mean
--   'rim'             mean DAB within 2 um of the nucleus: rim_dab_od_mean
--   'cytoplasm'       mean DAB up to 4 um around it: cytoplasm_dab_od_mean
--   'nucleus or rim'  the darker of the two
-- For instance: SELECT slide_id, compartment, n_called, stained_percent, h_score FROM slide_stain_scores()
--               WHERE marker = 'HER2';
-- A stain is null where it was not measured: in slides that an older version scored, and where a nucleus has no rim
-- because others are all around it. Such cells are not in n_measured, of which the shares are.
CREATE MACRO compartment_of(localisation, compartment) AS
  CASE
    WHEN compartment IN ('nucleus', 'rim', 'cytoplasm', 'nucleus or rim') THEN compartment
    WHEN compartment IS NOT NULL THEN
      error('compartment is ''nucleus'', ''rim'', ''cytoplasm'' or ''nucleus or rim'', not ''' || compartment || '''')
    WHEN NOT coalesce(list_has_any(localisation, ['membranous', 'cytoplasmic']), false) THEN 'nucleus'
    WHEN list_contains(localisation, 'nuclear') THEN 'nucleus or rim'
    ELSE 'rim'
  END;

CREATE MACRO stain_od_of(compartment, nucleus, rim, cytoplasm, rim_px) AS
  CASE compartment
    WHEN 'nucleus' THEN nucleus
    WHEN 'rim' THEN rim
    WHEN 'cytoplasm' THEN cytoplasm
    WHEN 'nucleus or rim' THEN CASE WHEN rim_px IS NOT NULL THEN greatest(nucleus, rim) END
  END;

CREATE MACRO stained_cells(cutoffs := NULL, region := NULL, corrections := true, compartment := NULL) AS TABLE
SELECT
  c.*,
  k.compartment,
  stain_od_of(k.compartment, c.dab_od_mean, c.rim_dab_od_mean, c.cytoplasm_dab_od_mean, c.rim_px) AS stain_od,
  $stain_strength AS stain_strength
FROM called_cells(cutoffs := cutoffs, region := region, corrections := corrections) AS c
JOIN (
  SELECT s.slide_id, f.weak, f.moderate, f.strong, compartment_of(m.localisation, compartment) AS compartment
  FROM slides AS s
  JOIN slide_cutoffs(cutoffs := cutoffs) AS f ON s.slide_id = f.slide_id
  LEFT JOIN markers AS m ON s.marker = m.name
) AS k ON c.slide_id = k.slide_id
$corrected;

CREATE MACRO slide_stains(cutoffs := NULL, region := NULL, corrections := true, compartment := NULL) AS TABLE
SELECT
  s.* EXCLUDE (n_called, n_weak, n_moderate, n_strong),
  compartment_of(m.localisation, compartment) AS compartment,
  CASE WHEN s.is_graded THEN coalesce(g.n_cells, 0) END AS n_called,
  CASE WHEN s.is_graded THEN coalesce(g.n_with_stain, 0) END AS n_measured,
  CASE WHEN s.is_graded THEN coalesce(g.n_weak, 0) END AS n_weak,
  CASE WHEN s.is_graded THEN coalesce(g.n_moderate, 0) END AS n_moderate,
  CASE WHEN s.is_graded THEN coalesce(g.n_strong, 0) END AS n_strong
FROM slide_strengths(cutoffs := cutoffs, region := region, corrections := corrections) AS s
LEFT JOIN markers AS m ON s.marker = m.name
LEFT JOIN (
  SELECT
    c.slide_id, count(*) AS n_cells, count(c.stain_strength) AS n_with_stain,
    count_if(c.stain_strength = 1)::BIGINT AS n_weak, count_if(c.stain_strength = 2)::BIGINT AS n_moderate,
    count_if(c.stain_strength = 3)::BIGINT AS n_strong
  FROM stained_cells(cutoffs := cutoffs, region := region, corrections := corrections, compartment := compartment) AS c
  GROUP BY c.slide_id
) AS g ON s.slide_id = g.slide_id;

CREATE MACRO slide_stain_scores(cutoffs := NULL, region := NULL, corrections := true, compartment := NULL) AS TABLE
SELECT
  s.slide_id, s.patient_id, s.marker, s.compartment, s.n_called, s.n_measured,
  100 * (s.n_weak + s.n_moderate + s.n_strong) / nullif(s.n_measured, 0) AS stained_percent,
  100 * s.n_weak / nullif(s.n_measured, 0) AS percent_1,
  100 * s.n_moderate / nullif(s.n_measured, 0) AS percent_2,
  100 * s.n_strong / nullif(s.n_measured, 0) AS percent_3,
  h_score_of(s.n_weak, s.n_moderate, s.n_strong, s.n_measured) AS h_score,
  s.intensity_cutoffs,
  s.n_measured < n.min_cells AS too_few_cells,
  concat_ws(
    '; ',
    CASE WHEN s.n_called > 0 AND s.n_measured = 0 THEN
      'the ' || s.compartment || ' was not measured by the version that scored the slide'
    END,
    notes_of(NULL, s.n_measured, n.min_cells, slide_lacks(s.has_region, region), n.standing)
  ) AS notes
FROM slide_stains(cutoffs := cutoffs, region := region, corrections := corrections, compartment := compartment) AS s
JOIN slide_notes AS n ON s.slide_id = n.slide_id
ORDER BY s.patient_id, s.marker, s.slide_id;

-- Cells are pooled over a patient's slides of one marker, as for patient_h_scores(). A slide of which nothing was
-- measured makes the score null and not smaller: its cells are not known to be unstained.
CREATE MACRO patient_stain_scores(cutoffs := NULL, region := NULL, corrections := true, compartment := NULL) AS TABLE
WITH summed AS (
  SELECT
    patient_id, marker, any_value(t.compartment) AS looked_at,
    count_if(has_region)::BIGINT AS n_slides, count_if(NOT has_region)::BIGINT AS n_without_region,
    count(n_called) AS n_graded, count_if(n_called > 0 AND n_measured = 0) AS n_unmeasured,
    sum(n_called)::BIGINT AS n_called, sum(n_measured)::BIGINT AS n_measured, sum(n_weak)::BIGINT AS n_weak,
    sum(n_moderate)::BIGINT AS n_moderate, sum(n_strong)::BIGINT AS n_strong,
    string_agg(DISTINCT intensity_cutoffs, '; ' ORDER BY intensity_cutoffs) AS intensity_cutoffs
  FROM slide_stains(cutoffs := cutoffs, region := region, corrections := corrections, compartment := compartment) AS t
  GROUP BY patient_id, marker
),
pooled AS (
  SELECT
    patient_id, marker, looked_at, n_slides, n_without_region, n_unmeasured, intensity_cutoffs,
    n_slides > 0 AND n_graded = n_slides AND n_unmeasured = 0 AS is_graded,
    CASE WHEN is_graded THEN n_called END AS n_called,
    CASE WHEN is_graded THEN n_measured END AS n_measured,
    CASE WHEN is_graded THEN n_weak END AS n_weak,
    CASE WHEN is_graded THEN n_moderate END AS n_moderate,
    CASE WHEN is_graded THEN n_strong END AS n_strong
  FROM summed
)
SELECT
  s.patient_id, s.marker, s.looked_at AS compartment, s.n_slides, s.n_called, s.n_measured,
  100 * (s.n_weak + s.n_moderate + s.n_strong) / nullif(s.n_measured, 0) AS stained_percent,
  100 * s.n_weak / nullif(s.n_measured, 0) AS percent_1,
  100 * s.n_moderate / nullif(s.n_measured, 0) AS percent_2,
  100 * s.n_strong / nullif(s.n_measured, 0) AS percent_3,
  h_score_of(s.n_weak, s.n_moderate, s.n_strong, s.n_measured) AS h_score,
  s.intensity_cutoffs,
  s.n_measured < n.min_cells AS too_few_cells,
  concat_ws(
    '; ',
    CASE WHEN s.n_unmeasured > 0 THEN
      'the ' || s.looked_at || ' was not measured by the version that scored ' || s.n_unmeasured || ' of its slides'
    END,
    notes_of(NULL, s.n_measured, n.min_cells, patient_lacks(s.n_without_region, region), n.standing)
  ) AS notes
FROM pooled AS s
JOIN patient_notes AS n ON s.patient_id = n.patient_id AND s.marker = n.marker
ORDER BY s.patient_id, s.marker;
