from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from deepliif_ray.errors import ConfigError
from deepliif_ray.synthetic.panels import synthetic_panels
from deepliif_ray.training.panels.augment import Augment, augmented
from deepliif_ray.training.panels.files import SEG, Panels


@pytest.fixture(scope="module")
def tile():
    return synthetic_panels(2, 1, 192)


def rng(seed=4):
    return np.random.default_rng(seed)


def test_the_same_state_gives_the_same_crop(tile):
    one, other = augmented(tile, rng(), 96, Augment()), augmented(tile, rng(), 96, Augment())
    assert (one.ihc == other.ihc).all() and (one.targets[SEG] == other.targets[SEG]).all()
    assert (augmented(tile, rng(5), 96, Augment()).ihc != one.ihc).any()


def test_none_only_crops(tile):
    crop = augmented(tile, rng(), 96, Augment.none())
    found = [
        (y, x) for y in range(97) for x in range(97) if (tile.ihc[y : y + 96, x : x + 96] == crop.ihc).all()
    ]
    assert len(found) == 1
    (y, x) = found[0]
    for name, image in crop.targets.items():
        assert (image == tile.targets[name][y : y + 96, x : x + 96]).all()


def test_panels_stay_registered(tile):
    marked = Panels("m", tile.targets["dapi"], tile.targets)
    settings = replace(Augment.none(), scale=0.3, flips=True)
    for seed in range(12):
        crop = augmented(marked, rng(seed), 80, settings)
        assert (crop.ihc == crop.targets["dapi"]).all()


def test_horizontal_flips_mirror_every_second_time_and_do_not_turn(tile):
    settings = replace(Augment.none(), flips="horizontal")
    mirrored = 0
    for seed in range(40):
        crop = augmented(tile, rng(seed), 192, settings)
        flipped = (crop.ihc == tile.ihc[:, ::-1]).all()
        mirrored += flipped
        for name, image in crop.targets.items():
            expected = tile.targets[name]
            assert (image == (expected[:, ::-1] if flipped else expected)).all()
        assert flipped or (crop.ihc == tile.ihc).all()
    assert 10 < mirrored < 30


def test_stains_leave_targets_alone(tile):
    settings = Augment(scale=0, flips=False)
    plain = augmented(tile, rng(), 192, Augment.none())
    stained = augmented(tile, rng(), 192, settings)
    assert all((plain.targets[name] == stained.targets[name]).all() for name in plain.targets)
    assert (plain.ihc != stained.ihc).any()


def test_no_change_of_stains_is_no_change_of_pixels(tile):
    settings = replace(Augment.none(), background=1e-9)
    crop = augmented(tile, rng(), 192, settings)
    assert np.abs(crop.ihc.astype(int) - tile.ihc).max() <= 1, (
        "separating and mixing the stains loses nothing"
    )


def test_black_darkens_positive_cells_only(tile):
    settings = replace(Augment.none(), black=1)
    crop = augmented(tile, rng(), 192, settings)
    seg = tile.targets[SEG]
    red = seg[..., 0] > 0
    # The stain of a cell reaches a little over its edge.
    elsewhere = ndimage.distance_transform_edt(~red) > 8
    assert elsewhere.sum() > 100
    assert red.sum() > 100
    assert crop.ihc[red].mean() < 0.8 * tile.ihc[red].mean()
    assert np.abs(crop.ihc[elsewhere].astype(int) - tile.ihc[elsewhere]).mean() < 2


def test_fringes_move_colours_apart_but_not_the_targets(tile):
    crop = augmented(tile, rng(), 192, replace(Augment.none(), fringes=1))
    assert (crop.ihc != tile.ihc).any()
    assert all((crop.targets[name] == image).all() for name, image in tile.targets.items())
    assert np.abs(crop.ihc.mean((0, 1)) - tile.ihc.mean((0, 1))).max() < 2, "no colour gets lighter"


def test_small_tiles_are_continued(tile):
    small = Panels("s", tile.ihc[:50, :70].copy(), {SEG: tile.targets[SEG][:50, :70].copy()})
    assert augmented(small, rng(), 96, Augment()).ihc.shape == (96, 96, 3)


def test_unknown_settings():
    with pytest.raises(ConfigError, match="colour"):
        Augment.from_options({"colour": 1})
    with pytest.raises(ConfigError, match="negative"):
        Augment.from_options({"hue": -1})
    with pytest.raises(ConfigError, match="hue must be a number"):
        Augment.from_options({"hue": "much"})
    with pytest.raises(ConfigError, match="flips is 'vertical'; use true, false or horizontal"):
        Augment.from_options({"flips": "vertical"})
