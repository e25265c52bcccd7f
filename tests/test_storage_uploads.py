"""Writing to S3 while tokens expire, connections drop and uploads stand still: whole, once, in time."""

import re
import threading
import time
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from types import SimpleNamespace

import pytest
from aiobotocore.httpchecksum import AioAwsChunkedWrapper
from s3fs import S3FileSystem

from deepliif_ray import storage
from deepliif_ray.errors import StorageError
from deepliif_ray.storage import client
from deepliif_ray.storage import s3 as s3_client
from tests.few import few
from tests.test_storage_retry import endpoint

PART = 2**20
URL = "s3://bucket/key"
SMALL, LARGE = b"small", bytes(range(256)) * (2 * PART // 256) + b"more than two parts"
STEPS = {
    "put": (SMALL, r"PUT /bucket/key$"),
    "begin": (LARGE, r"POST .*\?uploads"),
    "part": (LARGE, r"PUT .*partNumber=2"),
    "complete": (LARGE, r"POST .*\?uploadId"),
}


class Store(BaseHTTPRequestHandler):
    """S3 as far as writing goes; ``trouble`` befalls the first requests that match ``step``."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes] = {}  # noqa: RUF012
    parts: dict[str, dict[int, bytes]] = {}  # noqa: RUF012
    requests: list[str] = []  # noqa: RUF012
    step, trouble, times = "", "", 0
    renew = staticmethod(lambda: None)

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"1"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status, code):
        self.answer(status, f"<Error><Code>{code}</Code><Message>not now</Message></Error>".encode())

    def handle_expect_100(self):
        if self.trouble != "silent" or not self._troubled():
            return super().handle_expect_100()
        self.connection.recv(1)  # nothing is said until the client goes
        self.close_connection = True
        return False

    def _troubled(self):
        if not self.times or not re.search(self.step, f"{self.command} {self.path}"):
            return False
        type(self).times -= 1
        if not self.times:
            self.renew()
        return True

    def do_POST(self):
        troubled = self._troubled()
        if troubled and self.trouble == "stuck":
            time.sleep(30)  # and takes nothing
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.requests.append(f"{self.command} {self.path}")
        expired = self.headers.get("x-amz-security-token") == "old" and self.trouble == "expired"
        if troubled and self.trouble == "dropped":
            self.close_connection = True
        elif expired and (troubled or self.command == "DELETE"):
            self.refuse(400, "ExpiredToken")
        elif troubled and self.trouble == "unanswered":
            self.answer = self.refuse = lambda *_: setattr(self, "close_connection", True)
            self.handle_write(body)
        else:
            self.handle_write(body)

    do_PUT = do_DELETE = do_POST  # noqa: N815

    def handle_write(self, body):
        key, _, query = self.path.partition("?")
        upload = re.search(r"uploadId=(\w+)", query)
        number = re.search(r"partNumber=(\d+)", query)
        taken = self.headers.get("If-None-Match") == "*" and key in self.objects
        if query.startswith("uploads"):
            name = f"u{len(self.requests)}"
            self.parts[name] = {}
            tag = "InitiateMultipartUploadResult"
            self.answer(200, f"<{tag}><UploadId>{name}</UploadId></{tag}>".encode())
        elif upload and upload[1] not in self.parts:
            self.refuse(404, "NoSuchUpload")
        elif self.command == "DELETE":
            del self.parts[upload[1]]
            self.answer(204)
        elif number:
            self.parts[upload[1]][int(number[1])] = body
            self.answer(200)
        elif taken:
            self.refuse(412, "PreconditionFailed")
        else:
            parts = self.parts.pop(upload[1]) if upload else {1: body}
            self.objects[key] = b"".join(parts[n] for n in sorted(parts))
            self.answer(200, b"<CompleteMultipartUploadResult/>")

    def log_message(self, *_):
        pass


@pytest.fixture
def store(monkeypatch, tmp_path):
    """The store, and what is done to it."""
    options = tmp_path / "storage.yaml"

    def renew(token="new"):
        options.write_text(f"s3:\n  key: k\n  secret: s\n  token: {token}\n")

    renew("old")
    whole = S3FileSystem._pipe_file

    async def pipe_file(self, path, data, **more):
        return await whole(self, path, data, chunksize=PART, **more)

    monkeypatch.setattr(S3FileSystem, "_pipe_file", pipe_file)
    monkeypatch.setattr(client, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setenv(storage.OPTIONS_VARIABLE, str(options))
    for name, value in {"objects": {}, "parts": {}, "requests": [], "renew": staticmethod(renew)}.items():
        monkeypatch.setattr(Store, name, value)

    def happens(trouble, step, times=1):
        for name, value in {"trouble": trouble, "step": step, "times": times}.items():
            monkeypatch.setattr(Store, name, value)

    with monkeypatch.context() as patch, endpoint(Store, patch):
        yield happens


@pytest.mark.parametrize(
    ("write", "trouble", "step"),
    few(
        [
            (storage.write_bytes, "expired", "part"),
            (storage.create_bytes, "expired", "put"),
            (storage.write_bytes, "dropped", "begin"),
            (storage.write_bytes, "dropped", "part"),
            (storage.create_bytes, "dropped", "put"),
            (storage.write_bytes, "unanswered", "complete"),
            (storage.create_bytes, "unanswered", "complete"),
            (storage.create_bytes, "unanswered", "put"),
        ],
        4,
    ),
)
def test_what_is_written_is_there_whole(store, write, trouble, step):
    """A token that is old for two requests, a connection that drops before or after what was asked for."""
    data, requests = STEPS[step]
    store(trouble, requests, times=2 if trouble == "expired" else 1)
    mine = write(URL, data)
    assert Store.times == 0
    assert Store.objects == {"/bucket/key": data}
    if (
        write is storage.create_bytes
    ):  # what it made itself, unheard, is there already: callers look whose it is
        assert mine is not (trouble == "unanswered" and step in ("put", "complete"))
        store("", "")
        assert not storage.create_bytes(URL, b"another's")
        assert Store.objects == {"/bucket/key": data}


def test_a_token_that_nobody_renews_is_told(store, monkeypatch):
    monkeypatch.setenv(client.RETRY_VARIABLE, "0.2")
    monkeypatch.setattr(Store, "renew", staticmethod(lambda: None))
    store("expired", STEPS["complete"][1], times=10**6)
    with pytest.raises(StorageError, match=r"not now.*not renewed in time"):
        storage.write_bytes(URL, LARGE)
    assert not Store.objects


@pytest.mark.parametrize(("step", "trouble"), [("put", "silent"), ("part", "silent"), ("huge", "stuck")])
def test_an_upload_that_stands_still_is_begun_anew(store, monkeypatch, step, trouble):
    """Below, nothing bounds the time until "100 Continue", nor that until all was taken."""
    monkeypatch.setitem(s3_client.LIMITS, "read_timeout", 0.4)
    data, requests = STEPS.get(step, (bytes(2 * PART - 1) * 1, r"PUT /bucket/key$"))
    if step == "huge":  # more than what the system keeps of it on its way
        monkeypatch.setattr("tests.test_storage_uploads.PART", 18 * PART)
        data = bytes(20 * 2**20)
    began = time.monotonic()
    store(trouble, requests)
    storage.write_bytes(URL, data)
    assert Store.objects == {"/bucket/key": data} and Store.times == 0
    assert time.monotonic() - began < 20


def test_an_upload_that_is_slow_goes_on(store, monkeypatch):
    """It takes several times as long as an answer may, and something of it is taken all the time."""
    monkeypatch.setitem(s3_client.LIMITS, "read_timeout", 0.7)
    monkeypatch.setattr("tests.test_storage_uploads.PART", 18 * PART)
    original = Store.do_POST

    def slowly(self):
        size, taken = int(self.headers["Content-Length"]), []
        while (left := size - sum(map(len, taken))) > 0:
            taken.append(self.rfile.read(min(left, 2**20)))
            time.sleep(0.05)
        self.rfile = BytesIO(b"".join(taken))
        self.close_connection = True
        original(self)

    monkeypatch.setattr(Store, "do_PUT", slowly)
    began = time.monotonic()
    storage.write_bytes(URL, bytes(32 * 2**20))
    assert time.monotonic() - began > 1.0
    assert len(Store.requests) == 1


@pytest.mark.slow
def test_large_uploads_wait_where_the_time_is_not_counted(store, monkeypatch):
    monkeypatch.setattr(s3_client, "_MOST_LARGE", 1)
    monkeypatch.setitem(s3_client.LIMITS, "read_timeout", 0.4)
    original = Store.handle_write
    monkeypatch.setattr(Store, "handle_write", lambda self, body: time.sleep(0.2) or original(self, body))
    data = bytes(PART)
    threads = [
        threading.Thread(target=storage.write_bytes, args=(f"s3://bucket/{n}", data)) for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Store.requests) == len(Store.objects) == 6


def test_what_was_sent_is_seen_of_bodies_for_https_too():
    body = BytesIO(b"abc")
    body.read(2)
    assert s3_client._position(body) == s3_client._position(AioAwsChunkedWrapper(body)) == 2
    assert s3_client._position(b"<xml/>") is s3_client._position(None) is None
    for name in ("Content-Length", "X-Amz-Decoded-Content-Length"):
        assert s3_client._length(SimpleNamespace(headers={name: "7"})) == 7
