"""Write data-dictionary.md from the schemas.

python docs/make_data_dictionary.py
"""

from pathlib import Path
from typing import Any

from deepliif_ray import contracts
from deepliif_ray.query import described

TARGET = Path(__file__).with_name("data-dictionary.md")
TABLES = {
    "manifest": "What a manifest may hold.",
    "cells": described.TABLES["cells"][1],
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

Below are the stored tables, then the [views](#views) that are made of them and the
[table macros](#table-macros), which are views with parameters. The same in SQL:
`FROM described('slide_quality')`.

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


HEADINGS = "| column | type | unit | description | source |\n|---|---|---|---|---|"


def text() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for name, title in TABLES.items():
        schema = contracts.load(name)
        parts += [f"## {name}\n\n{title} Schema version {schema['version']}.\n"]
        parts += [HEADINGS, *map(row, schema["columns"]), ""]
    parts.append("## Views\n")
    shown = set(described.TABLES)
    for entry in described.entries():
        if entry.parameters is None and entry.name not in shown:
            parts += [f"### {entry.name}\n\n{entry.says}\n", HEADINGS, *map(row, entry.columns), ""]
    parts.append("## Table macros\n")
    for entry in described.entries():
        if entry.parameters is not None:
            parts.append(f"### {entry.name}(…)\n\n{entry.says}\n")
            parts += [HEADINGS.replace("column", "parameter"), *map(row, entry.parameters), ""]
    return "\n".join(parts)


def row(column: dict[str, Any]) -> str:
    """Return a column or parameter as a row of a table."""
    certain = column.get("required", not column.get("nullable", False))
    kind = column["type"] + ("" if certain else ", may be missing")
    cells = (
        f"`{column['name']}`",
        kind,
        column.get("unit", ""),
        " ".join(column["description"].split()),
        column.get("source", ""),
    )
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
