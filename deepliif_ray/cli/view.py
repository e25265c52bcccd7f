"""The command that opens results in a browser."""

from typing import TYPE_CHECKING, Annotated

import typer

from deepliif_ray.cli.common import app
from deepliif_ray.cli.results import ResultsArgument
from deepliif_ray.console import errors

if TYPE_CHECKING:
    from deepliif_ray.viewer.server import Viewer


@app.command()
def view(
    results: ResultsArgument,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where to listen; 0 takes one that is free.")
    ] = 0,
    host: Annotated[
        str,
        typer.Option(
            help="Name or address to listen at. Others than 127.0.0.1 show patients to the network."
        ),
    ] = "127.0.0.1",
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Nothing can be corrected, drawn or kept.")
    ] = False,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address and open no browser.")
    ] = False,
    author: Annotated[
        str | None, typer.Option(help="Who corrects and draws; by default the user's name.")
    ] = None,
) -> None:
    """Look at the cohort and its slides in a browser: cells at any cut-off, regions, corrections, SQL.

    The address that is printed holds the key of these results. Ctrl-C ends the server.
    """
    import asyncio

    from deepliif_ray.viewer.server import Viewer

    viewer = Viewer(results, host=host, read_only=read_only, author=author)
    asyncio.run(_serve(viewer, port, open_browser=not no_browser))


async def _serve(viewer: "Viewer", port: int, *, open_browser: bool) -> None:
    import asyncio
    import signal
    import webbrowser

    runner, address = await viewer.start(port)
    errors.print(f"Open {address}", markup=False)
    errors.print("Ctrl-C ends it.", markup=False)
    if open_browser:
        webbrowser.open(address)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        await stop.wait()
    finally:
        await runner.cleanup()
