import numpy as np
import pytest
from scipy import ndimage

from deepliif_ray.errors import ConfigError
from deepliif_ray.synthetic.panels import draw_segmentation, synthetic_panels
from deepliif_ray.synthetic.panels.nuclei import Nucleus
from deepliif_ray.synthetic.panels.staining import add_smears, paint
from deepliif_ray.training.panels.files import MODALITIES, SEG


@pytest.fixture(scope="module")
def tiles():
    return [synthetic_panels(5, index, 256) for index in range(8)]


def test_every_panel_is_there(tiles):
    for tile in tiles:
        assert tuple(tile.targets) == (*MODALITIES, SEG)
        for image in (tile.ihc, *tile.targets.values()):
            assert image.shape == (256, 256, 3) and image.dtype == np.uint8 and image.flags.c_contiguous


def test_a_tile_follows_from_seed_and_index_alone(tiles):
    again = synthetic_panels(5, 3, 256)
    assert (again.ihc == tiles[3].ihc).all() and (again.targets[SEG] == tiles[3].targets[SEG]).all()
    assert (synthetic_panels(6, 3, 256).ihc != tiles[3].ihc).any()


def test_segmentation_has_pure_colours_and_closed_cells(tiles):
    allowed = {(0, 0, 0), (255, 0, 0), (0, 0, 255), (0, 255, 0)}
    for tile in tiles:
        seg = tile.targets[SEG]
        assert {tuple(int(v) for v in c) for c in np.unique(seg.reshape(-1, 3), axis=0)} <= allowed
        cell = (seg[..., 0] > 0) | (seg[..., 2] > 0)
        assert not (ndimage.binary_dilation(cell) & (seg.sum(2) == 0)).any(), "a cell touches the background"


def test_positive_cells_have_marker_and_nuclei_have_dapi(tiles):
    for tile in tiles:
        seg = tile.targets[SEG]
        red, blue = seg[..., 0] > 0, seg[..., 2] > 0
        if red.sum() > 200 and blue.sum() > 200:
            marker, dapi = tile.targets["marker"][..., 0], tile.targets["dapi"][..., 0]
            assert marker[red].mean() > 3 * marker[blue].mean()
            assert dapi[red | blue].mean() > 3 * dapi[seg.sum(2) == 0].mean()


@pytest.mark.slow
def test_variety():
    tiles = [synthetic_panels(9, index, 128) for index in range(40)]
    shares = [(t.targets[SEG][..., 0] > 0).sum() / max(1, (t.targets[SEG][..., 1] == 0).sum()) for t in tiles]
    assert min(shares) < 0.02 and max(shares) > 0.3
    levels = [t.ihc.mean() for t in tiles]
    assert np.std(levels) > 15


def test_touching_cells_are_kept_apart():
    owner = np.zeros((32, 32), np.int32)
    owner[8:24, 4:16], owner[8:24, 16:28] = 1, 2
    seg = draw_segmentation(owner, np.array([False, True, False]))
    cells, count = ndimage.label(seg[..., 1] == 0, np.ones((3, 3)))
    inside = {int(cells[16, 10]), int(cells[16, 22]), int(cells[0, 0])}
    assert count == len(inside) == 3
    assert tuple(seg[16, 10]) == (255, 0, 0) and tuple(seg[16, 22]) == (0, 0, 255)


def test_smears_outside_the_canvas_are_left_out():
    at_the_edge = Nucleus(
        x=95.0,
        y=40.0,
        radius=20.0,
        stretch=1.2,
        angle=0.4,
        blue=0.4,
        brown=2.0,
        positive=True,
        vesicular=0.0,
        softness=1.0,
        patchy=0.0,
        crenated=0.0,
    )
    for seed in range(5):
        rng = np.random.default_rng(seed)
        canvas = paint(rng, [at_the_edge], 96)
        before = canvas.dab.copy()
        add_smears(rng, canvas, [at_the_edge] * 1000)
        assert (canvas.dab >= before).all() and (canvas.dab > before).any()


def test_too_small():
    with pytest.raises(ConfigError, match="64"):
        synthetic_panels(1, 1, 32)
