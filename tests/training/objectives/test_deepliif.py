import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize

from deepliif_ray.errors import ConfigError
from deepliif_ray.models.networks import TileNorm
from deepliif_ray.training.objectives.adversarial import gan_loss, pixel_loss
from deepliif_ray.training.objectives.base import Batch
from deepliif_ray.training.objectives.deepliif import DeepLIIFObjective
from deepliif_ray.training.objectives.deepliif_options import DeepLIIFOptions
from deepliif_ray.training.objectives.discriminators import Discriminator, DiscriminatorSpec
from deepliif_ray.training.panels.files import IHC, MODALITIES, SEG
from tests.training.small import SMALL, random_batch, small_objective, touched

PAPER = (0.25, 0.15, 0.25, 0.1, 0.25)


class Filled(nn.Module):
    """Answers with one value, and remembers what it was shown."""

    def __init__(self, value, channels):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(float(value)))
        self.channels = channels
        self.seen = []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return self.value.expand(len(x), self.channels, *x.shape[2:])


def filled_objective():
    """Translators say 0.1 … 0.4, segmenters 0.1 … 0.5, discriminators 1 … 4 and 11 … 15."""
    objective = small_objective()
    for i in range(4):
        objective.generators[f"G{i + 1}"] = Filled(0.1 * (i + 1), 3)
        objective.discriminators[f"D{i + 1}"] = Filled(i + 1, 1)
    for i in range(5):
        objective.generators[f"GS{i}"] = Filled(0.1 * (i + 1), 3)
        objective.discriminators[f"DS{i}"] = Filled(11 + i, 1)
    return objective


def test_gan_losses_by_hand():
    verdicts = torch.tensor([[2.0, -1.0]])
    fake = (math.log(1 + math.exp(2)) + math.log(1 + math.exp(-1))) / 2
    real = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1))) / 2
    assert gan_loss(verdicts, False, "vanilla").item() == pytest.approx(fake)
    assert gan_loss(verdicts, True, "vanilla").item() == pytest.approx(real)
    assert gan_loss(verdicts, False, "lsgan").item() == pytest.approx((4 + 1) / 2)
    assert gan_loss(verdicts, True, "lsgan").item() == pytest.approx((1 + 4) / 2)


def test_smooth_l1_turns_at_one():
    a, b = torch.tensor([0.0, 0.0, 0.0]), torch.tensor([0.5, -1.0, 2.0])
    assert pixel_loss(a, b).item() == pytest.approx((0.125 + 0.5 + 1.5) / 3)


def test_what_each_network_is_fed():
    objective, batch = filled_objective(), random_batch()
    outputs = objective.forward(batch)
    for i, name in enumerate(MODALITIES):
        assert torch.equal(objective.generators[f"G{i + 1}"].seen[0], batch.ihc)
        assert torch.equal(objective.generators[f"GS{i + 1}"].seen[0], outputs[name].detach())
    assert torch.equal(objective.generators["GS0"].seen[0], batch.ihc)
    expected = sum(w * 0.1 * (i + 1) for i, w in enumerate(PAPER))
    torch.testing.assert_close(outputs[SEG], torch.full_like(batch.ihc, expected))

    objective.discriminator_terms(batch, outputs)
    objective.generator_terms(batch, outputs, step=0)
    for i, name in enumerate(MODALITIES):
        fake, real, again = objective.discriminators[f"D{i + 1}"].seen
        assert torch.equal(fake, torch.cat([batch.ihc, outputs[name]], 1))
        assert torch.equal(real, torch.cat([batch.ihc, batch.targets[name]], 1))
        assert torch.equal(again, fake)
    for i, name in enumerate((IHC, *MODALITIES)):
        fake, real, again = objective.discriminators[f"DS{i}"].seen
        assert torch.equal(fake, torch.cat([batch.image(name), outputs[SEG]], 1))  # beside real panels
        assert torch.equal(real, torch.cat([batch.image(name), batch.targets[SEG]], 1))
        assert torch.equal(again, fake)


def test_losses_by_hand():
    objective = filled_objective()
    batch = Batch(torch.zeros(1, 3, 32, 32), {n: torch.zeros(1, 3, 32, 32) for n in (*MODALITIES, SEG)})
    outputs = objective.forward(batch)
    judged = objective.discriminator_terms(batch, outputs)
    made = objective.generator_terms(batch, outputs, step=0)
    verdict = sum(w * (11 + i) for i, w in enumerate(PAPER))
    assert judged["d_fake_seg"].item() == pytest.approx(0.2 * 0.5 * verdict**2)
    assert judged["d_real_seg"].item() == pytest.approx(0.2 * 0.5 * (verdict - 1) ** 2)
    assert made["g_gan_seg"].item() == pytest.approx(0.2 * (verdict - 1) ** 2)
    seg = sum(w * 0.1 * (i + 1) for i, w in enumerate(PAPER))
    assert made["g_l1_seg"].item() == pytest.approx(0.2 * 100 * seg**2 / 2)
    for i, name in enumerate(MODALITIES):
        value = i + 1
        assert judged[f"d_fake_{name}"].item() == pytest.approx(0.1 * math.log(1 + math.exp(value)))
        assert judged[f"d_real_{name}"].item() == pytest.approx(0.1 * math.log(1 + math.exp(-value)))
        assert made[f"g_gan_{name}"].item() == pytest.approx(0.2 * math.log(1 + math.exp(-value)))
        assert made[f"g_l1_{name}"].item() == pytest.approx(0.2 * 100 * (0.1 * value) ** 2 / 2, rel=1e-5)
    assert len(judged) == len(made) == 10


@pytest.mark.parametrize("norm", ["batch", "instance", "none", "spectral"])
def test_gradients_reach_the_networks_being_trained_and_no_others(norm):
    objective, batch = small_objective(norm=norm, dropout=True), random_batch()
    everything = set(objective.generators), set(objective.discriminators)
    outputs = objective.forward(batch)
    sum(objective.discriminator_terms(batch, outputs).values()).backward()
    assert touched(objective.discriminators) == (everything[1], everything[1])
    assert touched(objective.generators) == (set(), set())
    objective.discriminators.zero_grad()
    sum(objective.generator_terms(batch, outputs, 0).values()).backward()
    assert touched(objective.generators) == (everything[0], everything[0])
    assert touched(objective.discriminators) == (set(), set())
    assert all(p.requires_grad for p in objective.discriminators.parameters())


def test_segmentation_alone_trains_the_translators_too():
    objective, batch = small_objective(), random_batch()
    objective.generator_terms(batch, objective.forward(batch), 0)["g_l1_seg"].backward()
    assert touched(objective.generators)[0] == set(objective.generators)


def test_dropping_a_modality_removes_its_networks_and_keeps_the_others_balance():
    objective = small_objective(drop=("dapi",))
    assert objective.targets == ("hematoxylin", "lap2", "marker", SEG)
    assert set(objective.generators) == {"G1", "G2", "G3", "GS0", "GS1", "GS2", "GS3"}
    assert set(objective.discriminators) == {"D1", "D2", "D3", "DS0", "DS1", "DS2", "DS3"}
    assert objective.options.weights == pytest.approx([w / 0.75 for w in (0.25, 0.15, 0.1, 0.25)])
    outputs = objective.forward(random_batch(targets=objective.targets))
    assert set(outputs) == set(objective.targets)
    alone = small_objective(drop=MODALITIES)
    assert set(alone.generators) == {"GS0"}
    assert alone.options.weights == (1.0,)


@pytest.mark.parametrize(("source", "name"), [(IHC, "GS0"), ("marker", "GS4")])
def test_a_single_segmentation_generator(source, name):
    objective, batch = small_objective(single_segmenter=source), random_batch()
    assert set(objective.generators) == {"G1", "G2", "G3", "G4", name}
    assert set(objective.discriminators) == {"D1", "D2", "D3", "D4", f"D{name[1:]}"}
    outputs = objective.forward(batch)
    reads = batch.ihc if source == IHC else outputs[source]
    assert torch.equal(outputs[SEG], objective.generators[name](reads))


def test_other_modalities_have_equal_weights_and_their_own_names():
    objective = small_objective(modalities=["cd3", "cd8"], seg_id="5", first_segmenter=1)
    assert objective.options.weights == (1 / 3,) * 3
    assert set(objective.generators) == {"G1", "G2", "G51", "G52", "G53"}


def test_networks_start_as_published():
    objective = small_objective(width=16)
    weights = torch.cat([p.flatten() for p in objective.generators["G1"].parameters() if p.dim() == 4])
    assert weights.mean().abs() < 1e-3
    assert weights.std().item() == pytest.approx(0.02, rel=0.02)
    scales = torch.cat([m.weight for m in objective.generators.modules() if isinstance(m, TileNorm)])
    assert scales.mean().item() == pytest.approx(1, abs=0.01)
    assert scales.std().item() == pytest.approx(0.02, rel=0.1)


def test_spectrally_normalised_networks_start_as_published():
    objective = small_objective(norm="spectral", width=16, discriminator_width=16)
    normed = 0
    for networks in (objective.generators, objective.discriminators):
        for module in networks.modules():
            if not parametrize.is_parametrized(module):
                continue
            normed += 1
            weight = module.parametrizations.weight.original
            fan_in = weight[0].numel()
            # PyTorch's own: uniform up to the root of 1 over this number.
            assert weight.abs().max() <= fan_in**-0.5
            assert weight.std().item() == pytest.approx((3 * fan_in) ** -0.5, rel=0.15)
            assert module.bias is None or not module.bias.any()
    assert normed > 50
    unet = objective.generators["GS0"]  # is not normalised, as published
    weights = torch.cat([p.flatten() for p in unet.parameters() if p.dim() == 4])
    assert weights.std().item() == pytest.approx(0.02, rel=0.02)


def iterated(weight, v, times):
    """Right singular vector after so many power iterations (Miyato et al. 2018)."""
    matrix = weight.detach().flatten(1)
    for _ in range(times):
        u = functional.normalize(matrix @ v, dim=0)
        v = functional.normalize(matrix.T @ u, dim=0)
    return v


def test_spectral_norms_iterate_as_often_as_published():
    objective, batch = small_objective(norm="spectral"), random_batch()
    judges = objective.discriminators
    watched = []
    for network, layer, times in (
        (objective.generators["G1"], "model.4", 1),
        (judges["D2"], "model.2", 3),
        (judges["DS1"], "model.2", 3),
    ):
        found = network.get_submodule(layer).parametrizations.weight
        # Far from the singular vector, so that an iteration more or less is seen.
        found[0]._v.copy_(functional.normalize(torch.arange(1.0, 1 + len(found[0]._v)), dim=0))
        watched.append((found.original, found[0]._v.clone(), found[0], times))
    outputs = objective.forward(batch)
    objective.discriminator_terms(batch, outputs)
    objective.generator_terms(batch, outputs, 1)
    for weight, before, norm, times in watched:
        torch.testing.assert_close(norm._v, iterated(weight, before, times))
        for other in (times - 1, times + 1):
            assert (norm._v - iterated(weight, before, other)).abs().max() > 1e-3


def test_discriminators_are_patchgans():
    torch.manual_seed(0)
    for layers, patch in ((3, 70), (4, 142)):  # receptive fields: 70×70 px is pix2pix's
        net = Discriminator(DiscriminatorSpec(layers=layers, width=2, norm="none"), 6)
        x = torch.rand(1, 6, 256, 256, requires_grad=True)
        verdicts = net(x)
        assert verdicts.shape == (1, 1, 256 // 2**layers - 2, 256 // 2**layers - 2)
        middle = verdicts.shape[-1] // 2
        verdicts[0, 0, middle, middle].backward()
        rows = x.grad.abs().sum((0, 1, 3)).nonzero().flatten()
        assert rows.max() - rows.min() + 1 == patch
    assert Discriminator(DiscriminatorSpec("pixel", width=2), 6)(torch.rand(1, 6, 8, 8)).shape == (1, 1, 8, 8)
    spec = DiscriminatorSpec(layers=4, width=2)
    assert Discriminator(spec, 6)(torch.rand(2, 6, spec.smallest, spec.smallest)).shape == (2, 1, 1, 1)


def test_tiles_of_a_batch_do_not_meet():
    objective, batch = small_objective(norm="batch"), random_batch(3)
    together = objective.predict(batch)[SEG]
    alone = objective.predict(Batch(batch.ihc[1:2], {}))[SEG]
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=0)


def test_prediction_leaves_the_networks_as_they_were():
    objective, batch = small_objective(norm="spectral", dropout=True), random_batch()
    before = {k: v.clone() for k, v in objective.generators.state_dict().items()}
    first, second = objective.predict(batch), objective.predict(batch)
    assert all(torch.equal(first[name], second[name]) for name in first)  # no dropout
    assert all(torch.equal(v, before[k]) for k, v in objective.generators.state_dict().items())
    assert all(m.training for m in objective.generators.modules())
    assert not first[SEG].requires_grad
    noisy = objective.forward(batch)
    assert not torch.equal(noisy["dapi"], first["dapi"])


def test_a_few_steps_learn_a_tile():
    objective = small_objective(modalities=("marker",), segmenter="unet_32", width=8)
    batch = random_batch(1, targets=objective.targets)
    smooth = nn.functional.avg_pool2d
    batch = Batch(batch.ihc, {n: smooth(t, 15, 1, 7) * 3 for n, t in batch.targets.items()})
    adam = {"lr": 2e-3, "betas": (0.5, 0.999)}
    makers = torch.optim.Adam(objective.generators.parameters(), **adam)
    judges = torch.optim.Adam(objective.discriminators.parameters(), **adam)
    history = []
    for step in range(30):
        outputs = objective.forward(batch)
        judges.zero_grad()
        sum(objective.discriminator_terms(batch, outputs).values()).backward()
        judges.step()
        makers.zero_grad()
        terms = objective.generator_terms(batch, outputs, step)
        sum(terms.values()).backward()
        makers.step()
        history.append(terms["g_l1_seg"].item() + terms["g_l1_marker"].item())
    assert history[-1] < 0.3 * history[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ganloss": "lsgan", "widht": 8}, "ganloss.*widht"),
        ({"gan_loss": "wgangp"}, "wgangp.*vanilla, lsgan"),
        ({"generator": "resnet_1000"}, "resnet_1000"),
        ({"segmenter": "unet_512_attention"}, "unet_512_attention"),
        ({"discriminator": "patch"}, "patch"),
        ({"drop": ("cd3",)}, "drop.*cd3"),
        ({"single_segmenter": "cd3"}, "single_segmenter.*cd3"),
        ({"seg_weights": (0.5, 0.5)}, "seg_weights.*5 numbers"),
        ({"seg_weights": (0, 0, 0, 0, 1), "drop": ("marker",)}, "all zero"),
        ({"modalities": ("a", "a")}, "names of their own"),
        ({"modalities": ("seg",)}, "names of their own"),
        ({"scale_size": 48}, "scale_size.*multiple of 32"),
        ({"width": "wide"}, "width.*integer"),
        ({"norm": "layer"}, "layer"),
        ({"seg_id": "Seg"}, "seg_id"),
    ],
)
def test_options_that_cannot_be_used_are_named(options, words):
    with pytest.raises(ConfigError, match=words):
        DeepLIIFObjective(**{**SMALL, **options})


def test_defaults_are_published_training():
    options = DeepLIIFOptions()
    assert options.weights == PAPER
    assert (options.gan_loss, options.seg_gan_loss, options.l1_weight) == ("vanilla", "lsgan", 100)
    assert (options.translator.architecture, options.segmentation.architecture) == (
        "resnet_9blocks",
        "unet_512",
    )
    assert options.loss_weights(()) == dict.fromkeys((*MODALITIES, SEG), 0.2)


def test_tiles_of_a_wrong_size_are_refused():
    objective = small_objective()
    with pytest.raises(ConfigError, match="multiple of 32"):
        objective.forward(random_batch(side=48))


def test_predictions_are_of_any_size():
    objective, batch = small_objective(), random_batch(side=64)
    odd = Batch(batch.ihc[:, :, :40, :50], {})
    assert objective.predict(odd)[SEG].shape == (2, 3, 40, 50)
    torch.testing.assert_close(objective.predict(batch)[SEG], objective.forward(batch)[SEG].detach())
