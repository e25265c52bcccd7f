"""Who may ask the server: this browser alone, and no page of another site through it.

The address that is printed holds a token that is made anew at each start, also for 127.0.0.1: other users
of the machine reach that too. The browser exchanges it for a cookie that no script can read and that other
sites' pages do not send. Names that lead here from elsewhere (a page that lets its name point to 127.0.0.1)
are refused by the Host header, writes from elsewhere by Origin as well.
"""

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

COOKIE = "deepliif_ray"
HEADER = "X-Deepliif-Ray"
_OSD_STYLE = "'sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE='"
"""Of the one style sheet that the vendored OpenSeadragon writes into the page."""
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "worker-src 'self'",
        f"style-src 'self' {_OSD_STYLE}",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_LOCAL = ("127.0.0.1", "localhost", "[::1]")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Guard:
    """What is checked of each request.

    Parameters
    ----------
    host : str
        The name or address that the server was told to listen at.
    """

    def __init__(self, host: str) -> None:
        self.token = secrets.token_urlsafe(32)
        self.port = 0
        self._host = host

    def middleware(self) -> Any:
        """Return the middleware that checks requests and adds headers to answers."""

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            answer = self._refusal(request)
            if answer is None:
                try:
                    answer = await handler(request)
                except web.HTTPException as error:
                    error.headers.update(_HEADERS)
                    raise
            if not answer.prepared:
                answer.headers.update(_HEADERS)
                answer.headers.setdefault("Cache-Control", "no-store")
            return answer

        return guarded

    def _refusal(self, request: web.Request) -> web.StreamResponse | None:
        """Return what to answer a request that may not be answered; None where it may."""
        if not self._is_here(request.host):
            return web.Response(status=421, text="this server has another name")
        given = request.query.get("token")
        if request.path == "/" and given is not None:
            if not self._is_token(given):
                return _locked()
            answer = web.Response(status=303, headers={"Location": "/"})
            answer.set_cookie(f"{COOKIE}_{self.port}", self.token, httponly=True, samesite="Strict", path="/")
            return answer
        if not self._is_token(request.cookies.get(f"{COOKIE}_{self.port}", "")):
            return _locked()
        if request.method != "GET":
            origin = request.headers.get("Origin", "")
            if not self._is_here(origin.partition("://")[2]) or request.headers.get(HEADER) != "1":
                return web.Response(status=403, text="only this server's own pages may change anything")
        return None

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self.token.encode())

    def _is_here(self, host: str) -> bool:
        names = _LOCAL if self._host in _LOCAL else (*_LOCAL, self._host)
        wanted = {f"{name}:{self.port}" for name in names}
        if self.port == 80:
            wanted |= set(names)
        return host.lower() in wanted


def _locked() -> web.Response:
    return web.Response(
        status=401,
        text="Open the address that `deepliif-ray view` printed: it holds the key of these results.",
    )
