-- 95 % intervals of a percentage of cells.
--
-- 1. Plain: the Wilson score interval (Wilson 1927), as if cells were independent draws. NULL without a cell.
CREATE OR REPLACE MACRO wilson_centre(positive, total) AS
  positive / total + 1.959963984540054 ^ 2 / (2 * total);

CREATE OR REPLACE MACRO wilson_half(positive, total) AS
  1.959963984540054 * sqrt((positive / total) * (1 - positive / total) / total
                           + 1.959963984540054 ^ 2 / (4 * total ^ 2));

CREATE OR REPLACE MACRO wilson_lower_percent(positive, total) AS
  CASE
    WHEN total = 0 THEN NULL
    WHEN positive = 0 THEN 0.0  -- exactly so, which rounding would miss
    ELSE 100 * (wilson_centre(positive, total) - wilson_half(positive, total)) / (1 + 1.959963984540054 ^ 2 / total)
  END;

CREATE OR REPLACE MACRO wilson_upper_percent(positive, total) AS
  CASE
    WHEN total = 0 THEN NULL
    WHEN positive = total THEN 100.0
    ELSE 100 * (wilson_centre(positive, total) + wilson_half(positive, total)) / (1 + 1.959963984540054 ^ 2 / total)
  END;

-- 2. Clustered: Wilson on the effective number of cells, that is the number of independent ones that would tell as
-- much (Kish 1965). What is estimated is the index of the tissue that this slide is a sample of, not of these cells.
--
-- The tissue is cut into blocks of 250 um, and blocks are also taken together two by two: windows of 500 um, which
-- overlap by half. The index is a ratio of sums, so its variance comes from residuals r = x - p n, with n counted
-- and x positive cells and p the index (Cochran 1977, ch. 6):
--   of blocks as if they were independent    B = sum of r^2 over blocks  / total^2
--   of windows, in each of which a block lies four times    W = sum of r^2 over windows / (4 total^2)
--   variance = greatest(B, 2 W - B) * (1 + 5 / n_blocks), with (n_blocks - 1) // 4 degrees of freedom, 1 at least
-- Blocks alone are not enough, because neighbours are alike: where positivity is correlated over 200 um, blocks of
-- 500 um see 60 % of the variance and their 95 % intervals cover 87 %. What is missed falls with one over the side
-- of the block, so 2 W - B takes it away (the flat-top weights of Politis and Romano 1995: 1 for a block and for its
-- four neighbours, 1/2 across corners). Compact tissue of n_blocks loses about 5 of them to the index that is
-- estimated from it, and its weighted squares vary as if there were a quarter as many.
--
-- The effective number is total over the design effect, never more than total, times (1.96 / t)^2, because few
-- blocks say little of their own variance (Korn and Graubard 1998). Wilson on an effective number is what Franco,
-- Little, Louis and Slud (2019) recommend; they also show that with clusters all such intervals cover too little
-- where the variance is estimated in the simplest way. benchmarks/README.md has what these cover.
--
-- NULL without a cell, with fewer than two clusters, and where a sum is NULL. With no positive cell, or no other, no
-- variance is to be seen, so the design effect counts as 1 (as Korn and Graubard have it): the lower end is exactly
-- 0, or the upper 100, and the other end is that of a plain interval, t aside, which knows nothing of tissue
-- that was not seen.
--
-- Sums are exact integers of any type and add up over slides. cluster_sums(blocks) makes them of a relation with
-- slide_id, block_x, block_y, n_called, n_positive, one row a block that has a counted cell:
--   SELECT slide_id, i.index_percent, clustered_lower_percent(i.n_positive, i.n_called, effective_cells(
--     i.n_positive, i.n_called, n_blocks, block_xx, block_xn, block_nn, window_xx, window_xn, window_nn)) AS lower
--   FROM (
--     WITH blocks AS (
--       SELECT slide_id, floor(x_um / 250)::BIGINT AS block_x, floor(y_um / 250)::BIGINT AS block_y,
--         count(*) AS n_called, count_if(positive)::BIGINT AS n_positive
--       FROM called_cells GROUP BY ALL
--     )
--     FROM cluster_sums(blocks)
--   ) JOIN slide_indices AS i USING (slide_id);
CREATE OR REPLACE MACRO cluster_sums(blocks) AS TABLE
WITH filled AS (
  SELECT slide_id, block_x, block_y, n_called::BIGINT AS n_called, n_positive::BIGINT AS n_positive
  FROM query_table(blocks)
  WHERE n_called > 0
),
of_blocks AS (
  SELECT
    slide_id, count(*) AS n_blocks,
    sum(n_positive * n_positive) AS block_xx, sum(n_positive * n_called) AS block_xn,
    sum(n_called * n_called) AS block_nn
  FROM filled
  GROUP BY slide_id
),
windows AS (
  SELECT b.slide_id, sum(b.n_called)::BIGINT AS n_called, sum(b.n_positive)::BIGINT AS n_positive
  FROM filled AS b CROSS JOIN (VALUES (0, 0), (0, 1), (1, 0), (1, 1)) AS o(right_by, down_by)
  GROUP BY b.slide_id, b.block_x + o.right_by, b.block_y + o.down_by
),
of_windows AS (
  SELECT
    slide_id,
    sum(n_positive * n_positive) AS window_xx, sum(n_positive * n_called) AS window_xn,
    sum(n_called * n_called) AS window_nn
  FROM windows
  GROUP BY slide_id
)
SELECT b.*, w.window_xx, w.window_xn, w.window_nn
FROM of_blocks AS b
JOIN of_windows AS w ON b.slide_id = w.slide_id;

-- The 97.5 % quantile of Student's t for whole degrees of freedom; DuckDB has none. A list, then the expansion of
-- Fisher and Cornish (1960) to the fourth order; at most 1e-5 of the value off. NULL below 1.
CREATE OR REPLACE MACRO student_t(df) AS
  CASE
    WHEN df < 1 THEN NULL
    WHEN df <= 9 THEN [
      12.706204736174694, 4.302652729749462, 3.182446305283708, 2.776445105197794, 2.570581835636314,
      2.446911851144969, 2.364624251592784, 2.306004135204166, 2.262157162798205
    ][df::BIGINT]
    ELSE 1.959963984540054 + 2.372271230298561 / df + 2.822498615739609 / df ^ 2 + 2.555849679507719 / df ^ 3
      + 1.58953405339382 / df ^ 4
  END;

-- What follows mentions its parameters as rarely as it can: macros are put in place of their names, and planning a
-- statement takes time by its length. That nothing is NULL is looked at once, as greatest() and least() pass over it.

-- Sum of (x - p n)^2 over clusters, from their sums of x^2, x n and n^2.
CREATE OR REPLACE MACRO residual_squares(positive, total, sum_xx, sum_xn, sum_nn) AS
  sum_xx - (positive / total) * (2 * sum_xn - (positive / total) * sum_nn);

-- Number of independent cells that tell as much, given the variance of the index (a share) and the degrees of
-- freedom of that variance. Where all cells are alike both variances are 0, and the design effect 1.
CREATE OR REPLACE MACRO effective_number(positive, total, variance, df) AS
  total / greatest(1, total * variance / greatest((positive / total) * (1 - positive / total), 1e-300))
  * least(1, (1.959963984540054 / student_t(df)) ^ 2);

CREATE OR REPLACE MACRO can_tell(
  positive, total, n_blocks, block_xx, block_xn, block_nn, window_xx, window_xn, window_nn
) AS
  n_blocks >= 2 AND total > 0 AND positive IS NOT NULL
  AND block_xx IS NOT NULL AND block_xn IS NOT NULL AND block_nn IS NOT NULL
  AND window_xx IS NOT NULL AND window_xn IS NOT NULL AND window_nn IS NOT NULL;

CREATE OR REPLACE MACRO blocks_number(
  positive, total, n_blocks, block_xx, block_xn, block_nn, window_xx, window_xn, window_nn
) AS
  effective_number(
    positive, total,
    greatest(
      residual_squares(positive, total, block_xx, block_xn, block_nn),
      residual_squares(positive, total, window_xx / 2 - block_xx, window_xn / 2 - block_xn, window_nn / 2 - block_nn)
    ) / total::DOUBLE ^ 2 * (1 + 5 / n_blocks),
    greatest(1, (n_blocks - 1) // 4)
  );

-- Of one slide, or of several as if they were one: what blocks tell.
CREATE OR REPLACE MACRO effective_cells(
  positive, total, n_blocks, block_xx, block_xn, block_nn, window_xx, window_xn, window_nn
) AS
  CASE
    WHEN can_tell(positive, total, n_blocks, block_xx, block_xn, block_nn, window_xx, window_xn, window_nn)
    THEN blocks_number(positive, total, n_blocks, block_xx, block_xn, block_nn, window_xx, window_xn, window_nn)
  END;

-- Of a patient with n_slides slides that have a counted cell; blocks and windows are summed over them, and slide_xx,
-- slide_xn, slide_nn are sums of x^2, x n, n^2 of whole slides.
--
-- Slides of one patient differ by more than blocks show (another part of the tumour, another day's staining), and
-- what is wanted is the index of the patient, not of these slides. So slides are clusters too, with n_slides - 1
-- degrees of freedom, and the smaller of both effective numbers counts, each with its own t. Choosing by the larger
-- design effect alone would not do: two slides that agree by chance show no variance between them, and then the
-- narrow interval of the blocks would stand, which covers 87 % at worst. With the smaller number 95 % hold, and the
-- price is plain: between two slides there is one degree of freedom (t = 12.7), so their interval is a median 4.4
-- times as wide as if the spread between slides were known, with three 1.8 times, from six on hardly. Who means the
-- tissue on these very slides takes effective_cells(...) of the same sums. A patient with one slide has that slide's
-- interval, which says nothing of other slides.
CREATE OR REPLACE MACRO patient_effective_cells(
  positive, total, n_blocks, block_xx, block_xn, block_nn, window_xx, window_xn, window_nn,
  n_slides, slide_xx, slide_xn, slide_nn
) AS
  CASE
    WHEN can_tell(positive, total, n_blocks, block_xx, block_xn, block_nn, window_xx, window_xn, window_nn)
      AND (n_slides = 1 OR n_slides > 1 AND slide_xx IS NOT NULL AND slide_xn IS NOT NULL AND slide_nn IS NOT NULL)
    THEN least(
      blocks_number(positive, total, n_blocks, block_xx, block_xn, block_nn, window_xx, window_xn, window_nn),
      CASE
        WHEN n_slides > 1 THEN effective_number(
          positive, total,
          residual_squares(positive, total, slide_xx, slide_xn, slide_nn) / total::DOUBLE ^ 2
            * n_slides / (n_slides - 1),
          n_slides - 1
        )
      END
    )
  END;

-- The interval for an effective number; NULL where that is.
CREATE OR REPLACE MACRO clustered_lower_percent(positive, total, effective) AS
  CASE
    WHEN effective IS NULL THEN NULL
    WHEN positive = 0 THEN 0.0
    ELSE wilson_lower_percent(positive / total * effective, effective)
  END;

CREATE OR REPLACE MACRO clustered_upper_percent(positive, total, effective) AS
  CASE
    WHEN effective IS NULL THEN NULL
    WHEN positive = total THEN 100.0
    ELSE wilson_upper_percent(positive / total * effective, effective)
  END;
