"""What is behind cells is the slide that was scored, and where it is not, that is said."""

import shutil

import numpy as np
import pytest

from deepliif_ray.errors import SlideChangedError, SlideCorruptError, SlideMissingError
from deepliif_ray.exports.cells import slide_record
from deepliif_ray.pictures.backdrop import UNREAD, read_view
from deepliif_ray.pictures.view import View
from deepliif_ray.query.streaming import streaming
from deepliif_ray.slide_access import scored_slide
from deepliif_ray.slides import Level, Slide, open_guarded
from deepliif_ray.slides.levels import level_within
from tests.pictures import scored


class Drawn(Slide):
    """A slide of arrays, which remembers what was read of it."""

    reader, vendor = "array", "array"

    def __init__(self, *levels, broken=()):
        self.images, self.broken, self.asked = levels, broken, []
        height, width = levels[0].shape[:2]
        self.levels = tuple(Level(i.shape[1], i.shape[0], width / i.shape[1]) for i in levels)
        assert height

    name = "drawn"

    def read_level(self, level, x, y, width, height):
        self.asked.append((level, x, y, width, height))
        assert (
            min(x, y) >= 0
            and x + width <= self.levels[level].width
            and y + height <= self.levels[level].height
        )
        for left, top, right, bottom in self.broken:
            if x < right and left < x + width and y < bottom and top < y + height:
                raise SlideCorruptError("broken")
        part = self.images[level][y : y + height, x : x + width]
        return np.dstack([part, np.full(part.shape[:2], 255, np.uint8)])

    def close(self):
        pass


def smaller(image, factor):
    height, width = (side // factor for side in image.shape[:2])
    return image.reshape(height, factor, width, factor, 3).mean(axis=(1, 3)).round().astype(np.uint8)


IMAGE = scored.gradient(2400, 3200)
LEVELS = [IMAGE, smaller(IMAGE, 4), smaller(IMAGE, 16)]


@pytest.mark.parametrize(
    ("width", "level"), [(3200, 0), (1600, 0), (801, 0), (800, 1), (300, 1), (200, 2), (64, 2)]
)
def test_the_coarsest_level_that_is_fine_enough(width, level):
    slide = Drawn(*LEVELS)
    view = View(0, 0, 3200, 2400, width, width * 3 // 4)
    assert level_within(slide, 1 / view.scale, view.area) == level
    pixels, unread = read_view(slide, view)
    x, y = view.centres()
    expected = np.stack(np.broadcast_arrays(x * 255 / 3200, (y * 255 / 2400)[:, None]), axis=2)
    assert np.abs(pixels[..., :2] - expected).max() < 1.6 and unread == 0


def test_levels_that_show_something_else_are_passed_over():
    assert level_within(Drawn(IMAGE, LEVELS[1], 255 - LEVELS[2]), 16, (0, 0, 3200, 2400)) == 1
    assert level_within(Drawn(IMAGE, LEVELS[1], LEVELS[2][:100]), 16, (0, 0, 3200, 2400)) == 1
    # Only there.
    torn = LEVELS[2].copy()
    torn[:, 150:] = 255
    assert level_within(Drawn(IMAGE, LEVELS[1], torn), 16, (0, 0, 3200, 2400)) == 1
    assert level_within(Drawn(IMAGE, LEVELS[1], torn), 16, (0, 0, 1600, 1600)) == 2


@pytest.mark.parametrize("at", [(0, 0, 50, 40), (1203, 977, 50, 40), (3150, 2360, 50, 40)])
@pytest.mark.parametrize("zoom", [1, 2, 4])
def test_pixels_of_level_0_as_they_are(at, zoom):
    x, y, width, height = at
    pixels, _ = read_view(Drawn(*LEVELS), View(*at, zoom * width, zoom * height))
    assert (pixels == IMAGE[y : y + height, x : x + width].repeat(zoom, 0).repeat(zoom, 1)).all()


def test_a_large_slide_without_levels_is_read_in_blocks():
    slide = Drawn(np.full((5000, 9000, 3), 90, np.uint8))
    pixels, _ = read_view(slide, View(0, 0, 9000, 5000, 90, 50))
    assert (pixels == 90).all()
    assert max(width * height for _, _, _, width, height in slide.asked) < 2100**2


def test_what_cannot_be_decoded_is_grey_and_the_rest_is_there():
    slide = Drawn(IMAGE, broken=[(1000, 1000, 1100, 1100)])
    pixels, unread = read_view(slide, View(0, 0, 3200, 2400, 1600, 1200))
    assert (pixels[500:550, 500:550] == UNREAD).all() and 0 < unread < 3
    assert (pixels[:400] != UNREAD).any() and not (pixels[:400] == UNREAD).all(axis=2).any()


@pytest.fixture
def path(tmp_path):
    return scored.slide(tmp_path, IMAGE[:600, :1000])


def record(tmp_path, path, **more):
    root = str(tmp_path / "results")
    size = {"width_px": 1000, "height_px": 600}
    scored.commit(root, [scored.cell(0, 20, 20)], path=path, **(size | more))
    with streaming(root) as stream:
        return slide_record(stream, root, "S-1")


def test_the_slide_that_was_scored(tmp_path, path):
    with scored_slide(record(tmp_path, path)) as slide:
        pixels, _ = read_view(slide, View(100, 50, 300, 200, 300, 200))
    assert (pixels == IMAGE[50:250, 100:400]).all()
    with open_guarded(path) as slide:
        assert slide.width == 1000


def test_a_copy_is_the_same_slide(tmp_path, path):
    row = record(tmp_path, path)
    shutil.copy(path, tmp_path / "other")
    path.unlink()
    shutil.copy(tmp_path / "other", path)
    with scored_slide(row) as slide:
        assert slide.width == 1000


def test_another_file_at_its_place(tmp_path, path):
    row = record(tmp_path, path)
    scored.slide(tmp_path, 255 - IMAGE[:600, :1000])
    with pytest.raises(SlideChangedError, match=r"a\.tiff.*not the file that was scored"), scored_slide(row):
        pass
    path.unlink()
    with pytest.raises(SlideMissingError), scored_slide(row):
        pass


def test_records_without_a_version_go_by_the_size(tmp_path, path):
    with scored_slide(record(tmp_path, path, slide_version=None, slide_fingerprint="old")) as slide:
        assert slide.width == 1000
    row = record(tmp_path, path, slide_version=None, slide_fingerprint="old", width_px=999, second=5)
    with pytest.raises(SlideChangedError, match="999 × 600 were scored"), scored_slide(row):
        pass
