"""What pages send and get: JSON, read with errors in words.

What cannot be used raises `ConfigError`, and `told` answers with its words.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError, DeepliifRayError, SlideError
from deepliif_ray.exports.cells import Calls
from deepliif_ray.plain import plain
from deepliif_ray.viewer.answers import Asked


@web.middleware
async def told(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer with this package's errors in words."""
    try:
        return await handler(request)
    except DeepliifRayError as error:
        status = 404 if isinstance(error, SlideError) else 400
        return as_json({"error": storage.scrub(str(error))}, status)


def as_json(value: Any, status: int = 200) -> web.Response:
    """Answer with a value as JSON."""
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False)
    return web.Response(status=status, text=text, content_type="application/json")


async def body_of(request: web.Request) -> dict[str, Any]:
    """Return the JSON object that a request brings."""
    if request.content_type != "application/json":
        raise ConfigError("the body is JSON")
    try:
        body = await request.json()
    except ValueError as error:
        raise ConfigError(f"the body is no valid JSON ({error})") from error
    if not isinstance(body, dict):
        raise ConfigError("the body is a JSON object")
    return body


def slide_of(given: Mapping[str, Any]) -> str:
    """Return which slide is meant."""
    slide = given.get("slide")
    if not isinstance(slide, str) or not slide:
        raise ConfigError("say which slide")
    return slide


def asked_of(given: Mapping[str, Any]) -> Asked:
    """Return which cells are meant, and how they are called."""
    region = given.get("region") or None
    corrections = given.get("corrections", True) not in (False, "false")
    calls = Calls(cutoffs_of(given.get("cutoffs")), None if region is None else str(region), corrections)
    return Asked(slide_of(given), calls)


def cutoffs_of(given: Any) -> str | dict[str, float] | None:
    """Return cut-offs: a name, or values."""
    if isinstance(given, dict):
        return {str(name): number_of(value) for name, value in given.items()} or None
    return str(given) if given else None


def number_of(given: Any) -> float:
    """Return a number that means something."""
    try:
        number = float(given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{given!r} is no number") from error
    if not abs(number) < 1e15:  # NaN is not either
        raise ConfigError(f"{given!r} is no number that means something here")
    return number


def whole_of(request: web.Request, name: str) -> int:
    """Return a whole number of a query."""
    try:
        return int(request.query[name])
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{name} is a whole number") from error


def points_of(given: Any) -> list[tuple[float, float]]:
    """Return places, level-0 px."""
    try:
        return [(number_of(x), number_of(y)) for x, y in given]
    except (TypeError, ValueError) as error:
        raise ConfigError("points are pairs of numbers") from error
