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
names = text.map(lambda t: f"{t}S")  # never a word for nothing, a date, or a number


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
        "A,P,H&E,b,forty\n"
        ' ,"",Ki67, ,\n'
        '"B\nB",#N/A,Ki67,c,nan\n'
        "C,P,Ki67,c,0.25,d\n"
        "D,P,Ki67\n"
        "A,P,Ki67,e,-0.25\n",
    )
    starts = [
        "row 3: slide_id 'A' is already used in row 2",
        "row 3: 'H&E' shows no marker",
        "row 3: mpp 'forty'",
        "row 4: slide_id is empty",
        "row 4: patient_id is empty",
        "row 4: uri is empty",
        "row 5: patient_id is empty ('#N/A' is no value)",
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
        ("slide_id/patient_id/marker/uri\nS/P/Ki67/a\n", "columns found: slide_id/patient_id/marker/uri"),
        (f"{HEADER}\nS,P,Ki67,a,\nÄ,P,Ki67,a,".encode("latin-1"), "line 3 is not UTF-8"),
        (f'{HEADER}\n"S,P,Ki67,a,\nT,P,Ki67,a,', "row 2: not valid CSV"),
        (gzip.compress(HEADER.encode(), mtime=0)[:-9], "ended"),
    ],
)
def test_unusable_file(tmp_path, content, expected):
    assert any(expected in problem for problem in problems(tmp_path, content)), problems(tmp_path, content)


def test_missing_column_does_not_hide_bad_rows(tmp_path):
    found = problems(tmp_path, "slide_id,patient_id,marker\nS,P,PAS\n")
    assert [problem.split(";")[0] for problem in found] == [
        "column 'uri' is missing",
        "row 2: 'PAS' shows no marker, so an index of it would mean nothing",
    ]


@pytest.mark.parametrize("url", ["nowhere/m.csv", "memory://nowhere/m.csv", "nothing://m.csv", "."])
def test_unreadable_location(url):
    with pytest.raises(ManifestError):
        read_manifest(url)


@settings(max_examples=60, deadline=None)
@given(
    ids=st.lists(names, min_size=1, max_size=5, unique=True),
    attribute=text,
    kind=st.sampled_from(["csv", "jsonl", "parquet"]),
)
def test_any_text_is_kept(ids, attribute, kind):
    rows = [
        {"slide_id": i, "patient_id": "P", "marker": "Ki67", "uri": f"/{n}", "mpp": None, "extra": attribute}
        for n, i in enumerate(ids)
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


@pytest.mark.slow
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


NOTHING = [
    "NA",
    "n/a",
    "nan",
    "NaN",
    "#N/A",
    "null",
    "NULL",
    "None",
    "-",
    "--",
    "?",
    "unknown",
    ".",
    "#REF!",
    "<NA>",
]


@pytest.mark.parametrize("column", ["slide_id", "patient_id", "marker", "uri"])
@pytest.mark.parametrize("word", [*NOTHING, " na ", "\u200b", "Not available", '"null"'])
def test_a_word_for_nothing_is_nothing(tmp_path, column, word):
    row = {"slide_id": "S", "patient_id": "P", "marker": "Ki67", "uri": "a.svs"} | {column: word}
    found = problems(tmp_path, json.dumps(row), "m.jsonl")
    assert found[0].startswith(f"row 1: {column} is empty") and len(found) == 1


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (["1.2E+11", "1.3E+11"], "lost its last digits"),
        (["1,20E+11", "x"], "lost its last digits"),
        (["17.0", "P2"], "write '17'"),
        (["2024-01-02", "P2"], "is a date"),
        (["2024-01-02 00:00:00", "P2"], "is a date"),
        (["02/01/2024", "P2"], "is a date"),
        (["1-Feb", "P2"], "is a date"),
        (["Jan-05", "P2"], "is a date"),
        (["1. Mrz", "P2"], "is a date"),
        (["17", "0018"], "probably '0017'"),
        (["1234567890123450000", "x"], "cut it"),
        (["'007", "x"], "write '007'"),
        (['="007"', "x"], "write '007'"),
        (["True", "x"], "truth value"),
        (["P1\u200b", "P1"], "look the same"),
    ],
)
def test_mangled_patients_are_refused(tmp_path, ids, said):
    rows = [
        {"slide_id": f"S{n}", "patient_id": i, "marker": "Ki67", "uri": f"{n}.svs"} for n, i in enumerate(ids)
    ]
    found = problems(tmp_path, "\n".join(map(json.dumps, rows)), "m.jsonl")
    assert found[0].startswith("row 1: patient_id ") and said in found[0]


@pytest.mark.parametrize(
    "ids",
    [
        ["1", "20", "300"],
        ["0017", "1234"],
        ["017", "1234"],  # grew out of its zeros
        ["12.0", "12.1", "12.2"],
        ["1E5", "2e6"],
        ["2024-01", "2024-1234"],
        ["10-12", "1/2"],
        ["1234567890123456", "1234567890123450"],
        ["MAR1", "May"],
        ["T2024-01-02", "NAN1"],
        ["P-1-1", "P11"],
    ],
)
def test_ids_that_only_look_odd_are_kept(tmp_path, ids):
    rows = "".join(f"S{n},{i},Ki67,{n}.svs,0.25\n" for n, i in enumerate(ids))
    manifest = read_manifest(write(tmp_path, f"{HEADER}\n{rows}"))
    assert [slide.patient_id for slide in manifest.slides] == ids
    assert manifest.warnings == []


def test_what_is_doubtful_is_told_not_refused(tmp_path):
    rows = "17,p-1,Ki67,a,\n0018,P01,HER3,b,\nS3,P01,PD-L1 (22C3),c,\n"
    manifest = read_manifest(write(tmp_path, f"{HEADER}\n{rows}"))
    told = "\n".join(manifest.warnings)
    assert "row 2: slide_id '17' is shorter" in told
    assert "row 2: patient_id 'p-1' is another than 'P01'; if they are one patient" in told
    assert "row 3: marker 'HER3' is not in the registry; it is scored as HER3" in told
    assert "row 4: marker 'PD-L1 (22C3)' is read as PDL1" in told
    assert [slide.marker for slide in manifest.slides] == ["Ki67", "HER3", "PDL1"]
    many = "".join(f"S{n},P,HER3,{n}.svs,\n" for n in range(9))
    (warning,) = read_manifest(write(tmp_path, f"{HEADER}\n{many}")).warnings
    assert warning.startswith("rows 2, 3, 4, 5, 6 and 4 more: marker 'HER3' is not in the registry")
    numbers = '{"slide_id": "a", "patient_id": 7, "marker": "Ki67", "uri": "a"}\n'
    numbers += '{"slide_id": "b", "patient_id": 17, "marker": "Ki67", "uri": "b"}'
    (warning,) = read_manifest(write(tmp_path, numbers, "m.jsonl")).warnings
    assert warning.startswith("patient_id holds numbers")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.txt", "m"])
def test_separators_and_encodings(tmp_path, separator, encoding, name):
    mpp = "0.25" if separator == "," else "0,25"
    rows = [
        ["slide_id", '"patient_id"', "marker", "uri", "mpp", "site"],
        ["S1", "P1", "Ki67", "a.svs", mpp, "Köln"],
    ]
    content = "\r\n".join(separator.join(row) for row in rows).encode(encoding)
    (slide,) = read_manifest(write(tmp_path, content, name)).slides
    assert (slide.slide_id, slide.patient_id, slide.mpp) == ("S1", "P1", 0.25)
    assert slide.attributes == {"site": "Köln"}


def test_separator_named_in_the_first_line(tmp_path):
    content = "sep=;\r\nslide_id;patient_id;marker;uri;mpp;\r\nS;P;Ki67;a,b.svs;0,5;\r\nT;P;;b;;\r\n"
    assert problems(tmp_path, content) == ["row 4: marker is empty"]
    (slide,) = read_manifest(write(tmp_path, content.replace("T;P;;b;;\r\n", ""))).slides
    assert (slide.uri, slide.mpp) == (str(tmp_path / "a,b.svs"), 0.5)
    (found,) = problems(tmp_path, "slide_id;patient_id;marker;uri\nS;P;Ki67;a;b\n")
    assert "5 fields where the header has 4 (separated by a semicolon)" in found


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("Slide ID,patient_id,marker,uri", "column 'Slide ID' is probably 'slide_id'; rename it"),
        ("slide_id,PATIENT_ID,marker,uri", "column 'PATIENT_ID' is probably 'patient_id'"),
        ("slide_id,patient_id,Marker,uri", "column 'Marker' is probably 'marker'"),
        ("slide_id,patient_id,marker,uri,MPP", "column 'MPP' is probably 'mpp'"),
        ("slide_id,patient_id,marker,uri,Series", "column 'Series' is probably 'series'"),
        ("slide_id,patient_id,marker,uri,", "column 5 has values but no name"),
    ],
)
def test_column_names_nearly_right(tmp_path, header, said):
    values = ",".join(["S", "P", "Ki67", "a", "0.25"][: header.count(",") + 1])
    assert any(said in problem for problem in problems(tmp_path, f"{header}\n{values}\n"))


def test_files_that_are_no_table(tmp_path):
    for content, said in (
        (b"PK\x03\x04" + bytes(30) + b"xl/workbook.xml", "Excel workbook (.xlsx)"),
        (b"\xd0\xcf\x11\xe0" + bytes(30), "Excel workbook (.xls)"),
        (b"PK\x03\x04" + bytes(30), "ZIP archive"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"%PDF-1.7", "PDF"),
        (b'[{"slide_id": "S"}]', "not a JSON object"),
    ):
        assert said in problems(tmp_path, content)[0]


@pytest.mark.parametrize(
    "line",
    [
        '{"marker": "CD3", "slide_id": "S", "patient_id": "P", "uri": "a", "marker ": "Ki67"}',
        '{"marker": "CD3", "slide_id": "S", "patient_id": "P", "uri": "a", "marker": "Ki67"}',
    ],
)
def test_a_key_that_is_there_twice(tmp_path, line):
    assert problems(tmp_path, line, "m.jsonl") == ["row 1: key 'marker' is there twice; keep one"]


def test_deep_json(tmp_path):
    assert "nested too deeply" in problems(tmp_path, '{"a":' * 100_000, "m.jsonl")[0]


def test_the_same_slide_twice(tmp_path):
    (tmp_path / "real").mkdir()
    for name in ("a b.svs", "c.svs", "d%20e.svs"):
        (tmp_path / "real" / name).write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    again = [
        f"file://{tmp_path}/real/a%20b.svs",
        f"file://localhost{tmp_path}/real/a%20b.svs",
        f"file:{tmp_path}/real/a b.svs",
        "real/../real/./a b.svs",
        f"{tmp_path}//real/a b.svs",
        "link/a b.svs",
    ]
    for uri in again:
        (found,) = problems(tmp_path, f"{HEADER}\nS1,P1,Ki67,real/a b.svs,\nS2,P2,CD3,{uri},\n")
        assert found.startswith(
            "row 3: it is the slide of row 2 again (patient_id 'P1' there, 'P2' here; marker "
        )
    rows = "S1,P1,Ki67,s3://b/k/,\nS2,P1,Ki67,s3a://b/k,\nS3,P,Ki67,s3://b/d/1.dcm,\n"
    assert [p[:42] for p in problems(tmp_path, f"{HEADER}\n{rows}")] == [
        "row 3: it is the slide of row 2 again (uri"
    ]
    rows = "S3,P,Ki67,s3://b/d/1.dcm,\nS4,P,Ki67,s3://b/d,\n"
    manifest = read_manifest(write(tmp_path, f"{HEADER}\n{rows}"))
    assert "row 3: it may be the image of row 2 again; its cells would count twice" in manifest.warnings
    named = f"{HEADER},series\nA,P,Ki67,real/c.svs,,0\nB,P,Ki67,real/c.svs,,1\nC,P,Ki67,real/d%20e.svs,,\n"
    manifest = read_manifest(write(tmp_path, named))
    assert manifest.warnings == []  # two images of one file
    assert manifest.slides[2].uri == str(tmp_path / "real/d%20e.svs")
    manifest = read_manifest(write(tmp_path, named.replace("c.svs,,1", "c.svs,,")))
    assert "row 3: it may be the image of row 2 again; its cells would count twice" in manifest.warnings


def test_file_urls_lead_to_the_file_that_is_meant(tmp_path):
    for name in ("a b.svs", "c#é.svs", "literal%20.svs", "50%.svs"):
        (tmp_path / name).write_bytes(b"x")
    uris = ["a%20b.svs", "c%23%C3%A9.svs", "literal%20.svs", "50%.svs", "50%25.svs"]
    rows = [f"S{n},P,Ki67,file://{tmp_path}/{uri},0.25\n" for n, uri in enumerate(uris)]
    slides = read_manifest(write(tmp_path, f"{HEADER}\n{''.join(rows[:4])}")).slides
    assert [slide.uri for slide in slides] == [
        str(tmp_path / name) for name in ("a b.svs", "c#é.svs", "literal%20.svs", "50%.svs")
    ]
    assert all(storage.exists(slide.uri) for slide in slides)
    (slide,) = read_manifest(write(tmp_path, f"{HEADER}\n{rows[4]}")).slides
    assert slide.uri == str(tmp_path / "50%.svs")


def test_identity_of_a_manifest(tmp_path):
    rows = ["A,P,Ki67,a,0.25\n", "B,P,Ki67,b,\n"]
    first = read_manifest(write(tmp_path, f"{HEADER}\n{''.join(rows)}")).digest
    assert read_manifest(write(tmp_path, f"{HEADER}\n{''.join(rows[::-1])}")).digest == first
    assert read_manifest(write(tmp_path, f"{HEADER}\n{rows[0]}")).digest != first
    assert read_manifest(write(tmp_path, f"{HEADER}\n{''.join(rows)}".replace("B,P", "B,Q"))).digest != first


@pytest.mark.parametrize("word", ["missing", "empty", "Not known", "TBD"])
def test_words_that_name_no_patient_may_name_a_slide(tmp_path, word):
    (slide,) = read_manifest(write(tmp_path, f"{HEADER}\n{word},P,Ki67,{word}.svs,\n")).slides
    assert slide.slide_id == word
    assert "patient_id is empty" in problems(tmp_path, f"{HEADER}\nS,{word},Ki67,a.svs,\n")[0]
