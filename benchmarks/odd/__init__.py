"""Files of the odd kinds that people have, each made of one picture: what they become is known.

Used by ``tests/slides/test_odd_files.py`` and by ``benchmarks/inputs.py``. A module is a section of the
table. To add a kind, write a maker in one and register it with what is right: ``scored`` (the picture),
the reason of the refusal, or a quality flag. Odd manifests are in `manifests`.
"""

from benchmarks.odd import coarse, colours, depths, encoding, folders, frames, pages, scale, sizes  # noqa: F401
from benchmarks.odd.kind import ODD_FILES, SCORED, OddFile, Picture

__all__ = ["ODD_FILES", "SCORED", "OddFile", "Picture"]
