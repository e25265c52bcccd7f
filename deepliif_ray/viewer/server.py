"""The local web application: what it answers, to whom, and how it is started."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib import resources
from typing import Any, TypeVar

from aiohttp import web

from deepliif_ray import storage
from deepliif_ray.annotations.which_slide import author_of
from deepliif_ray.errors import ConfigError
from deepliif_ray.pictures.colours import NEGATIVE, POSITIVE, REGIONS, STRENGTHS, heat
from deepliif_ray.plain import csv_text, rows
from deepliif_ray.query.sandbox import Limits, ask_sandboxed
from deepliif_ray.tables.ledger import slide_key
from deepliif_ray.viewer import changes
from deepliif_ray.viewer.answers import Answers
from deepliif_ray.viewer.guarding import Guard
from deepliif_ray.viewer.messages import (
    as_json,
    asked_of,
    body_of,
    cutoffs_of,
    number_of,
    points_of,
    slide_of,
    told,
    whole_of,
)
from deepliif_ray.viewer.slide_cells import SlideCells
from deepliif_ray.viewer.tiles import TILE, Tissue, deepest

HOST = "127.0.0.1"
_MOST_BODY = 50_000_000
_MOST_ROWS = 10_000
"""Rows of an answer that the page shows; a CSV has them all."""
_SQL_LIMITS = Limits(seconds=60, memory=2_000_000_000, answer=200_000_000)
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_VENDORED = {"openseadragon.min.js": "vendor/openseadragon"}
_Kind = TypeVar("_Kind")


class Viewer:
    """A server of the pages of one set of results.

    Parameters
    ----------
    results : str
        URL of the results.
    host : str
        Where to listen.
    read_only : bool
        Refuse corrections, regions and cut-offs.
    author : str, optional
        Who corrects and draws, if the page is told nothing else; by default the user of this process.

    Raises
    ------
    ConfigError
        The system does not tell who that is.
    ResultsError, StorageError
        See `deepliif_ray.connect`.
    """

    def __init__(
        self, results: str, *, host: str = HOST, read_only: bool = False, author: str | None = None
    ) -> None:
        self.results = storage.absolute(results)
        self.guard = Guard(host)
        self._host, self._read_only = host, read_only
        self._author = "" if read_only else author_of(author)
        self._answers = Answers(self.results)
        self._cells_of = SlideCells(self._answers)
        self._tissue = Tissue()
        self._ask = ThreadPoolExecutor(2, "ask")
        self._read = ThreadPoolExecutor(2, "tiles")
        self._write = ThreadPoolExecutor(1, "write")
        self._sandbox = ThreadPoolExecutor(1, "sql")

    def application(self) -> web.Application:
        """Return the application, to be run by aiohttp."""
        app = web.Application(middlewares=[self.guard.middleware(), told], client_max_size=_MOST_BODY)
        app.add_routes(
            [
                web.get("/", self._page),
                web.get("/static/{name}", self._static),
                web.get("/api/about", self._about),
                web.get("/api/cohort", self._cohort),
                web.get("/api/slide", self._slide),
                web.get("/api/tissue", self._tissue_of),
                web.get("/api/tile", self._tile),
                web.get("/api/cells", self._cells),
                web.get("/api/outlines", self._outlines),
                web.get("/api/cell", self._cell),
                web.get("/api/regions", self._export_regions),
                web.post("/api/index", self._index),
                web.post("/api/hot_spots", self._hot_spots),
                web.post("/api/cutoff_set", self._cutoff_set),
                web.post("/api/sql", self._sql),
                web.post("/api/correct", self._correct),
                web.post("/api/regions", self._draw),
                web.post("/api/regions_file", self._bring),
                web.post("/api/undo", self._undo),
                web.post("/api/cutoffs", self._keep_cutoffs),
            ]
        )
        app.on_cleanup.append(self._close)
        return app

    async def start(self, port: int) -> tuple[web.AppRunner, str]:
        """Listen, and return what to clean up at the end and the address to open.

        Parameters
        ----------
        port : int
            0 for any that is free.

        Raises
        ------
        ConfigError
            The port is taken, or may not be listened at.
        """
        runner = web.AppRunner(self.application(), access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, self._host, port)
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            raise ConfigError(
                f"cannot listen at {self._host}, port {port} ({error.strerror or error}); give another --port"
            ) from error
        self.guard.port = runner.addresses[0][1]
        shown = f"[{self._host}]" if ":" in self._host else self._host
        return runner, f"http://{shown}:{self.guard.port}/?token={self.guard.token}"

    async def _close(self, _: web.Application) -> None:
        for pool in (self._ask, self._read, self._write, self._sandbox):
            pool.shutdown(cancel_futures=True)
        self._tissue.close()
        self._answers.close()

    async def _in(self, pool: ThreadPoolExecutor, do: Callable[..., _Kind], *given: Any) -> _Kind:
        return await asyncio.get_running_loop().run_in_executor(pool, do, *given)

    async def _answer(self, question: Callable[..., _Kind], *given: Any) -> _Kind:
        return await self._in(self._ask, self._answers.current, question, *given)

    async def _page(self, _: web.Request) -> web.Response:
        return _file("viewer/static", "index.html")

    async def _static(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        return _file(_VENDORED.get(name, "viewer/static"), name)

    async def _about(self, _: web.Request) -> web.Response:
        return as_json(
            {
                "results": storage.scrub(self.results),
                "read_only": self._read_only,
                "author": self._author,
                "positive": POSITIVE,
                "negative": NEGATIVE,
                "strengths": STRENGTHS,
                "regions": REGIONS,
                "heat": heat().tolist(),
            }
        )

    async def _cohort(self, request: web.Request) -> web.Response:
        if request.query.get("fresh"):
            await self._in(self._ask, self._answers.reopen)
        return as_json(await self._answer(self._answers.cohort))

    async def _slide(self, request: web.Request) -> web.Response:
        return as_json(await self._answer(self._answers.slide, slide_of(request.query)))

    async def _tissue_of(self, request: web.Request) -> web.Response:
        row = await self._answer(self._answers.record, slide_of(request.query))
        opened = await self._in(self._read, partial(self._tissue.of, row, changed=_is_changed(request)))
        return as_json(
            {
                "is_there": opened.slide is not None,
                "is_changed": opened.is_changed,
                "problem": opened.problem,
                "tile": TILE,
                "deepest": deepest(row["width_px"], row["height_px"]),
                "version": row["attempt"],
            }
        )

    async def _tile(self, request: web.Request) -> web.Response:
        level, column, line = (whole_of(request, name) for name in ("level", "column", "line"))
        row = await self._answer(self._answers.record, slide_of(request.query))
        tile = partial(self._tissue.tile, row, level, column, line, changed=_is_changed(request))
        content = await self._in(self._read, tile)
        # The address holds the attempt: another picture has another one.
        lasting = {"Cache-Control": "private, max-age=3600"}
        return web.Response(body=content, content_type="image/jpeg", headers=lasting)

    async def _cells(self, request: web.Request) -> web.StreamResponse:
        packed = await self._answer(self._cells_of.packed, asked_of(request.query))
        answer = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        answer.headers["Cache-Control"] = "no-store"
        await answer.prepare(request)
        for part in packed.parts():
            for begin in range(0, len(part), 1 << 20):
                await answer.write(part[begin : begin + (1 << 20)])
        return answer

    async def _outlines(self, request: web.Request) -> web.Response:
        x0, y0, x1, y1 = (whole_of(request, name) for name in ("x0", "y0", "x1", "y1"))
        asked = asked_of(request.query)
        return as_json(await self._answer(self._cells_of.outlines, asked, (x0, y0, x1, y1)))

    async def _cell(self, request: web.Request) -> web.Response:
        x, y = (number_of(request.query.get(name)) for name in ("x", "y"))
        return as_json(await self._answer(self._cells_of.cell, asked_of(request.query), x, y))

    async def _index(self, request: web.Request) -> web.Response:
        return as_json(await self._answer(self._answers.index, asked_of(await body_of(request))))

    async def _hot_spots(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        count, cells = (int(number_of(body.get(name))) for name in ("count", "cells"))
        return as_json(await self._answer(self._answers.hot_spots, asked_of(body), count, cells))

    async def _cutoff_set(self, request: web.Request) -> web.Response:
        return as_json(await self._answer(self._answers.cutoff_set, asked_of(await body_of(request))))

    async def _sql(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        query, as_csv = str(body.get("query", "")), body.get("form") == "csv"
        table = await self._in(self._sandbox, ask_sandboxed, self.results, query, _SQL_LIMITS)
        if as_csv:
            content = await self._in(self._ask, csv_text, table)
            return web.Response(body=content.encode(), content_type="text/csv")
        shown = await self._in(self._ask, rows, table.slice(0, _MOST_ROWS))
        return as_json({"columns": table.column_names, "rows": shown, "n_rows": table.num_rows})

    async def _export_regions(self, request: web.Request) -> web.Response:
        row = await self._answer(self._answers.record, slide_of(request.query))
        content = await self._in(self._write, changes.take_along, self.results, row)
        answer = web.Response(body=content, content_type="application/json")
        name = slide_key(row["slide_id"])
        answer.headers["Content-Disposition"] = f'attachment; filename="{name}.geojson"'
        return answer

    async def _correct(self, request: web.Request) -> web.Response:
        body = await self._writes(request)
        asked, call = asked_of(body), str(body.get("call", ""))
        points = points_of(body.get("polygon")) if "polygon" in body else []
        places = points_of([body.get("place")]) if "place" in body else []
        if points:
            places = await self._answer(self._cells_of.inside, asked, points)
            if not places:
                raise ConfigError(f"slide {asked.slide!r}: no called cell has its centre in there")
        given = self.results, asked.slide, places, call, self._author_of(body), str(body.get("note", ""))
        return await self._changed(changes.correct, *given)

    async def _draw(self, request: web.Request) -> web.Response:
        body = await self._writes(request)
        regions = body.get("regions")
        if not isinstance(regions, list):
            raise ConfigError("regions is a list of regions")
        given = self.results, asked_of(body).slide, regions, self._author_of(body)
        return await self._changed(changes.draw, *given)

    async def _bring(self, request: web.Request) -> web.Response:
        self._refuse_writing()
        content, author = await request.read(), self._author_of(request.query)
        given = self.results, slide_of(request.query), content, author
        return await self._changed(changes.bring, *given)

    async def _undo(self, request: web.Request) -> web.Response:
        body = await self._writes(request)
        given = self.results, str(body.get("kind", "")), str(body.get("import_id", ""))
        return await self._changed(changes.undo, *given)

    async def _keep_cutoffs(self, request: web.Request) -> web.Response:
        body = await self._writes(request)
        values = cutoffs_of(body.get("values"))
        if not isinstance(values, dict):
            raise ConfigError("values holds the cut-offs to keep")
        given = (
            self.results,
            str(body.get("name", "")),
            str(body.get("marker", "")),
            values,
            self._author_of(body),
            str(body.get("note", "")),
        )
        return await self._changed(changes.keep_cutoffs, *given)

    def _author_of(self, given: Mapping[str, Any]) -> str:
        return str(given.get("author") or self._author)

    def _refuse_writing(self) -> None:
        if self._read_only:
            raise ConfigError("these pages were opened with --read-only: nothing can be changed here")

    async def _writes(self, request: web.Request) -> dict[str, Any]:
        self._refuse_writing()
        return await body_of(request)

    async def _changed(self, do: Callable[..., Any], *given: Any) -> web.Response:
        """Change results, one change after another, and answer from what is there then."""
        done = await self._in(self._write, do, *given)
        await self._in(self._ask, self._answers.reopen)
        return as_json(done)


def _is_changed(request: web.Request) -> bool:
    """Tell whether a slide is asked for that need not be the one that was scored."""
    return request.query.get("changed") == "true"


def _file(folder: str, name: str) -> web.Response:
    suffix = name[name.rfind(".") :]
    if suffix in _TYPES and "/" not in name and not name.startswith("."):
        file = resources.files("deepliif_ray").joinpath(folder, name)
        with suppress(FileNotFoundError):
            return web.Response(
                body=file.read_bytes(),
                content_type=_TYPES[suffix],
                charset="utf-8",
                headers={"Cache-Control": "no-cache"},
            )
    raise web.HTTPNotFound
