"""Trouble that passes is tried again, for a bounded time; trouble that lasts is told at once."""

import errno
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import aiohttp
import fsspec
import pytest
from botocore import exceptions as boto
from s3fs.errors import translate_boto_error

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError, StorageError, StorageMissingError
from deepliif_ray.storage import client
from tests.few import few


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
    answer("ConditionalRequestConflict", 409),
    *(
        answer(code, 400)
        for code in ("ExpiredToken", "RequestExpired", "TokenRefreshRequired", "InvalidToken")
    ),
    *(translate_boto_error(answer(code, 400)) for code in ("ExpiredToken", "TokenRefreshRequired")),
    translate_boto_error(answer("RequestTimeTooSkewed", 403)),
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
    answer("PreconditionFailed", 412),
    answer("InvalidAccessKeyId", 403),
    answer("SignatureDoesNotMatch", 403),
    *(translate_boto_error(answer(code, status)) for code, status in (("403", 403), ("NoSuchKey", 404))),
]


def name(error):
    return f"{type(error).__name__} {error}"[:60]


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


@contextmanager
def endpoint(handler, patch):
    """An S3 endpoint on this machine whose every answer ``handler`` gives."""
    patch.setenv("AWS_ACCESS_KEY_ID", "k" * 8)
    patch.setenv("AWS_SECRET_ACCESS_KEY", "s" * 8)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    client.filesystem("s3://x/y")[0].clear_instance_cache()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        client.filesystem("s3://x/y")[0].clear_instance_cache()


def test_every_request_is_sent_once_a_try(monkeypatch):
    """Neither botocore nor s3fs repeats what is repeated here."""
    tries = []
    passing = client.is_passing
    monkeypatch.setattr(client, "is_passing", lambda error: tries.append(error) or passing(error))
    with endpoint(Troubled, monkeypatch):
        began = time.monotonic()
        assert storage.read_range("s3://bucket/key", 0, 7) == b"content"
        assert Troubled.requests == 4 and len(tries) == 3
        assert time.monotonic() - began < 60


class Renewed(BaseHTTPRequestHandler):
    """Answers who comes with the old token that it has expired; to HEAD without a body, as S3 does."""

    protocol_version = "HTTP/1.1"  # S3's clients send an object after "100 Continue", which 1.0 does not know
    code, asked, requests, renew = "ExpiredToken", 0, (), lambda: None

    def do_GET(self):
        type(self).requests = (*self.requests, f"{self.command} {self.path}")
        self.rfile.read(int(self.headers.get("Content-Length") or 0) if self.command == "PUT" else 0)
        body, status = b"" if self.command == "PUT" else b"content", 200
        if self.headers.get("x-amz-security-token") != "new":
            type(self).asked += 1
            body = f"<Error><Code>{self.code}</Code><Message>not good now</Message></Error>".encode()
            status = 403 if self.code == "RequestTimeTooSkewed" else 400
            if self.asked == 2:
                type(self).renew()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"1"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_PUT = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("what", "where"),
    few([("read", "profile"), ("size", "file"), ("list", "file"), ("create", "profile")], 2),
)
def test_a_token_that_is_renewed_late_is_waited_for(monkeypatch, tmp_path, what, where):
    """Every try looks for new credentials, in the storage-options file as in the profile."""
    options, profile = tmp_path / "storage.yaml", tmp_path / "credentials"

    def renew(token="new"):
        options.write_text(f"s3:\n  key: k\n  secret: s\n  token: {token}\n")
        profile.write_text(
            f"[default]\naws_access_key_id = k\naws_secret_access_key = s\naws_session_token = {token}\n"
        )

    renew("old")
    monkeypatch.setattr(client, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(Renewed, "asked", 0)
    monkeypatch.setattr(Renewed, "renew", staticmethod(renew))
    calls = {
        "read": lambda: storage.read_bytes("s3://bucket/key"),
        "size": lambda: storage.size("s3://bucket/key"),
        "create": lambda: storage.create_bytes("s3://bucket/key", b"x"),
        "list": lambda: storage.exists("s3://bucket/key"),
    }
    expected = {"read": b"content", "size": 7, "create": True, "list": True}
    with monkeypatch.context() as patch, endpoint(Renewed, patch):
        if where == "file":
            patch.setenv(storage.OPTIONS_VARIABLE, str(options))
        else:
            patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
            patch.delenv("AWS_ACCESS_KEY_ID")
            patch.delenv("AWS_SECRET_ACCESS_KEY")
        assert calls[what]() == expected[what]
    assert Renewed.asked >= 2


@pytest.mark.parametrize("code", ["ExpiredToken", "RequestTimeTooSkewed", "InvalidArgument"])
def test_a_head_that_is_refused_without_a_reason_gets_one(monkeypatch, code):
    """What is told in the end names the code that only the GET had; what lasts is told at once."""
    monkeypatch.setattr(Renewed, "code", code)
    monkeypatch.setattr(Renewed, "renew", staticmethod(lambda: None))
    monkeypatch.setattr(Renewed, "requests", ())
    monkeypatch.setattr(client, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setenv(client.RETRY_VARIABLE, "0.3")
    with endpoint(Renewed, monkeypatch), pytest.raises(StorageError, match="not good now") as told:
        storage.size("s3://bucket/key")
    assert ("not renewed in time" in str(told.value)) is (code != "InvalidArgument")
    if code == "InvalidArgument":  # botocore itself asks for the bucket too: it may lie in another region
        assert Renewed.requests == ("HEAD /bucket/key", "HEAD /bucket", "GET /bucket/key")
    else:
        assert Renewed.requests.count("GET /bucket/key") > 1


def test_what_is_not_there_is_an_error_of_its_own(memory, tmp_path):
    for url in ("memory://none", str(tmp_path / "none")):
        for call in (storage.read_bytes, storage.size, lambda url: storage.read_range(url, 0, 1)):
            with pytest.raises(StorageMissingError, match="no such file"):
                call(url)
