"""Forgets patients and slides while no run works on the results."""

import uuid
from collections.abc import Callable, Collection

from deepliif_ray import storage
from deepliif_ray.engine.run.lease import Lease
from deepliif_ray.tables.forget import ForgetProgress, ForgetSummary, erase


def forget(
    results: str,
    *,
    patients: Collection[str] = (),
    slides: Collection[str] = (),
    dry_run: bool = False,
    watch: Callable[[ForgetProgress], None] | None = None,
) -> ForgetSummary:
    """Remove all that results hold of patients or slides, as for a consent that was withdrawn.

    Cells, records, failures, regions, corrections, unfinished work, lists of slides, copies in the cache of
    this machine: in objects of their own these are removed, objects that hold other slides too are written
    again without them. It cannot be undone. Whoever opened the results before may find that queries fail, and
    opens them again: nothing waits for readers. Other slides' answers stay as they were.

    It may be killed at any time; the same call goes on. While it works it holds the results' lease, so that
    no run begins. Let no `optimize` work meanwhile, which holds none: killed at its end it may leave a trace.

    The manifest and the slides' files are not touched: take the slides out of the manifest, or the next run
    scores them again.

    Parameters
    ----------
    results : str
        URL of the results.
    patients : collection of str
        patient_id: all slides that are such a patient's now. Of a slide that was once and is now another's,
        only what names the earlier patient goes.
    slides : collection of str
        slide_id.
    dry_run : bool
        Change nothing, take no lease, and tell what would go.
    watch : callable, optional
        Called with a `ForgetProgress` after every object.

    Returns
    -------
    ForgetSummary
        ``left`` names objects that a person has to look at.

    Raises
    ------
    ConfigError
        Nobody is named.
    ResultsInUseError
        A run works on these results.
    LeaseLostError
        A run took them over meanwhile.
    ResultsError
        There are no results here, newer software wrote them, or they know no such patient or slide.
    StorageError
        The store does not answer.
    """
    results = storage.absolute(results)
    if isinstance(patients, str) or isinstance(slides, str):  # its letters would be taken for names
        patients = (patients,) if isinstance(patients, str) else patients
        slides = (slides,) if isinstance(slides, str) else slides

    if dry_run or not (patients or slides) or not storage.exists(results):  # it says what is missing
        return erase(results, patients=patients, slides=slides, dry_run=dry_run, watch=watch)
    with Lease(results, f"forget-{uuid.uuid4().hex[:8]}", dict) as lease:

        def tell(progress: ForgetProgress) -> None:
            lease.check()
            if watch is not None:
                watch(progress)

        return erase(results, patients=patients, slides=slides, watch=tell)
