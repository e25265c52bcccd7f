-- Quality control of slides: what was measured, and flags. A flag is an opinion, so it is made here and not stored.
--
-- slide_quality_at(…) flags at thresholds of your choice, the view slide_quality at the defaults, which are argued
-- in docs/monitoring.md:
--   focus_min            out_of_focus       focus below this
--   tissue_min_percent   little_tissue      less of the slide is tissue
--   pen_max_percent      pen                more of the slide is pen or ink
--   hematoxylin_min      pale_hematoxylin   mean hematoxylin optical density of tissue below this
--   residual_min,        not_hematoxylin_dab   colour of tissue that no mixture of the two stains has, such as of
--   residual_max                            H&E, whose index means nothing
--   background_min       dark_background    grey level of glass below this
--   cast_max             tinted_background  channels of glass further apart
--   bad_max_percent      bad_tiles          more of the tiles could not be read
--                        same_content       another slide of these results has the same content
--   nucleus_min_um2,     implausible_scale  median area of the counted cells below or above these: the size of a
--   nucleus_max_um2                         pixel is probably not what the manifest or the file says. The
--                                           least is by default 25 for the model stain, which leaves out small
--                                           nuclei, and 14 for others
--   small_max_percent    implausible_scale  more of the cells are smaller than a cell counts
-- and cells_lost: its cells object is damaged, so that only its record is left to count on.
-- What was not measured (a record of an older version, no glass, no tissue) is NULL and flags nothing.
-- For instance: SELECT i.* FROM slide_indices AS i JOIN slide_quality AS q USING (slide_id) WHERE len(q.flags) = 0;
CREATE MACRO slide_quality_at(
  focus_min := 40, tissue_min_percent := 1, pen_max_percent := 0.1, hematoxylin_min := 0.03,
  residual_min := -0.07, residual_max := 0.35,
  background_min := 200, cast_max := 25, bad_max_percent := 0,
  nucleus_min_um2 := NULL, nucleus_max_um2 := 65, small_max_percent := 60
) AS TABLE
WITH measured AS (
  SELECT
    slide_id, patient_id, marker, focus, tissue_percent, pen_percent, hematoxylin_od, dab_od, stain_residual,
    background_grey, background_cast,
    100 * (n_tiles_empty + n_tiles_masked) / nullif(n_tiles, 0) AS skipped_percent,
    100 * n_tiles_bad / nullif(n_tiles, 0) AS bad_percent,
    nucleus_area_um2, small_percent, slide_version,
    coalesce(nucleus_min_um2, CASE model_name WHEN 'stain' THEN 25 ELSE 14 END) AS nucleus_least_um2,
    count(slide_version) OVER (PARTITION BY slide_fingerprint, image_asked) AS n_same_content
  FROM slides
)
SELECT
  * EXCLUDE (slide_version, n_same_content, nucleus_least_um2),
  list_filter(
    [
      CASE WHEN focus < focus_min THEN 'out_of_focus' END,
      CASE WHEN tissue_percent < tissue_min_percent THEN 'little_tissue' END,
      CASE WHEN pen_percent > pen_max_percent THEN 'pen' END,
      CASE WHEN hematoxylin_od < hematoxylin_min THEN 'pale_hematoxylin' END,
      CASE WHEN stain_residual < residual_min OR stain_residual > residual_max THEN 'not_hematoxylin_dab' END,
      CASE WHEN background_grey < background_min THEN 'dark_background' END,
      CASE WHEN background_cast > cast_max THEN 'tinted_background' END,
      CASE WHEN bad_percent > bad_max_percent THEN 'bad_tiles' END,
      CASE
        WHEN nucleus_area_um2 < nucleus_least_um2 OR nucleus_area_um2 > nucleus_max_um2
          OR small_percent > small_max_percent THEN 'implausible_scale'
      END,
      CASE WHEN slide_id IN (SELECT d.slide_id FROM damaged AS d WHERE d.kind = 'cells') THEN 'cells_lost' END,
      CASE WHEN n_same_content > 1 AND slide_version IS NOT NULL THEN 'same_content' END
    ],
    lambda flag: flag IS NOT NULL
  ) AS flags
FROM measured
ORDER BY slide_id;

CREATE VIEW slide_quality AS
SELECT * FROM slide_quality_at();
