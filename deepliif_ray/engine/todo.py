"""Which slides of a manifest there is something to do for."""

from concurrent.futures import ThreadPoolExecutor

from deepliif_ray import __version__, storage
from deepliif_ray.engine.work import Job, fingerprint, staging_folder
from deepliif_ray.errors import DeepliifRayError, lasting_reasons
from deepliif_ray.manifest import SlideEntry
from deepliif_ray.tables.ledger import Ledger


def not_done(job: Job, entries: list[SlideEntry]) -> list[SlideEntry]:
    """Return the slides not yet committed from the same model, configuration, file and manifest row.

    Of those that are, what a killed run left staged is removed.
    """
    slides = Ledger(job.results, must_exist=False).slides()
    committed = {row["slide_id"]: row for row in slides.to_pylist()}

    def is_done(entry: SlideEntry) -> bool:
        row = committed.get(entry.slide_id)
        if row is None:
            return False
        stated = row["mpp"] if row["mpp_source"] == "manifest" else None
        if (
            (row["model_digest"], row["config_fingerprint"]) != (job.model_digest, job.config_fingerprint)
            or (row["patient_id"], row["marker"]) != (entry.patient_id, entry.marker)
            or dict(row["attributes"]) != entry.attributes
            or (stated, row["image_asked"]) != (entry.mpp, entry.image_asked)
        ):
            return False
        try:
            return bool(fingerprint(entry) == row["slide_fingerprint"])
        except DeepliifRayError:
            return False  # scoring it will tell what is wrong

    with ThreadPoolExecutor(storage.READ_THREADS) as pool:
        done = list(pool.map(is_done, entries))
    # A run killed between a slide's commit and the end of its tidying left its blocks behind.
    staged = {storage.parent(url) for url in storage.list_files(storage.join(job.results, "_staging"))}
    for entry in (entry for entry, known in zip(entries, done, strict=True) if known):
        folder = staging_folder(job, entry, committed[entry.slide_id]["slide_fingerprint"])
        if folder in staged:
            storage.remove(folder)
    return [entry for entry, known in zip(entries, done, strict=True) if not known]


def fingerprints(entries: list[SlideEntry]) -> dict[str, str | None]:
    """Return each slide's fingerprint by slide_id; None where it cannot be had, which scoring will explain.

    They are taken before a run: of a file that is replaced meanwhile, the failure then names the old one, and
    the new one is tried.
    """

    def of(entry: SlideEntry) -> str | None:
        try:
            return fingerprint(entry)
        except DeepliifRayError:
            return None

    with ThreadPoolExecutor(storage.READ_THREADS) as pool:
        found = list(pool.map(of, entries))
    return {entry.slide_id: known for entry, known in zip(entries, found, strict=True)}


def worth_trying(job: Job, entries: list[SlideEntry], known: dict[str, str | None]) -> list[SlideEntry]:
    """Return ``entries`` without those that failed for a lasting reason and would fail the same way again.

    Parameters
    ----------
    job : Job
    entries : list of SlideEntry
        Slides not done yet.
    known : dict
        Their `fingerprints`.
    """
    lasting = lasting_reasons()
    table = Ledger(job.results, must_exist=False).failures()
    failed = {row["slide_id"]: row for row in table.to_pylist() if row["reason"] in lasting}

    def is_same(entry: SlideEntry) -> bool:
        row = failed.get(entry.slide_id)
        # A failure that was recorded without a fingerprint, by older software too, is equal to nothing.
        return row is not None and known[entry.slide_id] is not None and (
            (row["slide_fingerprint"], row["mpp"], row["uri"])
            == (known[entry.slide_id], entry.mpp, entry.uri)
            and (row["model_digest"], row["config_fingerprint"], row["software_version"])
            == (job.model_digest, job.config_fingerprint, __version__)
        )  # fmt: skip

    return [entry for entry in entries if not is_same(entry)]
