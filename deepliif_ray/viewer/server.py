"""The local web application: what it answers, to whom, and how it is started."""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from decimal import Decimal
from importlib import resources
from typing import Any, TypeVar

from aiohttp import web

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError, DeepliifRayError, SlideError
from deepliif_ray.pictures.colours import NEGATIVE, POSITIVE, REGIONS, STRENGTHS, heat
from deepliif_ray.plain import csv_text, rows
from deepliif_ray.query.sandbox import Limits, ask_sandboxed
from deepliif_ray.tables.ledger import slide_key
from deepliif_ray.viewer import changes
from deepliif_ray.viewer.answers import Answers, Asked
from deepliif_ray.viewer.guarding import Guard
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
    author : str
        Who corrects and draws, if the page is told nothing else.

    Raises
    ------
    ResultsError, StorageError
        See `deepliif_ray.connect`.
    """

    def __init__(self, results: str, *, host: str = HOST, read_only: bool = False, author: str = "") -> None:
        self.results = storage.absolute(results)
        self.guard = Guard(host)
        self._host, self._read_only, self._author = host, read_only, author
        self._answers = Answers(self.results)
        self._tissue = Tissue()
        self._ask = ThreadPoolExecutor(2, "ask")
        self._read = ThreadPoolExecutor(2, "tiles")
        self._write = ThreadPoolExecutor(1, "write")
        self._sandbox = ThreadPoolExecutor(1, "sql")

    def application(self) -> web.Application:
        """Return the application, to be run by aiohttp."""
        app = web.Application(middlewares=[self.guard.middleware(), _told], client_max_size=_MOST_BODY)
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
        return _json(
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
        return _json(await self._answer(self._answers.cohort))

    async def _slide(self, request: web.Request) -> web.Response:
        return _json(await self._answer(self._answers.slide, _slide_of(request)))

    async def _tissue_of(self, request: web.Request) -> web.Response:
        row = await self._answer(self._answers.record, _slide_of(request))
        opened = await self._in(self._read, self._tissue.of, row)
        return _json(
            {
                "is_there": opened.slide is not None,
                "problem": opened.problem,
                "tile": TILE,
                "deepest": deepest(row["width_px"], row["height_px"]),
                "version": row["attempt"],
            }
        )

    async def _tile(self, request: web.Request) -> web.Response:
        level, column, line = (_whole(request, name) for name in ("level", "column", "line"))
        row = await self._answer(self._answers.record, _slide_of(request))
        content = await self._in(self._read, self._tissue.tile, row, level, column, line)
        # The address holds the attempt: another picture has another one.
        lasting = {"Cache-Control": "private, max-age=3600"}
        return web.Response(body=content, content_type="image/jpeg", headers=lasting)

    async def _cells(self, request: web.Request) -> web.StreamResponse:
        packed = await self._answer(self._answers.packed, _asked(request.query))
        answer = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        answer.headers["Cache-Control"] = "no-store"
        await answer.prepare(request)
        for part in packed.parts():
            for begin in range(0, len(part), 1 << 20):
                await answer.write(part[begin : begin + (1 << 20)])
        return answer

    async def _outlines(self, request: web.Request) -> web.Response:
        x0, y0, x1, y1 = (_whole(request, name) for name in ("x0", "y0", "x1", "y1"))
        asked = _asked(request.query)
        return _json(await self._answer(self._answers.outlines, asked, (x0, y0, x1, y1)))

    async def _cell(self, request: web.Request) -> web.Response:
        x, y = (_number(request.query.get(name)) for name in ("x", "y"))
        return _json(await self._answer(self._answers.cell, _asked(request.query), x, y))

    async def _index(self, request: web.Request) -> web.Response:
        return _json(await self._answer(self._answers.index, _asked(await _body(request))))

    async def _hot_spots(self, request: web.Request) -> web.Response:
        body = await _body(request)
        count, cells = (int(_number(body.get(name))) for name in ("count", "cells"))
        return _json(await self._answer(self._answers.hot_spots, _asked(body), count, cells))

    async def _cutoff_set(self, request: web.Request) -> web.Response:
        return _json(await self._answer(self._answers.cutoff_set, _asked(await _body(request))))

    async def _sql(self, request: web.Request) -> web.Response:
        body = await _body(request)
        query, as_csv = str(body.get("query", "")), body.get("form") == "csv"
        table = await self._in(self._sandbox, ask_sandboxed, self.results, query, _SQL_LIMITS)
        if as_csv:
            content = await self._in(self._ask, csv_text, table)
            return web.Response(body=content.encode(), content_type="text/csv")
        shown = await self._in(self._ask, rows, table.slice(0, _MOST_ROWS))
        return _json({"columns": table.column_names, "rows": shown, "n_rows": table.num_rows})

    async def _export_regions(self, request: web.Request) -> web.Response:
        row = await self._answer(self._answers.record, _slide_of(request))
        content = await self._in(self._write, changes.take_along, self.results, row)
        answer = web.Response(body=content, content_type="application/json")
        name = slide_key(row["slide_id"])
        answer.headers["Content-Disposition"] = f'attachment; filename="{name}.geojson"'
        return answer

    async def _correct(self, request: web.Request) -> web.Response:
        body = await self._writes(request)
        asked, call = _asked(body), str(body.get("call", ""))
        points = _points(body.get("polygon")) if "polygon" in body else []
        places = _points([body.get("place")]) if "place" in body else []
        if points:
            places = await self._answer(self._answers.inside, asked, points)
            if not places:
                raise ConfigError(f"slide {asked.slide!r}: no called cell has its centre in there")
        given = self.results, asked.slide, places, call, self._author_of(body), str(body.get("note", ""))
        return await self._changed(changes.correct, *given)

    async def _draw(self, request: web.Request) -> web.Response:
        body = await self._writes(request)
        regions = body.get("regions")
        if not isinstance(regions, list):
            raise ConfigError("regions is a list of regions")
        given = self.results, _asked(body).slide, regions, self._author_of(body)
        return await self._changed(changes.draw, *given)

    async def _bring(self, request: web.Request) -> web.Response:
        self._refuse_writing()
        content = await request.read()
        given = self.results, _slide_of(request), content, request.query.get("author", "") or self._author
        return await self._changed(changes.bring, *given)

    async def _undo(self, request: web.Request) -> web.Response:
        body = await self._writes(request)
        given = self.results, str(body.get("kind", "")), str(body.get("import_id", ""))
        return await self._changed(changes.undo, *given)

    async def _keep_cutoffs(self, request: web.Request) -> web.Response:
        body = await self._writes(request)
        values = _cutoffs(body.get("values"))
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

    def _author_of(self, body: dict[str, Any]) -> str:
        return str(body.get("author") or self._author)

    def _refuse_writing(self) -> None:
        if self._read_only:
            raise ConfigError("these pages were opened with --read-only: nothing can be changed here")

    async def _writes(self, request: web.Request) -> dict[str, Any]:
        self._refuse_writing()
        return await _body(request)

    async def _changed(self, do: Callable[..., Any], *given: Any) -> web.Response:
        """Change results, one change after another, and answer from what is there then."""
        done = await self._in(self._write, do, *given)
        await self._in(self._ask, self._answers.reopen)
        return _json(done)


@web.middleware
async def _told(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer with this package's errors in words."""
    try:
        return await handler(request)
    except DeepliifRayError as error:
        status = 404 if isinstance(error, SlideError) else 400
        return _json({"error": storage.scrub(str(error))}, status)


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


def _json(value: Any, status: int = 200) -> web.Response:
    text = json.dumps(_said(value), ensure_ascii=False, default=str, allow_nan=False)
    return web.Response(status=status, text=text, content_type="application/json")


def _said(value: Any) -> Any:
    """Return a value with null for what no number of JSON is."""
    if isinstance(value, dict):
        return {key: _said(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_said(part) for part in value]
    if isinstance(value, Decimal):  # sums of whole numbers, as DuckDB gives them
        return int(value) if value == value.to_integral_value() else float(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


async def _body(request: web.Request) -> dict[str, Any]:
    if request.content_type != "application/json":
        raise ConfigError("the body is JSON")
    try:
        body = await request.json()
    except ValueError as error:
        raise ConfigError(f"the body is no valid JSON ({error})") from error
    if not isinstance(body, dict):
        raise ConfigError("the body is a JSON object")
    return body


def _slide_of(request: web.Request) -> str:
    slide = request.query.get("slide")
    if not slide:
        raise ConfigError("say which slide")
    return slide


def _asked(given: Any) -> Asked:
    slide = given.get("slide")
    if not isinstance(slide, str) or not slide:
        raise ConfigError("say which slide")
    region = given.get("region") or None
    corrections = given.get("corrections", True) not in (False, "false")
    return Asked(slide, _cutoffs(given.get("cutoffs")), None if region is None else str(region), corrections)


def _cutoffs(given: Any) -> str | dict[str, float] | None:
    if isinstance(given, dict):
        return {str(name): _number(value) for name, value in given.items()} or None
    return str(given) if given else None


def _number(given: Any) -> float:
    try:
        number = float(given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{given!r} is no number") from error
    if not abs(number) < 1e15:  # NaN is not either
        raise ConfigError(f"{given!r} is no number that means something here")
    return number


def _whole(request: web.Request, name: str) -> int:
    try:
        return int(request.query[name])
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{name} is a whole number") from error


def _points(given: Any) -> list[tuple[float, float]]:
    try:
        return [(_number(x), _number(y)) for x, y in given]
    except (TypeError, ValueError) as error:
        raise ConfigError("points are pairs of numbers") from error
