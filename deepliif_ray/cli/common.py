"""What all commands share: the application, exit codes, stopping, errors."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from deepliif_ray import __version__
from deepliif_ray.console import Format, ProgressLine, describe, errors, visible
from deepliif_ray.errors import (
    ConfigError,
    DeepliifRayError,
    ManifestError,
    ModelError,
    QueryError,
    ResultsError,
)

OK, ERROR, USAGE, SOME_FAILED = 0, 1, 2, 3

app = typer.Typer(
    name="deepliif-ray",
    help="Score cohorts of IHC slides with DeepLIIF on Ray, query the results, train and evaluate models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

FormatOption = Annotated[Format, typer.Option("--format", help="How to write the table.")]


@contextmanager
def stoppable(line: Callable[[Any], str] = describe) -> Iterator[ProgressLine]:
    """Show progress; a stop by Ctrl-C or SIGTERM ends the command quietly, not its work."""
    try:
        with ProgressLine(line) as progress:
            yield progress
    except KeyboardInterrupt as error:
        errors.print("stopped; what is finished is kept: run the same command again to go on")
        raise typer.Exit(ERROR) from error


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
) -> None:
    pass


def _terminate(*_: object) -> None:
    raise KeyboardInterrupt


def _guarded(command: Callable[[], Any]) -> int:
    try:
        command()
    except (ConfigError, ManifestError, ModelError, QueryError, ResultsError) as error:
        errors.print("error: " + visible(str(error), keep="\n"), markup=False)
        return USAGE
    except DeepliifRayError as error:
        errors.print("error: " + visible(str(error), keep="\n"), markup=False)
        return ERROR
    return OK


def main() -> None:
    """Run the command line; the process ends with its exit code.

    0: all scored; 3: some slides failed; 2: bad usage, manifest, model or query; 1: anything else.
    """
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(_guarded(app))
