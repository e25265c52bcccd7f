"""The notebooks of ``examples/`` run as they are, and show what they print."""

import ast
from pathlib import Path

import numpy as np
import pytest

from tests.query import fake_results as fake

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))


def test_there_are_three():
    assert len(NOTEBOOKS) == 3


def test_the_scores_notebook_runs_on_results_like_those_of_the_demonstration(tmp_path, monkeypatch):
    """Its code, on results of the same kind; `make examples` runs it on the demonstration's."""
    root = str(tmp_path / "demo/results")
    markers = {"P01": ("Ki67", "ER", "CD3"), "P04": ("CD10", "BCL6", "MUM1", "MYC", "BCL2")}
    place = np.random.default_rng(0).uniform(0, 900, (600, 2))
    for patient, names in markers.items():
        for marker in names:
            cells = [
                fake.cell(i, positive=i % 3 == 0, dab_od_mean=0.5 * (i % 3 == 0), x_um=x, y_um=y)
                for i, (x, y) in enumerate(place)
            ]
            fake.commit(root, f"{patient}-{marker}", cells, patient_id=patient, marker=marker)
    (tmp_path / "examples").mkdir()
    monkeypatch.chdir(tmp_path / "examples")
    notebook = nbformat.read(next(path for path in NOTEBOOKS if path.stem == "clinical_scores"), as_version=4)
    names = {}
    shown = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            *steps, last = ast.parse(cell.source).body
            exec(compile(ast.Module(steps, []), "cell", "exec"), names)
            if isinstance(last, ast.Expr):
                shown.append(eval(compile(ast.Expression(last.value), "cell", "eval"), names))
            else:
                exec(compile(ast.Module([last], []), "cell", "exec"), names)
    assert len(shown) == 8 and all(len(table) for table in shown)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path):
    if path.stem == "clinical_scores" and not (path.parents[1] / "demo/results").is_dir():
        pytest.skip("it shows the results of `make demo`, which are not there")
    notebook = nbformat.read(path, as_version=4)
    shown = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    nbclient.NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    again = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    assert list(map(len, again)) == list(map(len, shown))  # what is committed was made by running it
