"""Reads a few identifiers from the head of a DICOM file, without fetching its pixels.

Encoding: DICOM PS3.5 section 7 (data elements) and PS3.10 section 7 (file meta information). Microscopy
images are stored with explicit value representations, little endian; others are told apart and refused.
"""

import struct

from deepliif_ray import storage

HEAD_BYTES = 256 * 2**10
_KEYWORDS = {
    (0x0008, 0x0050): "AccessionNumber",
    (0x0010, 0x0020): "PatientID",
    (0x0020, 0x000E): "SeriesInstanceUID",
    (0x0040, 0x0512): "ContainerIdentifier",
}
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_LAST = (0x0040, 0x0512)
_EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
_ENCAPSULATED = "1.2.840.10008.1.2.4."

Tag = tuple[int, int]


def read_identifiers(url: str) -> dict[str, str]:
    """Return the identifiers that the DICOM file at ``url`` states, by DICOM keyword; {} for another file.

    Raises
    ------
    StorageError
        The file cannot be read.
    """
    return parse_identifiers(storage.read_range(url, 0, HEAD_BYTES))


def parse_identifiers(head: bytes) -> dict[str, str]:
    """Return the identifiers in the first bytes of a DICOM file; what is cut off or damaged is left out."""
    if head[128:132] != b"DICM":
        return {}
    found: dict[str, str] = {}
    position = 132
    try:
        while position < len(head):
            tag, kind, length, position = _element(head, position)
            if tag > _LAST:
                break
            if tag == (0x0002, 0x0010):
                syntax = _text(head[position : position + length])
                if syntax != _EXPLICIT_LITTLE and not syntax.startswith(_ENCAPSULATED):
                    return {}
            if length == _UNDEFINED:
                position = _skip_items(head, position)
                continue
            if tag in _KEYWORDS and kind != b"SQ" and position + length <= len(head):
                found[_KEYWORDS[tag]] = _text(head[position : position + length])
            position += length
    except struct.error:  # the head ends within an element
        pass
    return {name: text for name, text in found.items() if text}


def _element(head: bytes, position: int) -> tuple[Tag, bytes, int, int]:
    """Return tag, representation, length and position of the value of the element at ``position``."""
    group, number = struct.unpack_from("<HH", head, position)
    if group == 0xFFFE:
        (length,) = struct.unpack_from("<I", head, position + 4)
        return (group, number), b"", length, position + 8
    kind = head[position + 4 : position + 6]
    if kind in _LONG:
        (length,) = struct.unpack_from("<I", head, position + 8)
        return (group, number), kind, length, position + 12
    (length,) = struct.unpack_from("<H", head, position + 6)
    return (group, number), kind, length, position + 8


def _skip_items(head: bytes, position: int) -> int:
    """Return where a value of undefined length ends; such values may lie within one another."""
    depth = 1
    while depth:
        tag, _, length, position = _element(head, position)
        if tag in (_SEQUENCE_END, _ITEM_END):
            depth -= 1
        elif length == _UNDEFINED:
            depth += 1
        elif tag != _ITEM:  # the elements of an item are walked, for one of them may be of undefined length
            position += length
    return position


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace").strip(" \0")
