import pytest
import torch
from torch import nn

from deepliif_ray.errors import ModelError
from deepliif_ray.models.networks import Conv, GeneratorSpec, TileNorm, build_generator, use_precision
from tests.models.published import published_shapes, recorded_shapes

VARIANTS = {
    "resnet_9blocks-zero-convtranspose": GeneratorSpec("resnet_9blocks"),
    "resnet_9blocks-reflect-convtranspose": GeneratorSpec("resnet_9blocks", padding="reflect"),
    "resnet_9blocks-reflect-resize_conv": GeneratorSpec(
        "resnet_9blocks", padding="reflect", upsample="resize_conv"
    ),
    "unet_512": GeneratorSpec("unet_512"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_keys_and_shapes_are_the_published_ones(variant, shared_reference):
    assert published_shapes(VARIANTS[variant]) == recorded_shapes(shared_reference)[variant]


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("shape", [(3, 8, 16, 16), (2, 5, 7, 3), (1, 4, 2, 2)])
def test_normalisation_uses_each_tile_alone(shape, channels_last):
    torch.manual_seed(1)
    x = torch.randn(shape) * 3 + 1
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    layer = TileNorm(shape[1], affine=True)
    with torch.inference_mode():
        layer.weight.uniform_(0.5, 2)
        layer.bias.uniform_(-1, 1)
        got = layer(x)
        expected = nn.functional.instance_norm(x, None, None, layer.weight, layer.bias)
        alone = torch.cat([layer(tile[None]) for tile in x])
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(got, alone)


def test_normalisation_survives_constant_and_offset_tiles():
    layer = TileNorm(2, affine=False)
    with torch.inference_mode():
        assert torch.isfinite(layer(torch.full((1, 2, 8, 8), 7.25))).all()
        offset = torch.randn(1, 2, 64, 64) * 0.05 + 40
        exact = (offset.double() - offset.double().mean((2, 3), keepdim=True)) / torch.sqrt(
            offset.double().var((2, 3), keepdim=True, correction=0) + 1e-5
        )
        assert (layer(offset) - exact).abs().max() < 0.02


@pytest.mark.parametrize("norm", ["batch", "instance", "none", "spectral"])
@pytest.mark.parametrize("name", ["resnet_6blocks", "unet_32"])
@pytest.mark.parametrize("padding", ["zero", "reflect", "replicate"])
def test_every_option_gives_images_and_gradients(name, norm, padding):
    net = build_generator(GeneratorSpec(name, norm, padding, "resize_conv", width=4, dropout=True))
    image = net(torch.rand(2, 3, 32, 32))
    assert image.shape == (2, 3, 32, 32)
    assert image.abs().max() <= 1
    image.mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
    biased = [m for m in net.modules() if isinstance(m, Conv) and m.bias is not None]
    assert (len(biased) > 3) == (norm == "instance")


def test_bfloat16_keeps_normalisation_and_image_layers_in_float32():
    net = use_precision(build_generator(GeneratorSpec("resnet_9blocks", width=4)), torch.bfloat16)
    kinds = {name: p.dtype for name, p in net.named_parameters()}
    assert kinds["model.1.weight"] == kinds["model.26.weight"] == kinds["model.2.weight"] == torch.float32
    assert kinds["model.4.weight"] == torch.bfloat16
    with torch.inference_mode():
        assert net(torch.rand(1, 3, 32, 32)).dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"upsample": "pixel_shuffle"}, "pixel_shuffle"),
        ({"upsample": "bilinear"}, "bilinear"),
        ({"padding": "circular"}, "circular"),
        ({"norm": "layer"}, "layer"),
        ({"architecture": "unet_512_attention"}, "unet_512_attention"),
    ],
)
def test_what_is_not_supported_is_named(change, word):
    with pytest.raises(ModelError, match=word):
        GeneratorSpec(**{"architecture": "resnet_9blocks", **change})
