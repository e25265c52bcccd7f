"""What a report is about: which cells count, which marker, what groups slides."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from deepliif_ray.errors import ConfigError
from deepliif_ray.exports.cells import Calls
from deepliif_ray.query.streaming import Stream
from deepliif_ray.scoring.markers import registry_with
from deepliif_ray.tables.cohort import read_markers

PICTURES = 6


@dataclass(frozen=True)
class Choice:
    """What is asked of a report.

    Attributes
    ----------
    calls : Calls
        Which cells count and how they are called.
    marker : str, optional
        One marker only, by any of its names.
    by : str, optional
        Column of the manifest that groups slides for the drift of stain; by default ``site`` if there is one,
        and else the day of scoring.
    pictures : int
        Pictures of slides at most.
    without_slides : bool
        Pictures on white; no slide is read.
    price_per_hour : float, optional
        Price of what a run runs on, an hour.
    """

    calls: Calls = field(default_factory=Calls)
    marker: str | None = None
    by: str | None = None
    pictures: int = PICTURES
    without_slides: bool = False
    price_per_hour: float | None = None

    def __post_init__(self) -> None:
        if self.pictures < 0:
            raise ConfigError(f"{self.pictures} pictures; give 0 or more")
        if self.price_per_hour is not None and not 0 <= self.price_per_hour < float("inf"):
            raise ConfigError(f"a price of {self.price_per_hour} an hour; give 0 or more")


def said_of(calls: Calls) -> list[tuple[str, str]]:
    """Return how cells were chosen and called, as pairs of what and how."""
    cutoffs = calls.cutoffs
    if isinstance(cutoffs, Mapping):
        told = ", ".join(f"{name} = {value}" for name, value in cutoffs.items())
    else:
        told = "published defaults" if cutoffs is None else f"set {cutoffs!r}, kept with the results"
    region = "all that is not excluded" if calls.region is None else f"regions of class {calls.region!r} only"
    corrections = "counted" if calls.corrections else "left out: calls as measured"
    return [("Cut-offs", told), ("Tissue", region), ("Corrections by people", corrections)]


def marker_named(results: str, stream: Stream, name: str | None) -> str | None:
    """Return what results call a marker.

    Raises
    ------
    ConfigError
        No slide is of this marker, or there is no such marker.
    """
    if name is None:
        return None
    known = registry_with(read_markers(results), results).read(name)[0].name
    query = "SELECT marker FROM slides UNION SELECT marker FROM failures ORDER BY 1"
    there = stream.table(query)["marker"].to_pylist()
    if known not in there:
        raise ConfigError(
            f"{results}: there are no slides of marker {name!r}; there are {', '.join(there) or 'none'}"
        )
    return known
