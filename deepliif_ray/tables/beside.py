"""What is to be done with what lies beside the tables of results, so that nothing of some slides is left."""

import json
from collections import defaultdict
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deepliif_ray import storage
from deepliif_ray.tables.erasure import BY_HAND, Change, Plan, last_part, may_hold
from deepliif_ray.tables.records import read_if_there
from deepliif_ray.tables.survey import BESIDE, Survey, Unreadable, listed, small_content, temporaries
from deepliif_ray.tables.traces import ID_COLUMNS, Holders, Target, holders_of, naming_columns, texts_of

_SEARCHED = 64 * 2**20
"""Bytes of a Parquet object up to which its texts are looked through."""
_LONGEST = 500  # of a slide's name in a beat of the lease


def plan_beside(plan: Plan, found: Survey, target: Target) -> None:
    """Plan for all that is not of the tables; `plan_tables` comes before."""
    going = {change.path for change in plan.changes if change.kind == "cells"}
    for kind in BESIDE:
        for path in found.paths(kind):
            _plan_parquet(plan, kind, path, found, target)
    _plan_staging(plan, found, target)
    for path in found.paths("manifests"):
        _plan_manifest(plan, path, found.documents[path], target)
    for path in found.paths("cutoffs"):
        _plan_cutoffs(plan, path, found.documents[path], target)
    for path in found.paths("notes"):
        _plan_note(plan, path, found.documents[path], target, going)
    for path in found.paths("lease"):
        _plan_lease(plan, path, found.documents[path], target)
    for path in found.paths("damaged"):
        _plan_damaged(plan, path, found, target)
    for path in temporaries(found.results):
        plan.remove("temporary", path)
    for path in found.paths("other"):
        _look_at_stranger(plan, path, found, target)


def _plan_parquet(plan: Plan, kind: str, path: str, found: Survey, target: Target) -> None:
    """Plan for an object of rows of many slides; it keeps its name, which orders it among others."""
    holders = found.parquet[path]
    if isinstance(holders, str):
        plan.leave(path, f"it may hold them, but {holders}; {BY_HAND}")
        return
    rows = target.count(holders)
    if rows and rows == sum(holders.values()):
        plan.remove(kind, path, rows)
        return
    if not rows and found.stored[path].size > _SEARCHED:
        return
    content = read_if_there(plan.url(path))
    if content is None:
        return
    table = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False).read(use_threads=False)
    rest = table.filter(pc.invert(target.mask(table)))
    if rows:
        sink = pa.BufferOutputStream()
        pq.write_table(rest, sink, compression="zstd")
        plan.write(kind, path, rows, sink.getvalue().to_pybytes())
    said = naming_columns(target, rest.drop_columns([c for c in ID_COLUMNS if c in rest.column_names]))
    notes = rest.schema.metadata or {}
    if any(target.is_named_in(value.decode(errors="replace")) for value in notes.values()):
        said.append("the metadata of the file")
    if said:
        plan.leave(path, f"{', '.join(said)} of other slides names them; {BY_HAND}")


def _plan_staging(plan: Plan, found: Survey, target: Target) -> None:
    """Plan for unfinished work: whole folders of slides go, of others what was planned for a patient."""
    folders: dict[str, list[str]] = defaultdict(list)
    for path in found.paths("staging"):
        _, key, *inside = path.split("/")
        deep = key not in target.keys and len(inside) > 1
        folders[f"_staging/{key}/{inside[0]}" if deep else f"_staging/{key}"].append(path)
    entries = found.staged()
    for folder, paths in folders.items():
        plans = [entries[path] for path in paths if path in entries]
        is_theirs = any(target.holds(entry.get("slide_id"), entry.get("patient_id")) for entry in plans)
        if is_theirs or folder.removeprefix("_staging/") in target.keys:
            plan.changes += [Change("staging", path) for path in paths]
            plan.steps.append(partial(storage.remove, plan.url(folder)))
            continue
        for path in paths:
            document = found.documents.get(path)
            if isinstance(document, Unreadable) and target.patients:  # it is planned again
                plan.remove("staging", path)
            elif path in entries and document is not None:
                notes = entries[path].get("warnings") or []
                rest = [note for note in notes if not target.is_quoted_in(str(note))]
                if len(rest) < len(notes):
                    entry = entries[path] | {"warnings": rest}
                    plan.write("staging", path, 0, _json(document | {"entry": entry}))


def _json(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()


def _leave_unreadable(plan: Plan, path: str, why: str) -> None:
    plan.leave(path, f"it may name them, but cannot be read ({why}); {BY_HAND}")


def _leave_if_named(plan: Plan, path: str, document: Any, target: Target) -> None:
    if any(map(target.is_named_in, texts_of(document))):
        plan.leave(path, f"a text in it names them; {BY_HAND}")


def _plan_manifest(plan: Plan, path: str, document: Any, target: Target) -> None:
    if isinstance(document, Unreadable):
        _leave_unreadable(plan, path, document)
        return
    slides = listed(document, "slides")
    rest = [slide for slide in slides if slide not in target.slides]
    if len(rest) < len(slides):
        document = document | {"slides": rest}
        plan.write("manifests", path, len(slides) - len(rest), _json(document))
    others = document if not slides else {k: v for k, v in document.items() if k != "slides"}
    _leave_if_named(plan, path, others, target)


def _plan_cutoffs(plan: Plan, path: str, document: Any, target: Target) -> None:
    """Plan that named cut-offs keep their values and forget which slides they were found on."""
    if isinstance(document, Unreadable):
        _leave_unreadable(plan, path, document)
        return
    count = 0

    def without(value: Any) -> Any:
        nonlocal count
        if isinstance(value, list):
            return [without(item) for item in value]
        if not isinstance(value, dict):
            return value
        found = {}
        for name, item in value.items():
            if name == "controls" and isinstance(item, list):
                rest = [control for control in item if not _is_control(control, target)]
                count += len(item) - len(rest)
                found[name] = rest
            else:
                found[name] = without(item)
        return found

    document = without(document)
    if count:
        plan.write("cutoffs", path, count, _json(document))
    _leave_if_named(plan, path, document, target)


def _is_control(control: Any, target: Target) -> bool:
    slide = control.get("slide_id") if isinstance(control, dict) else control
    return isinstance(slide, str) and slide in target.slides


def _plan_note(plan: Plan, path: str, document: Any, target: Target, going: set[str]) -> None:
    """Plan for what `optimize` noted down to remove; what a damaged note named is noted down again."""
    cells = listed(document, "cells")
    rest = [cell for cell in cells if not (cell in going or target.names(last_part(cell)))]
    if isinstance(document, Unreadable) or (cells and not rest):
        plan.remove("notes", path, len(cells))
    elif len(rest) < len(cells):
        plan.write("notes", path, len(cells) - len(rest), _json(document | {"cells": rest}))


def _plan_lease(plan: Plan, path: str, document: Any, target: Target) -> None:
    """Plan that the last words of runs, which name the newest failures, forget those of the target."""
    progress = document.get("progress") if isinstance(document, dict) else None
    failures = progress.get("newest_failures") if isinstance(progress, dict) else None
    if not isinstance(progress, dict) or not isinstance(failures, list):
        return
    cut = {slide[:_LONGEST] for slide in target.slides}

    def is_theirs(failure: Any) -> bool:
        slide = failure.get("slide_id") if isinstance(failure, dict) else None
        return slide in cut or any(map(target.is_named_in, texts_of(failure)))

    rest = [failure for failure in failures if not is_theirs(failure)]
    if len(rest) < len(failures):
        document = document | {"progress": progress | {"newest_failures": rest}}
        plan.write("lease", path, len(failures) - len(rest), _json(document))


def _plan_damaged(plan: Plan, path: str, found: Survey, target: Target) -> None:
    """Plan for what `check --repair` moved away: nothing needs it, so what holds a trace goes as a whole."""
    holders: Holders | str = found.parquet.get(path, {})
    rows = 0 if isinstance(holders, str) else target.count(holders)
    if rows or target.names(last_part(path)):
        plan.remove("damaged", path, rows)
    elif isinstance(holders, str) and not path.startswith("_damaged/runs/") and may_hold(path, target):
        plan.leave(path, f"it may hold them, but {holders}; {BY_HAND}, or remove it: no answer needs it")
    else:
        _look_at_stranger(plan, path, found, target)


def _look_at_stranger(plan: Plan, path: str, found: Survey, target: Target) -> None:
    """Name a file that is not of this layout and that names one of the target."""
    is_theirs = target.is_named_in(path)
    if not is_theirs:
        content = small_content(found, path) or b""
        is_theirs = target.is_named_in(content.decode(errors="replace"))
        if not is_theirs and path.endswith(".parquet"):
            holders = holders_of(content)
            is_theirs = not isinstance(holders, str) and bool(target.count(holders))
    if is_theirs:
        plan.leave(
            path, "it is no object of these results, and names them; remove it, or what is in it, by hand"
        )
