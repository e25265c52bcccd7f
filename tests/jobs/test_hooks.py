"""Webhooks and files, against a server on this machine."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError
from deepliif_ray.jobs import hooks
from deepliif_ray.jobs.config import Notifications


@pytest.fixture
def receiver():
    """A server that answers with the codes in ``answers`` in turn, and keeps what it was sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.received.append((self.path, self.headers["Content-Type"], json.loads(body)))
            code = server.answers.pop(0) if server.answers else 204
            if code is None:
                server.released.wait(5)  # longer than the client does
                return
            self.send_response(code)
            if server.location is not None:
                self.send_header("Location", server.location)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.location = None
    server.received, server.answers, server.released = [], [], threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}/hook/s3cret"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setenv("DEEPLIIF_RAY_PRIVATE_NETWORKS", "127.0.0.1")
    monkeypatch.setattr(hooks, "DELAYS_S", (0.01, 0.01))


def test_file_and_webhook_get_the_same(receiver):
    url = "memory://hooks/last.json"
    told = {"job": "nächtlich", "figures": {"failed": 1}}
    assert hooks.notify(Notifications(webhook=receiver.url, file=url), told) == []
    assert receiver.received == [("/hook/s3cret", "application/json", told)]
    assert json.loads(storage.read_bytes(url)) == told


@pytest.mark.parametrize(
    ("answers", "tries"), [([500, 503], 3), ([429], 2), ([503] * 9, 3), ([404], 1), ([None], 2)]
)
def test_trying_again(receiver, answers, tries, monkeypatch):
    monkeypatch.setattr(hooks, "TIMEOUT_S", 0.5)
    receiver.answers = list(answers)
    problems = hooks.notify(Notifications(webhook=receiver.url), {})
    assert len(receiver.received) == tries
    assert bool(problems) == (answers in ([503] * 9, [404]))


def test_what_fails_is_told_without_the_secret_and_stops_nothing(receiver):
    receiver.answers = [403]
    notifications = Notifications(webhook=receiver.url, file="nothing://x/y.json")
    first, second = hooks.notify(notifications, {})
    assert "nothing://x/y.json" in first
    assert second == "webhook at 127.0.0.1: HTTP 403"
    nobody = Notifications(webhook="http://127.0.0.1:9/s3cret")
    (problem,) = hooks.notify(nobody, {}, patient=False)
    assert "refused" in problem and "s3cret" not in problem


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_no_delivery(receiver, code):
    receiver.answers = [code]
    receiver.location = "/elsewhere"
    (problem,) = hooks.notify(Notifications(webhook=receiver.url), {})
    assert problem.startswith(f"webhook at 127.0.0.1: HTTP {code}, which leads elsewhere")
    assert [path for path, *_ in receiver.received] == ["/hook/s3cret"]


def test_an_address_inside_the_network_gets_nothing(receiver, monkeypatch):
    monkeypatch.delenv("DEEPLIIF_RAY_PRIVATE_NETWORKS")
    (problem,) = hooks.notify(Notifications(webhook=receiver.url), {})
    assert "127.0.0.1 is an address inside a network" in problem
    assert "DEEPLIIF_RAY_PRIVATE_NETWORKS" in problem
    assert receiver.received == []


def test_webhook_from_the_environment(receiver, monkeypatch):
    notifications = Notifications(webhook="env:JOBS_TEST_HOOK")
    with pytest.raises(ConfigError, match="no URL in JOBS_TEST_HOOK"):
        hooks.webhook_url(notifications)
    monkeypatch.setenv("JOBS_TEST_HOOK", receiver.url)
    assert hooks.notify(notifications, {"a": 1}) == []
    assert len(receiver.received) == 1
