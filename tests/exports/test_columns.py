"""CSV and AnnData tell what the views tell, read back by other libraries than those that wrote them."""

import csv
import gzip
import math

import numpy as np
import pytest

from deepliif_ray.annotations.corrections import import_corrections
from deepliif_ray.annotations.origin import Origin
from deepliif_ray.errors import ConfigError, QueryError
from deepliif_ray.exports import cells as chosen
from deepliif_ray.exports.cells import Calls
from deepliif_ray.exports.columns import MEASURED
from deepliif_ray.exports.csv_table import export_csv
from deepliif_ray.query import ask
from tests.exports import slides

NAME = 'it\'s, "S" 1'


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(chosen, "ROWS", 7)
    root = str(tmp_path / "results")
    bounds = {"bounds_x": 30, "bounds_y": 40, "bounds_width": 500, "bounds_height": 400}
    slides.commit(root, NAME, attempt="a1", reader="openslide", **bounds)
    return root


def called(root, source="called_cells"):
    return ask(root, f"SELECT * FROM {source} ORDER BY cell_id").to_pylist()


def rows_of(path):
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    return list(csv.DictReader(text.splitlines()))


def test_csv_tells_what_the_view_tells(root, tmp_path):
    rows = called(root)
    for name in ("a.csv", "a.csv.gz"):
        done = export_csv(root, tmp_path / name)
        found = rows_of(tmp_path / name)
        assert done.n_cells == len(rows) == len(found) > 20
        for row, told in zip(rows, found, strict=True):
            assert told["slide_id"] == NAME and told["patient_id"] == "P1" and told["marker"] == "Ki67"
            assert int(told["cell_id"]) == row["cell_id"] and int(told["label"]) == row["cell_id"] + 1
            assert told["positive"] == str(row["positive"]).lower()
            assert told["strength"] == str(row["strength"])
            assert float(told["centroid_x"]) == row["x"] + 0.5
            assert float(told["centroid_y_um"]) == (row["y"] + 0.5) * 0.25
            for measured in MEASURED:
                value = None if told[measured] == "" else float(told[measured])
                assert value == row[measured], measured
    assert any(row["marker_max"] is None for row in rows) and any(row["positive"] for row in rows)


def test_csv_from_the_scanned_area(root, tmp_path):
    done = export_csv(root, tmp_path / "a.csv", origin=Origin.BOUNDS)
    assert done.origin == (30, 40)
    for row, told in zip(called(root), rows_of(tmp_path / "a.csv"), strict=True):
        assert float(told["centroid_x"]) == row["x"] + 0.5 - 30
        assert float(told["centroid_y"]) == row["y"] + 0.5 - 40


def test_csv_refusals_leave_nothing(root, tmp_path):
    with pytest.raises(ConfigError, match="ends in"):
        export_csv(root, tmp_path / "a.txt")
    with pytest.raises(QueryError, match="no cell counts"):
        export_csv(root, tmp_path / "a.csv", calls=Calls({"size_thresh": 10_000}))
    (tmp_path / "a.csv").write_text("mine")
    with pytest.raises(ConfigError, match="--overwrite"):
        export_csv(root, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "results"]


def corrected(root, tmp_path):
    """Correct the call of one cell and strike out another; return the ids of both."""
    first, second = called(root)[:2]
    path = tmp_path / "corrections.csv"
    word = "negative" if first["positive"] else "positive"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["slide_id", "x", "y", "call"])
        writer.writerow([NAME, first["x"], first["y"], word])
        writer.writerow([NAME, second["x"], second["y"], "not_a_cell"])
    import_corrections(root, [str(path)])
    path.unlink()
    return first["cell_id"], second["cell_id"]


class TestAnnData:
    """What anndata wrote, read by h5py alone, and by anndata."""

    @pytest.fixture(autouse=True)
    def libraries(self):
        pytest.importorskip("anndata", reason="pip install 'deepliif-ray[anndata]'")

    def test_it_tells_what_the_view_tells(self, root, tmp_path):
        import h5py

        from deepliif_ray.exports.h5ad import export_anndata

        changed, struck = corrected(root, tmp_path)
        done = export_anndata(root, tmp_path / "a.h5ad")
        rows = called(root)
        ids = [row["cell_id"] for row in rows]
        assert struck not in ids and changed in ids
        with h5py.File(tmp_path / "a.h5ad") as file:
            obs = file["obs"]
            assert done.n_cells == len(rows) == len(obs["cell_id"])
            assert obs["cell_id"][:].tolist() == ids
            assert obs["label"][:].tolist() == [n + 1 for n in ids]
            assert [name.decode() for name in obs["_index"][:]] == list(map(str, ids))
            classes = [name.decode() for name in obs["class/categories"][:]]
            assert [classes[code] for code in obs["class/codes"][:]] == [
                "Positive" if row["positive"] else "Negative" for row in rows
            ]
            assert [name.decode() for name in obs["slide_id/categories"][:]] == [NAME]
            at = file["obsm/spatial"][:]
            assert at.dtype == np.float64
            assert at.tolist() == [[row["x"] + 0.5, row["y"] + 0.5] for row in rows]
            assert file["obsm/spatial_um"][:].tolist() == (at * 0.25).tolist()
            measured = [name.decode() for name in file["var/_index"][:]]
            assert measured == list(MEASURED) and file["X"].dtype == np.float32
            for number, name in enumerate(measured):
                truth = np.array([math.nan if row[name] is None else row[name] for row in rows], float)
                np.testing.assert_array_equal(file["X"][:, number], truth.astype(np.float32))
                if name != "marker_max":
                    np.testing.assert_array_equal(obs[name][:], truth)
            missing = obs["marker_max/mask"][:]
            assert missing.tolist() == [row["marker_max"] is None for row in rows] and missing.any()
            attrs = {name: value[()].decode() for name, value in file["uns/spatialdata_attrs"].items()}
            assert attrs == {"region": "cells", "region_key": "region", "instance_key": "cell_id"}
            told = file["uns/deepliif_ray"]
            assert told["model_digest"][()].decode() == "m1" and told["mpp"][()] == 0.25
            assert bool(told["corrections"][()])

    def test_cut_offs_are_told_and_what_no_cell_has_is_no_variable(self, tmp_path):
        import anndata

        from deepliif_ray.exports.h5ad import export_anndata

        root = str(tmp_path / "none")
        slides.commit(root, "S", cells=[row | {"marker_max": None} for row in slides.cells()])
        export_anndata(root, tmp_path / "a.h5ad", calls=Calls({"size_thresh": 40}, corrections=False))
        table = anndata.read_h5ad(tmp_path / "a.h5ad")
        assert "marker_max" not in table.var_names and table.obs["marker_max"].isna().all()
        assert table.n_obs == len(called(root, "called_cells({'size_thresh': 40})"))
        told = table.uns["deepliif_ray"]
        assert told["cutoffs"] == "size_thresh=40" and not told["corrections"]
        assert np.isfinite(table.X).all()

    def test_from_the_scanned_area(self, root, tmp_path):
        import anndata

        from deepliif_ray.exports.h5ad import export_anndata

        export_anndata(root, tmp_path / "a.h5ad")
        export_anndata(root, tmp_path / "b.h5ad", origin=Origin.BOUNDS)
        a, b = (anndata.read_h5ad(tmp_path / name) for name in ("a.h5ad", "b.h5ad"))
        np.testing.assert_array_equal(a.obsm["spatial"] - b.obsm["spatial"], [[30, 40]] * a.n_obs)
        assert b.uns["deepliif_ray"]["origin_x_px"] == 30

    def test_too_many_cells_are_refused_by_name(self, root, tmp_path, monkeypatch):
        from deepliif_ray.exports import h5ad

        monkeypatch.setattr(h5ad, "MOST_CELLS", 5)
        with pytest.raises(ConfigError, match=r"cells count.*--region"):
            h5ad.export_anndata(root, tmp_path / "a.h5ad")
        assert [path.name for path in tmp_path.iterdir()] == ["results"]


class TestSpatialData:
    """What spatialdata wrote, its Parquet read by geopandas and its transformations by zarr."""

    @pytest.fixture(autouse=True)
    def libraries(self):
        pytest.importorskip("spatialdata", reason="pip install 'deepliif-ray[spatialdata]'")

    def test_it_tells_what_the_view_tells(self, root, tmp_path):
        import geopandas
        import pandas as pd
        import zarr

        from deepliif_ray.exports.spatial_data import export_spatialdata

        done = export_spatialdata(root, tmp_path / "a.zarr")
        rows = called(root)
        shapes = geopandas.read_parquet(tmp_path / "a.zarr/shapes/cells/shapes.parquet")
        assert done.n_cells == len(rows) == len(shapes)
        assert shapes.index.tolist() == [row["cell_id"] for row in rows]
        assert shapes.geometry.is_valid.all()
        assert shapes.area.to_numpy() == pytest.approx([row["area_px"] for row in rows], abs=0.2)
        edges = [[row[f"bbox_{edge}"] for edge in ("x0", "y0", "x1", "y1")] for row in rows]
        np.testing.assert_array_equal(shapes.bounds.to_numpy(), edges)
        points = pd.read_parquet(tmp_path / "a.zarr/points/centroids/points.parquet")
        assert points["x"].tolist() == [row["x"] + 0.5 for row in rows]
        assert points["cell_id"].tolist() == shapes.index.tolist()
        for element in ("shapes/cells", "points/centroids"):
            systems = zarr.open(tmp_path / "a.zarr", mode="r")[element].attrs["coordinateTransformations"]
            scales = {system["output"]["name"]: system.get("scale") for system in systems}
            assert scales == {"global": None, "um": [0.25, 0.25]}

    def test_it_is_what_spatialdata_reads(self, root, tmp_path):
        import spatialdata

        from deepliif_ray.exports.spatial_data import export_spatialdata

        for overwrite in (False, True):
            export_spatialdata(root, tmp_path / "a.zarr", origin=Origin.BOUNDS, overwrite=overwrite)
        data = spatialdata.read_zarr(tmp_path / "a.zarr")
        rows = called(root)
        joined, table = spatialdata.join_spatialelement_table(
            sdata=data, spatial_element_names="cells", table_name="table", how="inner"
        )
        assert table.n_obs == len(joined["cells"]) == len(rows)
        assert table.obs["positive"].tolist() == [row["positive"] for row in rows]
        in_um = spatialdata.transform(data["cells"], to_coordinate_system="um")
        np.testing.assert_allclose(in_um.area, data["cells"].area / 16)
        np.testing.assert_allclose(in_um.bounds["minx"], [(row["bbox_x0"] - 30) / 4 for row in rows])

    def test_what_is_no_zarr_is_not_replaced(self, root, tmp_path):
        from deepliif_ray.exports.spatial_data import export_spatialdata

        (tmp_path / "a.zarr").mkdir()
        (tmp_path / "a.zarr" / "thesis.txt").write_text("mine")
        for overwrite, words in ((False, "--overwrite"), (True, "no Zarr")):
            with pytest.raises(ConfigError, match=words):
                export_spatialdata(root, tmp_path / "a.zarr", overwrite=overwrite)
        assert (tmp_path / "a.zarr" / "thesis.txt").read_text() == "mine"
        with pytest.raises(QueryError, match="no cell counts"):
            export_spatialdata(root, tmp_path / "b.zarr", calls=Calls({"size_thresh": 10_000}))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "results"]
