"""Models that other installed packages offer, by name and by the architecture of a bundle."""

import json
import sys

import numpy as np
import pytest

from deepliif_ray import Execution, connect, load_model, score
from deepliif_ray.errors import ModelError
from deepliif_ray.models import check_model, registered_models
from deepliif_ray.models.bundle import FORMAT
from deepliif_ray.synthetic import write_cohort


def bundle(folder, **described):
    folder.mkdir()
    (folder / "model.json").write_text(json.dumps({"format": FORMAT, **described}))
    return str(folder)


def test_its_name_is_one_more_and_says_where_it_is_from():
    assert registered_models()["toy"] == "of the package toy-models"
    assert check_model("toy", None, None) == "toy"
    assert load_model("toy", "cpu", batch_size=3).request.batch_size == 3


def test_a_name_of_this_package_stays_this_packages():
    assert "small network" in registered_models()["compact"]
    assert load_model("compact", "cpu").digest != load_model("toy").digest


def test_a_bundle_names_it_by_its_architecture(tmp_path):
    url = bundle(tmp_path / "b", architecture="toy", name="mine")
    model = load_model(url)
    assert (model.name, model.request.folder) == ("mine", url)


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        ("unheard-of", "none offers it"),
        ("toy-twice", "other-models, toy-models all offer it"),
        ("toy-gone", "cannot be made"),
        ("toy-nothing", "lacks name, digest"),
        (None, "architecture None is not known here"),
        (["toy"], "is not known here"),
        ("subprocess:Popen", "none offers it"),
    ],
)
def test_what_cannot_be_made_is_refused_by_name(tmp_path, architecture, said):
    with pytest.raises(ModelError, match=said):
        load_model(bundle(tmp_path / "b", architecture=architecture))


def digests_of_a_cohort_scored_with(model, folder):
    """Score two slides, of which the models here call every cell positive; return the digests stored."""
    manifest = write_cohort(folder / "cohort", patients=1, side=600)
    summary = score(str(manifest), str(folder / "r"), model=model, execution=Execution(engine="local"))
    assert (summary.scored, summary.failed) == (2, 0)
    with connect(folder / "r") as connection:
        counts = "SELECT count(*), count_if(majority_positive) FROM cells"
        ((cells, positive),) = connection.execute(counts).fetchall()
        assert cells == positive > 10
        return [
            digest for (digest,) in connection.execute("SELECT DISTINCT model_digest FROM slides").fetchall()
        ]


@pytest.mark.parametrize("by", ["name", "bundle"])
def test_a_cohort_is_scored_with_it(tmp_path, by):
    model = "toy" if by == "name" else bundle(tmp_path / "b", architecture="toy")
    assert digests_of_a_cohort_scored_with(model, tmp_path) == ["70" * 16]


def test_the_engine_of_the_example(tmp_path):
    """A network of one layer, which makes red what is dark."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    helper, numbers = onnx.helper, onnx.TensorProto.FLOAT
    weights = [[-2.0, -2.0, -2.0], [0.0] * 3, [0.0] * 3]  # red: 4 - 2 (r + g + b), cut to 0 and 1
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["pixels", "w", "b"], ["made"]),
            helper.make_node("Clip", ["made", "low", "high"], ["seg"]),
        ],
        "dark",
        [helper.make_tensor_value_info("pixels", numbers, [1, 3, None, None])],
        [helper.make_tensor_value_info("seg", numbers, [1, 3, None, None])],
        [
            helper.make_tensor("w", numbers, [3, 3, 1, 1], np.ravel(weights)),
            helper.make_tensor("b", numbers, [3], [4.0, 0.0, 0.0]),
            helper.make_tensor("low", numbers, [], [0.0]),
            helper.make_tensor("high", numbers, [], [1.0]),
        ],
    )
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    url = bundle(tmp_path / "b", architecture="onnx", name="dark", native_mpp=0.25)
    (tmp_path / "b" / "weights.onnx").write_bytes(network.SerializeToString())
    assert digests_of_a_cohort_scored_with(url, tmp_path) == [load_model(url).digest]
    assert "examples.onnx_engine" in sys.modules
