"""Every error this package raises on purpose.

Each message names the file or slide and says what to do. ``reason`` is the short, stable word that goes
into the ``failures`` table, so that failures can be counted and filtered in SQL.
"""


class DeepliifRayError(Exception):
    """Base class of all errors raised by deepliif_ray."""

    reason = "error"
    lasting = False
    """Whether it comes back until the slide's file, its manifest row, the options or the software change."""


class ConfigError(DeepliifRayError):
    """An option has a value that cannot be used."""

    reason = "bad_config"


class MissingExtraError(DeepliifRayError, ImportError):
    """A library that comes with an extra is not installed; the message says which `pip install` brings it."""

    reason = "not_installed"


class StorageError(DeepliifRayError):
    """A URL cannot be read or written."""

    reason = "storage"


class StorageMissingError(StorageError, FileNotFoundError):
    """There is no object at the URL."""

    reason = "missing"


class AddressRefusedError(StorageError):
    """A web address leads into the network that this machine stands in, which is not allowed."""

    reason = "address"


class ManifestError(DeepliifRayError):
    """The manifest cannot be used; the message lists every problem by row.

    Parameters
    ----------
    source : str
        URL of the manifest.
    problems : list of str
        One line a problem, each naming its row.
    """

    reason = "bad_manifest"

    def __init__(self, source: str, problems: list[str]) -> None:
        self.source = source
        self.problems = problems
        count = len(problems)
        lines = "\n".join(f"  - {problem}" for problem in problems)
        super().__init__(f"{source}: {count} problem{'s' * (count != 1)} in the manifest:\n{lines}")

    def __reduce__(self) -> tuple[type["ManifestError"], tuple[str, list[str]]]:
        return type(self), (self.source, self.problems)


class ModelError(DeepliifRayError):
    """A model cannot be loaded or run."""

    reason = "model"


class ResultsError(DeepliifRayError):
    """A results location cannot be used."""

    reason = "results"


class ResultsInUseError(ResultsError):
    """Another run works on the same results."""

    reason = "in_use"


class LeaseLostError(DeepliifRayError):
    """Another run took the results over; this one must not go on."""

    reason = "taken_over"


class AnnotationError(DeepliifRayError):
    """A file of regions or corrections cannot be used; nothing of it was imported."""

    reason = "annotation"


class QueryError(DeepliifRayError):
    """A query cannot be answered."""

    reason = "query"


class JobError(DeepliifRayError):
    """A job cannot be submitted, followed or stopped."""

    reason = "job"


class SlideError(DeepliifRayError):
    """A slide cannot be scored; it becomes a row of ``failures`` and the cohort goes on."""

    reason = "slide"


class SlideMissingError(SlideError):
    """There is no file at the slide's URL, or it may not be read."""

    reason = "missing"


class SlideUnreadableError(SlideError):
    """The file is not a slide or image that can be opened."""

    reason = "unreadable"
    lasting = True


class SlideUnsuitableError(SlideError):
    """The file is sound, but it is not one RGB brightfield image that can be scored."""

    reason = "unsuitable"
    lasting = True


class SlideCorruptError(SlideError):
    """The file opened, but some of its pixels cannot be decoded."""

    reason = "corrupt"
    lasting = True


class ResolutionError(SlideError):
    """The slide's resolution is unknown or cannot be used."""

    reason = "resolution"
    lasting = True


class SlideChangedError(SlideError):
    """The slide's file changed while it was being scored."""

    reason = "changed"


class SlideTooLargeError(SlideError):
    """The slide claims dimensions that no slide has."""

    reason = "too_large"
    lasting = True


class SlideCrashedError(SlideError):
    """A process that read the slide, or worked on it, crashed."""

    reason = "crashed"


class SlideTimeoutError(SlideError):
    """Reading the slide took longer than a read may."""

    reason = "timeout"


class SlideMemoryError(SlideError):
    """Reading the slide needed more memory than a reader may take."""

    reason = "memory"


def lasting_reasons() -> frozenset[str]:
    """Return the reasons of failures that trying again does not mend."""
    found, waiting = set(), [DeepliifRayError]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.lasting:
            found.add(kind.reason)
    return frozenset(found)
