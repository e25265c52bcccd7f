"""Every odd kind of file becomes the picture that it was made of, or is refused for what it is."""

import numpy as np
import pytest
import tifffile

from benchmarks.odd import ODD_FILES, SCORED
from deepliif_ray.errors import SlideCorruptError, SlideError, SlideUnreadableError
from deepliif_ray.slides import open_guarded, plan_slide
from deepliif_ray.slides.inventory import take_inventory
from deepliif_ray.slides.reader import open_slide
from tests.slides.picture import PICTURE as WHOLE

PICTURE = WHOLE[:330, :400]


SAME_PIXELS = [kind for kind in ODD_FILES.values() if kind.same_pixels]


@pytest.mark.parametrize("kind", SAME_PIXELS, ids=[kind.name for kind in SAME_PIXELS])
def test_odd_file(tmp_path, kind):
    path = tmp_path / f"slide{kind.suffix}"
    kind.make(path, PICTURE)
    if kind.right != SCORED:
        with pytest.raises(SlideError, match="slide") as caught, open_guarded(path, **kind.manifest) as slide:
            plan_slide(slide, mpp=kind.mpp)
        assert caught.value.reason == kind.right
        return
    with open_guarded(path, **kind.manifest) as slide:
        plan = plan_slide(slide, mpp=kind.mpp)
        assert plan.mpp == pytest.approx(0.25)
        pixels = slide.read_rgb(0, 0, 0, slide.width, slide.height)
        assert pixels.shape == PICTURE.shape
        assert np.abs(pixels.astype(int) - PICTURE).mean() <= kind.tolerance
        for level in slide.levels:
            assert level.width * level.downsample == pytest.approx(slide.width, abs=2 * level.downsample)
        # Any rectangle is the same part of the whole, at the edges too.
        for x, y, width, height in ((0, 0, 1, 1), (100, 60, 77, 130), (399, 329, 1, 1), (250, 200, 150, 130)):
            part = slide.read_rgb(0, x, y, width, height)
            np.testing.assert_array_equal(part, pixels[y : y + height, x : x + width])


def test_real_ome_tiffs_of_bio_formats(shared_data):
    """Classic big-endian files whose JPEG tiles are YCbCr 4:2:0 under an RGB tag."""
    for name, side, mpp in (("OS-2-ndpi.ome.tif", 2202, 0.2271), ("OS-2-vsi.ome.tif", 1445, 0.3461)):
        with open_guarded(shared_data / "scanners" / name) as slide:
            assert (slide.reader, slide.vendor) == ("tifffile", "ome-tiff")
            assert (slide.width, slide.height) == (side, side)
            assert slide.mpp == pytest.approx(mpp, abs=1e-4)
            glass = np.percentile(slide.read_rgb(0, 0, 0, side, side), 95, axis=(0, 1))
            assert glass.min() > 215 and np.ptp(glass) < 20  # grey, not the green of colours taken wrongly


def test_a_missing_tile_has_no_pixels(tmp_path):
    import tifffile

    path = tmp_path / "sparse.tif"
    tiles = (b"" if n == 1 else np.full((128, 128, 3), 200, np.uint8).tobytes() for n in range(4))
    tifffile.imwrite(
        path, tiles, shape=(256, 256, 3), dtype=np.uint8, tile=(128, 128), photometric="rgb", byteorder=">"
    )
    with open_slide(path) as slide:
        alpha = slide.read_level(0, 0, 0, 256, 256)[..., 3]
    assert (alpha[:128, 128:] == 0).all() and (alpha[:, :128] == 255).all()


def test_a_file_cut_anywhere_is_never_another_picture(tmp_path):
    path, cut = tmp_path / "whole.tif", tmp_path / "cut.tif"
    ODD_FILES["thumbnail_first"].make(path, PICTURE)
    whole = path.read_bytes()
    for length in np.linspace(8, len(whole) - 1, 60).astype(int):
        cut.write_bytes(whole[:length])
        with pytest.raises((SlideUnreadableError, SlideCorruptError)), open_slide(cut) as slide:
            assert (slide.width, slide.height) == (400, 330)
            slide.read_rgb(0, 0, 0, slide.width, slide.height)


@pytest.mark.parametrize("kind", ["jpeg_ycbcr_tagged_rgb", "jpeg_big_endian_classic", "compressed_jpeg2000"])
@pytest.mark.parametrize("lost", [2, 400])
def test_a_tile_whose_end_was_overwritten_is_corrupt(tmp_path, kind, lost):
    """Decoders make a picture of such a tile, and say nothing."""
    path = tmp_path / "slide.tif"
    ODD_FILES[kind].make(path, PICTURE)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        end = page.dataoffsets[0] + page.databytecounts[0]
        inside = page.tilewidth
    data = bytearray(path.read_bytes())
    data[end - lost : end] = bytes([7]) * lost
    path.write_bytes(data)
    with open_slide(path) as slide:
        with pytest.raises(SlideCorruptError, match="its end is not there"):
            slide.read_rgb(0, 0, 0, 64, 64)
        slide.read_rgb(0, inside, 0, 64, 64)


def test_the_inventory_tells_what_a_file_holds(tmp_path):
    path = tmp_path / "slide.ome.tif"
    ODD_FILES["ome_with_label_and_macro"].make(path, PICTURE)
    inventory = take_inventory(path)
    assert [picture.role for picture in inventory.pictures] == ["image", "label", "macro"]
    assert inventory.pictures[0].describe() == "image 'slide' of 400 × 330 px"
    assert inventory.choose(None)[0] == 0
