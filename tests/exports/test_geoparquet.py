"""GeoParquet: the metadata of the standard, valid outlines, an order in which rectangles skip row groups."""

import json

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import shapely

from deepliif_ray.errors import ConfigError, QueryError
from deepliif_ray.exports import cells as chosen
from deepliif_ray.exports import geoparquet
from deepliif_ray.exports.cells import Calls
from deepliif_ray.exports.geoparquet import export_geoparquet, hilbert
from deepliif_ray.query import ask
from tests.exports import slides
from tests.query import fake_results as fake


@pytest.fixture
def root(tmp_path, monkeypatch):
    for module in (chosen, geoparquet):
        monkeypatch.setattr(module, "ROWS", 6)
    root = str(tmp_path / "results")
    slides.commit(root)
    return root


def test_the_curve_goes_from_neighbour_to_neighbour():
    side = 2**7
    y, x = (values.ravel().astype(float) for values in np.mgrid[:side, :side])
    order = np.argsort(hilbert(x, y))
    steps = np.abs(np.diff(x[order])) + np.abs(np.diff(y[order]))
    assert (steps == 1).all()
    assert hilbert(np.array([3.0]), np.array([9.0])).tolist() == [0] and not len(hilbert(x[:0], y[:0]))
    assert len(np.unique(hilbert(x, y))) == side**2


def test_metadata_of_the_standard(root, tmp_path):
    export_geoparquet(root, tmp_path / "a.parquet")
    geo = json.loads(pq.read_schema(tmp_path / "a.parquet").metadata[b"geo"])
    assert geo["version"] == "1.1.0" and geo["primary_column"] == "geometry"
    (name, column), *others = geo["columns"].items()
    assert name == "geometry" and not others
    assert column["encoding"] == "WKB" and column["geometry_types"] == ["Polygon"]
    assert "crs" in column and column["crs"] is None
    edges = ["xmin", "ymin", "xmax", "ymax"]
    assert column["covering"] == {"bbox": {edge: ["bbox", edge] for edge in edges}}
    assert list(column["covering"]["bbox"]) == edges
    table = pq.read_table(tmp_path / "a.parquet")
    outlines = shapely.from_wkb(table["geometry"].to_numpy())
    assert column["bbox"] == list(shapely.total_bounds(outlines))
    boxes = [[row[edge] for edge in edges] for row in table["bbox"].to_pylist()]
    assert (shapely.bounds(outlines) == boxes).all()
    assert [field.name for field in table.schema.field("bbox").type] == edges


def test_it_tells_what_the_view_tells(root, tmp_path):
    done = export_geoparquet(root, tmp_path / "a.parquet", calls=Calls({"size_thresh": 30}))
    frame = pl.read_parquet(tmp_path / "a.parquet").sort("cell_id")
    view = ask(root, "FROM called_cells({'size_thresh': 30}) ORDER BY cell_id")
    expected = pl.DataFrame(pl.from_arrow(view))
    assert done.n_cells == frame.height == expected.height > 12
    for name in set(frame.columns) & set(expected.columns):
        assert frame[name].equals(expected[name]), name
    assert (frame["centroid_x"] - 0.5).equals(expected["x"])
    outlines = shapely.from_wkb(frame["geometry"].to_numpy())
    assert all(shapely.is_valid(outlines)) and all(shapely.is_ccw(shapely.get_exterior_ring(outlines)))
    assert shapely.area(outlines) == pytest.approx(frame["area_px"].to_numpy(), rel=0.01)
    assert frame["object_id"].n_unique() == frame.height


def test_rectangles_skip_row_groups(root, tmp_path):
    export_geoparquet(root, tmp_path / "a.parquet")
    file = pq.ParquetFile(tmp_path / "a.parquet")
    groups = [file.metadata.row_group(n) for n in range(file.num_row_groups)]
    assert len(groups) > 3 and all(group.num_rows <= 6 for group in groups)
    whole = json.loads(file.schema_arrow.metadata[b"geo"])["columns"]["geometry"]["bbox"]
    widths = []
    for group in groups:
        of = {group.column(n).path_in_schema: group.column(n).statistics for n in range(group.num_columns)}
        widths.append(of["bbox.xmax"].max - of["bbox.xmin"].min)
    assert np.median(widths) < 0.6 * (whole[2] - whole[0])
    found = duckdb.sql(
        f"SELECT count(*) FROM read_parquet('{tmp_path}/a.parquet') WHERE bbox.xmax > 10 AND bbox.xmin < 60"
    ).fetchall()
    boxes = shapely.bounds(shapely.from_wkb(file.read(["geometry"])["geometry"].to_numpy()))
    assert found == [(int(((boxes[:, 2] > 10) & (boxes[:, 0] < 60)).sum()),)]


def test_refusals(root, tmp_path):
    with pytest.raises(ConfigError, match="ends in"):
        export_geoparquet(root, tmp_path / "a.geojson")
    with pytest.raises(QueryError, match="no cell counts"):
        export_geoparquet(root, tmp_path / "a.parquet", calls=Calls({"size_thresh": 10_000}))
    slides.commit(root, "S-2")
    with pytest.raises(ConfigError, match="2 slides"):
        export_geoparquet(root, tmp_path / "a.parquet")
    fake.commit(root, "empty", [])
    with pytest.raises(QueryError, match="slide 'empty': no cell counts"):
        export_geoparquet(root, tmp_path / "a.parquet", slide="empty")
    (tmp_path / "a.parquet").write_text("mine")
    with pytest.raises(ConfigError, match="--overwrite"):
        export_geoparquet(root, tmp_path / "a.parquet", slide="S-2")
    export_geoparquet(root, tmp_path / "a.parquet", slide="S-2", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "results"]
