import subprocess
import sys
from pathlib import Path

import numpy as np
import openslide
import pytest
from skimage import data

from deepliif_ray.errors import ConfigError
from deepliif_ray.slides import open_slide, write_pyramid
from deepliif_ray.synthetic import SyntheticTissue


@pytest.mark.parametrize(("width", "height"), [(1, 1), (256, 512), (700, 300), (1201, 1903)])
def test_lossless_levels(tmp_path, width, height):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path = tmp_path / "folder" / "slide.tiff"
    write_pyramid(path, image, mpp=0.2525, quality=None, min_level=128, description="a µ test")
    with open_slide(path) as slide:
        assert (slide.vendor, slide.width, slide.height) == ("generic-tiff", width, height)
        assert slide.mpp == pytest.approx(0.2525, rel=1e-5)
        np.testing.assert_array_equal(slide.read_rgb(0, 0, 0, width, height), image)
        expected = 1
        while max(width, height) > 128 * 4 ** (expected - 1):
            expected += 1
        assert len(slide.levels) == expected
        for number, level in enumerate(slide.levels[1:], 1):
            assert (level.width, level.height) == (-(-width // 4**number), -(-height // 4**number))
        if expected > 1:
            inner = slide.read_rgb(1, 0, 0, width // 4, height // 4).astype(int)
            boxes = image[: height // 4 * 4, : width // 4 * 4].reshape(height // 4, 4, width // 4, 4, 3)
            # OpenSlide resamples by a fraction of a pixel where a level's size is rounded up.
            if width % 4 == height % 4 == 0:
                assert np.abs(inner - boxes.mean(axis=(1, 3))).max() <= 0.51
    assert list(path.parent.iterdir()) == [path]


def test_jpeg_error_is_small_and_description_kept(tmp_path):
    image = data.immunohistochemistry()
    write_pyramid(tmp_path / "a.tiff", image, mpp=0.5, description="hello")
    with open_slide(tmp_path / "a.tiff") as slide:
        read = slide.read_rgb(0, 0, 0, slide.width, slide.height)
    assert np.abs(read.astype(int) - image).mean() < 3
    assert openslide.OpenSlide(tmp_path / "a.tiff").properties["tiff.ImageDescription"] == "hello"


def test_streams_rows_and_is_the_same_from_array_and_stream(tmp_path):
    tissue = SyntheticTissue(900, 700, seed=2)

    class Watched:
        shape = tissue.shape
        rows = 0

        def __getitem__(self, key):
            self.rows = max(self.rows, key[0].stop - key[0].start)
            return tissue[key]

    watched = Watched()
    write_pyramid(tmp_path / "a.tiff", watched, mpp=0.25)
    write_pyramid(tmp_path / "b.tiff", tissue[0:700, 0:900], mpp=0.25)
    assert watched.rows == 256
    assert (tmp_path / "a.tiff").read_bytes() == (tmp_path / "b.tiff").read_bytes()


def test_failing_image_leaves_no_file(tmp_path):
    class Failing:
        shape = (600, 600, 3)

        def __getitem__(self, key):
            if key[0].start:
                raise OSError("gone")
            return np.zeros((256, 600, 3), np.uint8)

    with pytest.raises(OSError, match="gone"):
        write_pyramid(tmp_path / "a.tiff", Failing(), mpp=0.25)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "bad", [{"tile": 100}, {"quality": 0}, {"mpp": 0}, {"mpp": float("nan")}, {"min_level": 0}]
)
def test_bad_parameters(tmp_path, bad):
    with pytest.raises(ConfigError):
        write_pyramid(tmp_path / "a.tiff", np.zeros((9, 9, 3), np.uint8), **{"mpp": 0.25, **bad})


def test_not_rgb(tmp_path):
    with pytest.raises(ConfigError):
        write_pyramid(tmp_path / "a.tiff", np.zeros((9, 9, 4), np.uint8), mpp=0.25)


@pytest.mark.slow
def test_memory_is_bounded(tmp_path):
    code = (
        "import sys; from pathlib import Path; from deepliif_ray.slides import *\n"
        "write_pyramid(Path(sys.argv[1]), SyntheticTissue(30_000, 3_000), mpp=0.25)\n"
        # not ru_maxrss, which a child inherits from its parent
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.tiff")],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) / 1024 < 400  # MB, Python and NumPy included
