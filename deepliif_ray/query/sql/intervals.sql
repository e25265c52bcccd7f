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
