"""CZI slides, written by the library that reads them: the same pixels, or a refusal that says why."""

import sys

import numpy as np
import pytest

from deepliif_ray.errors import SlideError, SlideUnreadableError, SlideUnsuitableError
from deepliif_ray.slides import open_guarded, open_slide, plan_slide
from tests.slides.picture import PICTURE

czi = pytest.importorskip("pylibCZIrw.czi")
IMAGE = PICTURE[:500]


def write(path, tiles, mpp=0.25, channels=None):
    """Write ``tiles``, of (image, x, y, where in other dimensions, scene)."""
    with czi.create_czi(str(path)) as file:
        for image, x, y, where, scene in tiles:
            stored = image if image.shape[2] == 1 else image[..., ::-1]
            file.write(np.ascontiguousarray(stored), location=(x, y), plane=where, scene=scene)
        file.write_metadata(scale_x=mpp / 1e6, scale_y=mpp / 1e6, channel_names=channels)


def shows(slide, image):
    assert (slide.width, slide.height, slide.reader) == (image.shape[1], image.shape[0], "czi")
    pixels = slide.read_level(0, 0, 0, slide.width, slide.height)
    assert (pixels[..., 3] == 255).all()
    np.testing.assert_array_equal(pixels[..., :3], image)
    np.testing.assert_array_equal(slide.read_rgb(0, 130, 70, 300, 200), image[70:270, 130:430])


def test_pixels_and_resolution(tmp_path):
    write(tmp_path / "a.czi", [(IMAGE, 0, 0, {}, 0)])
    with open_slide(tmp_path / "a.czi") as here, open_guarded(tmp_path / "a.czi") as there:
        shows(here, IMAGE)
        shows(there, IMAGE)
        assert here.mpp == pytest.approx(0.25)
        assert plan_slide(here) == plan_slide(there)


def test_a_mosaic_with_a_hole_that_begins_anywhere(tmp_path):
    tiles = [
        (IMAGE[:300, :400], -50, 20, {}, 0),
        (IMAGE[:300, 400:], 350, 20, {}, 0),
        (IMAGE[300:, :400], -50, 320, {}, 0),
    ]
    write(tmp_path / "a.czi", tiles)
    with open_slide(tmp_path / "a.czi") as slide:
        pixels = slide.read_level(0, 0, 0, 700, 500)
        here = np.ones((500, 700), bool)
        here[300:, 400:] = False
        np.testing.assert_array_equal(pixels[..., 3] == 255, here)
        np.testing.assert_array_equal(pixels[here][:, :3], IMAGE[here])
        np.testing.assert_array_equal(slide.read_level(0, 350, 250, 200, 200), pixels[250:450, 350:550])
        assert (slide.read_rgb(0, 400, 300, 300, 200) == 255).all()


@pytest.mark.parametrize("bits", [8, 12, 14, 16])
def test_sixteen_bits_by_their_real_range(tmp_path, bits):
    write(tmp_path / "a.czi", [(IMAGE.astype(np.uint16) << (bits - 8), 0, 0, {}, 0)])
    with open_slide(tmp_path / "a.czi") as slide:
        shows(slide, IMAGE)
        assert f"read as {bits}-bit ones" in slide.notes[0]


def test_scenes_are_series(tmp_path):
    write(tmp_path / "a.czi", [(IMAGE, 0, 0, {}, 0), (255 - IMAGE[:400] // 2, 900, 50, {}, 1)])
    with pytest.raises(SlideUnsuitableError, match=r"2 scenes \(0: 700 × 500; 1: 700 × 400\).*column series"):
        open_slide(tmp_path / "a.czi")
    for number, image in enumerate((IMAGE, 255 - IMAGE[:400] // 2)):
        with open_slide(tmp_path / "a.czi", series=number) as slide:
            assert slide.series == number
            shows(slide, image)
    with pytest.raises(SlideUnsuitableError, match="series 2 is asked for, but its scenes are 0, 1"):
        open_slide(tmp_path / "a.czi", series=2)


def test_focal_planes(tmp_path):
    planes = [np.full_like(IMAGE, 220), IMAGE, 255 - IMAGE // 2]
    write(tmp_path / "a.czi", [(image, 0, 0, {"Z": z}, 0) for z, image in enumerate(planes)])
    with open_slide(tmp_path / "a.czi") as slide:
        assert (slide.plane, slide.n_planes, len(slide.notes)) == (1, 3, 1)
        shows(slide, IMAGE)
    with open_slide(tmp_path / "a.czi", plane=2) as slide:
        shows(slide, planes[2])
    with pytest.raises(SlideUnsuitableError, match="no plane 3; the image has 3"):
        open_slide(tmp_path / "a.czi", plane=3)


@pytest.mark.parametrize(
    ("tiles", "words"),
    [
        ([(IMAGE[..., :1], 0, 0, {"C": c}, 0) for c in range(3)], "3 channels"),
        ([(IMAGE[..., :1], 0, 0, {}, 0)], "one channel, grey"),
        ([(IMAGE, 0, 0, {"T": t}, 0) for t in range(2)], "2 points in time"),
        ([((255 - IMAGE) // 4, 0, 0, {}, 0)], "most of it is dark"),
    ],
    ids=str,
)
def test_what_is_no_brightfield_image_is_refused_by_name(tmp_path, tiles, words):
    write(tmp_path / "a.czi", tiles)
    with pytest.raises(SlideUnsuitableError, match=words):
        open_slide(tmp_path / "a.czi")


def test_no_resolution_damage_and_no_package(tmp_path, monkeypatch):
    path = tmp_path / "a.czi"
    write(path, [(IMAGE, 0, 0, {}, 0)], mpp=0)
    with open_slide(path) as slide:
        assert slide.mpp is None
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pylibCZIrw.czi", None)
        with pytest.raises(SlideError, match=r"pip install 'deepliif-ray\[czi\]'") as caught:
            open_slide(path)
        assert not caught.value.lasting
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(SlideUnreadableError, match=r"a\.czi: "):
        open_guarded(path)
