"""Reads a few identifiers from the head of a DICOM file, without fetching its pixels."""

import warnings
from io import BytesIO

from pydicom.filereader import read_partial
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

from deepliif_ray import storage
from deepliif_ray.slides.dicom import HEADER_FAULTS

HEAD_BYTES = 256 * 2**10
_KEYWORDS = ("AccessionNumber", "PatientID", "SeriesInstanceUID", "ContainerIdentifier")
_TAGS: list[BaseTag | int] = [Tag(name) for name in _KEYWORDS]
_LAST = max(_TAGS)
_UNDEFINED = 0xFFFFFFFF


def read_identifiers(url: str) -> dict[str, str]:
    """Return the identifiers that the DICOM file at ``url`` states, by DICOM keyword; {} for another file.

    Raises
    ------
    StorageError
        The file cannot be read.
    """
    return parse_identifiers(storage.read_range(url, 0, HEAD_BYTES))


def parse_identifiers(head: bytes) -> dict[str, str]:
    """Return the identifiers in the first bytes of a DICOM file; {} if these are damaged, or no DICOM."""
    stream = BytesIO(head)

    def is_beyond(tag: BaseTag, _: str | None, length: int) -> bool:
        cut = length != _UNDEFINED and stream.tell() + length > len(head)  # half an id is another patient's
        return tag > _LAST or cut

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a value that breaks the standard's rules is still the value
            header = read_partial(stream, is_beyond, specific_tags=_TAGS)
            found = {name: _text(header.get(name)) for name in _KEYWORDS}
    except HEADER_FAULTS:
        return {}
    return {name: text for name, text in found.items() if text}


def _text(value: object) -> str:
    if value is None:
        return ""
    parts = value if isinstance(value, MultiValue) else [value]
    return "\\".join(map(str, parts)).strip(" \0")
