import http.client
import io
import json
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepliif_ray import connect, storage
from deepliif_ray.errors import StorageError
from deepliif_ray.slides import open_slide, write_pyramid
from deepliif_ray.viewer import tiles
from deepliif_ray.viewer.guarding import HEADER
from tests.viewer import served
from tests.viewer.served import HEIGHT, HOSTILE, WIDTH, Client


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("viewer")
    return served.make(folder / "results", folder)


@pytest.fixture(scope="module")
def client(results):
    with served.serving(results) as address:
        yield Client(address)


def ask(results, query):
    with connect(results) as connection:
        return connection.execute(query).fetchall()


# --- who may ask


def test_the_key_is_needed(client):
    stranger = Client.__new__(Client)
    stranger.base = client.base
    stranger._opener = urllib.request.build_opener()
    for path in ("/", "/api/cohort", "/static/app.js", "/?token=guess", "/api/cells?slide=S-1"):
        status, headers, content = stranger.raw(path)
        assert status == 401 and b"deepliif-ray view" in content, path
        assert "Set-Cookie" not in headers


def test_the_key_becomes_a_cookie_that_scripts_cannot_read(client):
    host = client.base.removeprefix("http://")
    connection = http.client.HTTPConnection(host)
    connection.request("GET", "/?" + client.address.partition("/?")[2])
    answer = connection.getresponse()
    cookie = answer.getheader("Set-Cookie")
    assert answer.status == 303 and answer.getheader("Location") == "/"
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    connection.close()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "127.0.0.1:1"])
def test_a_name_of_another_site_is_refused(client, host):
    status, _, _ = client.raw("/api/cohort", headers={"Host": host})
    assert status == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example", HEADER: "1"},
        {HEADER: "1"},
        {"Origin": None},
        {"Origin": "null", HEADER: "1"},
    ],
)
def test_other_pages_may_not_write(client, headers):
    given = {name: client.base if value is None else value for name, value in headers.items()}
    body = json.dumps({"slide": "S-1", "call": "positive", "place": [20, 20]}).encode()
    status, _, _ = client.raw("/api/correct", body, {"Content-Type": "application/json", **given})
    assert status == 403


def test_pages_may_load_nothing_from_elsewhere(client):
    _, headers, _ = client.raw("/")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert client.raw("/api/cohort")[1]["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py", "/static/%2e%2e%2fserver.py", "/static/server.py", "/static/.hidden.js",
        "/etc/passwd",
        "/static/%2fetc%2fpasswd", "/static/", "/api/", "/static/nothing.js",
    ],
)  # fmt: skip
def test_no_other_file_is_reachable(client, path):
    status, _, content = client.raw(path)
    assert status == 404 and b"import" not in content and b"root:" not in content


def test_every_file_of_the_pages_is_served_and_asks_for_nothing_elsewhere(client):
    folder = Path(tiles.__file__).parent / "static"
    for name in [*(path.name for path in folder.iterdir()), "openseadragon.min.js"]:
        status, headers, content = client.raw(f"/static/{name}")
        assert status == 200 and headers["Content-Type"].startswith(("text/", "image/svg")), name
        if name != "openseadragon.min.js":
            found = content.decode().replace("http://www.w3.org/", "")
            assert "http://" not in found and "https://" not in found and "innerHTML" not in found, name


# --- what is answered


def test_the_cohort_is_what_sql_gives(client, results):
    _, cohort = client.get("/api/cohort?fresh=1")
    rows = ask(
        results,
        "SELECT slide_id, n_called, n_positive, index_percent FROM slide_indices "
        "ORDER BY patient_id, marker, slide_id",
    )
    slides = cohort["slides"]
    assert (
        list(
            zip(
                slides["slide_id"],
                slides["n_called"],
                slides["n_positive"],
                slides["index_percent"],
                strict=True,
            )
        )
        == rows
    )
    assert cohort["n_failures"] == 1 and HOSTILE in cohort["patients"]["patient_id"]


@pytest.mark.parametrize("level", [0, 5, 8, 9, 10, 11])
def test_tiles_put_together_are_the_slide(client, level):
    _, tissue = client.get("/api/tissue?slide=S-1")
    assert tissue["is_there"] and tissue["deepest"] == 11
    side = 2 ** (11 - level)
    columns, rows = -(-WIDTH // side), -(-HEIGHT // side)
    whole = np.zeros((rows, columns, 3), np.uint8)
    for line in range(-(-rows // 256)):
        for column in range(-(-columns // 256)):
            status, headers, content = client.raw(
                f"/api/tile?slide=S-1&level={level}&column={column}&line={line}"
            )
            assert status == 200 and headers["Content-Type"] == "image/jpeg"
            part = np.asarray(Image.open(io.BytesIO(content)))
            whole[256 * line : 256 * line + part.shape[0], 256 * column : 256 * column + part.shape[1]] = part
    wanted = Image.fromarray(served.tissue()).resize((columns, rows), Image.Resampling.BOX)
    assert np.abs(whole.astype(int) - np.asarray(wanted)).mean() < 3
    edge = "line" if columns > rows else "column"
    assert (
        client.raw(f"/api/tile?slide=S-1&level={level}&column=0&line=0".replace(f"{edge}=0", f"{edge}=99"))[0]
        == 400
    )


def test_a_thin_tile_at_the_edge_shows_the_edge(tmp_path):
    pixels = np.full((600, 513, 3), 250, np.uint8)
    pixels[:, 512:] = (200, 30, 30)
    pixels[590:, 512:] = (30, 30, 200)
    path = tmp_path / "a.tiff"
    write_pyramid(path, pixels, mpp=0.25, quality=None)
    view = tiles.tile_view(513, 600, 10, 2, 2)
    assert (view.columns, view.rows) == (1, 88)
    with open_slide(path) as slide:
        read, unread = tiles.read_view(slide, view, 0)
    assert unread == 0 and read[0, 0].tolist() == [200, 30, 30] and read[-1, 0].tolist() == [30, 30, 200]


def test_a_level_that_shows_something_else_is_not_used(tmp_path):
    path = tmp_path / "a.tiff"
    write_pyramid(path, served.tissue(), mpp=0.25, quality=None)
    with open_slide(path) as slide:
        opened = tiles.Opened(slide)
        assert opened.level_for(slide, 1e9) == len(slide.levels) - 1 > 0
        opened.is_sound[len(slide.levels) - 1] = False
        assert opened.level_for(slide, 1e9) == len(slide.levels) - 2
        assert opened.level_for(slide, 1.0) == 0


def test_a_slide_that_is_gone_or_changed_is_said_and_its_cells_stay(client, results, tmp_path):
    _, tissue = client.get("/api/tissue?slide=S-2")
    assert not tissue["is_there"] and "not where it was" in tissue["problem"]
    assert client.raw("/api/tile?slide=S-2&level=0&column=0&line=0")[0] == 404
    assert client.raw("/api/cells?slide=S-2")[0] == 200
    served.make(tmp_path / "results", tmp_path)
    write_pyramid(tmp_path / "a.tiff", 255 - served.tissue(), mpp=0.25, quality=None)
    with served.serving(str(tmp_path / "results")) as address:
        client = Client(address)
        _, tissue = client.get("/api/tissue?slide=S-1")
        assert not tissue["is_there"] and "not the one that was scored" in tissue["problem"]
        assert tissue["is_changed"]
        at = "/api/tile?slide=S-1&level=11&column=1&line=1"
        assert client.raw(at)[0] == 404
        # Whoever asks for it sees the file that is there, and is told what it is.
        _, tissue = client.get("/api/tissue?slide=S-1&changed=true")
        assert tissue["is_there"] and "not the file that was scored" in tissue["problem"]
        shown = np.asarray(Image.open(io.BytesIO(client.raw(f"{at}&changed=true")[2])))
        wanted = 255 - served.tissue()[256:512, 256:512]
        assert np.abs(shown.astype(int) - wanted).mean() < 3
    # Of another size it cannot be laid under the cells at all.
    write_pyramid(tmp_path / "a.tiff", served.tissue(600, 700), mpp=0.25, quality=None)
    with served.serving(str(tmp_path / "results")) as address:
        _, tissue = Client(address).get("/api/tissue?slide=S-1&changed=true")
    assert not tissue["is_there"] and tissue["is_changed"] and "700 × 600 px" in tissue["problem"]


def test_outlines_and_cells_are_those_of_sql(client, results):
    _, found = client.get("/api/outlines?slide=S-1&x0=0&y0=0&x1=200&y1=150")
    rows = ask(
        results,
        "SELECT cell_id, area_px FROM cells WHERE slide_id = 'S-1' AND x < 199.5 AND y < 149.5 ORDER BY 1",
    )
    assert [(cell[0], cell[1]) for cell in found["cells"]] == rows
    outline = np.array(found["cells"][0][-1]).reshape(-1, 2)
    half = (rows[0][1] ** 0.5 - 1) / 2
    assert (
        outline.min(axis=0).tolist() == [20 - half, 20 - half]
        and outline.max(axis=0).tolist() == [21 + half] * 2
    )
    _, cell = client.get("/api/cell?slide=S-1&x=46&y=21")
    assert cell["cell_id"] == 1 and cell["place"] == [45, 20] and cell["area_px"] == rows[1][1]
    assert client.get("/api/cell?slide=S-1&x=1199&y=799")[1] is None


def test_the_index_at_other_cut_offs_is_what_sql_gives(client, results):
    cutoffs = {"size_thresh": 60, "marker_thresh": 200, "weak": 0.3, "moderate": 0.5, "strong": 0.9}
    _, found = client.post("/api/index", {"slide": "S-1", "cutoffs": cutoffs})
    given = "{'size_thresh': 60.0, 'marker_thresh': 200.0, 'weak': 0.3, 'moderate': 0.5, 'strong': 0.9}"
    wanted = ask(
        results,
        f"SELECT n_called, n_positive, index_percent, h_score FROM slide_indices(cutoffs := {given}) "
        f"JOIN (SELECT slide_id, h_score FROM slide_h_scores(cutoffs := {given})) USING (slide_id) "
        "WHERE slide_id = 'S-1'",
    )
    assert [tuple(found[name] for name in ("n_called", "n_positive", "index_percent", "h_score"))] == wanted


def test_hot_spots_are_those_of_the_command(client, results):
    from deepliif_ray import hot_spots

    _, found = client.post("/api/hot_spots", {"slide": "S-1", "count": 2, "cells": 100})
    wanted = hot_spots(results, marker="Ki67", slides=["S-1"], cells=100, count=2).to_pylist()
    assert [spot["share_percent"] for spot in found["spots"]] == [spot["share_percent"] for spot in wanted]


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/api/index", {"slide": "no such"}, "no such"),
        ("/api/index", {}, "which slide"),
        ("/api/index", {"slide": "S-1", "cutoffs": {"size": 3}}, "unknown cut-offs"),
        ("/api/index", {"slide": "S-1", "cutoffs": {"size_thresh": "a"}}, "no number"),
        ("/api/index", {"slide": "S-1", "cutoffs": {"size_thresh": 1e400}}, "no number"),
        ("/api/index", {"slide": "S-1", "cutoffs": {"weak": 0.9, "moderate": 0.2}}, "order"),
        ("/api/index", {"slide": "S-1", "region": "Nowhere"}, "Nowhere"),
        ("/api/index", {"slide": "' OR 1=1 --"}, "OR 1=1"),
        ("/api/correct", {"slide": "S-1", "call": "maybe", "place": [20, 20]}, "maybe"),
        ("/api/correct", {"slide": "S-1", "call": "positive", "polygon": [[0, 0], [5, 5]]}, "draw around"),
        ("/api/correct", {"slide": "S-1", "call": "positive", "polygon": [[0, 0], [1, 0], [0, 1]]}, "centre"),
        ("/api/correct", {"slide": "S-1", "call": "positive"}, "no corrections"),
        ("/api/regions", {"slide": "S-1", "regions": []}, "last regions"),
        ("/api/regions", {"slide": "S-1", "regions": 3}, "list"),
        ("/api/cutoffs", {"name": "../x", "marker": "Ki67", "values": {"weak": 0.1}}, "cannot name"),
        ("/api/cutoffs", {"name": "a", "marker": "Ki67", "values": {"heavy": 1}}, "unknown"),
        ("/api/undo", {"kind": "all", "import_id": "x"}, "neither"),
        ("/api/undo", {"kind": "corrections", "import_id": "20260101T000000000000-00000000"}, "import"),
        ("/api/sql", {"query": "DROP TABLE cells"}, ""),
        ("/api/sql", {"query": "SELECT * FROM read_csv('/etc/passwd')"}, ""),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said(client, results, path, body, says):
    before = sorted(Path(results).iterdir())
    status, answer = client.post(path, body)
    assert status == 400 and says in answer["error"] and "root:" not in answer["error"], answer
    assert sorted(Path(results).iterdir()) == before


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff"])
def test_a_body_that_is_none_is_said(client, body):
    headers = {"Content-Type": "application/json", HEADER: "1", "Origin": client.base}
    status, _, content = client.raw("/api/index", body, headers, "POST")
    assert status == 400 and "JSON" in json.loads(content)["error"]


def test_sql_gives_a_table_and_csv(client):
    columns = "slide_id, n_called, 'a,b' AS text, NULL AS nothing, 'NaN'::DOUBLE AS nan"
    query = f"SELECT {columns} FROM slide_counts ORDER BY 1"
    _, answer = client.post("/api/sql", {"query": query})
    assert (
        answer["n_rows"] == 3
        and answer["columns"][0] == "slide_id"
        and answer["rows"][0]["slide_id"] == HOSTILE
    )
    headers = {"Content-Type": "application/json", HEADER: "1", "Origin": client.base}
    _, _, content = client.raw("/api/sql", json.dumps({"query": query, "form": "csv"}).encode(), headers)
    lines = content.decode().splitlines()
    assert lines[0] == "slide_id,n_called,text,nothing,nan" and lines[2].split(",", 2)[2].startswith(
        '"a,b",,'
    )


# --- what is changed


def test_a_correction_counts_and_is_taken_back(tmp_path):
    results = served.make(tmp_path / "results", tmp_path)
    with served.serving(results) as address:
        client = Client(address)
        _, before = client.post("/api/index", {"slide": "S-1"})
        _, cell = client.get("/api/cell?slide=S-1&x=21&y=21")
        status, done = client.post(
            "/api/correct", {"slide": "S-1", "call": "not_a_cell", "place": cell["place"], "note": "dust"}
        )
        assert status == 200 and done["n_cells"] == 1
        said = ask(results, "SELECT cell_id, call, author, note FROM corrections WHERE is_current")
        assert said == [(cell["cell_id"], "not_a_cell", "A. Reader", "dust")]
        _, after = client.post("/api/index", {"slide": "S-1"})
        assert after["n_called"] == before["n_called"] - 1
        box = [[0, 0], [200, 0], [200, 200], [0, 200]]
        _, many = client.post(
            "/api/correct", {"slide": "S-1", "call": "positive", "polygon": box, "author": "B"}
        )
        inside = "x + 0.5 <= 200 AND y + 0.5 <= 200 AND slide_id = 'S-1'"
        called = ask(results, f"SELECT count(*), count_if(positive) FROM called_cells WHERE {inside}")
        assert called == [(many["n_cells"], many["n_cells"])]
        for done_ in (many, done):
            assert (
                client.post("/api/undo", {"kind": "corrections", "import_id": done_["import_id"]})[0] == 200
            )
        assert client.post("/api/index", {"slide": "S-1"})[1] == before


@pytest.mark.slow
def test_regions_come_back_as_they_were_drawn(tmp_path):
    results = served.make(tmp_path / "results", tmp_path)
    ring = [[100.5, 100], [400, 100], [400, 300.25], [100.5, 300.25], [100.5, 100]]
    region = {"class": "Tumor", "name": "left", "geometry": {"type": "Polygon", "coordinates": [ring]}}
    with served.serving(results) as address:
        client = Client(address)
        status, done = client.post("/api/regions", {"slide": "S-1", "regions": [region]})
        assert status == 200 and done["n_regions"] == 1, done
        _, slide = client.get("/api/slide?slide=S-1")
        (kept,) = slide["regions"]
        assert kept["class"] == "Tumor" and kept["name"] == "left" and kept["author"] == "A. Reader"
        assert sorted(map(tuple, kept["geometry"]["coordinates"][0])) == sorted(map(tuple, ring))
        _, headers, exported = client.raw("/api/regions?slide=S-1")
        assert "attachment" in headers["Content-Disposition"]
        _, inside = client.post("/api/index", {"slide": "S-1", "region": "Tumor"})
        wanted = ask(
            results, "SELECT n_called, n_positive FROM slide_counts(region := 'Tumor') WHERE slide_id = 'S-1'"
        )
        assert [(inside["n_called"], inside["n_positive"])] == wanted and wanted[0][0] > 0
        packed = client.raw("/api/cells?slide=S-1&region=Tumor")[2]
        assert len(packed) < len(client.raw("/api/cells?slide=S-1")[2])
        # Excluded, none of them counts.
        client.post("/api/regions", {"slide": "S-1", "regions": [kept | {"class": "Exclude"}]})
        _, rest = client.post("/api/index", {"slide": "S-1"})
        everywhere = ask(results, "SELECT n_called FROM slides WHERE slide_id = 'S-1'")[0][0]
        assert rest["n_called"] == everywhere - wanted[0][0]
        headers = {"Content-Type": "application/octet-stream", HEADER: "1", "Origin": client.base}
        status, _, content = client.raw("/api/regions_file?slide=S-1", exported, headers)
        assert status == 200, content
        assert client.get("/api/slide?slide=S-1")[1]["regions"][0]["class"] == "Tumor"
        done = json.loads(content)
        assert client.post("/api/undo", {"kind": "regions", "import_id": done["import_id"]})[0] == 200
        assert client.get("/api/slide?slide=S-1")[1]["regions"][0]["class"] == "Exclude"


def test_cut_offs_are_kept_by_name(tmp_path):
    results = served.make(tmp_path / "results", tmp_path)
    with served.serving(results) as address:
        client = Client(address)
        values = {"size_thresh": 60, "weak": 0.25, "moderate": 0.5, "strong": 0.75}
        asked = {"name": "mine", "marker": "Ki67", "values": values, "note": "by eye"}
        assert client.post("/api/cutoffs", asked)[0] == 200
        assert "choose another" in client.post("/api/cutoffs", asked)[1]["error"]
        assert [row["name"] for row in client.get("/api/slide?slide=S-1")[1]["sets"]] == ["QuPath", "mine"]
        _, found = client.post("/api/cutoff_set", {"slide": "S-1", "cutoffs": "mine"})
        assert {name: found[name] for name in values} == values
        _, index = client.post("/api/index", {"slide": "S-1", "cutoffs": values})
        wanted = ask(results, "SELECT n_called FROM slide_counts(cutoffs := 'mine') WHERE slide_id = 'S-1'")
        assert [(index["n_called"],)] == wanted


def test_read_only_pages_change_nothing(tmp_path):
    results = served.make(tmp_path / "results", tmp_path)
    with served.serving(results, read_only=True) as address:
        client = Client(address)
        for path in ("/api/correct", "/api/regions", "/api/undo", "/api/cutoffs"):
            status, answer = client.post(path, {"slide": "S-1"})
            assert status == 400 and "--read-only" in answer["error"], path
        assert client.get("/api/about")[1]["read_only"]


def test_a_folder_that_cannot_be_written_is_shown_and_says_why(tmp_path, monkeypatch):
    results = served.make(tmp_path / "results", tmp_path)

    def refuse(url, *_):
        raise StorageError(f"{url}: cannot be written (Read-only file system)")

    for name in ("write_bytes", "create_bytes"):
        monkeypatch.setattr(storage, name, refuse)
    region = {
        "class": "Tumor",
        "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [99, 0], [0, 99], [0, 0]]]},
    }
    asked = {
        "/api/correct": {"slide": "S-1", "call": "positive", "place": [20, 20]},
        "/api/regions": {"slide": "S-1", "regions": [region]},
        "/api/cutoffs": {"name": "mine", "marker": "Ki67", "values": {"size_thresh": 60}},
    }
    with served.serving(results) as address:
        client = Client(address)
        assert client.get("/api/cohort")[0] == 200
        for path, body in asked.items():
            status, answer = client.post(path, body)
            assert status == 400 and "cannot be written" in answer["error"], path


def test_two_may_look_at_once(results):
    with served.serving(results) as one, served.serving(results) as other:
        clients = Client(one), Client(other)
        assert clients[0].get("/api/cohort") == clients[1].get("/api/cohort")
        assert clients[0].base != clients[1].base


def test_hostile_names_are_only_text(client):
    slide = urllib.parse.quote(HOSTILE)
    status, answer = client.get(f"/api/slide?slide={slide}")
    assert status == 200 and answer["slide_id"] == HOSTILE
    _, headers, _ = client.raw(f"/api/slide?slide={slide}")
    assert headers["Content-Type"].startswith("application/json")
