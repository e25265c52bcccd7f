import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError, ModelError
from deepliif_ray.evaluation.fields import find_cells
from deepliif_ray.models import load_model
from deepliif_ray.models.bundle import MODEL_FILE, WEIGHTS_FILE, write_bundle
from deepliif_ray.models.compact import CompactNetwork, draw
from deepliif_ray.models.compact_spec import CLASSES, CompactSpec
from deepliif_ray.models.splitting import split_cells
from deepliif_ray.synthetic.panels import synthetic_panels

SPEC = CompactSpec((8, 8, 16), (0, 1, 1), ("dapi", "marker"), 64)


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(3)
    return CompactNetwork(SPEC).state_dict()


@pytest.fixture
def folder(tmp_path, weights):
    write_bundle(str(tmp_path / "model"), "tiny", SPEC, weights, {"licence": "Apache-2.0"}, "float32")
    return tmp_path / "model"


@pytest.fixture(scope="module")
def tiles():
    return np.random.default_rng(1).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)


def test_outputs_are_those_of_the_network(folder, weights, tiles):
    model = load_model(str(folder), modalities=["dapi"])
    found = model.infer(tiles[:2], ["dapi"])
    network = CompactNetwork(SPEC)
    network.load_state_dict(weights)
    with torch.inference_mode():
        images = draw(network(torch.tensor(tiles[:2]).permute(0, 3, 1, 2) / 127.5 - 1), SPEC)

    def bytes_of(name):
        return ((images[name] + 1) * 127.5).permute(0, 2, 3, 1).numpy()

    network_alone = bytes_of("seg").round().astype(np.uint8)
    for seg, expected in zip(found.seg, network_alone, strict=True):
        differs = np.abs(seg.astype(int) - split_cells(expected)).max(-1) > 1
        assert differs.mean() < 0.01, "8-bit rounding may move a line of the watershed"
    assert np.abs(found.modalities["dapi"] - bytes_of("dapi")).max() <= 0.51
    assert np.abs(found.marker - bytes_of("marker").max(-1)).max() <= 0.51


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_tile_does_not_depend_on_its_batch_or_threads(folder, tiles, precision):
    model = load_model(str(folder), precision=precision)
    together = model.infer(tiles)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for i, tile in enumerate(tiles):
            alone = model.infer(tile[None])
            assert (alone.seg[0] == together.seg[i]).all() and (alone.marker[0] == together.marker[i]).all()
    finally:
        torch.set_num_threads(threads)


def test_asking_for_less_changes_nothing(folder, tiles):
    all_of_it = load_model(str(folder), modalities=["dapi"]).infer(tiles[:1], ["dapi"])
    only_seg = load_model(str(folder)).infer(tiles[:1])
    assert (all_of_it.seg == only_seg.seg).all() and (all_of_it.marker == only_seg.marker).all()


@pytest.mark.parametrize("side", [1, 63, 65, 100])
def test_any_side(folder, side):
    found = load_model(str(folder)).infer(np.full((1, side, side, 3), 200, np.uint8))
    assert found.seg.shape == (1, side, side, 3) and found.marker.shape == (1, side, side)


def test_segmentation_is_shares_of_classes():
    output = torch.randn(1, SPEC.channels, 4, 4)
    seg = (draw(output, SPEC)["seg"] + 1) / 2
    shares = output[:, : len(CLASSES)].softmax(1)
    assert torch.allclose(seg[:, 0], shares[:, CLASSES.index("positive")])
    assert torch.allclose(seg[:, 1], shares[:, CLASSES.index("boundary")])
    assert torch.allclose(seg[:, 2], shares[:, CLASSES.index("negative")])


def test_what_is_smoothed_is_what_the_network_is_shown(weights, tiles):
    spec = replace(SPEC, smoothing=1.4)
    networks = [CompactNetwork(SPEC), CompactNetwork(spec)]
    for network in networks:
        network.load_state_dict(weights)
    image = torch.tensor(tiles[:1]).permute(0, 3, 1, 2) / 127.5 - 1
    by_scipy = ndimage.gaussian_filter(image.numpy(), (0, 0, 1.4, 1.4), mode="mirror", radius=(0, 0, 5, 5))
    with torch.inference_mode():
        plain, smoothing = (network(image) for network in networks)
        assert torch.allclose(networks[0](torch.from_numpy(by_scipy)), smoothing, atol=1e-4)
    assert not torch.allclose(plain, smoothing, atol=0.01)


def test_how_much_is_smoothed_is_part_of_what_a_bundle_is(weights, tiles):
    digests = [
        write_bundle(f"memory://zoo/s{s}", "tiny", replace(SPEC, smoothing=s), weights, {}, "float32")
        for s in (0.0, 1.0)
    ]
    assert len(set(digests)) == 2
    assert digests[0] == write_bundle("memory://zoo/s", "tiny", SPEC, weights, {}, "float32")
    found = [load_model(f"memory://zoo/s{s}").infer(tiles[:1]).marker for s in (0.0, 1.0)]
    assert (found[0] != found[1]).any()
    for wrong in (-1, 9, "1", float("nan")):
        with pytest.raises(ModelError, match="smoothing"):
            replace(SPEC, smoothing=wrong)
    with pytest.raises(ModelError, match="smoothing 5 is not within 0 to 4 px"):
        replace(SPEC, smoothing=5, tile_size=16)


def test_grain_hardly_moves_what_the_shipped_model_finds():
    tile = synthetic_panels(0, 3, 512).ihc
    grain = np.random.default_rng(2).normal(0, 8, tile.shape)
    model = load_model("compact")
    pictures = (tile, np.clip(tile + grain, 0, 255).astype(np.uint8))
    counts = [len(find_cells(model.infer(picture[None]).seg[0]).xy) for picture in pictures]
    assert counts[0] > 50 and abs(counts[1] / counts[0] - 1) < 0.05


def test_bundles_lie_anywhere_and_name_their_weights(weights, tiles, folder):
    url = "memory://zoo/tiny"
    write_bundle(url, "tiny", SPEC, weights, {"note": "x"}, "float32")
    model = load_model(url)
    assert model.name == "tiny" and model.digest == load_model(str(folder)).digest
    assert (model.infer(tiles[:1]).seg == load_model(str(folder)).infer(tiles[:1]).seg).all()
    other = dict(weights) | {"head.bias": weights["head.bias"] + 1}
    assert write_bundle("memory://zoo/other", "tiny", SPEC, other, {}, "float32") != model.digest
    half = write_bundle("memory://zoo/half", "tiny", SPEC, weights, {})
    assert half != model.digest
    described = json.loads(storage.read_bytes("memory://zoo/half/model.json"))
    assert described["outputs"] == ["seg", "dapi", "marker"] and described["weights"]["dtype"] == "float16"


def rewrite(folder, **changes):
    described = json.loads((folder / MODEL_FILE).read_text())
    (folder / MODEL_FILE).write_text(json.dumps(described | changes))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / WEIGHTS_FILE).unlink(), "no such file"),
        (lambda f: (f / WEIGHTS_FILE).write_bytes((f / WEIGHTS_FILE).read_bytes()[:-9]), "digest"),
        (lambda f: (f / MODEL_FILE).write_text("{"), "not JSON"),
        (lambda f: (f / MODEL_FILE).write_text("[1]"), "format"),
        (lambda f: rewrite(f, format="other/1"), "format"),
        (lambda f: rewrite(f, architecture="huge"), "architecture"),
        (lambda f: rewrite(f, layers={"widths": [8, 8]}), "widths"),
        (lambda f: rewrite(f, layers={"widths": ["8", 8, 8], "depths": [1, 1, 1]}), "layers"),
        (lambda f: rewrite(f, layers={"widths": [10**6, 8], "depths": [1, 1]}), "range"),
        (lambda f: rewrite(f, layers={"tile_size": 100}), "tile_size"),
        (lambda f: rewrite(f, layers={"widths": [1024] * 8, "depths": [32] * 8}), "parameters"),
        (lambda f: rewrite(f, layers={"widths": [8.5, 8], "depths": [1, 1]}), "whole numbers"),
        (lambda f: rewrite(f, layers={"modalities": [f"m{n}" for n in range(10**5)]}), "modalities"),
        (lambda f: (f / MODEL_FILE).write_text("[" * 10**6), "not JSON"),
        (lambda f: (f / MODEL_FILE).write_text(" " * (2 << 20)), "more than"),
        (lambda f: os.truncate(f / WEIGHTS_FILE, 2 << 30), "more than"),
        (lambda f: rewrite(f, layers=7), "layers"),
        (lambda f: rewrite(f, layers={"shape": [1]}), "layers"),
    ],
)
def test_bad_bundles_are_refused_by_name(folder, spoil, message):
    spoil(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(str(folder))
    assert str(folder) in str(caught.value) or "compact network" in str(caught.value)


def test_weights_of_other_layers_are_refused(tmp_path, weights):
    wrong = {key: value for key, value in weights.items() if key != "head.bias"}
    write_bundle(str(tmp_path), "tiny", SPEC, wrong, {}, "float32")
    with pytest.raises(ModelError, match="do not fit"):
        load_model(str(tmp_path))


def test_weights_that_are_not_finite_are_not_written(tmp_path, weights):
    with pytest.raises(ModelError, match="head\\.bias not finite"):
        write_bundle(
            str(tmp_path), "tiny", SPEC, dict(weights) | {"head.bias": weights["head.bias"] * 0 + 1e9}, {}
        )
    assert not (tmp_path / MODEL_FILE).exists()


def test_a_modality_that_it_does_not_have(folder, tiles):
    with pytest.raises(ConfigError, match="lap2"):
        load_model(str(folder), modalities=["lap2"])
    with pytest.raises(ConfigError, match="dapi"):
        load_model(str(folder)).infer(tiles[:1], ["dapi"])
