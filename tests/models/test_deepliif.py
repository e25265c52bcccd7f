import copy

import numpy as np
import pytest
import torch
from PIL import Image

from deepliif_ray.errors import ConfigError, ModelError
from deepliif_ray.models import deepliif, load_model, registered_models
from deepliif_ray.models.checkpoint import Checkpoint
from deepliif_ray.models.deepliif import DeepLIIF
from deepliif_ray.models.networks import GeneratorSpec, build_generator, use_precision
from deepliif_ray.models.options import resolve_options
from deepliif_ray.models.running import run_tiles
from tests.models.published import (
    published_shapes,
    recorded_shapes,
    reference_weights,
    write_published_folder,
)
from tests.models.test_networks import VARIANTS

PAPER = (0.25, 0.15, 0.25, 0.1, 0.25)
LATEST = (0.5, 0.0, 0.0, 0.0, 0.5)


def image(path):
    return np.asarray(Image.open(path).convert("RGB"))


def seeded(spec, role, reference):
    """A full-size network with the weights of the recordings."""
    network = build_generator(spec)
    names = network.state_dict().keys()
    shapes = {k: v for k, v in published_shapes(spec).items() if k in names}
    network.load_state_dict(
        {k: torch.from_numpy(v) for k, v in reference_weights(reference)(role, shapes).items()}
    )
    return network.requires_grad_(False).eval()


class FullSize:
    """The whole model at full size, its networks made once and only when wanted."""

    def __init__(self, reference):
        self.reference = reference
        self.networks = {}

    def network(self, role):
        if role not in self.networks:
            spec = GeneratorSpec("unet_512" if role.startswith("segmenter") else "resnet_9blocks")
            self.networks[role] = seeded(spec, role, self.reference)
        return use_precision(self.networks[role], torch.float32)

    def model(self, weights, precision="float32"):
        options = resolve_options({"seg_weights": list(weights)}, ["G51"], "train_opt.txt")
        used = [i for i, weight in enumerate(weights) if weight]
        translators = {
            i: self.network(f"translator-{i + 1}") for i in sorted({3, *(i - 1 for i in used if i)})
        }
        segmenters = {i: self.network(f"segmenter-{i}") for i in used}
        checkpoint = Checkpoint(options, translators, segmenters, "digest")
        if precision != "float32":
            checkpoint = copy.deepcopy(checkpoint)  # rounding the weights cannot be undone
        return DeepLIIF("seeded", checkpoint, torch.device("cpu"), precision)


@pytest.fixture(scope="module")
def full_size(shared_reference):
    return FullSize(shared_reference)


@pytest.fixture(scope="module")
def recorded(shared_reference):
    with np.load(shared_reference / "forward" / "outputs.npz") as outputs:
        return dict(outputs)


@pytest.fixture(scope="module")
def latest(full_size, shared_reference):
    """The result for the recorded tile, and its images before rounding, every 4th pixel."""
    floats = []

    def spy(tensor):
        floats.append(tensor[0].permute(1, 2, 0)[::4, ::4].numpy().copy())
        return to_8bit(tensor)

    to_8bit = deepliif._to_8bit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deepliif, "_to_8bit", spy)
        result = full_size.model(LATEST).infer(
            image(shared_reference / "forward" / "tile.png")[None], ["Marker"]
        )
    return result, floats


def within_one_grey_level(got, expected):
    assert got.shape == expected.shape
    return (np.abs(got.astype(int) - expected) <= 1).mean() >= 0.999


@pytest.mark.parametrize(
    ("variant", "seed"),
    [
        # The whole models below cover the same layers in less time.
        pytest.param("resnet_9blocks-zero-convtranspose", 100, marks=pytest.mark.slow),
        pytest.param("resnet_9blocks-reflect-convtranspose", 101, marks=pytest.mark.slow),
        pytest.param("resnet_9blocks-reflect-resize_conv", 102, marks=pytest.mark.slow),
        pytest.param("unet_512", 103, marks=pytest.mark.slow),
    ],
)
def test_network_as_recorded(variant, seed, shared_reference, recorded):
    network = use_precision(seeded(VARIANTS[variant], f"translator-{seed}", shared_reference), torch.float32)
    tile = torch.from_numpy(image(shared_reference / "forward" / "tile.png").copy())
    with torch.inference_mode():
        result = network((tile.permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.5)
    got = result[0].permute(1, 2, 0)[::4, ::4].numpy()
    assert np.abs(got - recorded[variant]).max() < 2e-3


def test_latest_weights_as_recorded(latest, shared_reference, recorded):
    result, floats = latest
    forward = shared_reference / "forward"
    for got, name in zip(floats, ("marker", "seg-latest"), strict=True):
        assert np.abs(got - recorded[name]).max() < 2e-3
    assert within_one_grey_level(result.seg[0], image(forward / "seg-latest.png"))
    assert within_one_grey_level(result.modalities["Marker"][0], image(forward / "marker.png"))
    assert np.array_equal(result.marker[0], result.modalities["Marker"][0].max(axis=2))


@pytest.mark.slow
def test_20x_tile_as_recorded(full_size, shared_reference):
    forward = shared_reference / "forward"
    model = full_size.model(LATEST)
    model._segmenters = {}  # the recording is of the marker alone
    result = model.infer(image(forward / "tile-256.png")[None], ["Marker"])
    assert within_one_grey_level(result.modalities["Marker"][0], image(forward / "marker-256.png"))
    assert result.marker.shape == (1, 256, 256)


@pytest.mark.slow
@pytest.mark.timeout(1200)  # without instructions for bfloat16 it takes ten times as long as float32
def test_bfloat16_is_within_two_grey_levels_at_full_size(full_size, latest, shared_reference):
    tile = image(shared_reference / "forward" / "tile.png")[None]
    rough = full_size.model(LATEST, "bfloat16").infer(tile)
    exact, _ = latest
    assert np.abs(rough.seg.astype(int) - exact.seg).mean() <= 2
    assert np.abs(rough.marker.astype(int) - exact.marker).mean() <= 2


@pytest.mark.slow
def test_paper_weights_as_recorded(full_size, shared_reference):
    forward = shared_reference / "forward"
    tile, expected = image(forward / "tile.png")[None], image(forward / "seg-paper.png")
    exact = full_size.model(PAPER).infer(tile)
    assert within_one_grey_level(exact.seg[0], expected)
    rough = full_size.model(PAPER, "bfloat16").infer(tile)
    assert np.abs(rough.seg.astype(int) - exact.seg).mean() <= 2


def test_full_size_folder_has_the_published_keys(shared_reference):
    assert published_shapes(GeneratorSpec("unet_512")) == recorded_shapes(shared_reference)["unet_512"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    return str(write_published_folder(folder, ngf=8, net_gs="unet_64", scale_size=64))


def test_bfloat16_is_within_two_grey_levels(small):
    tiles = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    rough, exact = (load_model(small, "cpu", precision).infer(tiles) for precision in ("bfloat16", "float32"))
    for got, expected in ((rough.seg, exact.seg), (rough.marker, exact.marker)):
        assert 0 < np.abs(got.astype(int) - expected).mean() <= 2
        assert expected.std() > 30


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_tile_in_a_batch_gives_what_it_gives_alone(precision, small):
    tiles = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    tiles[3] = 255  # a neighbour with other statistics
    model = load_model(small, "cpu", precision)
    together = model.infer(tiles)
    model.batch_size = 3
    alone = [model.infer(tile[None]) for tile in tiles]
    assert np.array_equal(together.seg, np.concatenate([r.seg for r in alone]))
    assert np.array_equal(together.marker, np.concatenate([r.marker for r in alone]))


def test_batches_of_a_gpu_are_filled_up_and_in_order(small, monkeypatch):
    """The GPU's way of batching, run on the CPU."""
    tiles = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    model = load_model(small, "cpu")
    expected = model.infer(tiles, ["Marker"])
    model.batch_size, sizes, run = 3, [], model._run
    model._run = lambda batch, keep: sizes.append(len(batch)) or run(batch, keep)
    monkeypatch.setattr(
        deepliif,
        "run_tiles",
        lambda *a, **options: run_tiles(*a, **options | {"device": torch.device("cuda")}),
    )
    got = model.infer(tiles, ["Marker"])
    assert sizes == [3, 3]
    assert within_one_grey_level(got.seg, expected.seg)
    assert within_one_grey_level(got.modalities["Marker"], expected.modalities["Marker"])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_result_does_not_depend_on_threads(precision, small):
    tiles = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    model, before, results = load_model(small, "cpu", precision), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            results.append(model.infer(tiles).seg)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(results[0], result) for result in results[1:])


@pytest.mark.parametrize("size", [1, 17, 32, 64, 100])
def test_any_tile_size_and_no_tiles(size, small):
    model = load_model(small)
    tiles = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    result = model.infer(tiles)
    assert result.seg.shape == tiles.shape
    assert result.marker.shape == tiles.shape[:3]
    assert result.seg.dtype == result.marker.dtype == np.uint8
    empty = model.infer(tiles[:0], ["Marker"])
    assert empty.seg.shape == empty.modalities["Marker"].shape == (0, size, size, 3)


def test_resizing_is_pillows(small):
    model = load_model(small)
    tile = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    large = np.asarray(Image.fromarray(tile[0]).resize((64, 64), Image.Resampling.BICUBIC))
    there = Image.fromarray(model.infer(large[None]).seg[0])
    expected = np.asarray(there.resize((32, 32), Image.Resampling.BICUBIC))
    assert np.array_equal(model.infer(tile).seg[0], expected)


def test_model_without_marker(tmp_path):
    names = ["IHC", "a", "b", "c", "d"]
    folder = write_published_folder(
        tmp_path, net_gs="unet_32", net_g="resnet_6blocks", scale_size=32, options={"modalities_names": names}
    )
    model = load_model(str(folder))
    assert not model.has_marker
    assert model.infer(np.zeros((1, 32, 32, 3), np.uint8)).marker is None


@pytest.mark.parametrize(
    "tiles",
    [
        np.zeros((1, 64, 64, 3), np.float32),
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((1, 64, 32, 3), np.uint8),
        np.zeros((1, 64, 64, 4), np.uint8),
        np.zeros((1, 0, 0, 3), np.uint8),
    ],
)
@pytest.mark.parametrize("name", ["small", "stain"])
def test_wrong_tiles_are_refused(tiles, name, small):
    with pytest.raises(ConfigError, match="tiles are"):
        load_model(small if name == "small" else name).infer(tiles)


def test_modality_that_was_not_loaded(small):
    with pytest.raises(ConfigError, match="DAPI"):
        load_model(small).infer(np.zeros((1, 64, 64, 3), np.uint8), ["DAPI"])


@pytest.mark.parametrize(
    ("device", "precision", "word"),
    [("gpu", None, "gpu"), ("mps", None, "mps"), ("cuda:99", None, "CUDA"), ("cpu", "float16", "float16")],
)
def test_wrong_device_and_precision(small, device, precision, word):
    with pytest.raises(ConfigError, match=word):
        load_model(small, device, precision)


def test_cpu_computes_in_float32_unless_told(small):
    model = load_model(small, "cpu")
    assert (model.device, model.precision) == ("cpu", "float32")


def test_failure_of_torch_is_a_model_error(small, monkeypatch):
    model = load_model(small, "cpu")

    def fail(*_):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(model, "_run", fail)
    with pytest.raises(ModelError, match="batch size"):
        model.infer(np.zeros((1, 64, 64, 3), np.uint8))


def test_every_model_of_this_package_loads():
    own = {name: line for name, line in registered_models().items() if not line.startswith("of the package ")}
    assert set(own) == {"compact", "stain"} and all(own.values())
    for name in own:
        assert load_model(name).name == name
