"""Secrets are hidden whatever they stand in, and what is none stays."""

import string
import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepliif_ray import storage
from deepliif_ray.storage.credentials import scrubbed

# Letters and digits of a secret, after a word that no text around it has.
SECRETS = st.text(string.ascii_letters + string.digits, min_size=8, max_size=40).map(lambda end: "Hush" + end)
WITH_SIGNS = st.text(string.ascii_letters + string.digits + "+/=_-.~%", min_size=8, max_size=40).map(
    lambda end: "Hush" + end
)
AROUND = st.sampled_from(
    ["{}", "cannot open {}", "({})", "<{}> failed", "'{}': 403", 'said "{}"', "a\n{}\nb", "[{}]", "x; {}; y"]
)
URLS = [
    "https://user:{}@host/a.svs",
    "https://{}@host/a.svs",
    "https://{}:x-oauth-basic@host/a.git",
    "s3://key:{}@bucket/a",
    "sftp://user:a@b{}@host/a",
    "https://b.s3.amazonaws.com/a?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature={}&X-Amz-Expires=60",
    "https://b.s3.amazonaws.com/a?X-Amz-Credential={}%2F20260101%2Fus-east-1%2Fs3%2Faws4_request",
    "https://b.s3.amazonaws.com/a?x-amz-security-token={}",
    "https://b.s3.amazonaws.com/a?AWSAccessKeyId={}&Expires=1&Signature={}",
    "https://storage.googleapis.com/b/a?X-Goog-Signature={}&GoogleAccessId={}",
    "https://acct.blob.core.windows.net/c/a?sv=2026&se=2026-01-01&sp=r&sig={}",
    "https://host/a?access_token={}&x=1",
    "https://host/a?x=1&api_key={}",
]
NAMED = [
    "AWS_SECRET_ACCESS_KEY={}",
    "export AZURE_STORAGE_ACCOUNT_KEY='{}'",
    "RAY_AUTH_TOKEN: {}",
    "{{'secret': '{}', 'anon': False}}",
    '{{"aws_session_token": "{}", "x": 1}}',
    '{{"client_kwargs": {{"aws_secret_access_key": "{}"}}}}',
    "password = {}",
    "sas_token={}",
    "DefaultEndpointsProtocol=https;AccountName=a;AccountKey={};EndpointSuffix=core.windows.net",
    "connection_string: '{}'",
]
HEADERS = [
    "Authorization: Bearer {}",
    "authorization: Basic {}",
    "Authorization: AWS4-HMAC-SHA256 Credential={}/20260101/us-east-1/s3, SignedHeaders=host, Signature={}",
    "Proxy-Authorization: Negotiate {}",
    "Cookie: session={}; other={}",
    "Set-Cookie: session={}",
    "x-amz-security-token: {}",
    "X-Api-Key: {}",
    "{{'Authorization': 'Bearer {}'}}",
    "got 401 with bearer {}",
]


def hidden(template: str, secret: str, around: str) -> None:
    text = around.format(template.format(*[secret] * template.count("{}")))
    told = storage.scrub(text)
    assert secret not in told
    assert "Hush" not in told
    assert "***" in told
    assert storage.scrub(told) == told


@given(template=st.sampled_from(NAMED + HEADERS), secret=WITH_SIGNS, around=AROUND)
def test_named_secrets_and_headers(template, secret, around):
    hidden(template, secret, around)


@given(template=st.sampled_from(URLS), secret=SECRETS, around=AROUND)
def test_secrets_in_urls(template, secret, around):
    hidden(template, secret, around)


@given(template=st.sampled_from(URLS[5:]), secret=WITH_SIGNS, around=AROUND)
def test_quoted_secrets_in_queries(template, secret, around):
    hidden(template, quote(secret, safe=""), around)


@given(
    name=st.sampled_from(
        ["MY_TOKEN", "RAY_AUTH_TOKEN", "X_PASSWORD", "AWS_ACCESS_KEY_ID", "SERVICE_API_KEY"]
    ),
    secret=WITH_SIGNS,
    around=AROUND,
)
def test_values_of_the_environment(name, secret, around):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, secret)
        assert secret not in storage.scrub(around.format(f"said {secret} here"))
        assert secret not in str(scrubbed({"a": [{"b": (secret, Exception(secret))}], secret: 1}))


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN RSA PRIVATE KEY-----\nHush\nHush\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nHush, cut off",
        "https://user:pa/ss/Hush@host/a",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJIdXNoIn0.Hush-signature",
        "ghp_Hush5678901234567890abcd",
        '"secret": "Hush with spaces, and \\" quotes"',
    ],
)
def test_other_secrets(text):
    assert "Hush" not in storage.scrub(f"before {text}")


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/a@b/slide #1.svs: 0.25 µm per pixel (manifest); the key of slide 'a' is a-12ab",
        "https://host:8443/path/a@b.svs?series=1&page=2",
        "slide_id S-001, marker Ki67: opening it took more than 60 s; export the slide again",
        "use --storage-options FILE, a profile or the environment for the token or secret",
        "/data/u:p@h.svs: no such file",
        "http://[::1]:80/a.svs",
        "basic understanding; bearer certificates",
        "disaster=averted key=value monkey: banana",
        "",
    ],
)
def test_what_is_no_secret_stays(text):
    assert storage.scrub(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "a" * 100_000, "://a:" * 20_000, "token" * 20_000, "token=" * 20_000, "-----BEGIN PRIVATE KEY" * 5000,
        "secret:" + " " * 100_000, "eyJ" * 30_000, '"' * 100_000, "bearer " * 20_000, "://" + "@" * 50_000,
    ],
    ids=range(10),
)  # fmt: skip
def test_takes_no_time(text):
    began = time.monotonic()
    storage.scrub(text)
    assert time.monotonic() - began < 2


def test_what_is_told_as_json_keeps_its_shape():
    value = {"n": 1, "f": 0.5, "t": True, "none": None, "list": ["a", 2], "path": "s3://b/a"}
    assert scrubbed(value) == value
