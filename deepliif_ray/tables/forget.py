"""Takes all that results hold of slides or patients out of them: the rows, the objects, the words about them.

What is begun is noted down first, as ``_forget/<time>-<digits>.json``, and the note goes last. So whoever is
killed can begin anew, though half of what told the slides of a patient is gone already.
"""

import difflib
import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError, ResultsError
from deepliif_ray.tables.beside import plan_beside
from deepliif_ray.tables.check import FORGET_FOLDER
from deepliif_ray.tables.erasure import Change, Plan, last_part, plan_tables
from deepliif_ray.tables.ledger import slide_key
from deepliif_ray.tables.records import Damage
from deepliif_ray.tables.survey import BESIDE, Said, Survey, listed, survey
from deepliif_ray.tables.traces import Target

_MOST_PASSES = 5
_LISTED = 5


@dataclass(frozen=True)
class Erased:
    """What went of one kind of objects.

    Attributes
    ----------
    kind : str
        ``cells``, ``slides`` (commit records), ``failures``, ``regions``, ``region_cells``, ``corrections``,
        ``staging``, ``manifests`` (lists of slides), ``cutoffs``, ``notes``, ``lease``, ``damaged``,
        ``temporary`` or ``cache``.
    removed, rewritten : int
        Objects.
    rows : int
        Rows, or entries of a list, that were in them.
    """

    kind: str
    removed: int
    rewritten: int
    rows: int


@dataclass(frozen=True)
class ForgetSummary:
    """What was forgotten.

    Attributes
    ----------
    results : str
        URL of the results.
    patients : tuple of str
        As they were asked for.
    slides : tuple of str
        Slides of which everything went.
    kept : tuple of (str, str)
        Slides that were such a patient's once and are another's now, who is named: only what names the
        earlier one went.
    erased : tuple of Erased
        By kind.
    left : tuple of Damage
        Objects that may hold something still and that a person has to look at.
    dry_run : bool
        Whether it was only looked for.
    seconds : float
    """

    results: str
    patients: tuple[str, ...]
    slides: tuple[str, ...]
    kept: tuple[tuple[str, str], ...]
    erased: tuple[Erased, ...]
    left: tuple[Damage, ...]
    dry_run: bool
    seconds: float

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to be looked at by hand."""
        return not self.left


@dataclass
class ForgetProgress:
    """How far it is: objects looked at or changed, of those known so far."""

    doing: str = "looking"
    objects: int = 0
    done: int = 0

    @property
    def share(self) -> float | None:
        """How much of this part is done, 0 to 1; None while that is not known."""
        return self.done / self.objects if self.objects else None


@dataclass(frozen=True)
class _Resolved:
    """Whose traces go, and which slides keep the rest of theirs."""

    target: Target
    kept: tuple[tuple[str, str], ...]


def erase(
    results: str,
    *,
    patients: Collection[str] = (),
    slides: Collection[str] = (),
    dry_run: bool = False,
    watch: Callable[[ForgetProgress], None] | None = None,
) -> ForgetSummary:
    """Remove all that results, and the cache of this machine, hold of patients and slides.

    No run and no `optimize` may be at work meanwhile. See `deepliif_ray.engine.run.forget.forget`, which
    makes sure of the first.

    Parameters
    ----------
    results : str
        URL of the results.
    patients, slides : collection of str
        patient_id and slide_id.
    dry_run : bool
        Only tell what would go.
    watch : callable, optional
        Called with a `ForgetProgress` after every object.

    Returns
    -------
    ForgetSummary

    Raises
    ------
    ConfigError
        Nobody is named.
    ResultsError
        There are no results here, newer software wrote them, or they know no such patient or slide; then
        nothing was changed. Or somebody else writes to them all the time.
    StorageError
        The store does not answer; the same call goes on.
    """
    start = time.perf_counter()
    if not patients and not slides:
        raise ConfigError("nobody to forget: name a patient or a slide")
    progress = ForgetProgress()

    def tell(doing: str, done: int, objects: int) -> None:
        progress.doing, progress.done, progress.objects = doing, done, objects
        if watch is not None:
            watch(progress)

    found = _looked(results, tell)
    resolved = _resolved(found, set(patients), set(slides))
    target = resolved.target
    copies = _copies(found, target)
    changes = [Change("cache", copy) for copy in copies]
    plan = _planned(found, target)
    changes += plan.changes
    left = [*_named_like(resolved, set(patients)), *plan.left]
    if not dry_run:
        mark = _note(results, target)
        left += _drop_copies(copies)
        passes = 1
        while plan.steps:
            for done, step in enumerate(plan.steps):
                tell("erasing", done, len(plan.steps))
                step()
            if passes == _MOST_PASSES:
                raise ResultsError(
                    f"{results}: others write here all the time; see to it that nobody does, and run it again"
                )
            passes += 1
            plan = _planned(_looked(results, tell, found), target)
            changes += plan.changes
            left = [damage for damage in left if damage.kind in ("cache", "name")] + plan.left
        for url in {mark, *_marks(found)}:
            storage.remove(url)
        for folder in ("cells", "_staging", "_damaged", FORGET_FOLDER, *BESIDE):
            storage.remove_empty(storage.join(results, folder))
    return ForgetSummary(
        results=results,
        patients=tuple(sorted(patients)),
        slides=tuple(sorted(target.slides)),
        kept=resolved.kept,
        erased=tuple(_by_kind(changes)),
        left=tuple(dict.fromkeys(left)),
        dry_run=dry_run,
        seconds=time.perf_counter() - start,
    )


def _looked(results: str, tell: Callable[[str, int, int], None], before: Survey | None = None) -> Survey:
    return survey(results, lambda done, objects: tell("looking", done, objects), before)


def _planned(found: Survey, target: Target) -> Plan:
    plan = Plan(found.results)
    plan_tables(plan, found, target)
    plan_beside(plan, found, target)
    return plan


def _by_kind(changes: Iterable[Change]) -> Iterable[Erased]:
    removed, rewritten, rows = Counter[str](), Counter[str](), Counter[str]()
    for change in changes:
        (rewritten if change.is_rewritten else removed)[change.kind] += 1
        rows[change.kind] += change.rows
    for kind in rows:
        yield Erased(kind, removed[kind], rewritten[kind], rows[kind])


def _resolved(found: Survey, patients: set[str], slides: set[str]) -> _Resolved:
    """Tell whose traces go.

    A slide is the patient's that is named with it last; an older generation may be another's.
    """
    begun = [found.documents[path] for path in found.paths("marks")]
    begun_patients = {patient for document in begun for patient in listed(document, "patients")}
    begun_slides = {slide for document in begun for slide in listed(document, "slides")}
    said = list(found.said())
    _refuse_unknown(found, said, patients - begun_patients, slides - begun_slides)
    patients = patients | begun_patients
    last: dict[str, Said] = {}
    for one in said:
        before = last.get(one.slide)
        if one.when is not None and (before is None or before.when is None or one.when >= before.when):
            last[one.slide] = one
    theirs = {one.slide for one in said if one.patient in patients}
    gone = {s for s in theirs if s not in last or last[s].patient in patients} | slides | begun_slides
    kept = {slide: last[slide].patient for slide in theirs - gone}
    return _Resolved(Target(frozenset(gone), frozenset(patients)), tuple(sorted(kept.items())))


def _refuse_unknown(found: Survey, said: list[Said], patients: set[str], slides: set[str]) -> None:
    known = {"patient": {one.patient for one in said}, "slide": found.slides()}
    names = {last_part(path) for path in found.stored}
    problems = []
    for kind, asked in (("patient", patients), ("slide", slides)):
        for name in sorted(asked - known[kind]):
            if kind == "slide" and _has_objects(found, names, name):
                continue
            near = difflib.get_close_matches(name, known[kind], n=3, cutoff=0.6)
            near = near or [other for other in known[kind] if other.casefold() == name.casefold()]
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            problems.append(f"there is no {kind} {name!r} here{hint}")
    if problems:
        more = f" and {len(problems) - _LISTED} more" * (len(problems) > _LISTED)
        raise ResultsError(
            f"{found.results}: {'; '.join(problems[:_LISTED])}{more}; nothing was changed. Give ids exactly "
            "as the manifest has them"
        )


def _has_objects(found: Survey, names: set[str], slide: str) -> bool:
    """Tell whether some object is called like a slide, though none holds its name inside."""
    target = Target(frozenset((slide,)), frozenset())
    staged = {path.split("/")[1] for path in found.paths("staging")}
    return slide_key(slide) in staged or any(map(target.names, names))


def _note(results: str, target: Target) -> str:
    """Note down what is begun; return the note's URL."""
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}.json"
    url = storage.join(results, FORGET_FOLDER, name)
    document = {"patients": sorted(target.patients), "slides": sorted(target.slides)}
    storage.write_bytes(url, json.dumps(document, ensure_ascii=False).encode())
    return url


def _marks(found: Survey) -> list[str]:
    return [storage.join(found.results, path) for path in found.paths("marks")]


def _named_like(resolved: _Resolved, patients: set[str]) -> list[Damage]:
    """Tell of slides that stay and whose name holds that of a patient who goes."""
    return [
        Damage(
            slide, "name", slide, f"the slide's own name holds {patient!r}; give it another in the manifest"
        )
        for slide, _ in resolved.kept
        for patient in sorted(patients)
        if patient in slide
    ]


def _copies(found: Survey, target: Target) -> list[str]:
    """Return the names of what the cache of this machine holds of the slides, in their place first.

    A copy is known by the slide's URL and version, which records, failures and plans tell.
    """
    rows: list[dict[str, Any]] = []
    for name in ("slides", "failures"):
        columns = ["slide_id", "patient_id", "uri", "slide_version"]
        rows += found.records[name].table.select(columns).to_pylist()
    for path, entry in found.staged().items():
        rows.append(entry | {"slide_version": found.documents[path].get("slide_version")})
    going: set[tuple[str, str]] = set()
    staying: set[tuple[str, str]] = set()
    for row in rows:
        if isinstance(row.get("uri"), str):
            is_theirs = target.holds(row.get("slide_id"), row.get("patient_id"))
            (going if is_theirs else staying).add((row["uri"], row.get("slide_version") or ""))
    return storage.find_copies(storage.default_cache(), going, staying)


def _drop_copies(copies: list[str]) -> list[Damage]:
    problem = "a copy in this machine's cache of slides is in use; run this again when its reader has ended"
    in_use = storage.drop_copies(storage.default_cache(), copies)
    return [Damage(copy, "cache", None, problem) for copy in in_use]
