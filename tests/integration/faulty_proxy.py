"""A proxy on this machine that does to requests what networks do: they are late, doubled, unanswered."""

import http.client
import random
import socket
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = ("lost", "late", "twice", "slow")


class FaultyProxy:
    """A proxy before an S3 server; it does not change requests, so their signatures hold.

    Parameters
    ----------
    port : int
        Of the server.
    share : float
        Of the writing requests that something happens to.
    seed : int
    late_s : float
        How late a request arrives whose client was told nothing, or that arrives a second time.
    """

    def __init__(self, port: int, share: float = 0.0, seed: int = 0, late_s: float = 2.0) -> None:
        self.port, self.share, self.late_s = port, share, late_s
        self.counts: Counter[str] = Counter()
        self._random, self._lock = random.Random(seed), threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                proxy.handle(self)

            do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815  # http.server wants these

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def _draw(self, method: str) -> str:
        if method not in ("PUT", "DELETE"):
            return "none"
        with self._lock:
            fault = self._random.choice(FAULTS) if self._random.random() < self.share else "none"
            self.counts[fault] += 1
            return fault

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        sent = request.command, request.path, list(request.headers.items()), body
        fault = self._draw(request.command)
        if fault == "late":
            threading.Timer(self.late_s, self._forward, sent).start()
        else:
            if fault == "slow":
                threading.Event().wait(self.late_s)
            answer = self._forward(*sent)
        if fault in ("late", "lost"):
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault == "twice":
            threading.Timer(self.late_s, self._forward, sent).start()
        status, headers, content = answer
        request.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                request.send_header(name, value)
        length = dict(headers).get("Content-Length", "0") if request.command == "HEAD" else str(len(content))
        request.send_header("Content-Length", length)
        request.end_headers()
        request.wfile.write(content)

    def _forward(self, method: str, path: str, headers: list[tuple[str, str]], body: bytes):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()
