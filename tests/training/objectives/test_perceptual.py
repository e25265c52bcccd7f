"""VGG's term: the layers, the loss, and files that are something else."""

import hashlib
import io

import pytest
import torch
from torch import nn
from torch.nn import functional

from deepliif_ray.errors import ConfigError, ModelError, StorageMissingError
from deepliif_ray.training.objectives.perceptual import VGG_DIGEST, PerceptualLoss, VGGFeatures
from deepliif_ray.training.panels.files import MODALITIES
from tests.training.small import random_batch, small_objective

# torchvision's configuration E: channels of a convolution (with its ReLU) in first widths, or a pooling.
VGG19 = (1, 1, "M", 2, 2, "M", 4, 4, 4, 4, "M", 8, 8, 8, 8, "M", 8, 8, 8, 8, "M")


def layers(width):
    """The features of torchvision's VGG-19, one layer after the other."""
    found, channels = [], 3
    for entry in VGG19:
        if entry == "M":
            found.append(nn.MaxPool2d(2, 2))
        else:
            found += [nn.Conv2d(channels, entry * width, 3, padding=1), nn.ReLU()]
            channels = entry * width
    return nn.Sequential(*found)


@pytest.fixture
def vgg(tmp_path):
    """A narrow VGG-19 with a classifier, its file, and what the file's digest begins with."""
    torch.manual_seed(3)
    whole = nn.ModuleDict({"features": layers(2), "classifier": nn.Linear(3, 2)})
    path = tmp_path / "vgg.pth"
    torch.save(whole.state_dict(), path)
    return whole["features"], str(path), hashlib.sha256(path.read_bytes()).hexdigest()[:8]


def test_layers_are_those_of_torchvisions_file():
    with torch.device("meta"):
        ours, theirs = VGGFeatures().state_dict(), layers(64).state_dict()
    needed = {f"features.{name}": t.shape for name, t in theirs.items() if int(name.split(".")[0]) <= 28}
    assert {name: tensor.shape for name, tensor in ours.items()} == needed
    assert ours["features.28.weight"].shape == (512, 512, 3, 3)


def test_loss_is_the_published_one(vgg):
    network, url, digest = vgg
    image, target = torch.rand(2, 2, 3, 48, 48) * 2 - 1
    # Published: slices of the layers end at these numbers, each weighed by these factors.
    expected, start = 0.0, 0
    a, b = image, target
    for end, weight in ((2, 1 / 32), (7, 1 / 16), (12, 1 / 8), (21, 1 / 4), (30, 1.0)):
        a, b = network[start:end](a), network[start:end](b)
        expected, start = expected + weight * functional.l1_loss(a, b), end
    loss = PerceptualLoss(url, digest)
    assert expected > 0
    torch.testing.assert_close(loss(image, target), expected, rtol=1e-6, atol=0)
    assert loss(image, image) == 0


def test_only_the_image_learns_from_it(vgg):
    _, url, digest = vgg
    image, target = (torch.rand(1, 3, 16, 16, requires_grad=True) for _ in range(2))
    loss = PerceptualLoss(url, digest)
    loss(image, target).backward()
    assert image.grad.abs().sum() > 0
    assert target.grad is None
    assert not any(p.requires_grad for p in loss._features.parameters())


def test_it_is_added_for_modalities_and_changes_nothing_else(vgg):
    _, url, digest = vgg
    weights = {"generator_loss_weights": (0.1, 0.2, 0.3, 0.4, 0.5)}
    without = small_objective(**weights)
    with_it = small_objective(**weights, vgg_weights=url, vgg_digest=digest, vgg_weight=50)
    for networks in (
        "generators",
        "discriminators",
    ):  # weights are drawn as ever, and VGG's are not among them
        torch.testing.assert_close(
            getattr(with_it, networks).state_dict(), getattr(without, networks).state_dict(), rtol=0, atol=0
        )
    batch, loss = random_batch(), PerceptualLoss(url, digest)
    outputs = with_it.forward(batch)
    terms, plain = with_it.generator_terms(batch, outputs, 1), without.generator_terms(batch, outputs, 1)
    added = {f"g_vgg_{name}": n for n, name in enumerate(MODALITIES)}
    assert set(terms) == {*plain, *added}
    for term, n in added.items():
        name = MODALITIES[n]
        expected = 0.1 * (n + 1) * 50 * loss(outputs[name], batch.targets[name])
        torch.testing.assert_close(terms[term], expected)


def test_files_that_are_something_else_are_refused_by_name(vgg, tmp_path):
    network, url, digest = vgg
    with pytest.raises(
        ModelError, match=rf"vgg\.pth: its SHA-256 begins with {digest}, not with {VGG_DIGEST}"
    ):
        PerceptualLoss(url)
    with pytest.raises(StorageMissingError, match="nowhere"):
        PerceptualLoss(str(tmp_path / "nowhere.pth"))
    state = {f"features.{name}": tensor for name, tensor in network.state_dict().items()}
    wrong = {
        "no usable features.0.weight": {},
        "features.28.bias is missing": {k: v for k, v in state.items() if k != "features.28.bias"},
        r"features.5.weight is \[3, 2, 3, 3\], not": state | {"features.5.weight": torch.zeros(3, 2, 3, 3)},
        r"features.2.bias is \[2\], not floats": state
        | {"features.2.bias": torch.zeros(2, dtype=torch.int64)},
        "no usable features.0": state | {"features.0.weight": torch.zeros(2)},
    }
    for message, tensors in wrong.items():
        buffer = io.BytesIO()
        torch.save(tensors, buffer)
        (tmp_path / "other.pth").write_bytes(buffer.getvalue())
        with pytest.raises(ModelError, match=rf"other\.pth: (has )?{message}"):
            PerceptualLoss(str(tmp_path / "other.pth"), "")
    (tmp_path / "other.pth").write_bytes(b"<html>")
    with pytest.raises(ModelError, match=r"other\.pth: cannot be read"):
        small_objective(vgg_weights=str(tmp_path / "other.pth"), vgg_digest="")
    with pytest.raises(ConfigError, match="vgg_weight"):
        small_objective(vgg_weight=-1)
