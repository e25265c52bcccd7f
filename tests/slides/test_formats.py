"""Odd but sound files: what they become; and files that promise what cannot be."""

import io
import struct
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from deepliif_ray.errors import (
    SlideCorruptError,
    SlideError,
    SlideMemoryError,
    SlideTooLargeError,
    SlideUnreadableError,
    SlideUnsuitableError,
)
from deepliif_ray.slides import Level, Slide, open_guarded, plan_slide, tissue_mask
from tests.few import few
from tests.slides.picture import PICTURE
from tests.slides.tiffs import ASCII, LONG, SHORT, tiff

RGB = PICTURE


def read(path):
    with open_guarded(path) as slide:
        plan = plan_slide(slide, mpp=0.5)
        assert len(plan.grid) > 0
        return slide.vendor, slide.read_rgb(0, 0, 0, slide.width, slide.height)


def test_one_level_is_a_pyramid_of_one(tmp_path):
    vendor, pixels = read(tiff(tmp_path / "a.tiff", RGB))
    assert vendor == "generic-tiff"
    np.testing.assert_array_equal(pixels, RGB)


def test_sixteen_bits_grey_and_alpha_in_tiled_tiffs(tmp_path):
    _, pixels = read(tiff(tmp_path / "deep.tiff", RGB.astype(np.uint16) * 257))
    assert np.abs(pixels.astype(int) - RGB).max() <= 1
    with pytest.raises(SlideUnsuitableError, match="grey"):
        read(tiff(tmp_path / "grey.tiff", RGB[..., 0]))
    alpha = np.full(RGB.shape[:2], 255, np.uint8)
    alpha[:100] = 0
    _, pixels = read(tiff(tmp_path / "alpha.tiff", np.dstack([RGB, alpha])))
    np.testing.assert_array_equal(pixels[100:], RGB[100:])
    assert (pixels[:100] == 255).all()


@pytest.mark.skipif(not features.check("jpg_2000"), reason="Pillow has no JPEG 2000 here")
@pytest.mark.parametrize("name", ["a.jp2", "a.j2k"])
def test_jpeg_2000_images(tmp_path, name):
    Image.fromarray(RGB).save(tmp_path / name)
    vendor, pixels = read(tmp_path / name)
    assert vendor == "jpeg2000"
    np.testing.assert_array_equal(pixels, RGB)


@pytest.mark.skipif(not features.check("jpg_2000"), reason="Pillow has no JPEG 2000 here")
def test_jpeg_2000_slides(tmp_path):
    def encode(part):
        buffer = io.BytesIO()
        Image.fromarray(part).save(buffer, "JPEG2000", no_jp2=True, mct=0)
        return buffer.getvalue()

    tags = {259: (SHORT, [33005]), 270: (ASCII, b"Aperio Image Library v11|MPP = 0.5\0")}
    vendor, pixels = read(tiff(tmp_path / "a.svs", RGB, encode=encode, tags=tags))
    assert vendor == "aperio"
    np.testing.assert_array_equal(pixels, RGB)


@pytest.mark.parametrize(
    ("tags", "kinds"),
    few(
        [
            ({256: (LONG, [2**31 - 1]), 257: (LONG, [2**31 - 1])}, SlideError),
            ({256: (LONG, [0])}, SlideError),
            ({322: (LONG, [2**30]), 323: (LONG, [2**30])}, SlideError),
            ({322: (LONG, [0])}, SlideError),
            ({277: (SHORT, [60_000])}, SlideError),
            ({258: (SHORT, [64, 64, 64])}, SlideError),
            ({259: (SHORT, [9])}, SlideError),
        ],
        4,
    ),
)
def test_tags_that_cannot_be_are_refused(tmp_path, tags, kinds):
    with pytest.raises(kinds) as caught:
        read(tiff(tmp_path / "a.tiff", RGB, tags=tags))
    assert caught.value.reason != "slide" and "a.tiff" in str(caught.value)


def test_a_tile_that_unpacks_to_gigabytes_is_refused(tmp_path):
    """A tile of 40,000 x 40,000 pixels: 6.4 GB once unpacked, a few kilobytes in the file."""
    tags = {256: (LONG, [40_000]), 257: (LONG, [40_000]), 322: (LONG, [40_000]), 323: (LONG, [40_000])}
    with pytest.raises((SlideMemoryError, SlideCorruptError)):
        read(tiff(tmp_path / "a.tiff", RGB[:128, :128], tags=tags))


class Claims(Slide):
    """A slide of any claimed size, all of it the same colour."""

    vendor = "made up"

    def __init__(self, width, height):
        self.levels = (Level(width, height, 1.0),)
        self.path = Path("claims.tiff")
        self.largest = 0

    def read_level(self, level, x, y, width, height):
        self.largest = max(self.largest, width * height)
        return np.full((height, width, 4), 255, np.uint8)

    def close(self):
        pass


def test_absurd_sizes_are_refused_before_a_grid_is_laid():
    for size in ((4_000_001, 10), (10, 2**40), (1_500_000, 1_500_000)):
        with pytest.raises(SlideTooLargeError, match=r"claims\.tiff"):
            plan_slide(Claims(*size), mpp=0.25)
    with pytest.raises(SlideTooLargeError):
        plan_slide(Claims(100_000, 80_000), mpp=0.25, tile_size=16, overlap=0)


def test_a_plain_image_that_claims_too_many_pixels_is_refused_by_its_header(tmp_path):
    header = struct.pack(">II5B", 25_000, 20_001, 8, 2, 0, 0, 0)  # 500 megapixels and a row, in RGB
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header
    chunk += struct.pack(">I", zlib.crc32(b"IHDR" + header))
    path = tmp_path / "claims.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + b"5\xafm\x1e")
    with pytest.raises(SlideUnreadableError, match=r"claims\.png: .* too large to hold in memory"):
        open_guarded(path)


def test_the_overview_of_a_large_slide_of_one_level_is_made_block_by_block():
    slide = Claims(9_000, 9_000)
    assert tissue_mask(slide, 0.5).area_px == 0
    assert slide.largest <= 2048**2


def test_what_cannot_be_decoded_is_no_tissue(tmp_path):
    whole = tiff(tmp_path / "a.tiff", RGB, tile=64)
    with open_guarded(whole) as slide:
        before = tissue_mask(slide, 0.5)
    assert before.unread_percent == 0
    with open_guarded(tiff(tmp_path / "b.tiff", RGB, tile=64, spoil=[50])) as slide:
        after = tissue_mask(slide, 0.5)
        assert 0 < after.unread_percent <= 5
        assert before.area_px - 0.06 * RGB.shape[0] * RGB.shape[1] < after.area_px < before.area_px
    path = tiff(tmp_path / "c.tiff", RGB, tile=64, spoil=range(0, 110, 2))
    with open_guarded(path) as slide, pytest.raises(SlideCorruptError, match=r"c\.tiff"):
        tissue_mask(slide, 0.5)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_slide_of_one_level_and_50_000_pixels_is_planned_in_little_memory(tmp_path):
    """The file has 2.5 gigapixels (7.5 GB) in one level; planning it takes a few hundred megabytes."""
    program = textwrap.dedent(
        """
        import resource, sys
        from pathlib import Path
        from deepliif_ray.slides import guard, open_guarded, plan_slide
        with open_guarded(Path(sys.argv[1])) as slide:
            plan = plan_slide(slide, mpp=0.25)
            print(plan.width, len(plan.grid), round(plan.tissue_mm2, 1))
        guard.end_helper()
        # not its own ru_maxrss, which it inherits from the process of the tests
        peak_kib = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
        print(peak_kib // 1024, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
        """
    )
    path = large(tmp_path / "large.tiff", 50_000, RGB[:512, :512])
    found = subprocess.check_output([sys.executable, "-c", program, str(path)], text=True).split()
    assert found[0] == "50000" and float(found[2]) > 0
    assert max(map(int, found[3:])) < 700


def large(path, side, picture):
    """Write a tiled TIFF of one level whose tiles are all the same bytes."""
    tiff(path, picture, tile=512)
    data = path.read_bytes()
    single = data[16 : 16 + len(zlib.compress(picture.tobytes(), 1))]
    count = (-(-side // 512)) ** 2
    tags = {
        256: (LONG, [side]),
        257: (LONG, [side]),
        324: (16, [16] * count),
        325: (16, [len(single)] * count),
    }
    return tiff(path, picture, tile=512, tags=tags)
