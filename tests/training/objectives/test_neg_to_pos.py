from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError, ModelError
from deepliif_ray.training.objectives.adversarial import pixel_loss
from deepliif_ray.training.objectives.neg_to_pos import NegToPosObjective, condition, load_neg_to_pos
from deepliif_ray.training.panels.conversion import MARKER_LEVEL, convert, convert_all, negative_cells
from deepliif_ray.training.panels.files import IHC, MODALITIES, SEG, Panels
from deepliif_ray.training.run.batches import to_batch, to_images
from tests.training.small import random_batch, touched

SMALL = {"generator": "resnet_6blocks", "width": 4, "discriminator_layers": 2, "discriminator_width": 4}
RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 255, 0)


def small_objective(seed=0, **options):
    torch.manual_seed(seed)
    return NegToPosObjective(**{**SMALL, **options})


class Painter:
    """Paints every pixel in one brown, and remembers what it was shown."""

    def paint(self, panels):
        self.seen = panels
        return np.full_like(panels.ihc, (120, 70, 30))


def panels_of(seg, seed=0):
    rng = np.random.default_rng(seed)
    images = {n: rng.integers(0, 200, seg.shape, np.uint8) for n in MODALITIES}
    images["marker"] //= 20
    return Panels("tile", rng.integers(150, 255, seg.shape, np.uint8), {**images, SEG: seg})


def grid(colors, side=12):
    """A segmentation of square cells in a row, each with a green outline."""
    seg = np.zeros((side, side * len(colors), 3), np.uint8)
    for i, color in enumerate(colors):
        x = i * side
        seg[2 : side - 2, x + 2 : x + side - 2] = GREEN
        seg[3 : side - 3, x + 3 : x + side - 3] = color
    return seg


def negatives(panels):
    return len(negative_cells(panels.targets[SEG])[2])


@settings(max_examples=30, deadline=None)
@given(
    colors=st.lists(st.sampled_from([RED, BLUE]), min_size=1, max_size=12),
    share=st.floats(0, 100),
    seed=st.integers(0, 9),
)
def test_the_share_of_negative_cells_is_converted(colors, share, seed):
    before = panels_of(grid(colors))
    after = convert(Painter(), before, share, np.random.default_rng(seed))
    total = colors.count(BLUE)
    converted = int(total * share / 100 + 0.5)
    assert negatives(after) == total - converted
    changed = (after.targets[SEG] != before.targets[SEG]).any(axis=2)
    assert changed.sum() == converted * 36
    assert (after.targets[SEG][changed] == RED).all()
    for name in ("hematoxylin", "dapi", "lap2"):
        assert np.array_equal(after.targets[name], before.targets[name])
    assert (after.targets["marker"] >= before.targets["marker"]).all()
    lit = (after.targets["marker"] != before.targets["marker"]).any(axis=2)
    assert not (lit & ~ndimage.binary_dilation(changed, iterations=12)).any()


def test_images_change_in_the_converted_cells_only():
    before, painter = panels_of(grid([BLUE, RED, BLUE, BLUE])), Painter()
    after = convert(painter, before, 100, np.random.default_rng(0))
    assert painter.seen.targets[SEG] is after.targets[SEG]  # it paints the changed segmentation
    cell = (slice(3, 9), slice(3, 9))
    assert (after.ihc[cell] == (120, 70, 30)).all()
    assert np.array_equal(after.ihc[:, 18:19], before.ihc[:, 18:19])  # inside the cell that was positive
    level = np.median(before.targets["marker"][3:9, 15:21].reshape(-1, 3), axis=0)
    assert (after.targets["marker"][cell].mean(axis=(0, 1)) >= 0.3 * level).all()
    assert after.name == "tile-neg-to-pos-100"


def test_a_tile_without_positive_cells_lights_up_by_a_fixed_level():
    before = panels_of(grid([BLUE], 40))
    before.targets["dapi"][:] = 80
    after = convert(Painter(), before, 100, np.random.default_rng(0))
    middle = after.targets["marker"][20, 20]
    assert (abs(middle.astype(int) - MARKER_LEVEL) <= 2).all()


def test_the_same_seed_draws_the_same_cells():
    before = panels_of(grid([BLUE] * 10))
    one, two, other = (convert(Painter(), before, 50, np.random.default_rng(s)) for s in (1, 1, 2))
    assert np.array_equal(one.targets[SEG], two.targets[SEG])
    assert not np.array_equal(one.targets[SEG], other.targets[SEG])


def test_tiles_are_converted_alike_in_any_company():
    tiles = [replace(panels_of(grid([BLUE] * 10)), name=name) for name in "abc"]
    together = list(convert_all(Painter(), tiles, 50, 3))
    (alone,) = convert_all(Painter(), tiles[1:2], 50, 3)
    assert np.array_equal(together[1].targets[SEG], alone.targets[SEG])
    assert not np.array_equal(together[0].targets[SEG], together[1].targets[SEG])


def test_holes_belong_to_their_cell_and_specks_are_not_cells():
    seg = grid([BLUE, BLUE])
    seg[5, 5] = 0  # a hole
    seg[5, 17] = (200, 0, 100)  # a red pixel in a blue cell
    seg[0, 0] = BLUE
    labels, _, negative = negative_cells(seg)
    assert len(negative) == 2
    assert labels[5, 5] == labels[4, 5] > 0
    after = convert(Painter(), panels_of(seg), 100, np.random.default_rng(0)).targets[SEG]
    assert (after[5, 5] == 0).all()
    assert (after[5, 17] == (200, 0, 100)).all()
    assert (after[0, 0] == BLUE).all()


def test_real_panels(shared_data):
    strip = np.asarray(Image.open(shared_data / "deepliif/train/Bladder1.png").convert("RGB"))
    ihc, *others = (strip[:, 512 * i : 512 * i + 512] for i in range(6))
    before = Panels("Bladder1", ihc, dict(zip((*MODALITIES, SEG), others, strict=True)))
    total = negatives(before)
    after = convert(Painter(), before, 70, np.random.default_rng(0))
    assert total > 100
    assert negatives(after) == total - int(0.7 * total + 0.5)


def test_what_cannot_be_converted():
    before = panels_of(grid([BLUE]))
    with pytest.raises(ConfigError, match=r"share is 101"):
        convert(Painter(), before, 101, np.random.default_rng(0))
    bare = Panels("tile", before.ihc, {SEG: before.targets[SEG]})
    model = small_objective()
    model.export("memory://n2p-bare", {})
    with pytest.raises(ConfigError, match=r"tile.*: has no panel hematoxylin"):
        convert(load_neg_to_pos("memory://n2p-bare"), bare, 50, np.random.default_rng(0))


def test_condition_is_two_greys_and_the_segmentation():
    batch = random_batch(2, 8)
    reads = condition(batch.targets)
    assert reads.shape == (2, 5, 8, 8)
    red, green, blue = batch.targets["hematoxylin"].unbind(1)
    torch.testing.assert_close(reads[:, 0], 0.299 * red + 0.587 * green + 0.114 * blue)
    assert torch.equal(reads[:, 2:], batch.targets[SEG])


@pytest.mark.parametrize("gan_loss", ["vanilla", "lsgan"])
def test_losses_and_gradients(gan_loss):
    objective, batch = small_objective(gan_loss=gan_loss), random_batch()
    shown = []
    objective.discriminators["D"].register_forward_hook(lambda _, args, out: shown.append((args[0], out)))
    outputs = objective.forward(batch)
    judged = objective.discriminator_terms(batch, outputs)
    sum(judged.values()).backward()
    assert touched(objective.generators) == (set(), set())
    assert touched(objective.discriminators)[0] == {"D"}
    objective.discriminators.zero_grad()
    made = objective.generator_terms(batch, outputs, 0)
    sum(made.values()).backward()
    assert touched(objective.generators)[0] == {"G"}
    assert touched(objective.discriminators) == (set(), set())

    (fake, said_fake), (real, said_real), (again, said_again) = shown
    reads = condition(batch.targets)
    assert torch.equal(fake, torch.cat([reads, outputs[IHC]], 1))
    assert torch.equal(real, torch.cat([reads, batch.ihc], 1))
    assert torch.equal(again, fake)
    if gan_loss == "lsgan":
        torch.testing.assert_close(judged["d_fake_ihc"], (said_fake**2).mean() / 2)
        torch.testing.assert_close(judged["d_real_ihc"], ((said_real - 1) ** 2).mean() / 2)
        torch.testing.assert_close(made["g_gan_ihc"], ((said_again - 1) ** 2).mean())
    torch.testing.assert_close(made["g_l1_ihc"], 100 * pixel_loss(outputs[IHC], batch.ihc))


@pytest.mark.slow
def test_a_few_steps_learn_to_color_cells():
    """Brown where red, blue where blue: what conversion relies on."""
    seg = np.concatenate([grid([RED, BLUE, BLUE, RED, BLUE, RED])[:, :64]] * 6)[:64]
    panels = panels_of(seg)
    stained = {RED: (120, 70, 30), BLUE: (100, 110, 180)}
    ihc = np.full_like(seg, 230)
    for color, stain in stained.items():
        ihc[(seg == color).all(axis=2)] = stain
    objective = small_objective(width=8)
    batch = to_batch([Panels("t", ihc, panels.targets)], objective.targets, torch.device("cpu"))
    makers = torch.optim.Adam(objective.generators.parameters(), 3e-3, betas=(0.5, 0.999))
    for step in range(40):
        makers.zero_grad()
        sum(objective.generator_terms(batch, objective.forward(batch), step).values()).backward()
        makers.step()
    painted = to_images(objective.predict(batch)[IHC])[0].astype(int)
    brown, blue = (painted[(seg == color).all(axis=2)].mean(axis=0) for color in (RED, BLUE))
    assert brown[0] > brown[2] + 30
    assert blue[2] > blue[0] + 30


@pytest.mark.parametrize("norm", ["batch", "spectral"])
def test_a_model_is_read_as_it_was_written(norm):
    objective = small_objective(norm=norm)
    url = f"memory://neg-to-pos-{norm}"
    objective.export(url, {"steps": 3})
    model = load_neg_to_pos(url)
    assert model.options == objective.options
    assert model.metadata == {"steps": 3}
    panels = panels_of(grid([BLUE, RED], 15))  # sides that are no multiple of 4
    painted = model.paint(panels)
    batch = to_batch([panels], objective.targets, torch.device("cpu"))
    assert painted.shape == panels.ihc.shape
    assert np.array_equal(painted, to_images(objective.predict(batch)[IHC])[0])


def test_folders_that_are_not_models_are_named():
    url = "memory://neg-to-pos-broken"
    small_objective().export(url, {})
    storage.write_bytes(f"{url}/weights.safetensors", b"other")
    with pytest.raises(ModelError, match=r"weights.safetensors: is not the file"):
        load_neg_to_pos(url)
    storage.write_bytes(f"{url}/neg-to-pos.json", b"{}")
    with pytest.raises(ModelError, match=r"neg-to-pos.json: not a Neg-to-Pos model"):
        load_neg_to_pos(url)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": 1}, "neg-to-pos: lr"),
        ({"gan_loss": "wgan"}, "gan_loss"),
        ({"generator": "unet_7"}, "unet_7"),
        ({"discriminator_layers": 0}, "discriminator_layers"),
    ],
)
def test_options_that_cannot_be_used_are_named(options, words):
    with pytest.raises(ConfigError, match=words):
        small_objective(**options)
