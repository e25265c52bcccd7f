-- What people drew on slides and said of cells: see docs/annotations.md. The view region_cells ends with what reads the
-- objects that hold them, if there are any; a row counts where its attempt is that of the slide's record.
CREATE TABLE stored.corrected AS
SELECT slide_id, cell_id, call
FROM stored.corrections
WHERE is_current;

CREATE VIEW region_cells AS
SELECT slide_id, cell_id, class, region_id, excludes
FROM stored.region_cells
$region_cells;

CREATE TABLE stored.region_areas AS
SELECT
  slide_id, any_value(class) AS class, bool_or(excludes) AS excludes, max(class_area_mm2) AS class_area_mm2,
  CASE WHEN count(class_tissue_mm2) = count(*) THEN max(class_tissue_mm2) END AS class_tissue_mm2,
  CASE WHEN count(slide_tissue_mm2) = count(*) THEN max(slide_tissue_mm2) END AS slide_tissue_mm2
FROM stored.regions
GROUP BY slide_id, lower(class);

CREATE VIEW region_areas AS FROM stored.region_areas;

-- Slides of which the record's counts do not hold, and those whose record has no sums over blocks.
CREATE TABLE stored.annotated AS
SELECT slide_id FROM stored.corrected
UNION
SELECT slide_id FROM stored.region_areas WHERE excludes;

CREATE TABLE stored.recounted AS
SELECT slide_id FROM stored.annotated
UNION
SELECT slide_id FROM stored.slides WHERE n_blocks IS NULL AND n_called > 0;

CREATE VIEW cutoff_sets AS SELECT * EXCLUDE (rank) FROM stored.cutoff_sets;
