"""The loop: exact resumption, any number of workers, what it writes, what it refuses."""

import io
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError, ModelError, StorageError
from deepliif_ray.models.bundle import read_bundle
from deepliif_ray.training.panels.augment import Augment
from deepliif_ray.training.panels.files import Panels
from deepliif_ray.training.panels.store import PanelStore
from deepliif_ray.training.run import checkpoints
from deepliif_ray.training.run.batches import Sampler, to_images, to_tensor
from deepliif_ray.training.run.config import load_config, train_config
from deepliif_ray.training.run.loop import fit
from deepliif_ray.training.run.records import read_metrics
from deepliif_ray.training.run.team import Team
from deepliif_ray.training.run.trainer import Trainer, make_objective
from deepliif_ray.training.run.validate import classes, validate
from tests.training.toy import StoppedError, ToyTiles, options, strips_of, train_in_two

ROOT = str(Path(__file__).parents[3])


def stop_at(step, progress):
    if progress.step == step:
        raise StoppedError


def die_at(step, progress):
    if progress.step == step:
        os.kill(os.getpid(), signal.SIGKILL)


def run(output, watch=lambda _: None, report=lambda *_: None, **changes):
    config = train_config(options(**changes))
    return fit(config, str(output), ToyTiles(), ToyTiles(3, 1), watch=watch, report=report)


def assert_same_run(a, b):
    """Compare logs, the newest checkpoints and the models."""
    assert read_metrics(str(a))
    assert (a / "metrics.jsonl").read_bytes() == (b / "metrics.jsonl").read_bytes()
    assert checkpoints.steps(str(a)) == checkpoints.steps(str(b))
    last = checkpoints.steps(str(a))[-1]
    left, right = (checkpoints.read(checkpoints.url_of(str(o), last)) for o in (a, b))
    torch.testing.assert_close(left, right, rtol=0, atol=0)
    assert (a / "model/model.json").read_bytes() == (b / "model/model.json").read_bytes()
    left, right = ({path.name for path in (o / "samples").iterdir()} for o in (a, b))
    assert left == right


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"precision": "bfloat16", "optimizer": "adamw", "weight_decay": 0.1, "schedule": "cosine"},
        pytest.param(
            {"ema_decay": 0.0, "log_every": 5, "warmup": 4, "batch_size": 2}, marks=pytest.mark.slow
        ),
    ],
    ids=["usual", "bfloat16", "without averaging, sparse log"],
)
def test_interrupted_runs_end_like_undisturbed_ones(tmp_path, changes):
    whole = run(tmp_path / "whole", **changes)
    for step in (5, 11):
        with pytest.raises(StoppedError):
            run(tmp_path / "stopped", partial(stop_at, step), **changes)
    assert run(tmp_path / "stopped", **changes).metrics == whole.metrics
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_a_killed_process_goes_on_exactly(tmp_path):
    run(tmp_path / "whole")
    code = (
        "import sys; from functools import partial; from pathlib import Path\n"
        "from tests.training.run.test_loop import die_at, run\n"
        "run(Path(sys.argv[1]), partial(die_at, 7))"
    )
    killed = subprocess.run([sys.executable, "-c", code, tmp_path / "killed"], check=False, cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert checkpoints.steps(str(tmp_path / "killed"))[-1] == 6
    run(tmp_path / "killed")
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
def test_workers_that_were_stopped_end_like_undisturbed_ones(two_workers, tmp_path):
    config, undisturbed = two_workers
    torch.multiprocessing.spawn(train_in_two, (tmp_path / "stopped", config, True), nprocs=2)
    assert_same_run(undisturbed, tmp_path / "stopped")


@pytest.mark.slow
def test_workers_do_what_one_process_does(two_workers, tmp_path):
    config, undisturbed = two_workers
    tiles, held_out = (PanelStore.local(uris, ["hematoxylin"]) for uris in strips_of(config))
    fit(config, str(tmp_path), tiles, held_out)
    logs = [read_metrics(str(output)) for output in (tmp_path, undisturbed)]
    assert len(logs[0]) == len(logs[1]) == 15
    for ours, theirs in zip(*logs, strict=True):
        assert ours.pop("kind") == theirs.pop("kind")
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)


def sampler(workers=1, **changes):
    settings = {"batch_size": 5, "crop": 16, "settings": Augment(), "seed": 3, **changes}
    return Sampler(ToyTiles(), [1, 3], **settings)


def test_samples_depend_on_seed_and_step_alone():
    alone = list(sampler().batches(1, 4))
    for workers in (2, 3):
        parts = [list(sampler().batches(1, 4, rank=r, workers=workers, threads=3)) for r in range(workers)]
        for step in range(4):
            for k in range(5):
                ours, theirs = alone[step][k], parts[k % workers][step][k // workers]
                assert ours.name == theirs.name
                assert (ours.ihc == theirs.ihc).all()
    later = list(sampler().batches(3, 4))
    assert [[s.name for s in samples] for samples in later] == [[s.name for s in t] for t in alone[2:]]
    assert (later[0][0].ihc == alone[2][0].ihc).all()
    other = next(sampler(seed=4).batches(1, 1))
    assert any((a.ihc != b.ihc).any() for a, b in zip(other, alone[0], strict=True))


def test_weights_are_shares_of_the_samples():
    drawn = [s.name for batch in sampler(batch_size=400).batches(1, 1) for s in batch]
    of_second = sum(int(name.split()[1]) % 2 for name in drawn) / len(drawn)
    assert of_second == pytest.approx(0.75, abs=0.07)
    with pytest.raises(ConfigError, match=r"data\.2"):
        Sampler(ToyTiles(), [1, 1, 1], batch_size=1, crop=16, settings=Augment(), seed=0)


def test_pixels_survive_the_way_to_tensors_and_back():
    images = [np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)]
    tensor = to_tensor(images, torch.device("cpu"))
    assert (tensor.min(), tensor.max()) == (-1, 1)
    assert (to_images(tensor)[0] == images[0]).all()


def test_rates():
    def rates(**changes):
        config = train_config(options(steps=10, learning_rate=1.0, **changes))
        return [round(config.rate(step), 4) for step in (1, 2, 5, 6, 7, 10)]

    assert rates(schedule="constant") == [1, 1, 1, 1, 1, 1]
    assert rates(schedule="linear") == [1, 1, 1, 1, 0.8, 0.2]
    assert rates(schedule="linear", warmup=4) == [0.25, 0.5, 1, 1, 0.8, 0.2]
    assert rates(schedule="cosine") == [1, 0.9755, 0.6545, 0.5, 0.3455, 0.0245]


def test_classes_by_the_published_rule():
    pixels = np.array([[[121, 80, 0], [60, 80, 61], [61, 0, 61], [120, 0, 0], [255, 81, 0]]], np.uint8)
    assert classes(pixels).tolist() == [[1, 2, 1, 0, 0]]


class Constant:
    """Predicts a grey hematoxylin, and a segmentation whose left half is positive."""

    targets = ("hematoxylin", "seg")

    def predict(self, batch):
        seg = torch.full_like(batch.ihc, -1)
        seg[:, 0, :, : seg.shape[3] // 2] = 1
        return {"hematoxylin": torch.zeros_like(batch.ihc), "seg": seg}


class OneTile(ToyTiles):
    def __init__(self):
        seg = np.zeros((45, 64, 3), np.uint8)
        seg[:, :16, 0] = 255  # a quarter positive,
        seg[:, 48:, 2] = 255  # a quarter negative
        self._tiles = [Panels("one", seg, {"hematoxylin": np.full_like(seg, 28), "seg": seg})]


def test_validation_by_hand():
    metrics = validate(Constant(), OneTile(), torch.device("cpu"), Team())
    assert metrics == pytest.approx(
        {
            "l1_hematoxylin": 100 / 255,
            "l1_seg": (1 / 4 + 1 / 4) / 3,
            "dice_positive": 2 * 0.25 / (0.5 + 0.25),
            "dice_negative": 0.0,
            "dice": 1 / 3,
        }
    )


def test_what_a_run_leaves(tmp_path):
    url = f"memory://{tmp_path.name}-run"
    summary = run(url, metadata={"name": "toy", "licence": "none"}, keep_checkpoints=1)
    names = {file.removeprefix(url + "/").split("/")[0] for file in storage.list_files(url)}
    assert names == {"checkpoints", "config.yaml", "metrics.jsonl", "model", "samples", "tensorboard"}
    assert set(checkpoints.steps(url)) == {12, summary.exported_step}
    described = json.loads(storage.read_bytes(f"{url}/model/model.json"))["metadata"]
    assert (described["name"], described["training"]["step"]) == ("toy", summary.exported_step)
    assert described["training"]["validation"] == summary.metrics
    assert [(s["uri"], s["tiles"]) for s in described["training"]["data"]] == [("a", 3), ("b", 3)]
    grid = Image.open(io.BytesIO(storage.read_bytes(f"{url}/samples/step-000012.png")))
    assert grid.size == (5 * 256, 3 * 256)
    assert load_config(f"{url}/config.yaml").metadata["name"] == "toy"


def test_the_best_checkpoint_is_exported_and_kept(tmp_path):
    config = {"learning_rate": 0.3, "schedule": "constant", "ema_decay": 0, "gradient_clip": 0}
    summary = run(tmp_path, validate_every=1, keep_checkpoints=1, **config)
    found = {r["step"]: r["l1_seg"] for r in read_metrics(str(tmp_path)) if r["kind"] == "validation"}
    best = min(found, key=found.get)
    assert best != 12
    assert summary.exported_step == best
    assert checkpoints.steps(str(tmp_path)) == [best, 12]
    exported = json.loads((tmp_path / "model/model.json").read_bytes())["weights"]
    kept = checkpoints.read(checkpoints.best_of(str(tmp_path)))["trainer"]["generators"]
    assert exported == {name: value.tolist() for name, value in kept.items()}


def test_stops_when_validation_gets_no_better(tmp_path):
    changes = {"learning_rate": 1e-30, "steps": 40, "patience": 2}
    assert [run(tmp_path, **changes).step for _ in range(2)] == [12, 12]
    assert run(tmp_path, **changes).stopped_early


def test_averaged_weights_are_lent(tmp_path):
    config = train_config(options(ema_decay=0.5))
    trainer = Trainer(config, make_objective(config), torch.device("cpu"), Team())
    weight = trainer.objective.generators["g"][0].weight
    first = weight.detach().clone()
    with torch.no_grad():
        weight.add_(1.0)
    trainer._update_average(1)  # decay is min(0.5, 1 / 10)
    with trainer.averaged() as objective:
        torch.testing.assert_close(objective.generators["g"][0].weight, first + 0.9)
        assert not objective.generators.training
    torch.testing.assert_close(weight.detach(), first + 1.0, rtol=0, atol=0)
    assert trainer.objective.generators.training


def test_starts_from_other_weights(tmp_path):
    first = run(tmp_path / "first")
    changes = {"learning_rate": 1e-30, "steps": 1, "validation": ["v"], "ema_decay": 0}
    again = run(tmp_path / "again", init=str(tmp_path / "first"), **changes)
    assert again.metrics == first.metrics
    with pytest.raises(StorageError, match="no checkpoints"):
        run(tmp_path / "none", init=str(tmp_path / "nowhere"), **changes)
    with pytest.raises(ModelError, match="do not fit"):
        run(tmp_path / "w", init=str(tmp_path / "first"), objective_options={"width": 5}, **changes)


def test_starts_from_a_bundle(tmp_path):
    tiny = {"widths": [4, 4], "depths": [1, 1], "modalities": ["hematoxylin"]}
    compact = {"objective": "compact", "objective_options": tiny, "augment": None}
    run(tmp_path / "first", **compact)
    changes = {"learning_rate": 1e-30, "steps": 1, "ema_decay": 0, **compact}
    run(tmp_path / "again", init=str(tmp_path / "first/model"), **changes)
    first, again = (read_bundle(str(tmp_path / name / "model")) for name in ("first", "again"))
    assert first.digest == again.digest
    assert first.metadata["training"]["software"].startswith("deepliif-ray ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stepz": 3}, "stepz is not a key here; did you mean steps"),
        ({"learning_rate": -1}, "learning_rate is -1"),
        ({"data": []}, "data is"),
        ({"data": [{"uri": "a", "weight": 0}]}, r"data\.0\.weight is 0"),
        ({"objective": "nonsense"}, "objective is 'nonsense'"),
        (
            {"objective": "subprocess:Popen", "objective_options": {"args": "true"}},
            "objective is 'subprocess:Popen'",
        ),
        ({"objective": "tests.training.toy:Toy"}, "there are compact, deepliif, .*toy.*entry point"),
        ({"objective": "toy-nothing"}, "toy-nothing': cannot be imported"),
        ({"objective": "toy-command"}, "subprocess:Popen has not the methods of an objective"),
        ({"objective_options": {"depth": 1}}, "objective_options"),
        ({"augment": {"sparkle": 1}}, "sparkle"),
        ({"monitor": "l1_dapi"}, "monitor is 'l1_dapi'"),
        ({"precision": "float16"}, "precision is 'float16'"),
    ],
)
def test_refuses_by_name(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, **changes)


def test_refuses_another_configuration_but_for_what_may_change(tmp_path):
    run(tmp_path)
    with pytest.raises(ConfigError, match="learning_rate, seed"):
        run(tmp_path, seed=1, learning_rate=1e-3)
    assert run(tmp_path, steps=13, keep_checkpoints=1, log_every=1).step == 13


def test_refuses_infinite_losses_and_damaged_checkpoints(tmp_path):
    with pytest.raises(ModelError, match="lower learning_rate"):
        run(tmp_path / "a", learning_rate=1e38, gradient_clip=0, schedule="constant")
    run(tmp_path / "b")
    newest = checkpoints.url_of(str(tmp_path / "b"), 12)
    storage.write_bytes(newest, storage.read_bytes(newest)[:5000])
    with pytest.raises(ModelError, match="cannot be read as a checkpoint"):
        run(tmp_path / "b", steps=20)


def test_relative_urls_are_taken_from_the_files_folder(tmp_path):
    (tmp_path / "c.yaml").write_text("{data: [{uri: panels}], validation: [../v.png], steps: 3}")
    config = load_config(str(tmp_path / "c.yaml"), steps=None, seed=7)
    assert config.data[0].uri == str(tmp_path / "panels")
    assert config.seed == 7
    (tmp_path / "c.yaml").write_text("[1]")
    with pytest.raises(ConfigError, match=r"c\.yaml: expected a mapping"):
        load_config(str(tmp_path / "c.yaml"))
