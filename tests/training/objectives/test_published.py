import json

import numpy as np
import pytest
import torch

from deepliif_ray import load_model, storage
from deepliif_ray.models.archive import read_state
from deepliif_ray.models.networks import GeneratorSpec, build_generator, use_precision
from deepliif_ray.models.options import parse_options
from deepliif_ray.training.objectives.base import Batch
from deepliif_ray.training.objectives.deepliif import new_generator
from deepliif_ray.training.objectives.published import options_text, published_state
from deepliif_ray.training.panels.files import MODALITIES, SEG
from tests.few import few
from tests.models.published import recorded_shapes
from tests.training.small import random_batch, small_objective

NAMES = ("Hema", "DAPI", "Lap2", "Marker")


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as inference: sums are then taken in the same order
    yield
    torch.set_num_threads(threads)


def trained(**options):
    """A tiny objective after one step, so that no parameter is as it was drawn."""
    objective = small_objective(**options)
    batch = random_batch(1, targets=objective.targets)
    makers = torch.optim.Adam(objective.generators.parameters(), 1e-2)
    sum(objective.generator_terms(batch, objective.forward(batch), 0).values()).backward()
    makers.step()
    return objective


def to_8bit(image):
    grey = ((image + 1) / 2 * 255).clamp(0, 255).to(torch.uint8)
    return grey.permute(0, 2, 3, 1).numpy()


def own_images(objective, tiles):
    """What the objective makes of uint8 tiles (N, H, W, 3), each by itself."""
    use_precision(objective.generators, torch.float32)
    images = [
        objective.predict(Batch((torch.tensor(t)[None].permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5, {}))
        for t in tiles
    ]
    return {name: np.concatenate([to_8bit(i[name]) for i in images]) for name in images[0]}


@pytest.mark.parametrize(
    "options",
    few(
        [
            {},
            {"norm": "spectral"},
            {"norm": "instance", "padding": "reflect", "upsample": "resize_conv"},
            {"norm": "none", "dropout": True, "padding": "replicate", "init_gain": 0.1},
            {"dropout": True, "segmenter": "resnet_6blocks"},
            {"seg_id": "5", "first_segmenter": 1},
        ],
        3,
    ),
    ids=str,
)
def test_an_exported_model_is_loaded_again_with_equal_outputs(options, tmp_path):
    objective = trained(**options)
    objective.export(str(tmp_path), {})
    model = load_model(str(tmp_path), device="cpu", precision="float32", modalities=NAMES)
    assert model.modality_names == NAMES
    tiles = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    found, own = model.infer(tiles, NAMES), own_images(objective, tiles)
    assert np.array_equal(found.seg, own[SEG])
    assert np.array_equal(found.marker, own["marker"].max(axis=3))
    for name, published in zip(MODALITIES, NAMES, strict=True):
        assert np.array_equal(found.modalities[published], own[name])
        assert own[name].std() > 1


@pytest.mark.parametrize(
    ("options", "names", "weights"),
    [
        ({"drop": ("hematoxylin", "lap2")}, ("DAPI", "Marker"), (1 / 3, 1 / 3, 1 / 3)),
        ({"single_segmenter": "marker"}, NAMES, (0, 0, 0, 0, 1)),
        ({"modalities": ("cd3", "cd8", "dapi")}, ("cd3", "cd8", "DAPI"), (0.25,) * 4),
    ],
)
def test_variants_are_exported_with_all_networks(options, names, weights):
    objective = trained(**options)
    url = f"memory://published/{'-'.join(names)}"
    objective.export(url, {"data": "none", "val_loss": 0.5})
    files = {file.rpartition("/")[2] for file in storage.list_files(url)}
    count = len(names)
    assert files == {
        "train_opt.txt",
        "training.json",
        *(f"latest_net_G{i + 1}.pth" for i in range(count)),
        *(f"latest_net_GS{i}.pth" for i in range(count + 1)),
    }
    assert json.loads(storage.read_bytes(f"{url}/training.json")) == {"data": "none", "val_loss": 0.5}
    model = load_model(url, device="cpu", precision="float32", modalities=names)
    assert model.options.seg_weights == pytest.approx(weights)
    tiles = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3), np.uint8)
    found, own = model.infer(tiles, names), own_images(objective, tiles)
    assert np.array_equal(found.seg, own[SEG])
    assert np.array_equal(found.modalities[names[0]], own[objective.targets[0]])


@pytest.mark.parametrize("variant", ["resnet_9blocks-zero-convtranspose", "unet_512"])
def test_keys_and_shapes_are_the_published_ones(variant, shared_reference):
    with torch.device("meta"):
        network = build_generator(GeneratorSpec(variant.partition("-")[0]))
    network = network.to_empty(device="cpu")
    shapes = {name: list(tensor.shape) for name, tensor in published_state(network).items()}
    assert shapes == recorded_shapes(shared_reference)[variant]


def test_running_statistics_are_those_of_a_fresh_layer():
    state = published_state(new_generator(GeneratorSpec("unet_32", width=2), 0.02))
    means = [v for k, v in state.items() if k.endswith("running_mean")]
    assert means
    assert all(not v.any() for v in means)
    assert all((v == 1).all() for k, v in state.items() if k.endswith("running_var"))
    assert all(v.dtype == torch.int64 for k, v in state.items() if k.endswith("num_batches_tracked"))


def test_spectral_norms_keep_their_vectors(tmp_path):
    small_objective(norm="spectral").export(str(tmp_path), {})
    translator = read_state((tmp_path / "latest_net_G1.pth").read_bytes(), "G1")
    assert {"model.1.parametrizations.weight.original", "model.1.parametrizations.weight.0._u"} <= set(
        translator
    )
    segmenter = read_state((tmp_path / "latest_net_GS0.pth").read_bytes(), "GS0")
    assert "model.model.0.weight" in segmenter  # published U-Nets have none


def test_files_hold_no_more_than_their_network(tmp_path):
    objective = small_objective()
    use_precision(objective.generators, torch.float32)  # channels-last views
    objective.export(str(tmp_path), {})
    size = (tmp_path / "latest_net_GS0.pth").stat().st_size
    numbers = sum(p.numel() for p in objective.generators["GS0"].parameters())
    assert size < 4 * numbers * 1.1 + 40_000


def test_options_are_read_back_as_they_were():
    lines = {"net_g": ["a", "b"], "seg_weights": [0.5, 0.25], "seg_gen": True, "remote_transfer_cmd": None}
    assert parse_options(options_text(lines)) == lines
