"""A results location as a file system of its own, in which the results are the root.

DuckDB reads through it where it cannot be given the objects' own paths: remote stores, and folders whose
names would be taken for a pattern (``*?[``) or a partition (``=``).
"""

from functools import partial

from deepliif_ray import storage
from deepliif_ray.query.ranges import RangesFileSystem

_PATTERN = frozenset("*?[=")


def needs_root(results: str) -> bool:
    """Tell whether DuckDB cannot be given the paths of the objects below ``results`` as they are."""
    return not storage.is_local(results) or not _PATTERN.isdisjoint(storage.absolute(results))


class RootedFileSystem(RangesFileSystem):
    """Read-only view of the objects below one URL, named relative to it.

    Parameters
    ----------
    url : str
        The location that becomes the root.
    """

    @classmethod
    def place(cls, path: str) -> str:
        """Return what DuckDB calls the object at ``path`` in the results."""
        return f"{cls.protocol}://{path}"

    def __init__(self, url: str) -> None:
        place = partial(storage.join, url)
        super().__init__(
            lambda path: storage.size(place(path)),
            lambda path, start, end: storage.read_range(place(path), start, end),
        )
