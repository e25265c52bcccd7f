-- 95 % Wilson score interval of a percentage of cells (Wilson 1927); NULL without a cell.
CREATE MACRO wilson_centre(positive, total) AS
  positive / total + 1.959963984540054 ^ 2 / (2 * total);

CREATE MACRO wilson_half(positive, total) AS
  1.959963984540054 * sqrt((positive / total) * (1 - positive / total) / total
                           + 1.959963984540054 ^ 2 / (4 * total ^ 2));

CREATE MACRO wilson_lower_percent(positive, total) AS
  CASE
    WHEN total = 0 THEN NULL
    WHEN positive = 0 THEN 0.0  -- exactly so, which rounding would miss
    ELSE 100 * (wilson_centre(positive, total) - wilson_half(positive, total)) / (1 + 1.959963984540054 ^ 2 / total)
  END;

CREATE MACRO wilson_upper_percent(positive, total) AS
  CASE
    WHEN total = 0 THEN NULL
    WHEN positive = total THEN 100.0
    ELSE 100 * (wilson_centre(positive, total) + wilson_half(positive, total)) / (1 + 1.959963984540054 ^ 2 / total)
  END;

CREATE MACRO design_effect(positive, total, n_blocks, xx, xn, nn) AS
  CASE WHEN n_blocks > 1 THEN
    CASE WHEN positive = 0 OR positive = total THEN 1.0
    ELSE greatest(1, n_blocks / (n_blocks - 1)
      * (xx - 2 * (positive / total) * xn + (positive / total) ^ 2 * nn) / total ^ 2
      / ((positive / total) * (1 - positive / total) / total)) END END;
CREATE MACRO clustered_lower_percent(positive, total, deff, clusters) AS
  wilson_lower_percent(positive / deff, total / deff);
CREATE MACRO clustered_upper_percent(positive, total, deff, clusters) AS
  wilson_upper_percent(positive / deff, total / deff);
