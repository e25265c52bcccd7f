"""Trouble that passes is tried again, for a bounded time; trouble that lasts is told at once."""

import errno
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import aiohttp
import fsspec
import pytest
from botocore import exceptions as boto
from s3fs.errors import translate_boto_error

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError, StorageError
from deepliif_ray.storage import client


def answer(code: str, status: int) -> boto.ClientError:
    response = {"Error": {"Code": code, "Message": "said so"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return boto.ClientError(response, "GetObject")


class StatusError(Exception):
    def __init__(self, status):
        self.code = status


PASSING = [
    boto.EndpointConnectionError(endpoint_url="http://x"),
    boto.ConnectTimeoutError(endpoint_url="http://x"),
    boto.ReadTimeoutError(endpoint_url="http://x"),
    boto.ConnectionClosedError(endpoint_url="http://x"),
    aiohttp.ClientPayloadError(),
    aiohttp.ServerDisconnectedError(),
    ConnectionResetError(),
    fsspec.exceptions.FSTimeoutError(),
    answer("InternalError", 500),
    answer("SlowDown", 503),
    answer("Throttling", 400),
    answer("429", 429),
    *(translate_boto_error(answer(code, status)) for code, status in (("SlowDown", 503), ("500", 500))),
]
LASTING = [
    FileNotFoundError("a"),
    PermissionError("a"),
    IsADirectoryError("a"),
    OSError(errno.ENOSPC, "full"),
    ValueError("a"),
    boto.NoCredentialsError(),
    boto.SSLError(endpoint_url="http://x", error="certificate"),
    answer("InvalidArgument", 400),
    *(translate_boto_error(answer(code, status)) for code, status in (("403", 403), ("NoSuchKey", 404))),
]


def name(error):
    return f"{type(error).__name__} {error}"[:60]


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    yield fs
    fs.rm("/", recursive=True)


@pytest.fixture
def asked(memory, monkeypatch):
    """Errors that the store has yet to raise, and how often it was asked."""
    state = {"errors": [], "times": 0, "pauses": []}
    original = type(memory).cat_file

    def cat_file(self, path, **options):
        state["times"] += 1
        if state["errors"]:
            raise state["errors"].pop(0)
        return original(self, path, **options)

    monkeypatch.setattr(type(memory), "cat_file", cat_file)
    monkeypatch.setattr(client.time, "sleep", state["pauses"].append)
    memory.pipe_file("/a", b"content")
    return state


@pytest.mark.parametrize("error", PASSING, ids=name)
def test_passing_trouble_is_tried_again(asked, error):
    asked["errors"] = [error] * 6
    assert storage.read_bytes("memory://a") == b"content"
    pauses = asked["pauses"]
    assert asked["times"] == 7 and len(pauses) == 6
    for number, pause in enumerate(pauses):
        most = min(8.0, 0.25 * 2**number)
        assert most / 2 <= pause <= most


@pytest.mark.parametrize("error", LASTING, ids=name)
def test_lasting_trouble_is_told_at_once(asked, error):
    asked["errors"] = [error]
    with pytest.raises(StorageError, match="memory://a"):
        storage.read_bytes("memory://a")
    assert asked["times"] == 1


def test_pauses_differ(asked):
    asked["errors"] = [ConnectionError()] * 5
    storage.read_bytes("memory://a")
    first, asked["pauses"][:] = list(asked["pauses"]), []
    asked["errors"] = [ConnectionError()] * 5
    storage.read_bytes("memory://a")
    assert first != asked["pauses"]


def test_the_time_is_bounded(memory, asked, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(client.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(client.time, "sleep", lambda s: now.__setitem__(0, now[0] + s))
    asked["errors"] = [ConnectionError("gone")] * 1000
    with pytest.raises(StorageError, match="gone"):
        storage.read_bytes("memory://a")
    assert now[0] == pytest.approx(90)
    monkeypatch.setenv(client.RETRY_VARIABLE, "5")
    with pytest.raises(StorageError, match="gone"):
        storage.read_bytes("memory://a")
    assert now[0] == pytest.approx(95)


def test_a_bad_time_is_told(asked, monkeypatch):
    monkeypatch.setenv(client.RETRY_VARIABLE, "long")
    asked["errors"] = [ConnectionError()]
    with pytest.raises(ConfigError, match="DEEPLIIF_RAY_RETRY_S"):
        storage.read_bytes("memory://a")


class Troubled(BaseHTTPRequestHandler):
    """Answers the first requests with trouble, then with the object."""

    trouble, requests = 3, 0

    def do_GET(self):
        type(self).requests += 1
        if self.requests <= self.trouble:
            body, status = b"<Error><Code>SlowDown</Code><Message>slow</Message></Error>", 503
        else:
            body, status = b"content", 200
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_every_request_is_sent_once_a_try(monkeypatch):
    """Neither botocore nor s3fs repeats what is repeated here."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k" * 8)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s" * 8)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Troubled)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    tries = []
    passing = client.is_passing
    monkeypatch.setattr(client, "is_passing", lambda error: tries.append(error) or passing(error))
    client.filesystem("s3://x/y")[0].clear_instance_cache()
    try:
        began = time.monotonic()
        assert storage.read_range("s3://bucket/key", 0, 7) == b"content"
        assert Troubled.requests == 4 and len(tries) == 3
        assert time.monotonic() - began < 60
    finally:
        server.shutdown()
        client.filesystem("s3://x/y")[0].clear_instance_cache()
