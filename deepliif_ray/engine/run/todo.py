"""Which slides of a manifest there is something to do for, and what."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from deepliif_ray import __version__, storage
from deepliif_ray.engine.work import MANIFEST_NOTE, RunContext, staging_folder
from deepliif_ray.errors import DeepliifRayError, lasting_reasons
from deepliif_ray.manifest import SlideEntry
from deepliif_ray.slide_access import content_of, version_of
from deepliif_ray.tables.damage import sound_ledger
from deepliif_ray.tables.ledger import Ledger

Row = dict[str, Any]


@dataclass(frozen=True)
class Refresh:
    """A slide that is scored already, of which something else changed than what its numbers depend on.

    Attributes
    ----------
    entry : SlideEntry
        What the manifest says now.
    row : dict
        The commit record.
    version : str
        The store's version of the slide now.
    """

    entry: SlideEntry
    row: Row
    version: str


@dataclass
class Todo:
    """What is to be done with the slides of a manifest; those in no list are done."""

    score: list[SlideEntry] = field(default_factory=list)
    refresh: list[Refresh] = field(default_factory=list)


def sort_out(context: RunContext, entries: list[SlideEntry]) -> Todo:
    """Tell what is to be done with slides.

    A slide is scored if it is not committed from the same model and configuration, the same content, and
    the same statements of the manifest about pixel size, series and plane, or if its cells are lost. If its
    store says that the file is as it was, it is not read; else its content is compared. What else the
    manifest says (patient, marker, place, attributes) is refreshed. Of slides that are done, what a killed
    run left staged is removed.
    """
    ledger, damaged = sound_ledger(context.results, must_exist=False)
    lost = {damage.slide_id for damage in damaged if damage.kind == "cells"}
    committed = {row["slide_id"]: row for row in ledger.generations().to_pylist()}

    def sort(entry: SlideEntry) -> SlideEntry | Refresh | None:
        row = committed.get(entry.slide_id)
        if (
            row is None
            or entry.slide_id in lost
            or not _made_alike(context, entry, row)
            or (row["n_cells"] and row["cells_path"] is None)
        ):
            return entry  # new, made otherwise, its cells lost, or retired and its cells forgotten
        try:
            version = version_of(entry)
            is_same = row["slide_version"] == version and row["uri"] == entry.uri
            if not is_same or version.startswith("?"):
                content, version = content_of(entry)
                if content != row["slide_fingerprint"]:
                    return entry
        except DeepliifRayError:
            return entry  # scoring it will tell what is wrong
        if row["retired"] or _told(entry) != _as_recorded(row) or row["slide_version"] != version:
            return Refresh(entry, row, version)
        return None

    with ThreadPoolExecutor(storage.READ_THREADS) as pool:
        sorted_out = list(pool.map(sort, entries))
    _tidy(context, [e for e, what in zip(entries, sorted_out, strict=True) if what is None], committed)
    return Todo(
        score=[what for what in sorted_out if isinstance(what, SlideEntry)],
        refresh=[what for what in sorted_out if isinstance(what, Refresh)],
    )


def _made_alike(context: RunContext, entry: SlideEntry, row: Row) -> bool:
    """Tell whether scoring the slide again would give the same numbers, if its content is what it was."""
    stated = row["mpp"] if row["mpp_source"] == "manifest" else None
    return (row["model_digest"], row["config_fingerprint"], stated, row["image_asked"]) == (
        context.model_digest,
        context.config_fingerprint,
        entry.mpp,
        entry.image_asked,
    )


def _told(entry: SlideEntry) -> tuple[object, ...]:
    notes = [f"{MANIFEST_NOTE}{note}" for note in entry.warnings]
    return entry.patient_id, entry.marker, entry.uri, entry.attributes, notes


def _as_recorded(row: Row) -> tuple[object, ...]:
    notes = [note for note in row["warnings"] if note.startswith(MANIFEST_NOTE)]
    return row["patient_id"], row["marker"], row["uri"], dict(row["attributes"]), notes


def _tidy(context: RunContext, done: list[SlideEntry], committed: dict[str, Row]) -> None:
    """Remove what a run left staged that was killed between a slide's commit and the end of its tidying."""
    staged = {storage.parent(url) for url in storage.list_files(storage.join(context.results, "_staging"))}
    for entry in done:
        folder = staging_folder(context, entry, committed[entry.slide_id]["slide_fingerprint"])
        if folder in staged:
            storage.remove(folder)


def versions(entries: list[SlideEntry]) -> dict[str, str | None]:
    """Return the store's version of each slide by slide_id; None where it cannot be had, as scoring tells.

    They are taken before a run: of a file that is replaced meanwhile, the failure then names the old one, and
    the new one is tried.
    """

    def of(entry: SlideEntry) -> str | None:
        try:
            return version_of(entry)
        except DeepliifRayError:
            return None

    with ThreadPoolExecutor(storage.READ_THREADS) as pool:
        found = list(pool.map(of, entries))
    return {entry.slide_id: known for entry, known in zip(entries, found, strict=True)}


def worth_trying(
    context: RunContext, entries: list[SlideEntry], known: dict[str, str | None]
) -> list[SlideEntry]:
    """Return ``entries`` without those that failed for a lasting reason and would fail the same way again.

    Parameters
    ----------
    context : RunContext
    entries : list of SlideEntry
        Slides not done yet.
    known : dict
        Their `versions`.
    """
    lasting = lasting_reasons()
    table = Ledger(context.results, must_exist=False).failures()
    failed = {row["slide_id"]: row for row in table.to_pylist() if row["reason"] in lasting}

    def is_same(entry: SlideEntry) -> bool:
        row = failed.get(entry.slide_id)
        # A failure that was recorded without a version, by older software too, is equal to nothing.
        return row is not None and known[entry.slide_id] is not None and (
            (row["slide_version"], row["mpp"], row["uri"]) == (known[entry.slide_id], entry.mpp, entry.uri)
            and (row["model_digest"], row["config_fingerprint"], row["software_version"])
            == (context.model_digest, context.config_fingerprint, __version__)
        )  # fmt: skip

    return [entry for entry in entries if not is_same(entry)]
