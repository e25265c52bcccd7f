import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from skimage.color import hed2rgb, rgb2hed

from deepliif_ray.errors import ConfigError
from deepliif_ray.models import load_model
from deepliif_ray.models.stain import Stain, StainParameters, dab_density


def classes(seg):
    """1 positive, 2 negative, 0 neither, by the published pixel rule."""
    red, green, blue = (seg[..., i].astype(int) for i in range(3))
    cell = (red + blue > 120) & (green <= 80)
    return np.where(cell, np.where(red >= blue, 1, 2), 0)


def cells(seg):
    """Centroid x, y and class of every cell in a map."""
    kinds = classes(seg)
    labels, count = ndimage.label(kinds > 0, np.ones((3, 3)))
    index = np.arange(1, count + 1)
    centres = np.array(ndimage.center_of_mass(labels > 0, labels, index)).reshape(-1, 2)
    return np.column_stack([centres[:, ::-1], ndimage.mean(kinds == 1, labels, index) >= 0.5])


def f1(found, truth, reach=10):
    distance = np.linalg.norm(found[:, None, :2] - truth[None, :, :2], axis=2)
    pairs = linear_sum_assignment(np.where(distance <= reach, distance - 1000, 0))
    return 2 * (distance[pairs] <= reach).sum() / (len(found) + len(truth))


def drawn(nuclei, size=512):
    """A field with round nuclei: x, y, radius, hematoxylin, DAB (natural densities)."""
    hed = np.zeros((size, size, 3))
    hed[..., 0], hed[..., 2] = 0.12, 0.2
    y, x = np.mgrid[:size, :size]
    for cx, cy, radius, hematoxylin, dab in nuclei:
        hed[np.hypot(x - cx, y - cy) < radius] = (hematoxylin, 0, dab)
    hed = ndimage.gaussian_filter(hed / np.log(1e6), (1, 1, 0))
    return np.round(hed2rgb(hed) * 255).astype(np.uint8)


def test_deconvolution_is_scikit_images():
    rgb = np.random.default_rng(0).integers(1, 256, (64, 64, 3), dtype=np.uint8)
    expected = rgb2hed(rgb)[..., 2] * np.log(1e6)
    np.testing.assert_allclose(np.maximum(dab_density(rgb), 0), expected, atol=1e-4)


def test_finds_drawn_nuclei_and_splits_touching_ones():
    nuclei = [
        (80, 80, 16, 0.7, 0.2),
        (200, 80, 16, 0.3, 2.0),
        (320, 80, 14, 0.7, 0.2),
        (346, 80, 14, 0.7, 0.2),  # touches the one before
        (100, 300, 14, 0.3, 2.5),
        (126, 300, 14, 0.3, 2.5),  # touches, both positive
        (300, 300, 15, 0.3, 2.5),
        (328, 300, 15, 0.7, 0.2),  # touches, another class
        (450, 450, 15, 5.0, 5.0),  # saturated, almost black
    ]
    truth = np.array([(x, y, dab > 1) for x, y, _, _, dab in nuclei])
    found = cells(load_model("stain").infer(drawn(nuclei)[None]).seg[0])
    assert len(found) == len(nuclei)
    for kind in (0, 1):
        assert f1(found[found[:, 2] == kind], truth[truth[:, 2] == kind], reach=4) == 1


@pytest.mark.parametrize("size", [128, 256, 512, 1024])
def test_filters_scale_with_the_tile(size):
    nuclei = [(100, 100, 16, 0.7, 0.2), (300, 150, 16, 0.3, 2.0), (200, 400, 15, 0.7, 0.2)]
    tile = np.asarray(Image.fromarray(drawn(nuclei)).resize((size, size), Image.Resampling.BICUBIC))
    found = cells(Stain().infer(tile[None]).seg[0])
    truth = np.array([(x * size / 512, y * size / 512, dab > 1) for x, y, _, _, dab in nuclei])
    assert len(found) == 3
    assert f1(found, truth, reach=3 * size / 512) == 1
    assert sorted(found[:, 2]) == [0, 0, 1]


def test_touching_cells_never_share_an_edge():
    rng = np.random.default_rng(3)
    nuclei = [
        (*rng.uniform(0, 512, 2), 15, *((0.7, 0.2) if rng.random() < 0.5 else (0.3, 2))) for _ in range(300)
    ]
    tile = drawn(nuclei)
    kinds = classes(Stain().infer(tile[None]).seg[0])
    positive = ndimage.binary_dilation(kinds == 1, np.ones((3, 3)))
    assert (kinds == 1).any()
    assert not (positive & (kinds == 2)).any()


def test_overlapping_tiles_agree_in_their_interiors(shared_data):
    field = np.asarray(Image.open(shared_data / "bcdata" / "0.png").convert("RGB"))
    first, second = Stain().infer(np.stack([field[:512, :512], field[128:640, 128:640]])).seg
    common, other = first[192:448, 192:448], second[64:320, 64:320]
    assert (classes(common) == classes(other)).mean() > 0.98


def test_strange_tiles():
    rng = np.random.default_rng(0)
    size = 512
    tiles = [np.full((size, size, 3), value, np.uint8) for value in (0, 1, 10, 128, 255)]
    tiles.append(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
    tiles.append(np.full((size, size, 3), (20, 90, 200), np.uint8))
    result = Stain().infer(np.stack(tiles))
    assert not result.seg[:5].any()
    assert result.marker[4].max() == 0
    assert Stain().infer(np.stack(tiles)[:0]).seg.shape == (0, size, size, 3)


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(np.uint8, (1, 32, 32, 3)), st.sampled_from([1, 3, 32]))
def test_any_pixels(tile, size):
    result = Stain().infer(tile[:, :size, :size])
    assert set(map(tuple, result.seg.reshape(-1, 3))) <= {(0, 0, 0), (255, 0, 0), (0, 0, 255), (0, 255, 0)}


def test_pen_and_other_stains(shared_data):
    files = sorted((shared_data / "pen").glob("*.png")) + sorted((shared_data / "fields").iterdir())
    for file in files:
        tile = np.asarray(Image.open(file).convert("RGB").resize((512, 512)))
        Stain().infer(tile[None])


def test_repeats_itself_and_names_its_parameters():
    tile = drawn([(100, 100, 16, 0.7, 0.2), (300, 150, 16, 0.3, 2.0)])
    one, two = Stain(), Stain()
    assert np.array_equal(one.infer(tile[None]).seg, two.infer(np.stack([tile] * 2)).seg[1:])
    assert one.digest == two.digest == load_model("stain", "cpu", "bfloat16").digest
    assert one.digest != Stain(parameters=StainParameters(smooth=1.0)).digest


def test_marker_is_dab_density():
    marker = Stain().infer(drawn([(100, 100, 16, 0.7, 0.2), (300, 150, 16, 0.3, 2.0)])[None]).marker[0]
    assert abs(int(marker[150, 300]) - 2.0 * 85) < 4
    assert marker[100, 100] < 30


def test_has_no_modalities():
    with pytest.raises(ConfigError, match="Hema"):
        load_model("stain", modalities=["Hema"])


def test_accuracy_on_real_fields_does_not_get_worse(shared_data):
    """Six BCData fields against expert centroids; 0.66 when written."""
    scores = []
    for number in range(6):
        field = Image.open(shared_data / "bcdata" / f"{number}.png").convert("RGB")
        truth = np.loadtxt(
            shared_data / "bcdata" / f"{number}.csv", delimiter=",", skiprows=1, usecols=(0, 1, 2)
        )
        truth = truth[(truth[:, :2] < 512).all(axis=1)]
        found = cells(Stain().infer(np.asarray(field.crop((0, 0, 512, 512)))[None]).seg[0])
        scores += [f1(found[found[:, 2] == kind], truth[truth[:, 2] == kind]) for kind in (0, 1)]
    assert np.mean(scores) > 0.6
