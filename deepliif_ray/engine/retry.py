"""Which failed slides are worth trying again."""

from concurrent.futures import ThreadPoolExecutor

from deepliif_ray import __version__, storage
from deepliif_ray.engine.work import Job, fingerprint
from deepliif_ray.errors import DeepliifRayError, lasting_reasons
from deepliif_ray.manifest import SlideEntry
from deepliif_ray.tables.ledger import Ledger


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
