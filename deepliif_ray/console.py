"""What the command line shows: tables in several formats, and how far a run is."""

import json
import re
import sys
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deepliif_ray.errors import ConfigError, StorageError
from deepliif_ray.plain import csv_text, outline, plain, rows

if TYPE_CHECKING:  # Arrow is slow to import, and help and mistakes need none
    import pyarrow as pa

    from deepliif_ray.engine.run.progress import Progress

_QUIET_SECONDS = 15.0
_SHARES = ("plan", "read", "infer", "measure", "write", "finalize")
_MARKS = re.compile(r"[\\|*`\[\]~]")
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
errors = Console(stderr=True, highlight=False, soft_wrap=True)


class Format(StrEnum):
    """How to write a table."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"
    MARKDOWN = "markdown"


_SUFFIXES = {
    ".csv": Format.CSV,
    ".json": Format.JSON,
    ".parquet": Format.PARQUET,
    ".txt": Format.TABLE,
    ".md": Format.MARKDOWN,
}


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1 else f"{value:,.2f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, bytes) and (shape := outline(value)) is not None:
        return f"POLYGON of {shape.count(',') + 1} points"
    said = plain(value)
    return visible(said if isinstance(said, str) else json.dumps(said, ensure_ascii=False))


def visible(text: str, keep: str = "") -> str:
    """Return ``text`` with control characters written out: names and messages must not steer a terminal.

    Characters that turn the direction of writing around are written out too; those in ``keep`` are left.
    """
    return "".join(
        c if c in keep or not (unicodedata.category(c) in ("Cc", "Cs") or c in _TURNS) else repr(c)[1:-1]
        for c in text
    )


def chosen_format(form: Format | None, output: Path | None) -> Format:
    """Return how to write a table: as asked, else as the file's suffix says, else for the eye.

    Call it before the work: it refuses a file that cannot be written.

    Raises
    ------
    ConfigError
        The suffix is unknown and no format given, or is that of another; the file's folder does not exist.
    """
    if output is None:
        return form or Format.TABLE
    if not output.absolute().parent.is_dir() or output.is_dir():
        raise ConfigError(f"{output}: there is no such folder to write this file to; make it first")
    said = _SUFFIXES.get(output.suffix.lower())
    if said is None and form is None:
        known = ", ".join(_SUFFIXES)
        raise ConfigError(f"{output}: the suffix tells no format; use one of {known}, or give --format")
    if None not in (said, form) and said is not form:
        raise ConfigError(f"{output}: the suffix says {said}, --format {form}; leave one out")
    return form or said or Format.TABLE


def show(table: "pa.Table", form: Format | None, output: Path | None = None) -> None:
    """Write a table to standard output, or to the file ``output``; see `chosen_format`.

    Raises
    ------
    ConfigError
        As `chosen_format`, or the format cannot hold the table.
    StorageError
        The file cannot be written.
    """
    form = chosen_format(form, output)
    if form is Format.PARQUET:
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        try:
            pq.write_table(table, sink, compression="zstd")
        except pa.ArrowException as error:  # intervals, for one
            raise ConfigError(f"Parquet cannot hold this answer ({error}); cast the column") from error
        content = sink.getvalue().to_pybytes()
    elif form is Format.TABLE:
        content = _rendered(table).encode()
    elif form is Format.MARKDOWN:
        content = _markdown(table).encode()
    elif form is Format.JSON:
        content = (json.dumps(rows(table), ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode()
    else:
        content = csv_text(table).encode()
    if output is not None:
        try:
            output.write_bytes(content)
        except OSError as error:
            raise StorageError(f"{output}: cannot be written ({error.strerror})") from error
    elif form is Format.PARQUET:
        sys.stdout.buffer.write(content)
    else:
        sys.stdout.write(content.decode())


def _markdown(table: "pa.Table") -> str:
    """Return a table as GitHub's Markdown shows one, with values as for the eye."""
    lines = [
        [_inert(name) for name in table.column_names],
        ["---:" if _is_numeric(field) else "---" for field in table.schema],
    ]
    for row in table.to_pylist(maps_as_pydicts="lossy"):
        lines.append([_inert(v if isinstance(v, str) else _text(v)) for v in row.values()])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _inert(text: str) -> str:
    """Return ``text`` as Markdown shows it literally, in a cell of a table."""
    text = _MARKS.sub(r"\\\g<0>", text).replace("&", "&amp;").replace("<", "&lt;")
    return visible("<br>".join(text.replace("\r\n", "\n").replace("\r", "\n").split("\n")))


def _is_numeric(field: "pa.Field[Any]") -> bool:
    import pyarrow as pa

    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    return any(is_kind(field.type) for is_kind in kinds)


def _rendered(table: "pa.Table") -> str:
    grid = Table(box=None, header_style="bold", pad_edge=False)
    for field in table.schema:
        justify: Literal["right", "left"] = "right" if _is_numeric(field) else "left"
        grid.add_column(field.name, justify=justify, overflow="fold")
    for row in table.to_pylist(maps_as_pydicts="lossy"):
        grid.add_row(*(Text(_text(value)) for value in row.values()))
    terminal = sys.stdout.isatty()
    console = Console(highlight=False, width=None if terminal else 10_000, no_color=not terminal)
    with console.capture() as capture:
        console.print(grid)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def describe(progress: "Progress") -> str:
    """Return one line on how far a run is."""
    parts = [f"{progress.done}/{progress.slides} slides"]
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    parts.append(f"{progress.tiles_done:,}/{progress.tiles_planned:,} tiles")
    parts.append(f"{progress.tiles_per_second:.1f} tiles/s")
    parts.append(f"{progress.cells:,} cells")
    left = progress.seconds_left
    if progress.is_joining:
        parts.append("joining cells")
    elif left is not None and progress.done < progress.slides:
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
        Seconds by step, see `deepliif_ray.engine.run.progress.STEPS`.
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
        from rich.live import Live

        self._console = Console(highlight=False, soft_wrap=True)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._shown: set[str] = set()

    def __enter__(self) -> Self:
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
    """Shows a run's progress on standard error: a bar and a line on a terminal, else a line now and then.

    Parameters
    ----------
    describe : callable
        Returns the line for what the run says of its progress. The bar shows its ``share``, from 0 to 1; what
        has none moves to and fro.
    """

    def __init__(self, describe: Callable[[Any], str] = describe) -> None:
        from rich import progress as bars  # slow to import, and help does without

        self._describe = describe
        columns = bars.BarColumn(bar_width=20), bars.TextColumn("{task.description}", markup=False)
        self._bar = bars.Progress(*columns, console=errors, transient=True) if errors.is_terminal else None
        self._task = None if self._bar is None else self._bar.add_task("", total=None)
        self._shown = time.monotonic()

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, progress: Any) -> None:
        """Show ``progress``, if it is time to."""
        now = time.monotonic()
        if now - self._shown < (0.2 if self._bar is not None else _QUIET_SECONDS):
            return
        self._shown = now
        text = self._describe(progress)
        if self._bar is None or self._task is None:
            errors.print(text, markup=False)
            return
        share = getattr(progress, "share", None)
        done = {} if share is None else {"completed": share, "total": 1.0}
        self._bar.update(self._task, description=text, **done)
