-- What people drew and said of slides: see docs/annotations.md.
CREATE TABLE stored.corrected (slide_id VARCHAR, cell_id BIGINT, call VARCHAR);

CREATE TABLE stored.region_areas (slide_id VARCHAR, class VARCHAR, class_tissue_mm2 DOUBLE, slide_tissue_mm2 DOUBLE);

CREATE VIEW region_areas AS FROM stored.region_areas;

CREATE TABLE stored.region_cells (slide_id VARCHAR, cell_id BIGINT, class VARCHAR);

CREATE VIEW region_cells AS FROM stored.region_cells;

-- Slides of which the record's counts do not hold, and those whose record has no sums over blocks.
CREATE TABLE stored.annotated AS
SELECT slide_id FROM stored.corrected
UNION
SELECT slide_id FROM stored.region_areas WHERE lower(class) = 'exclude' OR ends_with(class, '*');

CREATE TABLE stored.recounted AS
SELECT slide_id FROM stored.annotated
UNION
SELECT slide_id FROM stored.slides WHERE n_blocks IS NULL AND n_called > 0;

CREATE VIEW cutoff_sets AS SELECT * EXCLUDE (rank) FROM stored.cutoff_sets;
