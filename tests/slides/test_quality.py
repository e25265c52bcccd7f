"""Quality control: focus, ink, stain strength and glass, on drawn and on real pictures."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from deepliif_ray.errors import SlideCorruptError
from deepliif_ray.slides import open_slide, plan_slide, tissue_mask, write_pyramid
from deepliif_ray.slides.quality import (
    PATCHES,
    choose_patches,
    glass_color,
    laplacian_variance,
    measure_quality,
    pen_mask,
    shrunk,
    stain_residual,
    stain_strength,
)
from deepliif_ray.synthetic import SyntheticTissue
from tests.few import few

GLASS = 243.0
INKS = {"blue": (35, 90, 190), "green": (30, 150, 110), "red": (205, 25, 40), "black": (18, 16, 20)}
IHC = [
    *((f"cores/ZT135_15_{n}.jpg", 0.45) for n in ("A_1_1", "A_1_7", "A_1_8", "A_2_1", "A_4_7")),
    *((f"deepliif/large/ROI_{n}.png", 0.25) for n in (1, 7)),
    *((f"bcdata/{n}.png", 0.25) for n in range(6)),
    ("fields/fhl2_ihc.png", 0.5),
    ("fields/cd31.png", 0.5),
    ("fields/ki67_qupath_docs.jpg", 0.5),
]
HE = [
    ("slides/CMU-1-Small-Region.svs", 0.499),
    *((f"pen/{n}.png", 0.5) for n in ("high-nuclei-score-red-pen-level1", "tcga-red-pen", "wsi-blue-pen")),
]
PEN = {  # what is measured here, in percent of the picture
    "high-nuclei-score-red-pen-level1": (4, 10),
    "medium-nuclei-score-green-pen-level1": (30, 50),
    "no-tissue-green-pen": (55, 80),
    "no-tissue-red-pen": (15, 30),
    "tcga-green-pen": (9, 20),
    "tcga-red-pen": (15, 30),
    "very-low-nuclei-score-red-pen-level1": (15, 30),
}


def quality(path, mpp):
    with open_slide(Path(path)) as slide:
        return measure_quality(slide, tissue_mask(slide, mpp), mpp)[0]


def saved(pixels, path):
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, compress_level=1)
    return path


@pytest.fixture(scope="module")
def tissue():
    return SyntheticTissue(1600, 1200, seed=3)[0:1200, 0:1600]


def test_a_clean_slide(tissue, tmp_path):
    found = quality(saved(tissue, tmp_path / "a.png"), 0.25)
    assert found.focus > 100
    assert 1 < found.tissue_percent < 100
    assert found.pen_percent == 0
    assert found.hematoxylin_od > 0.03 and found.dab_od > 0.01
    assert 235 < found.background_grey < 250 and found.background_cast < 8


@pytest.mark.parametrize("ink", INKS)
def test_ink_is_found_where_it_is(tissue, tmp_path, ink):
    picture = Image.fromarray(tissue)
    ImageDraw.Draw(picture).rectangle((200, 300, 799, 699), fill=INKS[ink])
    found = quality(saved(picture, tmp_path / "a.png"), 0.25)
    assert found.pen_percent == pytest.approx(100 * 600 * 400 / (1600 * 1200), abs=2.5)


def test_ink_changes_neither_stains_nor_focus(tissue, tmp_path):
    clean = quality(saved(tissue, tmp_path / "a.png"), 0.25)
    picture = Image.fromarray(tissue)
    ImageDraw.Draw(picture).rectangle((0, 0, 799, 499), fill=INKS["red"])
    inked = quality(saved(picture, tmp_path / "b.png"), 0.25)
    assert inked.dab_od == pytest.approx(clean.dab_od, abs=0.02)
    assert inked.focus == pytest.approx(clean.focus, rel=0.3)


@given(st.floats(0, 1.5), st.floats(0, 1.5))
def test_no_mixture_of_the_stains_is_colored_ink(hematoxylin, dab):
    density = np.empty((12, 12, 3), np.float32)
    density[:] = hematoxylin * np.array((0.650, 0.704, 0.286)) + dab * np.array((0.268, 0.570, 0.776))
    black = density.min() >= 0.8
    assert not pen_mask(density).any() or black
    measured = stain_strength(density, np.ones((12, 12), bool))
    # The published vectors are not quite of unit length.
    assert measured == pytest.approx((hematoxylin, dab), abs=0.01)


@given(st.floats(0, 1.5), st.floats(0, 1.5))
def test_a_mixture_of_the_stains_leaves_no_residual(hematoxylin, dab):
    density = np.empty((3, 4, 3), np.float32)
    density[:] = hematoxylin * np.array((0.650, 0.704, 0.286)) + dab * np.array((0.268, 0.570, 0.776))
    found = stain_residual(density, np.ones((3, 4), bool))
    assert found is None if max(hematoxylin, dab) < 1e-8 else abs(found or 0) < 1e-5


def test_other_dyes_leave_a_residual():
    """Vectors of Ruifrok and Johnston, as QuPath and ImageJ have them."""
    where = np.ones((1, 1), bool)
    eosin, methyl_green = np.float32([[[0.072, 0.990, 0.105]]]), np.float32([[[0.980, 0.144, 0.133]]])
    assert stain_residual(eosin, where) < -0.5
    assert stain_residual(methyl_green, where) > 0.5
    assert stain_residual(eosin, ~where) is None


@pytest.mark.parametrize(("name", "mpp"), HE)
def test_hematoxylin_and_eosin_is_told(shared_data, name, mpp):
    assert quality(shared_data / name, mpp).stain_residual < -0.1


def test_saturated_nuclei_are_not_black_ink():
    density = np.full((60, 60, 3), 0.1, np.float32)
    density[10:18, 10:18] = density[10:50, 30:38] = 1.3  # 8 squares wide
    assert not pen_mask(density).any()
    density[10:30, 40:60] = 1.3
    assert pen_mask(density).sum() == 400


@pytest.mark.parametrize(("name", "mpp"), few(IHC, 5))
def test_real_ihc_has_no_pen_and_blurs_monotonically(shared_data, tmp_path, name, mpp):
    found = quality(shared_data / name, mpp)
    assert found.pen_percent == 0
    assert found.focus > 150
    assert -0.07 < found.stain_residual < 0.35
    picture = Image.open(shared_data / name).convert("RGB").crop((300, 300, 900, 900))
    values = [quality(saved(picture, tmp_path / "part.png"), mpp).focus]
    for um in (0.5, 1.0, 2.0):
        blurred = picture.filter(ImageFilter.GaussianBlur(um / mpp))
        values.append(quality(saved(blurred, tmp_path / "blurred.png"), mpp).focus)
    assert values == sorted(values, reverse=True)
    assert values[2] < 40


@pytest.mark.parametrize("name", PEN)
def test_real_pen_marks_are_found(shared_data, name):
    low, high = PEN[name]
    assert low < quality(shared_data / f"pen/{name}.png", 1.0).pen_percent < high


def test_pen_on_a_thumbnail(shared_data):
    """Two strokes of blue pen at 8 µm per pixel, and a slide of H&E beside them."""
    assert 0.8 < quality(shared_data / "pen/wsi-blue-pen.png", 8.0).pen_percent < 2.5


def test_focus_is_comparable_between_resolutions(shared_data, tmp_path):
    fine = Image.open(shared_data / "deepliif/large/ROI_1.png").convert("RGB")
    half = quality(saved(fine.reduce(2), tmp_path / "half.png"), 0.5).focus
    assert quality(saved(fine, tmp_path / "fine.png"), 0.25).focus == pytest.approx(half, rel=0.15)


def test_glass():
    mean = np.full((40, 40, 3), 255, np.float32)
    mean[:20] = (240, 235, 230)
    grey, cast = glass_color(mean, np.ones((40, 40), bool))
    assert grey == pytest.approx(0.299 * 240 + 0.587 * 235 + 0.114 * 230, abs=0.01) and cast == 10
    assert glass_color(mean[20:], np.ones((20, 40), bool))[0] == pytest.approx(255, abs=0.01)
    few = np.zeros((40, 40), bool)
    few[0, :10] = True
    assert glass_color(mean, few) == (None, None)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_patches_lie_on_tissue(rows, columns, side, seed, share):
    mask = np.random.default_rng(seed).random((rows, columns)) < share
    patches = choose_patches(mask, side)
    assert len(set(patches)) == len(patches) <= PATCHES
    assert bool(patches) == bool(mask.any())
    assert all(mask[row : row + side, column : column + side].any() for row, column in patches)


def test_the_laplacian():
    assert laplacian_variance(np.full((50, 50, 3), 90, np.float32)) == pytest.approx(0, abs=1e-6)
    ramp = np.repeat(np.arange(0, 200, 4, dtype=np.uint8)[:, None, None], 50, 1).repeat(3, 2)
    assert laplacian_variance(shrunk(ramp, 1)) == pytest.approx(0, abs=1e-6)
    assert laplacian_variance(shrunk(np.zeros((3, 9, 3), np.uint8), 2)) == 0
    checks = (np.indices((50, 50)).sum(0) % 2 * 100).astype(np.uint8)[..., None].repeat(3, 2)
    assert laplacian_variance(shrunk(checks, 1)) == pytest.approx(400**2, rel=1e-4)
    assert laplacian_variance(shrunk(checks, 2)) == pytest.approx(0, abs=1e-6)


def test_nothing_to_measure(tmp_path):
    found = quality(saved(np.full((600, 600, 3), 240, np.uint8), tmp_path / "a.png"), 0.5)
    assert (found.focus, found.hematoxylin_od, found.dab_od) == (None, None, None)
    assert (found.tissue_percent, found.pen_percent) == (0, 0)
    assert found.background_grey == pytest.approx(240, abs=0.01)


def test_patches_that_cannot_be_read_are_left_out(tissue, tmp_path, monkeypatch):
    path = saved(tissue, tmp_path / "a.png")
    with open_slide(path) as slide:
        mask = tissue_mask(slide, 0.25)
        whole, _ = measure_quality(slide, mask, 0.25)
        read, count = type(slide).read_rgb, iter(range(100))

        def sometimes(self, *where):
            if next(count) % 2:
                raise SlideCorruptError("no")
            return read(self, *where)

        monkeypatch.setattr(type(slide), "read_rgb", sometimes)
        assert measure_quality(slide, mask, 0.25)[0].focus == pytest.approx(whole.focus, rel=0.5)

        def never(self, *where):
            raise SlideCorruptError("no")

        monkeypatch.setattr(type(slide), "read_rgb", never)
        assert measure_quality(slide, mask, 0.25)[0].focus is None


def test_quality_travels_in_the_plan_and_reads_little(tissue, tmp_path, monkeypatch):
    """Whatever the size of the slide: what it costs is reading some patches, not seconds of a clock."""
    path = tmp_path / "a.tiff"
    write_pyramid(path, tissue, mpp=0.25)
    with open_slide(path) as slide:
        made, again = plan_slide(slide), plan_slide(slide)
        assert made == again and type(made).from_json(made.to_json()) == made
        mask = tissue_mask(slide, 0.25)
        read, real = [], slide.read_level
        monkeypatch.setattr(
            slide, "read_level", lambda level, x, y, w, h: read.append(w * h) or real(level, x, y, w, h)
        )
        measure_quality(slide, mask, 0.25)
    assert 1 < len(read) <= PATCHES
    assert max(read) <= 256**2
