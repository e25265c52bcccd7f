"""Which slide of the results a file of annotations belongs to."""

import getpass
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from deepliif_ray import storage
from deepliif_ray.annotations.classes import RefusedError
from deepliif_ray.errors import ConfigError
from deepliif_ray.tables.ledger import Ledger

_NOBODYS = (
    "nothing says which slide it is of: give --slide, a property slide_id, or the file the name of its slide"
)
_ENDINGS = (".gz", ".geojson", ".json")


class Slides:
    """The slides of results, found by what files say.

    Parameters
    ----------
    results : str
        URL of the results.
    only : str, optional
        The slide that all files belong to, by its id.

    Raises
    ------
    ResultsError
        There are no results, or newer software wrote them.
    StorageError
        The store does not answer.
    ConfigError
        There is no slide ``only``.
    """

    def __init__(self, results: str, only: str | None = None) -> None:
        self.rows: dict[str, dict[str, Any]] = {
            row["slide_id"]: row for row in Ledger(results).slides().to_pylist()
        }
        self.only = only
        self._by_file: dict[str, set[str]] = defaultdict(set)
        if only is not None and only not in self.rows:
            raise ConfigError(
                f"{results}: there is no slide {only!r}; give a slide_id as the results have it"
            )
        for slide_id, row in self.rows.items():
            name = PurePosixPath(unquote(row["uri"]) if "://" in row["uri"] else row["uri"])
            for said in {slide_id, name.name, name.stem}:
                self._by_file[said].add(slide_id)

    def of_file(self, url: str) -> str | None:
        """Return the slide that a file is named after; None if it is named after none.

        Its name without ``.geojson`` is the slide's id, or the name of the slide's file with or without its
        suffix.

        Raises
        ------
        ConfigError
            It could be any of several.
        """
        if self.only is not None:
            return self.only
        stem = url.rstrip("/").rpartition("/")[2]
        for ending in _ENDINGS:
            if stem.lower().endswith(ending):
                stem = stem[: -len(ending)]
        found = sorted(self._by_file.get(stem, ()))
        if len(found) > 1:
            raise ConfigError(
                f"{url}: by its name this could be of {', '.join(map(repr, found[:5]))}; give --slide"
            )
        return found[0] if found else None

    def refuse_nobodys(self, url: str, said: Sequence[str | None]) -> None:
        """Refuse a file of which neither its name, nor itself, nor any feature says whose it is.

        Raises
        ------
        ConfigError
            Nothing but None is ``said``.
        """
        if not any(said):
            raise ConfigError(f"{url}: {_NOBODYS}")

    def of_feature(self, named: str | None, said: str | None) -> dict[str, Any]:
        """Return the record of the slide that a feature or row belongs to.

        Parameters
        ----------
        named : str or None
            The slide that its file is named after.
        said : str or None
            What it says itself, or its file for all.

        Raises
        ------
        RefusedError
            It belongs to no slide of these results, or its file is named after another.
        """
        if None not in (named, said) and named != said:
            raise RefusedError(
                f"it says that it is of slide {said!r}, its file is taken for one of {named!r}"
            )
        slide_id = said if named is None else named
        if slide_id is None:
            raise RefusedError(_NOBODYS)
        row = self.rows.get(slide_id)
        if row is None:
            raise RefusedError(f"there is no slide {storage.shown(slide_id)} in these results")
        return row


def author_of(given: str | None) -> str:
    """Return who imports: as given, else the user of this process.

    Raises
    ------
    ConfigError
        The system does not tell.
    """
    author = (given or "").strip()
    if author:
        return author
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError) as error:
        raise ConfigError("the system does not tell who you are; give --author NAME") from error
