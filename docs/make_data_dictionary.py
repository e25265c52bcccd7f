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
    "regions": "One row per region that a person drew on a slide ([annotations](annotations.md)).",
    "region_cells": "One row per cell and region that it lies in.",
    "corrections": "One row per correction of a cell by a person.",
    "patients": "The view `patient_indices`: one row per patient and marker.",
}
HEAD = """# Data dictionary

Written from [`schemas/`](../schemas), which the code loads, by `python docs/make_data_dictionary.py`.

This page explains every column of the results. Read them through `deepliif_ray.connect` or `deepliif-ray
sql`: these show only slides that are complete. Times are UTC.

On disk, results are Parquet files: `cells/marker=<marker>/…`, `slides/…`, `failures/…` and `runs/…`; where
people drew regions or corrected cells `regions/…`, `region_cells/…` and `corrections/…`.
`_staging/…` is work in progress.

Besides the tables below there are these views and tables:

- `called_cells`: the `cells` that are counted, with `positive`
- `slide_indices`: as `patient_indices`, by slide
- `slide_quality`: quality control of slides ([monitoring](monitoring.md))
- `damaged`: objects that were passed over (`object`, `kind`, `slide_id`, `problem`)
- `leftovers`: slides that the newest manifest lists no more (`slide_id`, `patient_id`, `marker`, `uri`,
  `manifest_uri`, `renamed_to`; see [manifests](manifests.md))
- `retired`: slides that `score --prune` left out (`slide_id`, `patient_id`, `marker`, `uri`, `retired_at`)
- `markers`: markers that have a name (`name`, `aliases`, `localisation`, `note`, `caution`, `brief`)

## With other tools

Be careful when you read the Parquet files directly: some cells in them do not count. They belong to slides
that were scored again, or to attempts that ended early. For an hour after `optimize`, cells even lie in two
places. So a plain count of them comes out too high. What counts is what the newest record of a slide names
with `cells_path`, unless that record is `retired`. In DuckDB, next to a folder `results`:

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

`union_by_name` is needed because files of older versions lack columns. A column is never removed, renamed, or
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
