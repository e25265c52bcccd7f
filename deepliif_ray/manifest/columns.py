"""What is seen of a manifest by its columns: names that are near misses, ids that lost something."""

import difflib
import re
from collections import Counter
from collections.abc import Iterator

from deepliif_ray import contracts
from deepliif_ray.manifest.rows import NumberedRecord, Problem, Table
from deepliif_ray.manifest.values import is_nothing, look_alikes, mangled_ids

_LIKE_MPP = frozenset((
    "micronsperpixel", "micronperpixel", "umperpixel", "umperpx", "umpx", "umpixel", "pixelsize",
    "pixelsizeum", "mppum", "mppx", "resolutionum", "basempp", "microns",
))  # fmt: skip


def column_problems(columns: list[str]) -> Iterator[Problem]:
    """Yield what is wrong with the names of the columns."""
    for name, count in Counter(columns).items():
        if count > 1:
            yield 0, f"column {name!r} is there {count} times; keep one"
    known = {column["name"]: column["required"] for column in contracts.load("manifest")["columns"]}
    others = {_folded(name): name for name in columns if name not in known}
    for name, required in known.items():
        if name in columns:
            continue
        if (other := others.get(_folded(name))) is not None:
            yield 0, f"column {other!r} is probably {name!r}; rename it"
        elif required:
            close = difflib.get_close_matches(_folded(name), others, n=1)
            found = ", ".join(columns)[:300] or "none"
            hint = f"rename {others[close[0]]!r}" if close else f"columns found: {found}"
            yield 0, f"column {name!r} is missing; {hint}"


def _folded(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def column_warnings(table: Table) -> Iterator[Problem]:
    """Yield what is doubtful about the columns."""
    for name in table.columns:
        if _folded(name) in _LIKE_MPP and "mpp" not in table.columns:
            yield 0, f"column {name!r} is kept as an attribute; if it is µm per pixel, call it 'mpp'"
    for name in ("slide_id", "patient_id"):
        texts = {record.get(name, "").strip() for _, record in table.records}
        lengths = {len(text) for text in texts if text.isdecimal()}
        if name in table.numeric and len(lengths) > 1 and not any(text.startswith("0") for text in texts):
            yield (
                0,
                f"{name} holds numbers, not text; if ids begin with 0 (007), their zeros are gone: write "
                "them as text",
            )


def mangled(
    records: list[NumberedRecord], required: list[str], told: dict[int, list[str]]
) -> dict[int, list[str]]:
    """Return the problems of ids by row, looking at whole columns; to ``told`` goes what is only doubtful.

    A slide_id that lost its zeros is only told of: it is still one slide's, and nothing is pooled by it.
    """
    found: dict[int, list[str]] = {}
    for name in ("slide_id", "patient_id"):
        if name not in required:
            continue
        there = [(row, record[name]) for row, record in records if not is_nothing(record.get(name, ""), name)]
        for position, problem, is_certain in mangled_ids(name, [text for _, text in there]):
            notes = found if is_certain or name == "patient_id" else told
            notes.setdefault(there[position][0], []).append(problem)
        if name == "slide_id":
            continue
        rows: dict[str, list[int]] = {}
        for row, text in there:
            rows.setdefault(text.strip(), []).append(row)
        for names, is_invisible in look_alikes(rows):
            for text in names if is_invisible else [n for n in names if n in rows]:
                others = " and ".join(ascii(n) if is_invisible else repr(n) for n in names if n != text)
                note = f"patient_id {ascii(text) if is_invisible else repr(text)} is another than {others}"
                for row in rows[text]:
                    if is_invisible:
                        note = f"{note.partition('; ')[0]}, though they look the same; write one of them"
                        found.setdefault(row, []).append(note)
                    else:
                        told.setdefault(row, []).append(f"{note}; if they are one patient, write one name")
    return found
