"""The bytes of a table as they come: bounded, unpacked, decoded, and named when they are no table."""

import codecs
import gzip
import io
import zlib

from deepliif_ray import storage
from deepliif_ray.errors import ManifestError, StorageError

MAX_BYTES = 64 * 2**20
"""Size of a manifest, unpacked. 250,000 rows of 250 characters are as much."""
MAX_ROWS = 250_000
MAX_COLUMNS = 1_000

GZIP = b"\x1f\x8b"
_SAMPLE = 4096
_SPREADSHEET = "save the sheet as CSV (UTF-8) and give that file"
_NO_TABLES = (  # how the content begins, what it is, what to do
    (b"\xd0\xcf\x11\xe0", "an Excel workbook (.xls)", _SPREADSHEET),
    (b"PK\x03\x04", "a ZIP archive", "unpack it and give the table inside"),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard", "unpack it, or compress it with gzip"),
    (b"BZh", "compressed with bzip2", "unpack it, or compress it with gzip"),
    (b"\xfd7zXZ", "compressed with xz", "unpack it, or compress it with gzip"),
    (b"%PDF", "a PDF document", "give the table as CSV"),
    (b"{\\rtf", "a text document (RTF)", "give the table as CSV"),
    (b"SQLite format 3", "a SQLite database", "export the table as CSV"),
)
_BOMS = (  # UTF-32's begins as UTF-16's does
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_content(url: str) -> bytes:
    """Return the content of a table, unpacked if gzip packed it.

    Raises
    ------
    ManifestError
        It cannot be read, is empty, is larger than `MAX_BYTES`, or is a file of another kind.
    """
    try:
        size = storage.size(url)
        content = b"" if size is not None and size > MAX_BYTES else storage.read_bytes(url)
        if content.startswith(GZIP):
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
                content = packed.read(MAX_BYTES + 1)
                size = len(content)
    except (StorageError, OSError, EOFError, zlib.error) as error:
        raise ManifestError(url, [str(error)]) from error
    if max(size or 0, len(content)) > MAX_BYTES:
        raise ManifestError(
            url, [f"it is larger than {MAX_BYTES // 2**20} MiB, unpacked; split it into several manifests"]
        )
    if not content.strip(b"\0 \t\r\n"):
        raise ManifestError(url, ["the file is empty; give a header and one row a slide"])
    _refuse_other_kinds(url, content)
    return content


def _refuse_other_kinds(url: str, content: bytes) -> None:
    kind, advice = next(((k, a) for magic, k, a in _NO_TABLES if content.startswith(magic)), ("", ""))
    if content.startswith(b"PK") and b"xl/" in content:
        kind, advice = "an Excel workbook (.xlsx)", _SPREADSHEET
    elif content.startswith(b"PK") and b"opendocument.spreadsheet" in content[:_SAMPLE]:
        kind, advice = "an OpenDocument spreadsheet (.ods)", _SPREADSHEET
    if kind:
        raise ManifestError(url, [f"the file is {kind}, not a table of text; {advice}"])
    if content[:_SAMPLE].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ManifestError(url, ["the file is a web page or XML, not a table; give the table itself"])


def decode(url: str, content: bytes) -> str:
    """Return the content as text: UTF-8, or UTF-16 or UTF-32 with or without a byte order mark.

    Raises
    ------
    ManifestError
        It is in another encoding. Which one cannot be told for certain, and a name that is read wrongly would
        be another patient.
    """
    encoding = next((name for mark, name in _BOMS if content.startswith(mark)), None) or _unmarked(content)
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise ManifestError(
                url, [f"not readable as {encoding} ({error.reason}); save it again"]
            ) from error
        line = content.count(b"\n", 0, error.start) + 1
        shown = content[error.start : error.start + 1].decode("cp1252", "replace")
        raise ManifestError(
            url,
            [
                f"line {line} is not UTF-8 text (in Windows-1252 or Latin-1 its first strange character is "
                f"{shown!r}); save the manifest as CSV in UTF-8, JSON Lines or Parquet"
            ],
        ) from error


def _unmarked(content: bytes) -> str:
    """Tell UTF-16 without a mark by the NUL in every second byte of what is mostly Latin text."""
    sample = content[: _SAMPLE - _SAMPLE % 2]
    even, odd = sample[::2], sample[1::2]
    for zeros, others, name in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        if len(zeros) >= 2 and zeros.count(0) > 0.7 * len(zeros) and others.count(0) < 0.1 * len(others):
            return name
    return "utf-8"
