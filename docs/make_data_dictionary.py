"""Write data-dictionary.md from the schemas.

python docs/make_data_dictionary.py
"""

from pathlib import Path

from deepliif_ray import contracts

TARGET = Path(__file__).with_name("data-dictionary.md")
TABLES = {
    "manifest": "What a manifest may hold.",
    "cells": "One row per cell: measurements, no thresholded opinion.",
    "slides": "One row per scored slide: its commit record.",
    "failures": "One row per failed attempt; the view shows the newest one of slides not scored since.",
    "runs": "One row per run.",
    "patients": "The view `patient_indices`: one row per patient and marker.",
}
HEAD = """# Data dictionary

Written from [`schemas/`](../schemas), which the code loads, by `python docs/make_data_dictionary.py`.

Results hold `cells/marker=<marker>/…`, `slides/…`, `failures/…` and `runs/…` as Parquet; `_staging/…` is work
in progress. Read them through `deepliif_ray.connect` or `deepliif-ray sql`, which show committed slides only.
Besides these tables there are the views `called_cells` (the counted `cells`, with `positive`) and
`slide_indices` (as `patient_indices`, by slide), `slide_quality` ([monitoring](monitoring.md)), and `damaged`
(objects that were passed over: `object`, `kind`, `slide_id`, `problem`); and the tables `leftovers` (slides
that the newest manifest lists no more: `slide_id`, `patient_id`, `marker`, `uri`, `manifest_uri`,
`renamed_to`), `retired` (slides left out by `score --prune`: `slide_id`, `patient_id`, `marker`, `uri`,
`retired_at`) and `markers` (`name`, `aliases`, `localisation`, `note`, `caution`, `brief`): see
[manifests](manifests.md). Times are UTC.

## With other tools

Plain Parquet files also hold what does not count: cells of slides that were scored again, of attempts that
ended early, and, for an hour after `optimize`, cells in two places. Read alone, they count double. What
counts is what the newest record of a slide names with `cells_path`, unless that record is `retired`. In
DuckDB, next to a folder `results`:

```sql
WITH newest AS (
  SELECT * FROM read_parquet('results/slides/*.parquet', union_by_name = true)
  QUALIFY row_number() OVER (
    PARTITION BY slide_id ORDER BY epoch DESC NULLS LAST, committed_at DESC, attempt DESC, cells_path DESC
  ) = 1
)
SELECT c.marker, c.slide_id, count(*) AS cells
FROM read_parquet(
  'results/cells/*/*.parquet', union_by_name = true, filename = true, hive_partitioning = true
) AS c
JOIN newest AS n ON c.slide_id = n.slide_id AND ends_with(c.filename, n.cells_path)
WHERE n.retired IS NULL
GROUP BY ALL ORDER BY ALL;
```

Files of older versions lack columns, so `union_by_name` is needed. A column is never removed, renamed, or
given another type or meaning.
"""


def text() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for name, title in TABLES.items():
        schema = contracts.load(name)
        parts += [
            f"## {name}\n\n{title} Schema version {schema['version']}.\n",
            "| column | type | unit | description | source |\n|---|---|---|---|---|",
        ]
        for column in schema["columns"]:
            certain = column.get("required", not column.get("nullable", True))
            kind = column["type"] + ("" if certain else ", may be missing")
            cells = (
                f"`{column['name']}`",
                kind,
                column.get("unit", ""),
                column["description"],
                column.get("source", ""),
            )
            parts.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
        parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
