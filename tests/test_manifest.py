"""The manifest: what is accepted, and that a bad one is refused with every problem named."""

import contextlib
import csv
import gzip
import io
import json
import random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepliif_ray import storage
from deepliif_ray.errors import ManifestError
from deepliif_ray.manifest import read_manifest

HEADER = "slide_id,patient_id,marker,uri,mpp"
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def write(tmp_path, content, name="m.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def problems(tmp_path, content, name="m.csv"):
    with pytest.raises(ManifestError) as caught:
        read_manifest(write(tmp_path, content, name))
    for problem in caught.value.problems:
        assert problem in str(caught.value)
    return caught.value.problems


def test_csv(tmp_path):
    content = (
        "\ufeff slide_id ,patient_id,marker,uri,mpp,site,note\r\n"
        '007, 01 ,mib-1,a/b.svs,0.25,Köln,"two\r\nlines"\r\n'
        "\r\n"
        '"a ""quoted"" id",02,p53,s3://bucket/x.svs,,,\r\n'
        ",,,,,,\r\n"
    )
    manifest = read_manifest(write(tmp_path, content))
    first, second = manifest.slides
    assert manifest.url == str(tmp_path / "m.csv")
    assert (first.slide_id, first.patient_id, first.marker, first.mpp) == ("007", "01", "Ki67", 0.25)
    assert first.uri == str(tmp_path / "a/b.svs")
    assert first.attributes == {"site": "Köln", "note": "two\r\nlines"}
    assert (second.slide_id, second.marker, second.mpp) == ('a "quoted" id', "TP53", None)
    assert second.uri == "s3://bucket/x.svs"
    assert second.attributes == {}


def test_json_lines(tmp_path):
    rows = [
        {"slide_id": 7, "patient_id": "p", "marker": "CD3", "uri": "a", "mpp": 0.5, "flag": True, "n": None},
        {
            "slide_id": "07",
            "patient_id": "p",
            "marker": "CD8",
            "uri": "b",
            "deep": {"a": [1, "é"]},
            "big": 2**70,
        },
    ]
    lines = "\n\n".join(json.dumps(row) for row in rows)
    first, second = read_manifest(write(tmp_path, lines, "m.jsonl")).slides
    assert (first.slide_id, first.mpp, first.attributes) == ("7", 0.5, {"flag": "true"})
    assert (second.slide_id, second.mpp) == ("07", None)
    assert second.attributes == {"deep": '{"a": [1, "é"]}', "big": str(2**70)}


def test_parquet(tmp_path):
    frame = pl.DataFrame(
        {
            "slide_id": ["007", "8"],
            "patient_id": [1, 2],
            "marker": [b"Ki67", b"MYC"],
            "uri": ["a", "b"],
            "mpp": [None, 0.25],
            "tags": [["x"], None],
        }
    )
    frame.write_parquet(tmp_path / "m.parquet")
    first, second = read_manifest(str(tmp_path / "m.parquet")).slides
    assert (first.slide_id, first.patient_id, first.mpp, first.attributes) == (
        "007",
        "1",
        None,
        {"tags": '["x"]'},
    )
    assert (second.marker, second.mpp, second.attributes) == ("MYC", 0.25, {})


ROW = "S,P,Ki67,a.svs,0.25\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m", f"{HEADER}\n{ROW}".encode()),
        ("m.CSV", f"{HEADER}\n{ROW}".encode()),
        ("m.txt", b'{"slide_id": "S", "patient_id": "P", "marker": "Ki67", "uri": "a.svs", "mpp": 0.25}'),
        ("m.csv.gz", gzip.compress(f"{HEADER}\n{ROW}".encode(), mtime=0)),
        (
            "m.ndjson.gz",
            gzip.compress(
                b'{"slide_id":"S","patient_id":"P","marker":"Ki67","uri":"a.svs","mpp":"0.25"}', mtime=0
            ),
        ),
    ],
)
def test_format_is_recognised(tmp_path, name, content):
    (slide,) = read_manifest(write(tmp_path, content, name)).slides
    assert (slide.slide_id, slide.mpp) == ("S", 0.25)


def test_relative_to_a_remote_manifest():
    storage.write_bytes("memory://cohort/in/m.csv", f"{HEADER}\nS,P,Ki67,../a b#%.svs,\n".encode())
    (slide,) = read_manifest("memory://cohort/in/m.csv").slides
    assert slide.uri == "memory://cohort/a b#%.svs"


def test_every_problem_is_listed_by_row(tmp_path):
    found = problems(
        tmp_path,
        f"{HEADER}\n"
        "A,P,Ki67,a,0.25\n"
        "A,P,Ki68,b,forty\n"
        ' ,"",Ki67, ,\n'
        '"B\nB",P,PDL2,c,nan\n'
        "C,P,Ki67,c,0.25,d\n"
        "D,P,Ki67\n"
        "A,P,Ki67,e,-0.25\n",
    )
    starts = [
        "row 3: slide_id 'A' is already used in row 2",
        "row 3: unknown marker 'Ki68'; did you mean Ki67?",
        "row 3: mpp 'forty'",
        "row 4: slide_id is empty",
        "row 4: patient_id is empty",
        "row 4: uri is empty",
        "row 5: unknown marker 'PDL2'; did you mean PDL1",
        "row 5: mpp 'nan'",
        "row 6: 6 fields where the header has 5",
        "row 7: 3 fields where the header has 5",
        "row 8: slide_id 'A' is already used in row 2",
        "row 8: mpp '-0.25'",
    ]
    assert len(found) == len(starts)
    assert all(problem.startswith(start) for problem, start in zip(found, starts, strict=True)), found


@pytest.mark.parametrize(
    "mpp", ["0", "inf", "-inf", "1e999", "40", "250", "0.00025", "0,25", "0.25 um", "1_0", "x"]
)
def test_mpp_that_no_slide_has(tmp_path, mpp):
    assert problems(tmp_path, f'{HEADER}\nS,P,Ki67,a,"{mpp}"\n')[0].startswith("row 2: mpp ")


def test_problems_of_json_lines_name_the_line(tmp_path):
    lines = '\n{"slide_id": "\\ud800", "patient_id": null, "marker": "Ki67", "uri": ""}\n[1]\n{"a\n'
    found = problems(tmp_path, lines, "m.jsonl")
    assert [problem.split(":")[0] for problem in found] == ["row 2"] * 3 + ["row 3", "row 4"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "the file is empty"),
        (" \n\n", "the file is empty"),
        (HEADER, "there are no rows"),
        (f"{HEADER}\n,,,,\n", "there are no rows"),
        (f"{HEADER},mpp\n{ROW.strip()},1", "column 'mpp' is there 2 times"),
        ("slide_id,patient,marker,uri\nS,P,Ki67,a\n", "column 'patient_id' is missing; rename 'patient'"),
        ("slide_id;patient_id;marker;uri\nS;P;Ki67;a\n", "columns found: slide_id;patient_id;marker;uri"),
        (f"{HEADER}\nS,P,Ki67,a,\nÄ,P,Ki67,a,".encode("latin-1"), "line 3 is not UTF-8"),
        (f'{HEADER}\n"S,P,Ki67,a,\nT,P,Ki67,a,', "row 2: not valid CSV"),
        (gzip.compress(HEADER.encode(), mtime=0)[:-9], "ended"),
    ],
)
def test_unusable_file(tmp_path, content, expected):
    assert any(expected in problem for problem in problems(tmp_path, content)), problems(tmp_path, content)


def test_missing_column_does_not_hide_bad_rows(tmp_path):
    found = problems(tmp_path, "slide_id,patient_id,marker\nS,P,Ki68\n")
    assert [problem.split(";")[0] for problem in found] == [
        "column 'uri' is missing",
        "row 2: unknown marker 'Ki68'",
    ]


@pytest.mark.parametrize("url", ["nowhere/m.csv", "memory://nowhere/m.csv", "nothing://m.csv", "."])
def test_unreadable_location(url):
    with pytest.raises(ManifestError):
        read_manifest(url)


@settings(max_examples=60, deadline=None)
@given(
    ids=st.lists(text.filter(lambda t: t.strip()), min_size=1, max_size=5, unique=True),
    attribute=text,
    kind=st.sampled_from(["csv", "jsonl", "parquet"]),
)
def test_any_text_is_kept(ids, attribute, kind):
    rows = [
        {"slide_id": i, "patient_id": "P", "marker": "Ki67", "uri": "/a", "mpp": None, "extra": attribute}
        for i in ids
    ]
    if kind == "csv":
        buffer = io.StringIO(newline="")
        writer = csv.DictWriter(buffer, rows[0].keys(), quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
        content = buffer.getvalue().encode()
    elif kind == "jsonl":
        content = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    else:
        sink = io.BytesIO()
        pl.DataFrame(rows, schema_overrides={"mpp": pl.Float64}).write_parquet(sink)
        content = sink.getvalue()
    url = f"memory://any/m.{kind}"
    storage.write_bytes(url, content)
    slides = read_manifest(url).slides
    assert [slide.slide_id for slide in slides] == ids
    assert slides[0].attributes == ({"extra": attribute} if attribute.strip() else {})


def test_long_id_and_large_manifest(tmp_path):
    rows = "".join(f"S{i},P{i % 99},Ki67,{i}.svs,0.25\n" for i in range(20_000))
    slides = read_manifest(write(tmp_path, f"{HEADER}\n{'x' * 10_000},P,Ki67,a,\n{rows}")).slides
    assert len(slides) == 20_001
    assert slides[0].slide_id == "x" * 10_000


def test_damaged_parquet_gives_a_manifest_error_or_rows(tmp_path):
    pl.DataFrame({"slide_id": ["A"] * 50, "patient_id": "P", "marker": "Ki67", "uri": "a"}).write_parquet(
        tmp_path / "good.parquet"
    )
    good = (tmp_path / "good.parquet").read_bytes()
    rng = random.Random(0)
    for _ in range(300):
        bad = bytearray(good)
        for _ in range(rng.randint(1, 8)):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        cut = rng.choice([len(bad), rng.randrange(len(bad))])
        with contextlib.suppress(ManifestError):
            read_manifest(write(tmp_path, bytes(bad[:cut]), "m.parquet"))
