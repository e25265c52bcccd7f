"""The search: what is drawn, and that the best is what training then takes."""

import pyarrow.csv as csv
import pytest
import ray

from deepliif_ray.errors import ConfigError
from deepliif_ray.training.run.config import load_config, train_config
from deepliif_ray.training.run.space import DEFAULT_SPACES, chosen, distributions, drawn
from deepliif_ray.training.run.trainer import make_objective
from deepliif_ray.training.run.tune import tune
from tests.training.toy import strip_options, write_strip

SPACE = {
    "learning_rate": {"loguniform": [1e-30, 1e-2]},
    "objective_options.width": {"choice": [3, 4]},
    "objective_options.shares": {"shares": 3},
}


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search of four short trials, and where it is."""
    folder = tmp_path_factory.mktemp("search")
    strips = [str(write_strip(folder / f"strip-{n}.png", n)) for n in range(3)]
    config = strip_options(strips, steps=8, schedule="constant", sample_grid_every=0)
    ray.init("local", include_dashboard=False, num_cpus=2, object_store_memory=2**28, log_to_driver=False)
    summary = tune(config, str(folder / "out"), trials=4, space=SPACE)
    yield summary, config, folder / "out"
    ray.shutdown()


@pytest.mark.slow
def test_the_best_trial_is_what_training_takes(searched, tmp_path):
    summary, _, output = searched
    values = summary.table["l1_seg"].to_pylist()
    assert len(values) == 4
    good = [value for value in values if value is not None]
    assert values == [*sorted(good), *[None] * (4 - len(good))]
    for row in summary.table.to_pylist():
        assert ("width is 3" in row["problem"]) == (row["objective_options.width"] == 3)
    assert csv.read_csv(output / "trials.csv").column_names == [
        "trial", "l1_seg", *SPACE, "problem"
    ]  # fmt: skip
    best = load_config(summary.best)
    first = summary.table.to_pylist()[0]
    assert best.learning_rate == first["learning_rate"]
    assert best.objective_options["width"] == first["objective_options.width"]
    assert sum(best.objective_options["shares"]) == pytest.approx(1, abs=1e-3)
    assert best.steps == 8
    assert len(list((output / "trials").iterdir())) == len(good)


@pytest.mark.slow
def test_a_search_goes_on_and_refuses_another(searched):
    summary, config, output = searched
    again = tune(config, str(output), trials=4, space=SPACE)
    assert again.table.equals(summary.table)
    with pytest.raises(ConfigError, match="search of another"):
        tune({**config, "seed": 5}, str(output), trials=4, space=SPACE)


def test_what_is_drawn():
    found = distributions(SPACE)
    assert sorted(found) == [
        "learning_rate", "objective_options.shares.0", "objective_options.shares.1",
        "objective_options.shares.2", "objective_options.width",
    ]  # fmt: skip
    values = {f"objective_options.shares.{n}": u for n, u in enumerate((0.5, 0.75, 0.0))}
    values |= {"learning_rate": 0.01, "objective_options.width": 2}
    shares = drawn(SPACE, values)["objective_options.shares"]
    assert shares == [0.3333, 0.6667, 0.0]  # -log(1/2) and -log(1/4)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"learning_rate": {"gauss": [0, 1]}}, "learning_rate: 'gauss'"),
        ({"learning_rate": {"uniform": [1]}}, "learning_rate is"),
        ({"learning_rate": 3}, "learning_rate is 3"),
        ({"learning_rate": {"integer": [5, 1]}}, "learning_rate is"),
    ],
)
def test_refuses_spaces(space, message):
    with pytest.raises(ConfigError, match=message):
        distributions(space)


def test_refuses_keys_that_are_none():
    config = train_config({"data": [{"uri": "a"}], "steps": 1})
    with pytest.raises(ConfigError, match="lr is not a key here"):
        chosen(config, {"lr": 1})
    with pytest.raises(ConfigError, match=r"steps\.many"):
        chosen(config, {"steps.many": 1})
    with pytest.raises(ConfigError, match="validation is empty"):
        tune(config, "nowhere")


@pytest.mark.slow
@pytest.mark.parametrize("objective", DEFAULT_SPACES)
def test_default_spaces_make_objectives(objective):
    """Both ends of every range, and each choice, are options of the objective."""
    base = {"data": [{"uri": "a"}], "steps": 1, "objective": objective}
    small = {"deepliif": {"width": 4, "discriminator_width": 4}, "compact": {}}[objective]
    config = train_config({**base, "objective_options": small})
    space = DEFAULT_SPACES[objective]
    for place in range(4):
        values = {}
        for key, entry in space.items():
            [(kind, value)] = entry.items()
            values[key] = [1 / value] * value if kind == "shares" else value[place % len(value)]
        values |= {f"objective_options.{key}": value for key, value in small.items()}
        assert make_objective(chosen(config, values)).targets[-1] == "seg"
