-- The global Ki67 index of the International Ki67 in Breast Cancer Working Group (Leung et al. 2016 and 2019): fields
-- are counted in areas of negligible, low, medium and high staining, and the index is the mean of the fields' own
-- percentages, plain (unweighted) or weighted by the share of the area of each kind. It is not that of pooled cells.
--
-- Here a field is a square of field_um with at least min_cells counted cells. The group leaves kinds to the eye; here
-- they follow the field's own index, below kinds[1], kinds[2], kinds[3] percent or above. Of n_fields, every kind that
-- is there has at least one, and the rest go by area; within a kind they are spread evenly over the tissue in reading
-- order. So the same slide has always the same fields. n_fields := NULL takes all fields.
CREATE MACRO ki67_fields(
  cutoffs := NULL, region := NULL, corrections := true, field_um := 500, min_cells := 100, n_fields := 4,
  kinds := [1, 10, 30], of_marker := 'Ki67'
) AS TABLE
WITH fields AS (
  SELECT
    c.slide_id, any_value(c.patient_id) AS patient_id,
    floor(c.y_um / field_um)::INT AS field_row, floor(c.x_um / field_um)::INT AS field_column,
    count(*) AS n_called, count_if(c.positive)::BIGINT AS n_positive, 100 * n_positive / n_called AS index_percent
  FROM called_cells(cutoffs := cutoffs, region := region, corrections := corrections) AS c
  WHERE c.marker = of_marker AND CASE
    WHEN field_um > 0 AND min_cells > 0 AND coalesce(n_fields, 1) > 0
      AND len(kinds) = 3 AND kinds[1] <= kinds[2] AND kinds[2] <= kinds[3] THEN true
    ELSE error('field_um, min_cells and n_fields are above 0, and kinds are three percentages that rise')
  END
  GROUP BY ALL
  HAVING n_called >= min_cells
),
sorted AS (
  SELECT
    *,
    CASE WHEN index_percent < kinds[1] THEN 'negligible' WHEN index_percent < kinds[2] THEN 'low'
         WHEN index_percent < kinds[3] THEN 'medium' ELSE 'high' END AS kind,
    row_number() OVER (PARTITION BY slide_id, kind ORDER BY field_row, field_column) - 1 AS place,
    count(*) OVER (PARTITION BY slide_id, kind) AS n_of_kind,
    count(*) OVER (PARTITION BY slide_id) AS n_of_slide
  FROM fields
),
-- The sampled fields of a slide go to its kinds one by one: the next to the kind that has most fields for each it was
-- given (D'Hondt's way), the first of every kind before the second of any.
shares AS (
  SELECT slide_id, kind, any_value(n_of_kind) AS n_of_kind
  FROM sorted
  GROUP BY slide_id, kind
),
claims AS (
  SELECT slide_id, kind, nth
  FROM (SELECT *, unnest(range(1, least(n_of_kind, coalesce(n_fields, n_of_kind)) + 1)) AS nth FROM shares)
  QUALIFY n_fields IS NULL OR row_number() OVER (
    PARTITION BY slide_id ORDER BY (nth > 1)::INT, n_of_kind / nth DESC, kind
  ) <= n_fields
),
given AS (
  SELECT slide_id, kind, count(*) AS n_given
  FROM claims
  GROUP BY slide_id, kind
)
SELECT
  s.slide_id, s.patient_id, s.field_row, s.field_column,
  (s.field_column * field_um)::DOUBLE AS x_um, (s.field_row * field_um)::DOUBLE AS y_um,
  s.n_called, s.n_positive, s.index_percent, s.kind,
  100 * s.n_of_kind / s.n_of_slide AS kind_area_percent,
  g.n_given IS NOT NULL AND list_contains(
    list_transform(range(g.n_given), lambda j: ((2 * j + 1) * s.n_of_kind) // (2 * g.n_given)), s.place
  ) AS is_sampled
FROM sorted AS s
LEFT JOIN given AS g ON s.slide_id = g.slide_id AND s.kind = g.kind
ORDER BY s.slide_id, s.field_row, s.field_column;

CREATE MACRO ki67_global(
  cutoffs := NULL, region := NULL, corrections := true, field_um := 500, min_cells := 100, n_fields := 4,
  kinds := [1, 10, 30], of_marker := 'Ki67', low_percent := 5, high_percent := 30
) AS TABLE
WITH sampled AS (
  SELECT *
  FROM ki67_fields(
    cutoffs := cutoffs, region := region, corrections := corrections, field_um := field_um, min_cells := min_cells,
    n_fields := n_fields, kinds := kinds, of_marker := of_marker
  )
  WHERE is_sampled
),
of_kind AS (
  SELECT slide_id, kind, avg(index_percent) AS mean_percent, any_value(kind_area_percent) AS area_percent
  FROM sampled
  GROUP BY slide_id, kind
),
weighted AS (
  SELECT slide_id, sum(mean_percent * area_percent) / sum(area_percent) AS weighted_percent
  FROM of_kind
  GROUP BY slide_id
),
means AS (
  SELECT
    slide_id, count(*) AS n_fields_counted, sum(n_called)::BIGINT AS n_called,
    avg(index_percent) AS unweighted_percent, 100 * sum(n_positive) / sum(n_called) AS pooled_percent
  FROM sampled
  GROUP BY slide_id
)
SELECT
  s.slide_id, s.patient_id, s.marker, coalesce(m.n_fields_counted, 0) AS n_fields, coalesce(m.n_called, 0) AS n_called,
  m.unweighted_percent, w.weighted_percent, m.pooled_percent,
  CASE WHEN m.unweighted_percent <= low_percent THEN 'low' WHEN m.unweighted_percent < high_percent THEN 'intermediate'
       WHEN m.unweighted_percent IS NOT NULL THEN 'high' END AS category,
  concat_ws(
    '; ', n.brief, CASE WHEN m.slide_id IS NULL THEN 'no field of ' || min_cells || ' cells' END,
    nullif(n.standing, '')
  ) AS notes
FROM slides AS s
JOIN slide_notes AS n ON s.slide_id = n.slide_id
LEFT JOIN means AS m ON s.slide_id = m.slide_id
LEFT JOIN weighted AS w ON s.slide_id = w.slide_id
WHERE s.marker = of_marker AND is_known_region(region) AND are_sound(cutoffs)
ORDER BY s.patient_id, s.slide_id;

-- Grades of neuroendocrine tumours by an index, usually that of a hot spot of 500 to 2,000 cells: under 3 %, 3 to 20 %,
-- over 20 % (WHO classification).
CREATE MACRO net_grade(percent, g2_from := 3, g3_above := 20) AS
  CASE WHEN percent < g2_from THEN 'G1' WHEN percent <= g3_above THEN 'G2' WHEN percent IS NOT NULL THEN 'G3' END;
