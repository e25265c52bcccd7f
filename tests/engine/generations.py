"""Two slides, one of which is scored again from another file: what results may show of them, and what not."""

from dataclasses import dataclass
from pathlib import Path

import duckdb
import polars as pl

from deepliif_ray import connect, score
from deepliif_ray.errors import DeepliifRayError
from deepliif_ray.synthetic import write_cohort
from tests.engine.results import tables
from tests.options import sorted_out

SHOWN = tuple[object, ...]


@dataclass
class Generations:
    """Two manifests of the same slides, what is right for each, and the tables of the second.

    Attributes
    ----------
    first, second : str
        Manifests.
    shown : dict
        What is shown of a slide, by slide_id and generation (``first``, ``second``); see `shown`.
    final : dict
        The tables that the second manifest gives.
    """

    first: str
    second: str
    shown: dict[str, dict[str, SHOWN]]
    final: dict

    def wrong(self, results: str, promised: dict[str, str]) -> str | None:
        """Return what is wrong with results, None if nothing is.

        Parameters
        ----------
        results : str
            URL of the results.
        promised : dict
            By slide_id, the generation that was reported as committed: it or a later one must be shown.
        """
        try:
            found, damaged = shown(results)
        except DeepliifRayError as error:
            if promised:
                return f"promised slides cannot be read: {error}"
            return None if results in str(error) else f"does not say where: {error}"
        except (duckdb.Error, ValueError, OSError, AssertionError) as error:
            return f"{type(error).__name__}: {error}"
        for slide, generation in promised.items():
            later = [what for name, what in self.shown[slide].items() if name >= generation]
            if found.get(slide) not in later:
                said = " (and said so)" if slide in damaged else ""
                return f"{slide}: reported as committed ({generation}), now {found.get(slide)}{said}"
        for slide, what in found.items():
            if what not in self.shown[slide].values() and slide not in damaged:
                return f"{slide}: {what} is of no generation, and nothing is said"
        return None

    def differs(self, results: str) -> str | None:
        """Return which tables are not those of the second manifest, None if all are."""
        found = tables(results)
        names = [name for name, table in self.final.items() if not found[name].equals(table)]
        return f"{', '.join(names)} differ" if names else None


def shown(results: str) -> tuple[dict[str, SHOWN], set[str]]:
    """Return what is shown of each slide, and which slides are said to be damaged."""
    with connect(results) as connection:
        damaged = {slide for (slide,) in connection.execute("SELECT slide_id FROM damaged").fetchall()}
        cells = {
            slide: tuple(rest)
            for slide, *rest in connection.execute(
                "SELECT slide_id, count(*), sum(area_px), sum(x), sum(y), count(DISTINCT cell_id) FROM cells "
                "GROUP BY slide_id"
            ).fetchall()
        }
        columns = "slide_id, n_called, n_positive, index_percent"
        indices = connection.execute(f"SELECT {columns} FROM slide_indices").fetchall()
        at = connection.execute(f"SELECT {columns} FROM slide_indices({{'size_thresh': 20}})").fetchall()
    assert {row[0] for row in indices} == {row[0] for row in at} >= cells.keys()
    by_id = {row[0]: row[1:] for row in at}
    return {slide: (cells.get(slide), tuple(rest), by_id[slide]) for slide, *rest in indices}, damaged


def make(folder: Path) -> Generations:
    """Write the slides and score them undisturbed."""
    first = write_cohort(folder / "cohort", patients=2, markers=("Ki67",), side=400)
    other = write_cohort(folder / "other", patients=2, markers=("Ki67",), side=420, seed=5)
    table = pl.read_csv(first)
    second = first.with_name("second.csv")
    uris = [str(other.parent / table["uri"][0]), *table["uri"][1:]]
    table.with_columns(uri=pl.Series(uris)).write_csv(second)
    known: dict[str, dict[str, SHOWN]] = {}
    for name, manifest in (("first", first), ("second", second)):
        score_local(str(manifest), str(folder / name))
        for slide, what in shown(str(folder / name))[0].items():
            known.setdefault(slide, {})[name] = what
    assert known["P01-Ki67"]["first"] != known["P01-Ki67"]["second"]
    return Generations(str(first), str(second), known, tables(folder / "second"))


def score_local(manifest: str, results: str, **options):
    return score(manifest, results, **sorted_out(**{"model": "toy", "engine": "local", **options}))
