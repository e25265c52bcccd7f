"""What all commands share: the application, exit codes, stopping, errors."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from deepliif_ray import __version__
from deepliif_ray.cli.journeys import Group
from deepliif_ray.console import Format, ProgressLine, describe, errors, visible
from deepliif_ray.errors import (
    AnnotationError,
    ConfigError,
    DeepliifRayError,
    ManifestError,
    ModelError,
    QueryError,
    ResultsError,
)
from deepliif_ray.extras import missing_extra

OK, ERROR, USAGE, SOME_FAILED = 0, 1, 2, 3
_log = logging.getLogger(__name__)
_STOP_S = 25.0

app = typer.Typer(
    name="deepliif-ray",
    cls=Group,
    help="Score cohorts of IHC slides with DeepLIIF on Ray, query the results, train and evaluate models.",
    epilog="Begin with `deepliif-ray demo`. Each command has examples: `deepliif-ray score -h`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format", help="How to write the table; by default as the output's suffix says, or table."
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output", help="File to write to: .csv, .json, .parquet, .md or .txt; else standard output."
    ),
]

RegionOption = Annotated[
    str | None, typer.Option(help="Only cells in regions of this class, such as Tumor; see `regions`.")
]
CutoffsOption = Annotated[
    str | None, typer.Option(help="A set of cut-offs that is kept with the results; see `cutoffs`.")
]
WithoutCorrectionsOption = Annotated[
    bool, typer.Option("--without-corrections", help="Calls as measured, not as people corrected them.")
]


@contextmanager
def stoppable(line: Callable[[Any], str] = describe) -> Iterator[ProgressLine]:
    """Show progress; a stop by Ctrl-C or SIGTERM ends the command quietly, not its work."""
    try:
        with ProgressLine(line) as progress:
            yield progress
    except KeyboardInterrupt as error:
        errors.print("stopped; what is finished is kept: run the same command again to go on")
        raise typer.Exit(ERROR) from error


def area_of(option: str, text: str) -> tuple[int, int, int, int]:
    """Return the area that an option gives as X,Y,WIDTH,HEIGHT.

    Raises
    ------
    ConfigError
        It is not four whole numbers.
    """
    try:
        x, y, width, height = map(int, text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"{option} {text!r} is not four whole numbers, X,Y,WIDTH,HEIGHT, such as 400,400,1000,800"
        ) from error
    return x, y, width, height


def command_name() -> str:
    """Return what to type to run this again."""
    return sys.argv[0] if Path(sys.argv[0]).name == "deepliif-ray" else "deepliif-ray"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"deepliif-ray {__version__}")
        raise typer.Exit(OK)


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    storage_options: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Options of stores, credentials too; see docs/storage.md."),
    ] = None,
) -> None:
    if storage_options is not None:
        from deepliif_ray.storage import use_options_file  # slow to import

        use_options_file(storage_options)


def _terminate(*_: object) -> None:
    """Stop, and be gone before whoever sent the signal loses patience (Kubernetes: 30 s)."""
    deadline = threading.Timer(_STOP_S, os._exit, [ERROR])
    deadline.daemon = True
    deadline.start()
    raise KeyboardInterrupt


def _guarded(command: Callable[[], Any]) -> int:
    try:
        command()
    except (AnnotationError, ConfigError, ManifestError, ModelError, QueryError, ResultsError) as error:
        _say(error)
        return USAGE
    except DeepliifRayError as error:
        _say(error)
        return ERROR
    except ModuleNotFoundError as error:
        missing = missing_extra(error, "this command")
        if missing is None:
            raise
        _say(missing)
        return USAGE
    return OK


def _say(error: DeepliifRayError) -> None:
    if errors.quiet:  # standard error is a log of JSON lines
        _log.error("command.failed", extra={"reason": error.reason, "why": str(error)})
    else:
        from deepliif_ray import storage  # slow to import

        errors.print("error: " + visible(storage.scrub(str(error)), keep="\n"), markup=False)


def guarded(command: Callable[[], Any]) -> None:
    """Run ``command``; the process ends with its exit code, also on SIGTERM.

    0: all done; 3: some slides failed; 4: a job's limit is broken; 2: bad usage, manifest, model or query;
    1: anything else.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _terminate)
    sys.exit(_guarded(command))


def main() -> None:
    """Run the command line; see `guarded` for its exit codes."""
    guarded(app)
