"""The statements that make the views and macros which rest on the stored tables and on ``cells``."""

from pathlib import Path
from string import Template

import duckdb

from deepliif_ray.query.literals import quoted, quoted_list
from deepliif_ray.scoring.marker_entries import MIN_CELLS
from deepliif_ray.scoring.markers import intensity
from deepliif_ray.tables.cutoffs import BUILTIN, VALUES

SQL = Path(__file__).parent / "sql"
_PARTS = (
    "stubs", "words", "tumour", "lymphoma", "ki67", "densities", "strength", "compartments", "indices",
    "counts", "called_cells", "slide_cutoffs", "quality", "notes", "described", "cutoffs", "intervals",
)  # fmt: skip
_STAIN_STRENGTH = "strength_of(stain_od, k.weak, k.moderate, k.strong)"


def read_sql(name: str) -> str:
    """Return the text of ``sql/<name>.sql``."""
    return (SQL / f"{name}.sql").read_text(encoding="utf-8")


def derived(connection: duckdb.DuckDBPyConnection) -> tuple[list[str], bool]:
    """Return the statements, for a connection that has the stored tables and an empty ``cells``.

    And tell whether they are the usual ones: nobody annotated these results, and nothing of them is lost.

    They are for the moment of the connection. Looking up whether a person corrected or excluded a cell takes
    time for every cell of the cohort, so it is part of the statements only where somebody did; and names that
    may be asked for are lists in them, because a subquery would be joined with every cell.
    """
    tables = ("corrected", "region_areas", "annotated", "recounted", "lost")
    # One look at each: as subqueries of one row they take three times as long.
    facts = " UNION ALL ".join(f"SELECT '{name}' FROM (FROM stored.{name} LIMIT 1)" for name in tables)
    found = {name for (name,) in connection.execute(facts).fetchall()}
    classes, sets = (
        sorted({name for (name,) in connection.execute(f"SELECT {text}").fetchall() if name is not None})
        for text in ("lower(class) FROM stored.region_areas", "name FROM stored.cutoff_sets")
    )
    values = _values({name: name in found for name in tables})
    values |= {"classes": quoted_list(classes), "sets": quoted_list(sets)}
    values |= {"named_sets": quoted(", ".join(sets))}
    is_usual = not found and not classes and sets == [BUILTIN]
    return [Template(read_sql(name)).substitute(values) for name in _PARTS], is_usual


def _values(there: dict[str, bool]) -> dict[str, str]:
    """Return what stands for the names with a dollar in the SQL; ``there``: which tables have rows."""
    in_table = "{}.slide_id IN (SELECT slide_id FROM stored.{})".format
    strengths = intensity()
    regions = there["region_areas"]
    corrected = there["corrected"]
    is_as_recorded = not any(there.values())

    def at_defaults(what: str) -> str:
        return read_sql(f"parts/recorded_{what}") if is_as_recorded else f"FROM slide_{what}()"

    joins = [read_sql("parts/areas")] if regions else []
    joins += [
        f"LEFT JOIN stored.{name} AS {letter} ON s.slide_id = {letter}.slide_id"
        for name, letter in (("lost", "l"), ("annotated", "t"))
        if there[name]
    ]
    return {
        "builtin": BUILTIN,
        "most_particular": ", ".join(f"arg_max(k.{key}, k.rank) AS {key}" for key in VALUES),
        "known": ", ".join(VALUES),
        "keys": f"{quoted('[' + ', '.join(VALUES) + ']')}::VARCHAR[]",  # in one piece: planned in less time
        "min_cells": str(MIN_CELLS),
        **{key: str(strengths[key]) for key in ("weak", "moderate", "strong")},
        "replaced": read_sql("parts/replaced") if corrected else "",
        "corrected": read_sql("parts/corrected") if corrected else "",
        "stain_strength": read_sql("parts/stain_strength") if corrected else _STAIN_STRENGTH,
        "counted": "coalesce(o.call <> 'not_a_cell', c.is_sized)" if corrected else "c.is_sized",
        "placed": read_sql("parts/placed") if regions else "AND is_known_region(region)",
        "has_region": "(region IS NULL OR a.slide_id IS NOT NULL)" if regions else "true",
        "tissue_mm2": read_sql("parts/tissue") if regions else "s.tissue_mm2",
        "joined": "\n".join(joins),
        "is_damaged": "l.slide_id IS NOT NULL" if there["lost"] else "false",
        "is_annotated": "t.slide_id IS NOT NULL" if there["annotated"] else "false",
        "recounted": read_sql("parts/recounted") if there["annotated"] else "",
        "counts_at_defaults": at_defaults("counts"),
        "blocks_at_defaults": at_defaults("blocks"),
        "is_recounted": in_table("s", "recounted") if there["recounted"] else "false",
        "or_recounted": f"OR {in_table('c', 'recounted')}" if there["recounted"] else "",
    }
