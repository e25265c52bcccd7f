"""YAML that people write: what makes much of little, or never ends, is refused, and shown cut."""

import time

import pytest
import yaml

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError
from deepliif_ray.jobs.config import parse_job, read_job
from deepliif_ray.storage import documents
from deepliif_ray.storage.credentials import storage_options, use_options_file
from deepliif_ray.training.run.config import load_config, load_mapping, train_config

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{n}: &{n} [{','.join([f'*{p}'] * 9)}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)
)
BAD = {
    "aliases": (LAUGHS, "line 1: anchors and aliases"),
    "an anchor alone": ("a: &x 1", "anchors and aliases"),
    "an alias alone": ("a: *x", "anchors and aliases"),
    "an anchored key": ("&x a: 1", "anchors and aliases"),
    "merging": ("a: {<<: {b: 1}}", "merge keys"),
    "a key twice": ("a: 1\nb: 2\na: 3", "line 3: the key 'a' is there twice"),
    "a key twice inside": ("a: {b: 1, 'b': 2}", "the key 'b' is there twice"),
    "brackets": ("a: " + "[" * 30_000 + "]" * 30_000, "more than 32 levels"),
    "braces": ("a: " + "{b: " * 5000, "more than 32 levels"),
    "indented": ("".join(" " * n + f"k{n}:\n" for n in range(200)), "more than 32 levels"),
    "nested keys": ("? " * 3000 + "a", "more than 32 levels"),
    "dashes": ("- " * 3000 + "a", "more than 32 levels"),
    "a long number": ("a: " + "9" * 5000, "a number of more than 100 characters"),
    "a long sexagesimal": ("a: 1" + ":59" * 100_000, "a number of more than 100 characters"),
    "no day": ("a: 2024-99-99", "not YAML"),
    "an unhashable key": ("? {a: 1}\n: 2", "not valid YAML"),
    "Python": ("a: !!python/object/apply:os.system [true]", "not valid YAML"),
    "too large": ("a: " + "x" * documents.MAX_BYTES, "more than the 1,048,576 bytes"),
    "not UTF-8": (b"a: \xff\xfe", "not YAML in UTF-8"),
    "a control character": ("a: \x00", "not YAML in UTF-8"),
    "two documents": ("a: 1\n---\na: 2", "not valid YAML"),
}
READERS = {
    "job": read_job,
    "training": load_config,
    "search space": load_mapping,
    "storage options": lambda url: (use_options_file(url), storage_options(["s3"])),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", BAD)
def test_is_refused_by_name_soon_and_shortly(kind, reader, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPLIIF_RAY_STORAGE_OPTIONS", "")
    content, message = BAD[kind]
    path = tmp_path / "bad.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    began = time.monotonic()
    with pytest.raises(ConfigError, match=f"bad.yaml.*({message})") as caught:
        READERS[reader](str(path))
    assert len(str(caught.value)) < 1000
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "retrain", "config": "a", "output": "b", "metadata": {"x": ["y" * 10**6] * 9}},
        {"kind": "retrain", "config": "a", "output": ["b" * 10**6] * 100},
        {"kind": "retrain", "k" * 10**6: 1},
        {"kind": ["x" * 10**6]},
        {"kind": "x" * 10**6},
        {"kind": "retrain"} | {f"key{n}": n for n in range(20_000)},
        {"kind": "reprocess", "manifest": "m", "results": "r", "fail_if": ["x" * 10**6]},
        {"kind": "reprocess", "manifest": "m", "results": "r", "schedule": "x" * 10**6},
        {"kind": "retrain", "config": "a", "output": "b", "schedule": {"cron": "9" * 10**6 + " * * * *"}},
    ],
    ids=range(9),
)
def test_messages_of_jobs_show_values_cut(options):
    with pytest.raises(ConfigError) as caught:
        parse_job(options)
    assert len(str(caught.value)) < 6000


@pytest.mark.parametrize(
    "options",
    [
        {"steps": ["y" * 10**6] * 9},
        {"k" * 10**6: 1},
        {f"key{n}": n for n in range(20_000)},
        {"crop": {"x": {"y": "z" * 10**6}}},
    ],
    ids=range(4),
)
def test_messages_of_training_show_values_cut(options):
    with pytest.raises(ConfigError) as caught:
        train_config({"data": [{"uri": "a"}], **options})
    assert len(str(caught.value)) < 5000


def test_what_people_write_reads_as_before(tmp_path):
    text = "a: {b: [1, 2.5, yes, null, 2024-01-02, 'x']}\nc: |\n  line\n\nlong: >\n  folded\n  text\n"
    text += "'quoted': \"\\u00e9\"\n? complex\n: value\nnumber: 1_000\nhex: 0x1F\n"
    path = tmp_path / "good.yaml"
    path.write_text("\ufeff" + text, encoding="utf-8")
    assert storage.read_yaml(str(path))[0] == yaml.safe_load(text)


def test_an_object_without_a_size_is_read_no_further_than_its_bound(tmp_path, monkeypatch):
    path = tmp_path / "endless"
    path.write_bytes(b"x" * 100)
    monkeypatch.setattr("deepliif_ray.storage.small.size", lambda url: None)
    with pytest.raises(ConfigError, match="more than the 10 bytes"):
        storage.read_small(str(path), 10)
    assert storage.read_small(str(path), 100) == b"x" * 100


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, ["y" * 10**6] * 10**4, {"z": {"z": {"z": {"z": [1] * 99}}}}, 9**4000, b"x" * 10**6],
    ids=range(5),
)
def test_values_are_shown_shortly(value):
    assert len(storage.shown(value)) < 1000
    assert len(storage.shown(value, quoted=False)) < 100
