"""Looking at results and slides that lie on S3, against a real server: the viewer's pages and reports."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from deepliif_ray import connect, hot_spots, storage
from deepliif_ray.report.choice import Choice
from deepliif_ray.report.cohort import write_report
from deepliif_ray.report.slide import write_slide_report
from tests.integration.test_s3 import upload
from tests.pictures import scored
from tests.viewer import served
from tests.viewer.served import HEIGHT, WIDTH, Client

SLIDE = "S-1"


@pytest.fixture(scope="module")
def results(s3, tmp_path_factory) -> str:
    """Results on S3 of a slide on S3."""
    bucket, folder = s3.bucket(), tmp_path_factory.mktemp("results")
    slide = f"{bucket}/slides of today/a.tiff"
    path = scored.slide(folder, served.tissue())
    storage.write_bytes(slide, path.read_bytes())
    said = {"uri": slide, "slide_version": storage.version(slide), "width_px": WIDTH, "height_px": HEIGHT}
    scored.commit(folder / "out", served.cells(), SLIDE, path, **said)
    upload(folder / "out", f"{bucket}/out/results of today")
    return f"{bucket}/out/results of today"


def ask(results: str, query: str) -> list[tuple]:
    with connect(results) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.slow
def test_results_are_looked_at_and_worked_on(results):
    n_called, n_positive = ask(results, "SELECT n_called, n_positive FROM slide_indices")[0]
    assert n_called > 100
    with served.serving(results) as address:
        client = Client(address)
        assert client.get("/api/cohort")[1]["slides"]["n_positive"] == [n_positive]
        # Tissue comes from the slide on S3.
        _, tissue = client.get(f"/api/tissue?slide={SLIDE}")
        assert tissue["is_there"] and tissue["problem"] is None
        at = f"slide={SLIDE}&level={tissue['deepest']}&column=1&line=1"
        shown = np.asarray(Image.open(io.BytesIO(client.raw(f"/api/tile?{at}")[2])))
        assert np.abs(shown.astype(int) - served.tissue()[256:512, 256:512]).mean() < 3
        # Cells: all of them at once, those near by, one.
        packed = client.raw(f"/api/cells?slide={SLIDE}")[2]
        heading = json.loads(packed[4 : 4 + int.from_bytes(packed[:4], "little")])
        assert [(heading["arrays"]["x"]["length"],)] == ask(results, "SELECT count(*) FROM cells")
        assert client.get(f"/api/outlines?slide={SLIDE}&x0=0&y0=0&x1=600&y1=600")[1]["cells"]
        x, y = ask(results, "SELECT x + 0.5, y + 0.5 FROM called_cells ORDER BY cell_id LIMIT 1")[0]
        _, cell = client.get(f"/api/cell?slide={SLIDE}&x={x}&y={y}")
        _, spots = client.post("/api/hot_spots", {"slide": SLIDE, "count": 2, "cells": 100})
        wanted = hot_spots(results, marker="Ki67", cells=100, count=2).to_pylist()
        shares = [spot["share_percent"] for spot in spots["spots"]]
        assert len(shares) == 2 and shares == [spot["share_percent"] for spot in wanted]
        # A correction, a region and cut-offs are kept on S3, and count.
        said = {"slide": SLIDE, "call": "not_a_cell", "place": cell["place"]}
        status, corrected = client.post("/api/correct", said)
        assert status == 200 and corrected["n_cells"] == 1, corrected
        assert ask(results, "SELECT cell_id, call FROM corrections") == [(cell["cell_id"], "not_a_cell")]
        assert client.post("/api/index", {"slide": SLIDE})[1]["n_called"] == n_called - 1
        ring = [[0, 0], [450, 0], [450, 700], [0, 700], [0, 0]]
        region = {"class": "Tumor", "geometry": {"type": "Polygon", "coordinates": [ring]}}
        status, drawn = client.post("/api/regions", {"slide": SLIDE, "regions": [region]})
        assert status == 200 and drawn["n_regions"] == 1, drawn
        _, inside = client.post("/api/index", {"slide": SLIDE, "region": "Tumor"})
        counted = "SELECT n_called FROM slide_counts(region := 'Tumor')"
        assert ask(results, counted) == [(inside["n_called"],)] and 0 < inside["n_called"] < n_called
        kept = {"name": "mine", "marker": "Ki67", "values": {"size_thresh": 60}}
        assert client.post("/api/cutoffs", kept)[0] == 200
        _, found = client.post("/api/index", {"slide": SLIDE, "cutoffs": "mine"})
        counted = "SELECT n_called FROM slide_counts(cutoffs := 'mine')"
        assert ask(results, counted) == [(found["n_called"],)]
        _, answer = client.post("/api/sql", {"query": "SELECT count(*) AS n FROM called_cells"})
        assert answer["rows"] == [{"n": n_called - 1}]
        for kind, done in (("regions", drawn), ("corrections", corrected)):
            asked = {"kind": kind, "import_id": done["import_id"]}
            assert client.post("/api/undo", asked)[0] == 200
        assert client.post("/api/index", {"slide": SLIDE})[1]["n_called"] == n_called


@pytest.mark.slow
def test_reports_show_numbers_and_tissue(results, tmp_path):
    done = write_report(results, tmp_path / "cohort.html", choice=Choice(pictures=1))
    assert (done.n_patients, done.n_slides) == (1, 1)
    done = write_slide_report(results, SLIDE, tmp_path / "slide.html")
    assert done.n_pictures > 0 and done.remarks == ()  # none is on white
    (index,) = ask(results, "SELECT index_percent FROM slide_indices")[0]
    text = (tmp_path / "slide.html").read_text(encoding="utf-8")
    assert f"{index:.1f}" in text and "data:image/" in text
