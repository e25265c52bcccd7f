"""When a job runs by itself: a cron expression as Kubernetes reads it, and a time zone."""

import re
import zoneinfo
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 6, _DAYS),
)
_MACROS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_PART = re.compile(r"(?P<low>\*|\?|\w+)(-(?P<high>\w+))?(/(?P<step>\d+))?", re.ASCII)


class Schedule(BaseModel):
    """When a job is started; the manifests in ``infra/`` become a Kubernetes ``CronJob`` from it.

    Attributes
    ----------
    cron : str
        Five fields (minute, hour, day of month, month, day of week), or ``@daily`` and the like.
    time_zone : str
        Name of an IANA time zone, in which the fields are meant.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cron: Annotated[str, Field(examples=["0 2 * * *"])]
    time_zone: str = "Etc/UTC"

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, text: str) -> str:
        check_cron(text)
        return text

    @field_validator("time_zone")
    @classmethod
    def _is_time_zone(cls, name: str) -> str:
        known = zoneinfo.available_timezones()
        if known and name not in known:  # an image without time zone data knows none
            raise ValueError("not an IANA time zone; use a name such as Europe/Zurich or Etc/UTC")
        return name


def check_cron(text: str) -> None:
    """Make sure that Kubernetes would take ``text`` as the schedule of a ``CronJob``.

    Raises
    ------
    ValueError
        It would not; the message says which field is wrong.
    """
    if text in _MACROS:
        return
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(
            f"{len(fields)} fields where cron has 5 (minute, hour, day of month, month, day of week); "
            "for every night at two write 0 2 * * *, and the time zone under time_zone"
        )
    for field, (name, least, most, words) in zip(fields, _FIELDS, strict=True):
        for part in field.split(","):
            if not _is_part(part, least, most, words):
                raise ValueError(f"{name} {part!r} is not between {least} and {most}, *, a range or a step")


def _is_part(part: str, least: int, most: int, words: tuple[str, ...]) -> bool:
    match = _PART.fullmatch(part)
    if match is None or (match["step"] is not None and int(match["step"]) == 0):
        return False
    if match["low"] in "*?":
        return match["high"] is None
    low = _number(match["low"], least, words)
    high = low if match["high"] is None else _number(match["high"], least, words)
    return low is not None and high is not None and least <= low <= high <= most


def _number(text: str, least: int, words: tuple[str, ...]) -> int | None:
    if text.lower() in words:
        return words.index(text.lower()) + least
    return int(text) if text.isdigit() else None
