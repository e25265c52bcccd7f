"""Manifests from folders and buckets."""

import csv
import io
import struct
import uuid

import openslide
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError, ManifestError
from deepliif_ray.jobs.dicom_head import parse_identifiers, read_identifiers
from deepliif_ray.jobs.pattern import PathPattern
from deepliif_ray.jobs.scan import scan
from deepliif_ray.manifest import read_manifest
from tests.test_cli import run

PATTERN = "{patient_id}/{marker}/{slide_id}.svs"


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path) -> str:
    """An empty folder to put slides in."""
    if request.param == "local":
        return str(tmp_path)
    return f"memory://scan-{uuid.uuid4().hex}"


def put(place, *paths, content=b"x"):
    for path in paths:
        storage.write_bytes(storage.join(place, "slides", path), content)


def find(place, *patterns, output="m.csv", **options):
    patterns = patterns or (PATTERN,)
    for key in ("extend", "join"):
        if key in options:
            options[key] = storage.join(place, options[key])
    return scan(storage.join(place, "slides"), patterns, storage.join(place, output), **options)


def rows(place, name="m.csv"):
    text = storage.read_bytes(storage.join(place, name)).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_slides_are_found_and_others_reported(place):
    put(
        place,
        "P1/Ki67/S 1 #é%.svs",
        "P1/MIB-1/S2.svs",
        "P2/HE/S3.svs",
        "loose.svs",
        "P3/p53/S4.ndpi",
        "notes.txt",
    )
    report = find(place)
    assert (report.rows, report.added, report.known, report.other_files) == (2, 2, 0, 1)
    why = {uri.rpartition("/")[2]: text for uri, text in report.unplaced}
    assert set(why) == {"S3.svs", "loose.svs", "S4.ndpi"}
    assert "'HE' shows no marker" in why["S3.svs"]
    assert why["loose.svs"] == f"loose.svs does not fit {PATTERN!r}"
    slides = read_manifest(storage.join(place, "m.csv")).slides
    assert [(s.slide_id, s.patient_id, s.marker) for s in slides] == [
        ("S 1 #é%", "P1", "Ki67"),
        ("S2", "P1", "Ki67"),
    ]
    assert all(storage.exists(s.uri) for s in slides)


def test_extending_keeps_what_people_wrote(place):
    put(place, "P1/Ki67/S1.svs", "P1/Ki67/S2.svs")
    find(place, extend="m.csv")  # it need not be there the first time
    first, second = rows(place)
    edited = "slide_id,patient_id,marker,uri,mpp,note\n"
    edited += f'renamed,P9,p53,{first["uri"]},0.25,"two\nlines, ""kept"""\n'
    edited += f"S2,P1,Ki67,{second['uri']},,\nextern,P1,Ki67,/elsewhere/x.svs,,\n"
    storage.write_bytes(storage.join(place, "m.csv"), edited.encode())
    put(place, "P2/Ki67/S3.svs")
    report = find(place, extend="m.csv")
    assert (report.rows, report.added, report.known, report.unplaced) == (4, 1, 2, [])
    found = rows(place)
    assert found[:3] == list(csv.DictReader(io.StringIO(edited, newline="")))
    assert (found[3]["slide_id"], found[3]["note"]) == ("S3", "")
    before = storage.read_bytes(storage.join(place, "m.csv"))
    assert find(place, extend="m.csv").added == 0
    assert storage.read_bytes(storage.join(place, "m.csv")) == before


def test_relative_rows_hold_in_another_folder(place):
    put(place, "P1/Ki67/S1.svs", "P1/Ki67/S2.svs")
    old = "slide_id,patient_id,marker,uri\nS1,P1,Ki67,slides/P1/Ki67/S1.svs\n"
    storage.write_bytes(storage.join(place, "old.csv"), old.encode())
    report = find(place, extend="old.csv", output="new/m.jsonl")
    assert (report.known, report.added) == (1, 1)
    slides = read_manifest(storage.join(place, "new/m.jsonl")).slides
    assert all(storage.exists(slide.uri) for slide in slides) and len(slides) == 2
    find(place, extend="old.csv", output="old.csv")
    assert rows(place, "old.csv")[0]["uri"] == "slides/P1/Ki67/S1.svs"


def test_nothing_is_overwritten_and_nonsense_refused(place):
    put(place, "P1/Ki67/S1.svs")
    find(place)
    for options in (
        {},
        {"output": "m.xlsx"},
        {"output": "n.csv", "join": "lab.csv"},
        {"output": "n.csv", "extend": "absent.csv"},
    ):
        with pytest.raises((ConfigError, ManifestError)):
            find(place, **options)
    for pattern in ("{slide_id", "{}/{slide_id}.svs", "a}{slide_id}"):
        with pytest.raises(ConfigError, match="pattern"):
            find(place, pattern, output="n.csv")
    with pytest.raises(ConfigError, match="no slides below it"):
        scan(storage.join(place, "nowhere"), [PATTERN], storage.join(place, "n.csv"))
    assert not storage.exists(storage.join(place, "n.csv"))


def test_one_name_for_several_slides_places_none_of_them(place):
    put(place, "P1/Ki67/S1.svs", "P2/Ki67/S1.svs", "P2/Ki67/S2.svs")
    report = find(place)
    assert report.added == 1
    assert (
        all("slide_id 'S1' is also that of" in why for _, why in report.unplaced)
        and len(report.unplaced) == 2
    )
    put(place, "P3/Ki67/S2.svs")
    report = find(place, extend="m.csv")
    assert report.added == 0
    assert any("'S2' is that of" in why and "P2/Ki67/S2.svs" in why for _, why in report.unplaced)


def test_joining_a_table_of_the_laboratory(place):
    put(place, "a.svs", "deep/b.svs", "c.svs", "d.svs", "e.svs")
    lab = "file_name,patient_id,marker,block,slide_id\na.svs,7,MIB-1,A1,\nb.svs,8,p53,,B-8\n"
    lab += "c.svs,9,Ki67,,\nc.svs,9,Ki67,,\nd.svs,,Ki67,,\nz.svs,1,Ki67,,\n"
    storage.write_bytes(storage.join(place, "lab.csv"), lab.encode())
    report = find(place, "{slide_id}.svs", "deep/*.svs", join="lab.csv", on="file_name")
    assert [(r["slide_id"], r["patient_id"], r["marker"], r["block"]) for r in rows(place)] == [
        ("a", "7", "MIB-1", "A1"),
        ("B-8", "8", "p53", ""),
    ]
    why = {uri.rpartition("/")[2]: text for uri, text in report.unplaced}
    assert why["c.svs"].startswith("2 rows of ")
    assert why["d.svs"].startswith("patient_id given by neither its path nor ")
    assert why["e.svs"].startswith("patient_id, marker given by neither")
    assert report.lab_rows_unused == 1
    with pytest.raises(ConfigError, match="has no column 'file'"):
        find(place, "{slide_id}.svs", output="n.csv", join="lab.csv", on="file")


def test_two_sources_that_disagree_about_a_patient(place):
    put(place, "P1/Ki67/a.svs", "P2/Ki67/b.svs")
    storage.write_bytes(storage.join(place, "lab.csv"), b"f,patient_id\na.svs,P1\nb.svs,P3\n")
    report = find(place, join="lab.csv", on="f")
    ((uri, why),) = report.unplaced
    assert uri.endswith("b.svs") and why.startswith("patient_id is 'P2' by its path, 'P3' by ")
    assert report.added == 1


def element(group, number, kind, value: bytes) -> bytes:
    head = struct.pack("<HH", group, number) + kind
    if kind in (b"SQ", b"UN", b"OB"):
        return head + struct.pack("<HI", 0, len(value)) + value
    value += b" " * (len(value) % 2)
    return head + struct.pack("<H", len(value)) + value


def dicom(patient="P1", container="S1", syntax=b"1.2.840.10008.1.2.1\0") -> bytes:
    nested = element(0x10, 0x20, b"LO", b"of another patient")
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + nested + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
    open_sequence = struct.pack("<HH", 0x8, 0x1115) + b"SQ\0\0" + struct.pack("<I", 0xFFFFFFFF)
    return (
        bytes(128) + b"DICM"
        + element(0x2, 0x10, b"UI", syntax)
        + open_sequence + item + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
        + element(0x8, 0x1140, b"SQ", struct.pack("<HHI", 0xFFFE, 0xE000, len(nested)) + nested)
        + element(0x10, 0x20, b"LO", patient.encode())
        + element(0x20, 0xE, b"UI", b"1.2.3")
        + element(0x40, 0x512, b"LO", container.encode())
        + element(0x7FE0, 0x10, b"OB", bytes(1000))
    )  # fmt: skip


def test_dicom_slides_are_folders_named_by_their_files(place):
    for name in ("1.dcm", "2.dcm"):
        put(place, f"Ki67/first/{name}", content=dicom("P1", "S1"))
    put(place, "Ki67/second/a.dcm", content=dicom("", ""))
    put(place, "Ki67/third/a.dcm", content=b"no dicom")
    put(place, "Ki67/first/icon.png")
    report = find(place, "{marker}/*/*.dcm")
    (row,) = rows(place)
    assert row["slide_id"] == "S1" and row["patient_id"] == "P1" and row["uri"].endswith("/slides/Ki67/first")
    why = {uri.rpartition("/")[2]: text for uri, text in report.unplaced}
    assert why["second"].startswith("patient_id not given by")
    assert why["third"].startswith("slide_id, patient_id not given by")
    assert "does not fit" in why["icon.png"]
    report = find(place, "{marker}/{patient_id}/{slide_id}.dcm", output="n.csv")
    assert [why for uri, why in report.unplaced if uri.endswith("first")] == [
        "several DICOM slides in one folder; give each a folder of its own"
    ]


def test_dicom_head_cut_or_in_another_encoding():
    whole = dicom()
    expected = {"PatientID": "P1", "SeriesInstanceUID": "1.2.3", "ContainerIdentifier": "S1"}
    assert parse_identifiers(whole) == expected
    assert parse_identifiers(dicom(syntax=b"1.2.840.10008.1.2.2\0")) == {}
    for length in range(len(whole) - 1000):
        assert parse_identifiers(whole[:length]).items() <= expected.items()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_dicom_is_no_error(data):
    head = bytearray(dicom())
    for _ in range(data.draw(st.integers(1, 6))):
        head[data.draw(st.integers(132, 400))] = data.draw(st.integers(0, 255))
    parse_identifiers(bytes(head))


def test_a_number_of_the_wrong_length_is_no_error():
    whole = dicom()
    damaged = whole.replace(b"\x20\x00\x0e\x00UI", b"\x20\x00\x0e\x00UL")
    assert damaged != whole and parse_identifiers(damaged) == {}


def test_dicom_identifiers_are_those_that_openslide_reads(shared_data):
    seen = 0
    for path in sorted(shared_data.glob("slides/*_dicom/*.dcm")):
        try:
            with openslide.OpenSlide(path) as slide:
                properties = dict(slide.properties)
        except openslide.OpenSlideError:
            continue
        for keyword in ("PatientID", "SeriesInstanceUID", "ContainerIdentifier", "AccessionNumber"):
            assert read_identifiers(str(path)).get(keyword, "") == properties.get(f"dicom.{keyword}", "")
        seen += 1
    assert seen >= 2


@settings(max_examples=100, deadline=None)
@given(patient=st.text("ab. {*", min_size=1, max_size=5), slide=st.text("ab. ?[", min_size=1, max_size=5))
def test_patterns_take_apart_what_they_put_together(patient, slide):
    pattern = PathPattern("in/{patient_id}/x[1]/{patient_id}_{slide_id}.svs")
    found = pattern.match(f"in/{patient}/x[1]/{patient}_{slide}.svs")
    assert found == {"patient_id": patient, "slide_id": slide}
    assert pattern.match(f"in/{patient}/x[1]/{patient}c_{slide}.svs") is None


def test_stars():
    pattern = PathPattern("**/*_{slide_id}.svs")
    assert pattern.match("a/b/c_d.svs") == pattern.match("c_d.svs") == {"slide_id": "d"}
    assert pattern.match("a/b/cd.svs") is None


def test_scan_on_the_command_line(tmp_path, capsys):
    put(str(tmp_path), "P1/Ki67/S1.svs", "loose.svs", "readme.md")
    arguments = [
        "manifest",
        "scan",
        tmp_path / "slides",
        "--pattern",
        PATTERN,
        "--output",
        tmp_path / "m.parquet",
    ]
    assert run(*arguments, "--format", "csv") == 3
    shown = capsys.readouterr()
    assert list(pl.read_csv(io.StringIO(shown.out))["uri"]) == [str(tmp_path / "slides" / "loose.svs")]
    assert "1 slides added, 0 known before, 1 without a place; 1 rows in" in shown.err
    assert "1 other files were passed over" in shown.err
    (tmp_path / "slides" / "loose.svs").unlink()
    assert run(*arguments) == 2
    assert run(*arguments, "--extend", tmp_path / "m.parquet") == 0
    assert len(read_manifest(str(tmp_path / "m.parquet")).slides) == 1


def test_what_systems_leave_is_passed_over_and_counted(place):
    put(
        place,
        "P1/Ki67/S1.svs",
        "P1/Ki67/._S1.svs",
        "P1/Ki67/@eaDir/S1.svs/thumb.jpg",
        "P1/Ki67/~$S1.svs",
        ".Trash-1000/Ki67/S9.svs",
        "$RECYCLE.BIN/Ki67/S9.svs",
        "P1/Ki67/Thumbs.db",
        "P1/.DS_Store",
        "P1/desktop.ini",
        "P1/notes.txt",
    )
    report = find(place)
    assert (report.rows, report.unplaced, report.other_files, report.hidden_files) == (1, [], 1, 8)


def test_companions_are_part_of_their_slide(place):
    put(place, "P1/Ki67/M.mrxs", "P1/Ki67/M/Slidedat.ini", "P1/Ki67/M/Data0000.dat", "P1/Ki67/M/Index.dat")
    put(place, "P2/Ki67/H.vms", "P2/Ki67/H.jpg", "P2/Ki67/H_map2.jpg", "P2/Ki67/H.opt")
    report = find(place, "{patient_id}/{marker}/{slide_id}.*", "{patient_id}/{marker}/{slide_id}/*")
    assert {row["slide_id"] for row in rows(place)} == {"M", "H"}
    assert (report.unplaced, report.other_files) == ([], 6)


def test_an_ome_zarr_folder_is_one_slide(place):
    put(place, "P1/Ki67/S1.ome.zarr/.zattrs", "P1/Ki67/S1.ome.zarr/0/.zarray", "P1/Ki67/S1.ome.zarr/0/0/0")
    put(place, "P1/Ki67/S2.zarr/zarr.json", "P1/Ki67/S2.zarr/0/c/0/0")
    report = find(place, "{patient_id}/{marker}/{slide_id}.ome.zarr", "{patient_id}/{marker}/{slide_id}.zarr")
    assert [(row["slide_id"], row["uri"].rpartition("/")[2]) for row in rows(place)] == [
        ("S1", "S1.ome.zarr"),
        ("S2", "S2.zarr"),
    ]
    assert (report.unplaced, report.other_files, report.hidden_files) == ([], 0, 0)


def test_marker_and_mpp_given_for_all(place):
    put(place, "P1/S1.png", "P2/S2.png")
    find(place, "{patient_id}/{slide_id}.png", constants={"marker": "her2/neu", "mpp": "0.5"})
    slides = read_manifest(storage.join(place, "m.csv")).slides
    assert [(slide.marker, slide.mpp) for slide in slides] == [("HER2", 0.5)] * 2
    with pytest.raises(ConfigError, match="marker is given, and is in a pattern too"):
        find(place, PATTERN, constants={"marker": "Ki67"}, output="n.csv")
    report = find(
        place, "{patient_id}/{slide_id}.png", constants={"marker": "Ki67", "mpp": "40"}, output="n.csv"
    )
    assert report.added == 0 and all("mpp '40' cannot be used" in why for _, why in report.unplaced)


def test_rows_that_a_manifest_could_not_have_beside_the_others(place):
    put(place, "0017/Ki67/A.svs", "18/Ki67/B.svs", "unknown/Ki67/C.svs")
    report = find(place)
    assert report.added == 1
    told = {uri.rpartition("/")[2]: why for uri, why in report.unplaced}
    assert "probably '0018'" in told["B.svs"] and "is no value" in told["C.svs"]
