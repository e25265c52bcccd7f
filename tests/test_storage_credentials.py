"""Credentials are found where they should be, and never told."""

import csv
import os
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepliif_ray import Execution, score, storage
from deepliif_ray.errors import ConfigError, ManifestError, StorageError
from deepliif_ray.manifest import read_manifest
from deepliif_ray.storage import client
from deepliif_ray.storage.credentials import OPTIONS_VARIABLE

SECRET = "hush/Zq81+never=told"
SIGNED = "https://host/a.svs?X-Amz-Credential=hush1&X-Amz-Date=2026&X-Amz-Signature=hush2"
IN_URLS = [
    "https://user:hush@host/a.svs",
    "sftp://user:hu@sh@host/a.svs",
    "s3://hushkey:hush@bucket/a.svs",
    SIGNED,
    "https://acct.blob.core.windows.net/c/a.svs?sv=2026&sig=hush%3D",
]


@pytest.fixture
def options(tmp_path, monkeypatch):
    """Write a storage-options file and have it used."""

    def write(text):
        path = tmp_path / "storage.yaml"
        path.write_text(text)
        monkeypatch.setenv(OPTIONS_VARIABLE, str(path))
        return path

    return write


def test_options_reach_the_store(options):
    options(
        "s3:\n  key: from-file\n  secret: hush\n  endpoint_url: http://localhost:1\n"
        "  config_kwargs: {read_timeout: 5, s3: {addressing_style: path}}\n"
    )
    for protocol in ("s3", "s3a"):
        fs, path = client.filesystem(f"{protocol}://bucket/a b#c?d%e::f")
        assert (fs.key, fs.endpoint_url, path) == ("from-file", "http://localhost:1", "bucket/a b#c?d%e::f")
        assert fs.config_kwargs["read_timeout"] == 5
        assert fs.config_kwargs["s3"] == {"addressing_style": "path"}
        assert fs.config_kwargs["retries"]["total_max_attempts"] == 1


def test_an_exchanged_file_is_read_again(options):
    path = options("s3: {key: old-key, secret: hush}")
    assert client.filesystem("s3://b/a")[0].key == "old-key"
    path.write_text("s3: {key: new-key, secret: hush}")
    os.utime(path, ns=(1, time.time_ns() + 1))
    assert client.filesystem("s3://b/a")[0].key == "new-key"


@pytest.mark.parametrize(
    "text",
    [
        f"s3: {{secret: {SECRET}",
        f"s3:\n  secret: {SECRET}\n secret: [",
        f"- {SECRET}",
        f"s3: {SECRET}",
        f"{SECRET}",
        f"!!python/object/apply:os.system ['echo {SECRET}']",
        "\ud800",
    ],
)
def test_a_bad_file_is_told_without_its_content(tmp_path, monkeypatch, text):
    path = tmp_path / "storage.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    monkeypatch.setenv(OPTIONS_VARIABLE, str(path))
    with pytest.raises(ConfigError, match=r"storage\.yaml") as caught:
        storage.read_bytes("s3://bucket/a")
    assert SECRET not in str(caught.value)


def test_a_missing_file_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv(OPTIONS_VARIABLE, str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match=r"none\.yaml.*every machine"):
        storage.read_bytes("s3://bucket/a")


@given(st.text(string.ascii_letters + string.digits + "/+=%&' \"-_", min_size=6, max_size=60))
def test_known_secrets_are_hidden(secret):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        told = storage.scrub(f"403 for <{secret}> at http://host")
    assert f"<{secret}>" not in told and told.endswith("at http://host")


def test_secrets_of_file_and_profiles_are_hidden(options, tmp_path, monkeypatch):
    options(f"s3:\n  client_kwargs: {{aws_secret_access_key: file-{SECRET}}}\n  key: AKIAFILE\n")
    (tmp_path / "credentials").write_text(f"[lab]\naws_secret_access_key = profile-{SECRET}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    told = storage.scrub(f"file-{SECRET} AKIAFILE profile-{SECRET} us-east-1")
    assert told == "*** *** *** us-east-1"


@pytest.mark.parametrize("url", IN_URLS)
def test_urls_with_credentials_are_refused_untold(url, tmp_path):
    manifest = tmp_path / "manifest.csv"
    with manifest.open("w", newline="") as file:
        csv.writer(file).writerows([["slide_id", "patient_id", "marker", "uri"], ["a", "p", "Ki67", url]])
    for refused in (
        lambda: storage.read_bytes(url),
        lambda: read_manifest(str(manifest)),
        lambda: read_manifest(url),
        lambda: score(str(manifest), url, model="stain", execution=Execution(engine="local")),
        lambda: score(str(manifest), str(tmp_path / "out"), model=url, execution=Execution(engine="local")),
    ):
        with pytest.raises((ConfigError, ManifestError), match="environment, a profile") as caught:
            refused()
        assert "hush" not in str(caught.value)
    assert "hush" not in storage.scrub(f"cannot open {url}, sorry")


@pytest.mark.parametrize(
    "url",
    ["s3://bucket/user:name@host/a.svs", "s3://bucket/a?sig=1.svs", "memory://a@b:c", "/data/u:p@h.svs"],
)
def test_names_that_only_look_alike_are_accepted(url):
    storage.refuse_credentials(url)


def test_errors_of_stores_are_scrubbed(monkeypatch):
    import fsspec

    monkeypatch.setenv("AWS_SESSION_TOKEN", SECRET)
    monkeypatch.setattr(
        type(fsspec.filesystem("memory")), "cat_file", lambda *_, **__: (_ for _ in ()).throw(OSError(SECRET))
    )
    with pytest.raises(StorageError, match=r"\*\*\*") as caught:
        storage.read_bytes("memory://a")
    assert SECRET not in str(caught.value)
