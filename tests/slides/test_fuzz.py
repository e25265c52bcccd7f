"""Real files, mutated: each ends as a plan with tiles read or as a typed error, soon.

A case is replayed by its number: ``pytest tests/slides/test_fuzz.py -m '' -k 'case-123-'``. The outcomes are
counted on standard output (``-s``).
"""

import shutil
import struct
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepliif_ray.errors import SlideError
from deepliif_ray.slides import helper, open_guarded, plan_slide, write_pyramid
from deepliif_ray.synthetic import SyntheticTissue
from tests.conftest import SHARED

CASES, USUAL = 560, 24
SEED = 4
TIME_LIMIT_S = 15
REAL = [
    "CMU-1-Small-Region.svs",
    "tcga-cr-7395-01a-01-ts1.svs",
    "boxes.tiff",
    "camelyon_dicom",
    "idc_dicom",
    "boxes_dicom",
]
MADE = ["pyramid-jpeg.tiff", "pyramid-deflate.tiff", "field.png", "field.jpg", "field.jp2", "field.tif"]
EXTREMES = [0, 1, 2, 255, 65_535, 2**31 - 1, 2**31, 2**32 - 1]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    tissue = SyntheticTissue(1100, 800, seed=1)
    write_pyramid(folder / "pyramid-jpeg.tiff", tissue, mpp=0.25)
    write_pyramid(folder / "pyramid-deflate.tiff", tissue[:600, :700], mpp=0.25, quality=None)
    field = Image.fromarray(tissue[:400, :500])
    for name in ("field.png", "field.jpg", "field.jp2", "field.tif"):
        field.save(folder / name)
    return folder


@pytest.fixture(scope="module")
def outcomes():
    counts = Counter()
    yield counts
    print("\noutcomes:", dict(counts.most_common()))


def sources(name: str, made: Path) -> list[Path]:
    """Return the files of a source, the one to open first."""
    if name in MADE:
        return [made / name]
    places = sorted((SHARED / "data" / "slides").rglob(name))
    if not places:
        pytest.skip(f"{name} is not here")
    return sorted(p for p in places[0].rglob("*") if p.is_file()) if places[0].is_dir() else [places[0]]


def values_of_tags(data: bytes) -> list[tuple[int, int]]:
    """Return place and size of the fields of all directory entries of a TIFF: tag, type, count and value."""
    if data[:4] not in (b"II*\0", b"II+\0"):
        return []
    big = data[2] == 43
    header, entry, link = ("<Q", 20, "<Q") if big else ("<H", 12, "<I")
    position = struct.unpack_from("<Q" if big else "<I", data, 8 if big else 4)[0]
    found = []
    for _ in range(20):
        if not 0 < position < len(data) - 8:
            break
        count = struct.unpack_from(header, data, position)[0]
        place = position + struct.calcsize(header)
        sizes = (2, 2, 8, 8) if big else (2, 2, 4, 4)
        for number in range(min(count, 100)):
            start = place + entry * number
            for size in sizes:
                found.append((start, size))
                start += size
        after = place + entry * count
        if after + 8 > len(data):
            break
        position = struct.unpack_from(link, data, after)[0]
    return [(place, size) for place, size in found if place + size <= len(data)]


def mutate(data: bytearray, kind: str, rng: np.random.Generator) -> bytearray:
    if kind == "flip":
        for place in rng.integers(0, len(data), int(rng.choice([1, 10, 200, 2000]))):
            data[place] ^= int(rng.integers(1, 256))
    elif kind == "head":
        for place in rng.integers(0, min(len(data), 2000), int(rng.choice([1, 3, 20]))):
            data[place] = int(rng.integers(0, 256))
    elif kind == "cut":
        del data[int(rng.integers(0, len(data))) :]
    elif kind == "tail":
        del data[-int(rng.integers(1, 5000)) :]
    elif kind == "zeros":
        start = int(rng.integers(0, len(data)))
        size = min(int(rng.choice([16, 1000, 60_000])), len(data) - start)
        data[start : start + size] = bytes(size)
    elif kind == "twice":
        start = int(rng.integers(0, len(data)))
        data[start:start] = data[start : start + int(rng.integers(1, 3000))]
    elif kind == "tag":
        places = values_of_tags(bytes(data))
        for _ in range(int(rng.integers(1, 3)) if places else 0):
            place, size = places[int(rng.integers(0, len(places)))]
            value = int(rng.choice(EXTREMES)) if rng.random() < 0.7 else int(rng.integers(0, 2**31))
            data[place : place + size] = (value % (1 << (8 * size))).to_bytes(size, "little")
        if not places:
            return mutate(data, "head", rng)
    return data


def attempt(path: Path) -> str:
    """Plan a slide and read some of its tiles; return what came of it."""
    try:
        with open_guarded(path) as slide:
            plan = plan_slide(slide, mpp=0.5, tile_size=256, overlap=16)
            for index in {0, len(plan.grid) // 2, len(plan.grid) - 1}:
                tile = plan.grid[index]
                pixels = slide.read_tile(tile.x, tile.y, plan.tile)
                assert (pixels.shape, pixels.dtype) == ((256, 256, 3), np.uint8)
    except SlideError as error:
        assert error.reason != SlideError.reason
        assert path.name in str(error) or path.parent.name in str(error)
        return error.reason
    return "read"


@pytest.mark.parametrize("name", [*MADE, *REAL])
def test_the_files_are_well_before(name, made):
    assert attempt(sources(name, made)[0]) == "read"


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"case-{case}-", marks=[pytest.mark.slow] if case >= USUAL else [])
        for case in range(CASES)
    ],
)
def test_mutated_files_end_well(case, made, outcomes, tmp_path, monkeypatch):
    monkeypatch.setattr(helper, "TIME_LIMIT_S", TIME_LIMIT_S)
    names = [*MADE, *REAL]
    rng = np.random.default_rng([SEED, case])
    kind = ["flip", "head", "cut", "tail", "zeros", "twice", "tag", "tag"][(case + case // len(names)) % 8]
    first, *others = sources(names[case % len(names)], made)
    for path in [first, *others]:
        shutil.copyfile(path, tmp_path / path.name)
    victim = tmp_path / [first, *others][int(rng.integers(0, 1 + len(others)))].name
    victim.write_bytes(mutate(bytearray(victim.read_bytes()), kind, rng))
    start = time.monotonic()
    outcomes[attempt(tmp_path / first.name)] += 1
    # Opening, planning and three tiles, each request within the limit, some tried twice.
    assert time.monotonic() - start < 8 * TIME_LIMIT_S
