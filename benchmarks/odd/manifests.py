"""Manifests as spreadsheets, data frames and hands make them: what each becomes is known."""

import re
from dataclasses import dataclass
from pathlib import Path

from deepliif_ray.errors import ManifestError
from deepliif_ray.manifest import read_manifest

HEADER = "slide_id,patient_id,marker,uri,mpp\n"
READ, REFUSED, WARNED = "read", "refused", "read with a warning"
ONE = (("S1", "P", "Ki67", "a.png", 0.25),)
_SEMICOLONS = HEADER.replace(",", ";") + "S1;P;Ki67;a.png;0,25\n"
_TABS = HEADER.replace(",", "\t") + "S1\tP\tKi67\ta.png\t0.25\n"
_JSON = '{"slide_id":"S1","patient_id":"P","marker":"Ki67","uri":"a.png"}\n'
_PLAIN = HEADER + "S1,P,Ki67,a.png,.25\n"

Row = tuple[str, str, str, str, float | None]


@dataclass(frozen=True)
class OddManifest:
    """A kind of manifest.

    Attributes
    ----------
    name : str
    content : str or bytes
    right : str
        ``read``, ``read with a warning`` or ``refused``.
    said : str
        Expression that the problem or the warning holds.
    rows : tuple
        What it is read as: slide, patient, marker, file name, µm per pixel.
    suffix : str
    """

    name: str
    content: str | bytes
    right: str
    said: str = ""
    rows: tuple[Row, ...] = ()
    suffix: str = ".csv"


def _rows(*rows: str) -> str:
    return HEADER + "".join(f"{row}\n" for row in rows)


ODD_MANIFESTS = (
    OddManifest(
        "patient NA", _rows("S1,NA,Ki67,a.png,.25", "S2,n/a,Ki67,b.png,.25"), REFUSED, "'NA' is no value"
    ),
    OddManifest("patient #N/A", _rows("S1,#N/A,Ki67,a.png,.25"), REFUSED, "'#N/A' is no value"),
    OddManifest("patient -", _rows("S1,-,Ki67,a.png,.25"), REFUSED, "'-' is no value"),
    OddManifest("patient empty", _rows("S1,,Ki67,a.png,.25"), REFUSED, "patient_id is empty"),
    OddManifest("patient unknown", _rows("S1,unknown,Ki67,a.png,.25"), REFUSED, "'unknown' is no value"),
    OddManifest("slide nan", _rows("nan,P,Ki67,a.png,.25"), REFUSED, "'nan' is no value"),
    OddManifest("marker null", _rows("S1,P,null,a.png,.25"), REFUSED, "'null' is no value"),
    OddManifest(
        "patients as 1.2E+11", _rows("S1,1.2E+11,Ki67,a.png,.25", "S2,1.2E+11,Ki67,b.png,.25"), REFUSED,
        "lost its last digits",
    ),
    OddManifest("patients as 1,2E+11", _SEMICOLONS.replace(";P;", ";1,2E+11;"), REFUSED, "last digits"),
    OddManifest(
        "patients as 12.0", _rows("S1,12.0,Ki67,a.png,.25", "S2,13.0,Ki67,b.png,.25"), REFUSED, "write '12'"
    ),
    OddManifest("patient a date", _rows("S1,2024-01-05,Ki67,a.png,.25"), REFUSED, "is a date"),
    OddManifest("patient 5-Jan", _rows("S1,5-Jan,Ki67,a.png,.25"), REFUSED, "is a date"),
    OddManifest(
        "zeros lost in one row", _rows("S1,00123,Ki67,a.png,.25", "S2,123,Ki67,b.png,.25"), REFUSED,
        "lost its zeros",
    ),
    OddManifest(
        "digits beyond 15 lost", _rows("S1,1234567890123450000,Ki67,a.png,.25"), REFUSED, "16th digit"
    ),
    OddManifest("a spreadsheet's mark for text", _rows("S1,'007,Ki67,a.png,.25"), REFUSED, "mark for text"),
    OddManifest(
        "patients that look the same", _rows("S1,P1,Ki67,a.png,.25", "S2,P1\u200b,Ki67,b.png,.25"), REFUSED,
        "row",
    ),
    OddManifest(
        "plain numbers", _rows("1,101,Ki67,a.png,.25", "2,99,Ki67,b.png,.25"), READ,
        rows=(("1", "101", "Ki67", "a.png", 0.25), ("2", "99", "Ki67", "b.png", 0.25)),
    ),
    OddManifest("semicolons, decimal comma", _SEMICOLONS, READ, rows=ONE),
    OddManifest("a line sep=;", "sep=;\n" + _SEMICOLONS, READ, rows=ONE),
    OddManifest("tabs", _TABS, READ, rows=ONE),
    OddManifest("upright strokes", _SEMICOLONS.replace(";", "|").replace("0,25", "0.25"), READ, rows=ONE),
    OddManifest("UTF-16", _PLAIN.encode("utf-16"), READ, rows=ONE),
    OddManifest("UTF-16 without a mark", _PLAIN.encode("utf-16-le"), READ, rows=ONE),
    OddManifest("UTF-8 with a mark", _PLAIN.encode("utf-8-sig"), READ, rows=ONE),
    OddManifest("Latin-1", _PLAIN.replace("P,", "Müller,").encode("latin-1"), REFUSED, "not UTF-8"),
    OddManifest("decimal comma in quotes", _rows('S1,P,Ki67,a.png,"0,25"'), REFUSED, "mpp '0,25'"),
    OddManifest("lines of an old Mac", _PLAIN.replace("\n", "\r"), READ, rows=ONE),
    OddManifest("a field without end", HEADER.rstrip() + "x" * 200_000, REFUSED, "field larger"),
    OddManifest("empty rows at the end", _PLAIN + ",,,,\n,,,,\n", READ, rows=ONE),
    OddManifest("a slide twice", _rows("S1,P,Ki67,a.png,.25", "S1,P,Ki67,b.png,.25"), REFUSED, "already"),
    OddManifest("a file twice", _rows("S1,P,Ki67,a.png,.25", "S2,P,Ki67,a.png,.25"), REFUSED, "row 2 again"),
    OddManifest(
        "a file of two patients", _rows("S1,P,Ki67,a.png,.25", "S2,Q,Ki67,./a.png,.25"), REFUSED, "'Q' here"
    ),
    OddManifest("an unknown marker", _rows("S1,P,FooBar,a.png,.25"), WARNED, "generic rule",
                (("S1", "P", "FOOBAR", "a.png", 0.25),)),
    OddManifest("HER2 beside Ki67", _rows("S1,P,Ki67,a.png,.25", "S2,P,HER-2/neu,b.png,.25"), READ,
                rows=(*ONE, ("S2", "P", "HER2", "b.png", 0.25))),
    OddManifest("a marker's hyphen of print", _rows("S1,P,Ki‑67,a.png,.25"), READ, rows=ONE),
    OddManifest(
        "columns with other names", "Slide ID,Patient ID,Marker,URI\nS1,P,Ki67,a.png\n", REFUSED, "rename it"
    ),
    OddManifest("a column twice", _PLAIN.replace("mpp", "marker").replace(".25", "CD3"), REFUSED, "2 times"),
    OddManifest("series -1", _PLAIN.replace("mpp", "series").replace(".25", "-1"), REFUSED, "series '-1'"),
    OddManifest("mpp of nanometres", _rows("S1,P,Ki67,a.png,250"), REFUSED, "mpp '250'"),
    OddManifest("a row too long", _rows("S1,P,Ki67,a.png,.25,x"), REFUSED, "row 2"),
    OddManifest("a workbook", b"PK\x03\x04" + b"0" * 500, REFUSED, "ZIP archive"),
    OddManifest(
        "JSON with a key twice", _JSON.replace("}", ',"marker":"CD3"}'),
        REFUSED, "twice", suffix=".jsonl",
    ),
    OddManifest(
        "JSON with a number as patient", _JSON.replace('"P"', "1.2e11"),
        REFUSED, "read as a number", suffix=".jsonl",
    ),
    OddManifest(
        "JSON with NaN as patient", _JSON.replace('"P"', "NaN"), REFUSED,
        "no value", suffix=".jsonl",
    ),
)  # fmt: skip


def outcome(kind: OddManifest, folder: Path) -> tuple[str, str, bool]:
    """Read a manifest; return what became of it, what was said, and whether that is right."""
    path = folder / f"odd{kind.suffix}"
    path.write_bytes(kind.content if isinstance(kind.content, bytes) else kind.content.encode())
    try:
        manifest = read_manifest(str(path))
    except ManifestError as error:
        said = "; ".join(error.problems)
        return REFUSED, said, kind.right == REFUSED and re.search(kind.said, said) is not None
    said = "; ".join(manifest.warnings)
    rows = tuple(
        (slide.slide_id, slide.patient_id, slide.marker, slide.uri.rpartition("/")[2], slide.mpp)
        for slide in manifest.slides
    )
    got = WARNED if said else READ
    return got, said, got == kind.right and rows == kind.rows and re.search(kind.said, said) is not None
