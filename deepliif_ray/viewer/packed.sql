-- The cells of a slide as whole numbers of few bits; deepliif_ray/viewer/packed.py says what each is.
-- Optical density of DAB is stored as the number of steps that it reaches, plus one, and 0 below zero. It is compared
-- with steps as numbers, since 0.29 times 1000 is below 290.
SELECT
  $more
  (tile_y * $across + tile_x)::UINTEGER AS tile,
  floor((x - $tile_px * tile_x) * $part)::USMALLINT AS x,
  floor((y - $tile_px * tile_y) * $part)::USMALLINT AS y,
  least(area_px, $max_area + 1)::USMALLINT AS area,
  least(greatest(round_even(od_mean, 0), 0), 65535)::USMALLINT AS od,
  coalesce(
    TRY_CAST(
      least(
        greatest(
          steps + ((steps + 1) / ${dab_steps}e0 <= dab)::TINYINT - (steps / ${dab_steps}e0 > dab)::TINYINT + 1, 0
        ),
        $last_step + 1
      ) AS USMALLINT
    ),
    ($last_step + 1)::USMALLINT
  ) AS dab,
  coalesce(marker_max, 0)::UTINYINT AS marker,
  -- 1: positive majority; 2 and 4: the number of the correction; 8: has a value of the marker
  (majority_positive::UTINYINT + 2 * said + CASE WHEN marker_max IS NULL THEN 0 ELSE 8 END)::UTINYINT AS flags
FROM (
  SELECT
    c.* REPLACE (x + 0.5 AS x, y + 0.5 AS y),
    floor((x + 0.5) / $tile_px)::UINTEGER AS tile_x,
    floor((y + 0.5) / $tile_px)::UINTEGER AS tile_y,
    dab_od_mean AS dab,
    floor(dab_od_mean * $dab_steps) AS steps,
    $said AS said
  FROM (SELECT * FROM cells WHERE slide_id = ? AND marker = ?) AS c
  $where
)
