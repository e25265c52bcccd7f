"""What results know of the cohort they are of: the slides of each manifest, and markers of its own.

Beside the tables lie::

    _manifests/<digest>.json    the slides of a manifest that a run had; `runs.manifest_digest` names it
    _markers.json               markers given with ``--markers``, in the form of ``schemas/markers.yaml``
"""

import json
from typing import Any

import pyarrow as pa

from deepliif_ray import storage
from deepliif_ray.errors import ResultsError, StorageMissingError
from deepliif_ray.tables.ledger import Ledger
from deepliif_ray.tables.records import read_if_there

_MANIFESTS, _MARKERS = "_manifests", "_markers.json"
LEFTOVERS = pa.schema(
    {
        "slide_id": pa.string(),
        "patient_id": pa.string(),
        "marker": pa.string(),
        "uri": pa.string(),
        "manifest_uri": pa.string(),
        "renamed_to": pa.string(),
    }
)


def write_manifest(results: str, digest: str, slide_ids: list[str]) -> None:
    """Note down the slides of a manifest, if they are not there yet: one may have been forgotten since."""
    url = storage.join(results, _MANIFESTS, f"{digest}.json")
    content = json.dumps({"slides": sorted(slide_ids)}, ensure_ascii=False).encode()
    if read_if_there(url) != content:
        storage.write_bytes(url, content)


def leftovers(ledger: Ledger) -> pa.Table:
    """Return the slides of results that the newest run's manifest does not list; see `LEFTOVERS`.

    ``renamed_to`` is a slide of that manifest with the same content. The table is empty if no run says what
    its manifest was.
    """
    runs = [run for run in ledger.runs().to_pylist() if run["manifest_digest"]]
    listed = _listed(ledger.results, runs[-1]["manifest_digest"]) if runs else None
    if listed is None:
        return LEFTOVERS.empty_table()
    return missing(ledger, listed, runs[-1]["manifest_uri"])


def missing(ledger: Ledger, listed: set[str], manifest_uri: str) -> pa.Table:
    """Return the slides of results that are not among ``listed``; see `leftovers`."""
    slides = ledger.slides()
    ids = slides.column("slide_id").to_pylist()
    names = ("slide_id", "patient_id", "marker", "uri", "slide_fingerprint", "slide_version", "image_asked")
    if all(slide_id in listed for slide_id in ids):
        return LEFTOVERS.empty_table()
    rows = slides.select(names).to_pylist()
    now = {
        (row["slide_fingerprint"], row["image_asked"]): row["slide_id"]
        for row in rows
        if row["slide_id"] in listed
        and row["slide_version"] is not None  # older fingerprints are not of content
    }
    left = [
        row
        | {
            "manifest_uri": manifest_uri,
            "renamed_to": now.get((row["slide_fingerprint"], row["image_asked"])),
        }
        for row in rows
        if row["slide_id"] not in listed
    ]
    return pa.Table.from_pylist(left, schema=LEFTOVERS)


def _listed(results: str, digest: str) -> set[str] | None:
    document = _read(storage.join(results, _MANIFESTS, f"{digest}.json"))
    slides = document.get("slides") if isinstance(document, dict) else None
    return None if slides is None else set(slides)


def write_markers(results: str, document: dict[str, Any]) -> None:
    """Keep the markers of a cohort with its results."""
    storage.write_bytes(storage.join(results, _MARKERS), json.dumps(document, ensure_ascii=False).encode())


def read_markers(results: str) -> dict[str, Any] | None:
    """Return the markers that were given with these results; None if there were none.

    Raises
    ------
    ResultsError
        They cannot be read.
    StorageError
        The store does not answer.
    """
    document = _read(storage.join(results, _MARKERS))
    return document if isinstance(document, dict) else None


def _read(url: str) -> Any:
    try:
        return json.loads(storage.read_bytes(url))
    except StorageMissingError:
        return None
    except ValueError as error:
        raise ResultsError(
            f"{url}: damaged ({error}); remove it, and score again to have it written"
        ) from error
