from pathlib import Path

import numpy as np
import pytest
import torch

from deepliif_ray.errors import ConfigError, ModelError
from deepliif_ray.models import load_model
from deepliif_ray.models.bundle import read_bundle
from deepliif_ray.models.splitting import split_cells
from deepliif_ray.synthetic.panels import synthetic_panels
from deepliif_ray.training.objectives.base import Batch
from deepliif_ray.training.objectives.compact import CompactObjective, between, class_shares
from deepliif_ray.training.panels.augment import Augment
from deepliif_ray.training.run.config import load_config
from deepliif_ray.training.run.trainer import make_objective

ROOT = Path(__file__).parents[3]
TINY = {"widths": [8, 12], "depths": [0, 1], "tile_size": 64}


def batch_of(count, size=64):
    tiles = [synthetic_panels(3, index, size) for index in range(count)]

    def tensor(images):
        return torch.tensor(np.stack(images)).permute(0, 3, 1, 2) / 127.5 - 1

    return Batch(
        tensor([t.ihc for t in tiles]),
        {name: tensor([t.targets[name] for t in tiles]) for name in tiles[0].targets},
    )


def test_class_shares():
    colors = torch.tensor([[0, 0, 0], [255, 0, 0], [0, 0, 255], [0, 255, 0], [100, 100, 0]]) / 127.5 - 1
    shares = class_shares(colors.T[None, :, :, None])[0, :, :, 0].T
    expected = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [55 / 255, 100 / 255, 0, 100 / 255]]
    assert torch.allclose(shares, torch.tensor(expected), atol=1e-4)


def test_between_is_where_two_cells_nearly_touch():
    cell = torch.zeros(1, 4, 16, 32)
    cell[:, 1, 4:12, 4:12], cell[:, 2, 4:12, 15:24] = 1, 1
    cell[:, 0] = 1 - cell[:, 1:].sum(1)
    found = between(cell)[0]
    assert found[8, 13] == 1, "the gap of three pixels"
    assert found[8, 28] == 0 and found[8, 8] == 0 and found[14, 8] == 0


def test_training_reduces_every_term_and_the_export_predicts_the_same(tmp_path):
    torch.manual_seed(0)
    objective, batch = CompactObjective(**TINY), batch_of(2)
    optimizer = torch.optim.Adam(objective.generators.parameters(), lr=5e-3)
    history = []
    for step in range(40):
        terms = objective.generator_terms(batch, objective.forward(batch), step)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        history.append({name: float(value.detach()) for name, value in terms.items()})
    assert set(history[0]) == {"entropy", "dice", "hematoxylin", "dapi", "lap2", "marker"}
    assert all(history[-1][name] < 0.95 * history[0][name] for name in history[0])
    objective.export(str(tmp_path), {"name": "tiny", "licence": "Apache-2.0"})
    model = load_model(str(tmp_path), modalities=["lap2"])
    with torch.no_grad():
        images = objective.predict(batch)
    tiles = ((batch.ihc + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    found = model.infer(tiles, ["lap2"])
    predicted = {k: ((v + 1) * 127.5).round().permute(0, 2, 3, 1).byte().numpy() for k, v in images.items()}
    # Stored as float16, hardly more than rounding.
    assert np.abs(predicted["lap2"].astype(int) - found.modalities["lap2"]).max() <= 3
    for drawn, seg in zip(predicted["seg"], found.seg, strict=True):
        # Rounding may move a line of the watershed.
        assert (np.abs(split_cells(drawn).astype(int) - seg).max(-1) > 3).mean() < 0.02


def test_a_sample_does_not_depend_on_its_batch():
    torch.manual_seed(0)
    objective, batch = CompactObjective(**TINY), batch_of(3)
    with torch.no_grad():
        together = objective.predict(batch)["seg"]
        alone = objective.predict(Batch(batch.ihc[1:2], {}))["seg"]
    assert torch.allclose(together[1:2], alone, atol=1e-5)


def test_adversarial_terms_reach_the_discriminator_and_the_network():
    torch.manual_seed(0)
    options = {"adversarial_weight": 0.5, "discriminator_width": 4, "discriminator_layers": 2}
    objective, batch = CompactObjective(**TINY, **options), batch_of(1)
    outputs = objective.forward(batch)
    terms = objective.discriminator_terms(batch, {k: v.detach() for k, v in outputs.items()})
    assert set(terms) == {"judge_true", "judge_drawn"}
    sum(terms.values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in objective.discriminators.parameters())
    assert all(p.grad is None for p in objective.generators.parameters())
    objective.generator_terms(batch, outputs, 0)["adversarial"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in objective.generators.parameters())
    assert not CompactObjective(**TINY).discriminators


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_the_recipe_of_the_shipped_model_is_a_valid_configuration(name):
    config = load_config(str(ROOT / f"jobs/compact/{name}.yaml"))
    Augment.from_options(config.augment)
    spec = make_objective(config).spec
    shipped = read_bundle(str(ROOT / "deepliif_ray/models/zoo/compact"))
    for part in ("widths", "depths", "modalities", "tile_size", "native_mpp"):
        assert getattr(spec, part) == getattr(shipped.spec, part)
    assert name == "pretrain" or spec.native_white == shipped.spec.native_white
    assert shipped.spec.call is not None and shipped.spec.native_od is not None, "given by make.py call"


def test_unknown_options():
    with pytest.raises(ConfigError, match="width"):
        CompactObjective(width=3)
    with pytest.raises(ModelError, match="depths"):
        CompactObjective(widths=[8, 8], depths=[1])
