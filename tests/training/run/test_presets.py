"""The published preset, epochs, and how images lie in memory."""

from dataclasses import asdict, fields
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepliif_ray.errors import ConfigError
from deepliif_ray.models.networks import TileNorm
from deepliif_ray.training.objectives.deepliif_options import DeepLIIFOptions
from deepliif_ray.training.panels.augment import Augment
from deepliif_ray.training.run import checkpoints
from deepliif_ray.training.run.batches import Sampler, to_tensor
from deepliif_ray.training.run.config import dump_config, load_config, load_mapping, train_config
from deepliif_ray.training.run.loop import fit
from deepliif_ray.training.run.records import read_metrics
from deepliif_ray.training.run.team import Team
from deepliif_ray.training.run.trainer import Trainer, layout, make_objective
from tests.training.small import SMALL, random_batch
from tests.training.toy import StoppedError, ToyTiles, options

DATA = {"data": [{"uri": "panels"}]}


def published(**changes):
    return train_config({"preset": "published", **DATA, **changes})


def epochs_of(**changes):
    """A short run of two epochs."""
    return {**options(data=DATA["data"], batch_size=1, **changes), "steps": 0, "epochs": 2}


def test_the_preset_is_published_training():
    """Compared with the defaults of `deepliif train`: nadeemlab/DeepLIIF @eab8bdd, cli.py."""
    config = published()
    assert (config.objective, config.batch_size, config.crop) == ("deepliif", 1, 512)
    assert (config.optimizer, config.learning_rate, config.betas, config.weight_decay) == (
        "adam", 2e-4, (0.5, 0.999), 0
    )  # fmt: skip
    assert (config.warmup, config.gradient_clip, config.ema_decay, config.patience) == (0, 0, 0, 0)
    assert config.precision == "float32"
    augment = asdict(Augment.from_options(config.augment))
    assert augment.pop("flips") == "horizontal"
    assert set(augment.values()) == {0}
    chosen = DeepLIIFOptions(**config.objective_options)
    assert chosen.dropout
    assert (chosen.translator.architecture, chosen.translator.padding) == ("resnet_9blocks", "zero")
    assert (chosen.segmentation.architecture, chosen.segmentation.dropout) == ("unet_512", True)
    assert (chosen.verdict.architecture, chosen.verdict.layers) == ("n_layers", 4)
    assert (chosen.width, chosen.discriminator_width, chosen.norm, chosen.init_gain) == (
        64,
        64,
        "batch",
        0.02,
    )
    assert (chosen.gan_loss, chosen.seg_gan_loss, chosen.l1_weight) == ("vanilla", "lsgan", 100)
    assert chosen.weights == (0.25, 0.15, 0.25, 0.1, 0.25)
    assert set(chosen.loss_weights(()).values()) == {0.2}
    assert not chosen.vgg_weights


def published_rate(epoch, n_epochs=100, n_epochs_decay=100):
    """`get_scheduler` of the published networks.py, policy ``linear``, epochs counted from 0."""
    return 2e-4 * (1.0 - max(0, epoch - n_epochs) / (n_epochs_decay + 1))


@given(tiles=st.integers(1, 700), data=st.data())
def test_rates_fall_once_an_epoch_as_published(tiles, data):
    config = published().for_tiles(tiles)
    assert config.steps == 201 * tiles  # epochs 0 to 200, both included
    epoch = data.draw(st.integers(0, 200))
    for step in (epoch * tiles + 1, (epoch + 1) * tiles):  # the first and the last update of the epoch
        assert config.rate(step) == pytest.approx(published_rate(epoch), rel=1e-12)


def test_what_a_file_says_stays():
    config = published(
        batch_size=4,
        augment={"stain": 0.2},
        objective_options={"padding": "reflect", "modalities": ["cd3", "cd8"]},
    )
    assert config.batch_size == 4
    assert config.augment == {**published().augment, "stain": 0.2}
    assert config.objective_options == {
        **published().objective_options, "padding": "reflect", "modalities": ["cd3", "cd8"]
    }  # fmt: skip
    assert DeepLIIFOptions(**config.objective_options).weights == (1 / 3,) * 3
    assert published(augment=None).augment is None
    assert (published(steps=30).steps, published(steps=30).epochs) == (30, 0)
    assert published(epochs=3).for_tiles(10).steps == 30
    plain = train_config({**DATA, "steps": 3})
    assert (plain.batch_size, plain.augment, plain.epochs) == (8, {}, 0)


def test_a_preset_names_each_of_its_options():
    """What is not named would follow the defaults, which are ours."""
    named = {
        name for name in published().objective_options if name in {f.name for f in fields(DeepLIIFOptions)}
    }
    assert named == set(published().objective_options)
    assert set(published().augment) == {field.name for field in fields(Augment)}
    given_by_weights_or_use = {
        "modalities", "seg_weights", "drop", "single_segmenter", "generator_loss_weights",
        "discriminator_loss_weights", "seg_id", "first_segmenter", "scale_size",
        "vgg_weights", "vgg_weight", "vgg_digest",
    }  # fmt: skip
    assert {f.name for f in fields(DeepLIIFOptions)} - named == given_by_weights_or_use


def test_the_filled_configuration_is_what_is_written(tmp_path):
    config = published(seed=3)
    (tmp_path / "config.yaml").write_bytes(dump_config(config))
    written = load_mapping(str(tmp_path / "config.yaml"))
    assert (written["preset"], written["batch_size"], written["epochs"]) == ("published", 1, 201)
    assert written["objective_options"]["dropout"] is True
    again = load_config(str(tmp_path / "config.yaml"))
    assert again.model_copy(update={"data": config.data}) == config
    shorter = load_config(str(tmp_path / "config.yaml"), steps=7)
    assert (shorter.steps, shorter.epochs) == (7, 0)


def test_vggs_weights_are_taken_from_the_files_folder(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text("{preset: published, data: [{uri: x}], objective_options: {vgg_weights: vgg.pth}}")
    assert load_config(str(path)).objective_options["vgg_weights"] == str(tmp_path / "vgg.pth")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "publishd"}, "preset is 'publishd'.*'published'"),
        ({"preset": ["published"]}, "preset is "),
        ({"objective": "compact"}, "preset published is not for the objective compact"),
        ({"steps": 3, "epochs": 2}, "steps is 3 and epochs 2; give one"),
        ({"preset": None}, "steps is missing; add it, or epochs"),
        ({"data": [{"uri": "a"}, {"uri": "b", "weight": 2}]}, "every tile counts once"),
        ({"objective_options": 3}, "objective_options is 3"),
        ({"augment": [1]}, "augment is "),
    ],
)
def test_what_does_not_go_together_is_told(changes, message):
    with pytest.raises(ConfigError, match=message):
        published(**changes)


@given(seed=st.integers(0, 99), batch=st.integers(1, 7), count=st.integers(1, 9))
def test_every_tile_comes_once_an_epoch(seed, batch, count):
    tiles = ToyTiles(count, 1, 20, 20)
    sampler = Sampler(tiles, [1], batch_size=batch, crop=16, settings=Augment.none(), seed=seed, in_turn=True)
    steps = -(-3 * count // batch)
    names = [sampler.sample(step, k).name for step in range(1, steps + 1) for k in range(batch)]
    for epoch in range(3):
        turn = names[epoch * count : (epoch + 1) * count]
        assert sorted(turn) == [tiles.get(n).name for n in range(count)]


def test_epochs_come_in_orders_of_their_own():
    orders = set()
    for seed in (1, 2):
        sampler = Sampler(
            ToyTiles(6, 1), [1], batch_size=6, crop=16, settings=Augment.none(), seed=seed, in_turn=True
        )
        orders |= {tuple(sampler.sample(step, k).name for k in range(6)) for step in (1, 2, 3)}
    assert len(orders) == 6


@pytest.mark.slow
def test_a_run_of_epochs_goes_on_after_a_stop(tmp_path):
    config = train_config(epochs_of())

    def stop(progress):
        assert progress.steps == 12
        if progress.step == 8:
            raise StoppedError

    run = partial(fit, config, tiles=ToyTiles(6, 1), validation=ToyTiles(2, 1))
    whole = run(str(tmp_path / "whole"))
    with pytest.raises(StoppedError):
        run(str(tmp_path / "stopped"), watch=stop)
    assert run(str(tmp_path / "stopped")).metrics == whole.metrics
    assert whole.step == 12 and not whole.stopped_early
    logs = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "stopped")]
    assert logs[0] == logs[1]
    rates = [row["learning_rate"] for row in read_metrics(str(tmp_path / "whole")) if row["kind"] == "train"]
    assert rates == [2e-4] * 12  # linear from the second of two epochs on: 1 - 0 / 1
    assert load_mapping(str(tmp_path / "whole/config.yaml"))["epochs"] == 2
    longer = train_config(epochs_of() | {"epochs": 3})
    assert fit(longer, str(tmp_path / "whole"), ToyTiles(6, 1), ToyTiles(2, 1)).step == 18
    assert checkpoints.steps(str(tmp_path / "whole"))[-1] == 18


@pytest.mark.parametrize(("precision", "last"), [("float32", False), ("bfloat16", True)])
def test_float32_on_a_cpu_normalises_contiguous_images(precision, last):
    small = {**SMALL, "width": 8}
    config = published(precision=precision, objective_options=small, crop=32).for_tiles(4)
    trainer = Trainer(config, make_objective(config), torch.device("cpu"), Team())
    seen = []
    for networks in (trainer.objective.generators, trainer.objective.discriminators):
        for module in networks.modules():
            if isinstance(module, TileNorm):
                module.register_forward_hook(
                    lambda _, inputs, __: seen.append(inputs[0]) if inputs[0].shape[-1] > 1 else None
                )
    trainer.step(1, random_batch(1).laid_out(torch.channels_last))  # whatever the batch came in
    assert len(seen) > 50
    orders = {torch.channels_last: 0, torch.contiguous_format: 0}
    for image in seen:
        for order in orders:
            orders[order] += image.is_contiguous(memory_format=order)
    wanted, other = (torch.channels_last, torch.contiguous_format)[:: 1 if last else -1]
    assert orders[wanted] == len(seen)
    assert orders[other] == 0


def test_normalisation_is_exact_as_training_lays_images_out():
    norm = TileNorm(8, affine=False)
    image = torch.randn(1, 8, 512, 512, generator=torch.Generator().manual_seed(0)) + 3
    exact = (image.double() - image.double().mean((2, 3), keepdim=True)) / (
        image.double().var((2, 3), correction=0, keepdim=True) + 1e-5
    ).sqrt()
    error = (norm(image.contiguous(memory_format=layout(torch.device("cpu"), "float32"))) - exact).abs().max()
    assert error < 3e-6
    assert to_tensor([np.zeros((4, 4, 3), np.uint8)], torch.device("cpu")).is_contiguous()
    assert layout(torch.device("cuda"), "float32") == torch.channels_last
