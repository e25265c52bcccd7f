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
`slide_indices` (as `patient_indices`, by slide), and `slide_quality` ([monitoring](monitoring.md)); and the
tables `leftovers` (slides that the newest manifest lists no more: `slide_id`, `patient_id`, `marker`, `uri`,
`manifest_uri`, `renamed_to`), `retired` (slides left out by `score --prune`: `slide_id`, `patient_id`,
`marker`, `uri`, `retired_at`) and `markers` (`name`, `aliases`, `localisation`, `note`, `caution`, `brief`):
see [manifests](manifests.md). Times are UTC.

Who reads the Parquet files of `slides` by another program takes the newest record of each slide, and leaves
out slides whose newest record is `retired`.
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
