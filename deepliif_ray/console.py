"""What the command line shows: tables in several formats, and how far a run is."""

import json
import sys
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from deepliif_ray.engine.progress import Progress

_QUIET_SECONDS = 15.0
_SHARES = ("plan", "read", "infer", "measure", "write", "finalize")
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
errors = Console(stderr=True, highlight=False, soft_wrap=True)


class Format(StrEnum):
    """How to write a table."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


def _plain(value: Any) -> Any:
    """Return a cell's value as JSON can hold it: bytes as hexadecimal digits, times as ISO text."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return a table's rows with values that JSON can hold."""
    return [
        {name: _plain(value) for name, value in row.items()}
        for row in table.to_pylist(maps_as_pydicts="lossy")
    ]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1 else f"{value:,.2f}"
    if isinstance(value, int):
        return f"{value:,}"
    plain = _plain(value)
    return visible(plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False))


def visible(text: str, keep: str = "") -> str:
    """Return ``text`` with control characters written out: names and messages must not steer a terminal.

    Characters that turn the direction of writing around are written out too; those in ``keep`` are left.
    """
    return "".join(
        c if c in keep or not (unicodedata.category(c) in ("Cc", "Cs") or c in _TURNS) else repr(c)[1:-1]
        for c in text
    )


def show(table: pa.Table, form: Format, output: Path | None = None) -> None:
    """Write a table to standard output, or to the file ``output``."""
    if form is Format.PARQUET:
        pq.write_table(table, sys.stdout.buffer if output is None else output, compression="zstd")
        return
    if form is Format.TABLE:
        text = _rendered(table)
    elif form is Format.JSON:
        text = json.dumps(rows(table), ensure_ascii=False, indent=1) + "\n"
    else:
        records = rows(table)
        columns = {
            name: [
                json.dumps(row[name], ensure_ascii=False)
                if isinstance(row[name], (dict, list))
                else row[name]
                for row in records
            ]
            for name in table.column_names
        }
        text = pl.DataFrame(columns, strict=False).write_csv()
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")


def _rendered(table: pa.Table) -> str:
    grid = Table(box=None, header_style="bold", pad_edge=False)
    for field in table.schema:
        numeric = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        grid.add_column(field.name, justify="right" if numeric else "left", overflow="fold")
    for row in table.to_pylist(maps_as_pydicts="lossy"):
        grid.add_row(*(Text(_text(value)) for value in row.values()))
    terminal = sys.stdout.isatty()
    console = Console(highlight=False, width=None if terminal else 10_000, no_color=not terminal)
    with console.capture() as capture:
        console.print(grid)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def describe(progress: Progress) -> str:
    """Return one line on how far a run is."""
    parts = [f"{progress.done}/{progress.slides} slides"]
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    parts.append(f"{progress.tiles_done:,}/{progress.tiles_planned:,} tiles")
    parts.append(f"{progress.tiles_per_second:.1f} tiles/s")
    parts.append(f"{progress.cells:,} cells")
    left = progress.seconds_left
    if left is not None and progress.done < progress.slides:
        parts.append(f"{time_left(left)} left")
    return " · ".join(parts)


def time_left(seconds: float) -> str:
    """Return seconds as hours, minutes and seconds."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def where_time_went(spent: Mapping[str, float]) -> str | None:
    """Return one line on the share of each step in the time of all workers; None if there is none.

    Parameters
    ----------
    spent : mapping of str to float
        Seconds by step, see `deepliif_ray.engine.progress.STEPS`.
    """
    total = sum(spent.values())
    if total <= 0:
        return None
    shares = sorted(((spent.get(step, 0.0), step) for step in _SHARES), reverse=True)
    listed = ", ".join(f"{step} {100 * seconds / total:.0f} %" for seconds, step in shares if seconds > 0)
    waited = 100 * spent.get("wait", 0.0) / total
    return f"time: {listed}; the workers waited {waited:.0f} %"


class LiveText:
    """Shows lines of text that change: in place on a terminal, else those that are new."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._shown: set[str] = set()

    def __enter__(self) -> "LiveText":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def is_live(self) -> bool:
        """Whether lines are shown in place."""
        return self._live is not None

    def show(self, lines: Sequence[str]) -> None:
        """Show ``lines``; where they cannot be replaced, those not shown before."""
        if self._live is not None:
            self._live.update(Text("\n".join(lines)), refresh=True)
            return
        for line in lines:
            if line not in self._shown:
                self._console.print(Text(line))
        self._shown = set(lines)


class ProgressLine:
    """Shows a run's progress on standard error: a live line on a terminal, else a line now and then.

    Parameters
    ----------
    describe : callable
        Returns the line for what the run says of its progress.
    """

    def __init__(self, describe: Callable[[Any], str] = describe) -> None:
        self._describe = describe
        self._live = Live(console=errors, auto_refresh=False, transient=True) if errors.is_terminal else None
        self._shown = time.monotonic()

    def __enter__(self) -> "ProgressLine":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, progress: Any) -> None:
        """Show ``progress``, if it is time to."""
        now = time.monotonic()
        if now - self._shown < (0.2 if self._live is not None else _QUIET_SECONDS):
            return
        self._shown = now
        if self._live is not None:
            self._live.update(Text(self._describe(progress)), refresh=True)
        else:
            errors.print(self._describe(progress))
