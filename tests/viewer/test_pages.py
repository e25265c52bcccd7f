"""The pages as a person uses them, in Chromium. Slow ones take seven seconds and more each."""

from contextlib import contextmanager
from pathlib import Path

import pytest

from deepliif_ray import connect
from deepliif_ray.slides import write_pyramid
from tests.viewer import served
from tests.viewer.browser import ARGUMENTS, CHROMIUM, until
from tests.viewer.served import HOSTILE

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="Chromium is not installed")
_SLOW = ("GPU stall", "GL Driver Message", "Canvas2D: Multiple readback")


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as started:
        made = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield made
        made.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    results = served.make(folder / "results", folder)
    with served.serving(results) as address:
        yield results, address


@contextmanager
def page_of(chromium, address, path="", scheme="light", script=None, refused=None):
    """Yield a page on which nothing went wrong but what is to be refused, and which asked no other server."""
    context = chromium.new_context(viewport={"width": 1300, "height": 850}, color_scheme=scheme)
    page = context.new_page()
    base = address.partition("/?")[0]
    wrong = []
    page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "response",
        lambda answer: wrong.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None,
    )
    page.on("dialog", lambda dialog: wrong.append(f"dialog {dialog.message}"))
    page.on(
        "request",
        lambda asked: None if asked.url.startswith((base, "blob:", "data:")) else wrong.append(asked.url),
    )
    if script:
        page.add_init_script(script)
    page.goto(address)
    if path:
        page.goto(base + path)
    try:
        yield page
        if refused:
            assert any(refused in text for text in wrong)
            wrong = [text for text in wrong if refused not in text and "Failed to load resource" not in text]
        # Chromium says that software GL is slow, and that reading pixels is.
        assert [text for text in wrong if not any(known in text for known in _SLOW)] == []
    finally:
        context.close()


@contextmanager
def slide_of(chromium, address, slide="S-1", **more):
    with page_of(chromium, address, f"/#/slide/{slide}", **more) as page:
        until(page, "window.deepliif?.sql && !deepliif.cells.counting && !deepliif.cells.drawing")
        yield page


def sql(results, query):
    with connect(results) as connection:
        return connection.execute(query).fetchall()


def settled(page):
    page.wait_for_timeout(50)
    until(
        page,
        "!deepliif.cells.counting && !deepliif.cells.drawing && !deepliif.isAsking && !deepliif.isChanging",
    )


def on_screen(page, x, y):
    """Return where a level-0 place is on the screen."""
    return page.evaluate(
        """([x, y]) => {
          const item = deepliif.viewer.world.getItemAt(0);
          const { viewport } = deepliif.viewer;
          const at = viewport.viewportToViewerElementCoordinates(item.imageToViewportCoordinates(x, y));
          const box = deepliif.osd.getBoundingClientRect();
          return [box.left + at.x, box.top + at.y];
        }""",
        [x, y],
    )


# --- the cohort


@pytest.mark.slow
def test_the_cohort_is_sorted_searched_and_filtered(chromium, place):
    results, address = place
    with page_of(chromium, address) as page:
        page.wait_for_selector("tbody tr:not(.spacer)")
        page.locator(".bar button", has_text="Slides").click()
        rows = page.locator("tbody tr:not(.spacer)")
        assert rows.count() == 3
        page.get_by_role("button", name="Index %").focus()
        page.keyboard.press("Enter")
        heading = page.locator("th", has=page.get_by_role("button", name="Index %"))
        assert heading.get_attribute("aria-sort") == "ascending"
        page.keyboard.press("Space")
        assert heading.get_attribute("aria-sort") == "descending"
        shown = [rows.nth(n).locator("td").nth(3).inner_text() for n in range(3)]
        wanted = sql(results, "SELECT index_percent FROM slide_indices ORDER BY 1 DESC")
        assert shown == [f"{value:.1f}" for (value,) in wanted]
        page.get_by_role("searchbox").fill("S-2")
        assert rows.count() == 1 and rows.first.locator("a").inner_text() == "S-2"
        page.get_by_role("searchbox").fill("")
        (index,) = sql(results, "SELECT index_percent FROM patient_indices WHERE patient_id = 'P1'")[0]
        field = page.get_by_label("Ki67: from")
        field.fill(str(index - 0.01))
        field.press("Enter")
        page.get_by_label("Ki67: to").fill(str(index + 0.01))
        page.get_by_label("Ki67: to").press("Enter")
        assert [rows.nth(n).locator("a").inner_text() for n in range(rows.count())] == ["S-1"]
        page.get_by_role("button", name="Ki67: all").click()
        assert rows.count() == 3


def test_names_of_patients_are_text(chromium, place):
    _, address = place
    with page_of(chromium, address) as page:
        page.wait_for_selector("tbody tr:not(.spacer)")
        assert (
            page.get_by_role("button", name=HOSTILE).count() == 1 and page.locator("tbody img").count() == 0
        )
        page.get_by_role("button", name=HOSTILE).click()
        page.locator("tbody a", has_text="onerror").click()
        page.wait_for_selector(".panel h1")
        assert page.locator("h1").inner_text() == HOSTILE


@pytest.mark.slow
def test_thousands_of_rows_are_few_in_the_page(chromium, place):
    _, address = place
    many = """
      const real = window.fetch;
      window.fetch = async (path, ...rest) => {
        const answer = await real(path, ...rest);
        if (!String(path).startsWith("/api/cohort")) return answer;
        const cohort = await answer.json();
        const grow = (columns, name) => {
          for (const key of Object.keys(columns)) columns[key] = new Array(5000).fill(columns[key][0]);
          for (const key of name) columns[key] = columns[key].map((_, n) => `${key}-${n}`);
        };
        grow(cohort.slides, ["slide_id", "patient_id"]);
        grow(cohort.patients, ["patient_id"]);
        return new Response(JSON.stringify(cohort));
      };"""
    with page_of(chromium, address, script=many) as page:
        page.wait_for_selector("tbody tr:not(.spacer)")
        box = page.locator(".table")
        assert page.locator("table").get_attribute("aria-rowcount") == "5001"
        assert page.locator("tbody tr").count() < 120
        box.evaluate("(box) => { box.scrollTop = 1e9; }")
        until(page, "document.querySelector('tbody').textContent.includes('patient_id-4999')")
        assert page.locator("tbody tr").count() < 120


# --- a slide


def test_a_slider_moves_the_index_without_a_request_and_sql_agrees(chromium, place):
    results, address = place
    with slide_of(chromium, address) as page:
        called, positive, index = sql(
            results, "SELECT n_called, n_positive, index_percent FROM slide_indices WHERE slide_id = 'S-1'"
        )[0]
        assert page.locator(".big").inner_text() == f"{index:.2f} %"
        assert f"{positive:,} of {called:,} cells" in page.locator(".panel").inner_text()
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        slider = page.get_by_role("slider", name="Larger than, px")
        for value in (20, 60, 61, 120, 90):
            page.evaluate(f"deepliif.cutoffs.set('size_thresh', {value}, false)")
            settled(page)
            wanted = sql(
                results,
                f"SELECT index_percent FROM slide_indices(cutoffs := {{'size_thresh': {value}}}) "
                "WHERE slide_id = 'S-1'",
            )[0][0]
            assert page.locator(".big").inner_text() == f"{wanted:.2f} %", value
        assert [
            url for url in asked if "/api/" in url and "/outlines" not in url and "/tile" not in url
        ] == []
        slider.focus()
        page.keyboard.press("ArrowRight")  # releases it as well
        settled(page)
        assert page.evaluate("deepliif.cutoffs.values.size_thresh") == 91
        assert page.evaluate("deepliif.sql.index_percent") == page.evaluate("deepliif.shownIndex")
        assert any("/api/index" in url for url in asked)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["marker_thresh", "od_thresh_lower", "od_thresh_upper", "size_thresh_upper"])
def test_optional_cut_offs(chromium, place, name):
    _, address = place
    with slide_of(chromium, address) as page:
        before = page.evaluate("deepliif.shownIndex")
        label = {
            "marker_thresh": "Marker above",
            "od_thresh_lower": "OD × 100 from",
            "od_thresh_upper": "OD × 100 up to",
        }
        page.get_by_label(f"{label.get(name, 'Smaller than, px')}: use it").check()
        page.evaluate(f"deepliif.cutoffs.set('{name}', 70, true)")
        settled(page)
        found = page.evaluate(
            "[deepliif.shownIndex, deepliif.sql.index_percent, deepliif.totals.called, deepliif.sql.n_called]"
        )
        assert found[0] == pytest.approx(found[1]) and found[2] == found[3] and found[0] != before
        page.get_by_role("button", name="Defaults").click()
        settled(page)
        assert page.evaluate("deepliif.shownIndex") == before == page.evaluate("deepliif.sql.index_percent")


@pytest.mark.slow
def test_counts_are_the_same_whatever_way_the_sliders_went(chromium, place):
    _, address = place
    with slide_of(chromium, address) as page:
        page.evaluate(
            """async () => {
              const names = ["size_thresh", "marker_thresh", "od_thresh_lower", "od_thresh_upper"];
              names.push("weak", "strong");
              let seed = 1;
              const next = (most) => { seed = (seed * 48271) % 2147483647; return seed % most; };
              const layer = deepliif.cells;
              layer.isFar = () => true; // squares as well
              window.wrong = [];
              for (let n = 0; n < 120; n += 1) {
                const name = names[next(names.length)];
                const value = name === "weak" || name === "strong" ? next(120) / 100 : next(n % 3 ? 30 : 200);
                deepliif.cutoffs.set(name, value, false);
                while (layer.counting || layer.drawing) await new Promise((done) => setTimeout(done, 1));
                const { limits } = layer;
                let [called, positive] = [0, 0];
                const { callOf } = await import("/static/calls.js");
                const c = layer.cells;
                for (let i = 0; i < c.count; i += 1) {
                  const call = callOf(limits, c.area[i], c.od[i], c.dab[i], c.marker[i], c.flags[i]);
                  if (call >= 0) { called += 1; positive += call >> 2; }
                }
                const sum = (all) => all.reduce((a, b) => a + b, 0);
                const { totals } = deepliif;
                const found = [totals.called, sum(layer.squares.called), sum(totals.strengths)];
                const stained = [totals.positive, sum(layer.squares.positive)];
                if (found.some((count) => count !== called) || stained.some((count) => count !== positive)) {
                  window.wrong.push([n, name, value, totals, called, positive, sum(layer.squares.called)]);
                }
              }
            }"""
        )
        assert page.evaluate("wrong.slice(0, 1)") == []


@pytest.mark.slow
def test_strength_shows_the_h_score(chromium, place):
    _, address = place
    with slide_of(chromium, address) as page:
        page.get_by_role("button", name="Strength").click()
        page.evaluate("deepliif.cutoffs.set('moderate', 0.29, true)")
        settled(page)
        assert page.evaluate("deepliif.shownH") == pytest.approx(page.evaluate("deepliif.sql.h_score"))
        assert page.locator(".big").inner_text().startswith("H ")


PIXELS = """
([x, y]) => {
  const layer = deepliif.cells;
  layer.haveOutlines = () => false;
  layer.paint();
  const view = layer.view();
  const { a, b, c, d } = view.matrix;
  const [dx, dy] = [x - view.middle.x, y - view.middle.y];
  const [left, top] = [a * dx + c * dy, b * dx + d * dy];
  const canvas = layer.canvases[0];
  const at = [Math.round(canvas.width / 2 + left), Math.round(canvas.height / 2 + top)];
  const pixel = new Uint8Array(4);
  const gl = layer.points.gl;
  if (gl) gl.readPixels(at[0], canvas.height - 1 - at[1], 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
  else pixel.set(layer.points.context.getImageData(at[0], at[1], 1, 1).data);
  return [layer.how, layer.points.kind, [...pixel]];
}"""
NO_WEBGL = """
const real = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
  return kind === "webgl2" ? null : real.call(this, kind, ...rest);
};"""


@pytest.mark.slow
@pytest.mark.parametrize("script", [None, NO_WEBGL], ids=["webgl", "without"])
def test_cells_are_drawn_where_they_are_in_their_colours(chromium, place, script):
    results, address = place
    rows = sql(
        results,
        "SELECT c.x + 0.5, c.y + 0.5, k.positive FROM cells AS c "
        "LEFT JOIN called_cells(cutoffs := {'size_thresh': 60}) AS k USING (slide_id, cell_id) "
        "WHERE c.slide_id = 'S-1' AND c.cell_id % 97 = 0",
    )
    with slide_of(chromium, address, script=script) as page:
        page.evaluate("deepliif.cutoffs.set('size_thresh', 60, true)")
        for turn in (0, 90):
            page.evaluate(f"deepliif.viewer.viewport.setRotation({turn}, true)")
            page.evaluate("deepliif.viewer.viewport.goHome(true)")
            settled(page)
            for x, y, positive in rows:
                how, kind, pixel = page.evaluate(PIXELS, [x, y])
                assert how == "points" and kind == ("2d" if script else "webgl2")
                strongest = max(range(3), key=lambda n: pixel[n])
                shown = None if pixel[3] == 0 else strongest == 0
                assert shown is positive, (turn, x, y, pixel)


OUTLINED = """
() => {
  const canvas = deepliif.cells.canvases[1];
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const seen = { red: 0, blue: 0 };
  for (let n = 0; n < data.length; n += 4) {
    if (data[n + 3] > 200 && data[n] > 200 && data[n + 2] < 50) seen.red += 1;
    if (data[n + 3] > 200 && data[n + 2] > 200 && data[n] < 50) seen.blue += 1;
  }
  return seen;
}"""


@pytest.mark.slow
def test_outlines_are_drawn_near_by(chromium, place):
    _, address = place
    with slide_of(chromium, address) as page:
        page.evaluate(
            "() => { const v = deepliif.viewer.viewport; v.zoomTo(v.imageToViewportZoom(2), null, true); }"
        )
        until(page, "deepliif.cells.how === 'outlines'")
        drawn = page.evaluate(OUTLINED)
        assert drawn["red"] > 100 and drawn["blue"] > 100


EDGES = """
() => {
  const canvas = document.querySelector(".openseadragon-canvas canvas");
  const context = canvas.getContext("2d");
  const [right, bottom] = [canvas.width - 1, canvas.height - 1];
  const corners = [[0, 0], [right, 0], [0, bottom], [right, bottom]];
  return corners.map(([x, y]) => context.getImageData(x, y, 1, 1).data[3]);
}"""


@pytest.mark.slow
def test_tissue_reaches_the_edges_of_the_stage(chromium, place):
    _, address = place
    with slide_of(chromium, address) as page:
        page.evaluate("deepliif.viewer.viewport.zoomBy(4.3, null, true)")
        # Tiles come one after another and fade in, so the canvas is looked at until they are there.
        until(page, f"({EDGES.strip()})().every((alpha) => alpha === 255)")


@pytest.mark.slow
def test_a_slide_that_is_gone_is_white_with_its_cells(chromium, place):
    _, address = place
    with slide_of(chromium, address, "S-2") as page:
        assert "not where it was" in page.locator(".alarm").first.inner_text()
        assert page.evaluate(PIXELS, [45.5, 20.5])[0] == "points"
        assert page.evaluate("deepliif.totals.called === deepliif.sql.n_called")


@pytest.mark.slow
def test_a_changed_slide_is_offered_with_a_warning_and_without_cells(chromium, tmp_path):
    results = served.make(tmp_path / "results", tmp_path)
    write_pyramid(tmp_path / "a.tiff", 255 - served.tissue(), mpp=0.25, quality=None)
    with served.serving(results) as address, slide_of(chromium, address) as page:
        assert page.evaluate(PIXELS, [45.5, 20.5])[0] == "points"  # on white
        page.get_by_role("button", name="Show the file that is there now").click()
        page.wait_for_selector(".banner")
        assert "not the file that was scored" in page.locator(".banner").inner_text()
        until(page, "deepliif.viewer.world.getItemAt(0)?.getFullyLoaded()")
        settled(page)
        assert page.evaluate("deepliif.cells.how") == "none"
        page.get_by_role("button", name="Cells", exact=True).click()
        settled(page)
        assert page.evaluate("deepliif.cells.how") != "none" and page.locator(".banner").is_visible()


@pytest.mark.slow
def test_the_scale_bar_tells_micrometres(chromium, place):
    _, address = place
    with slide_of(chromium, address) as page:
        told, width = page.evaluate(
            "(({ textContent, lastChild }) => [textContent, lastChild.getBoundingClientRect().width])"
            "(deepliif.scaleBar)"
        )
        number, unit = told.split()
        left, right = on_screen(page, 0, 0)[0], on_screen(page, 1000, 0)[0]
        um = float(number) * {"µm": 1, "mm": 1000}[unit]
        assert width == pytest.approx(um / 0.25 * (right - left) / 1000, abs=1.5)


# --- work


def test_a_click_corrects_a_cell(chromium, tmp_path):
    results = served.make(tmp_path / "results", tmp_path)
    with served.serving(results) as address, slide_of(chromium, address) as page:
        before = page.evaluate("deepliif.sql.n_called")
        page.mouse.click(*on_screen(page, 45.5, 20.5))
        until(page, "deepliif.corrections.cell")
        assert page.evaluate("deepliif.corrections.cell.cell_id") == 1
        page.get_by_label("Note on the correction").fill("a <b>speck</b>")
        page.get_by_role("button", name="Not a cell").click()
        until(page, "deepliif.corrections.kept.length === 1")
        settled(page)
        assert sql(results, "SELECT cell_id, call, author, note FROM corrections WHERE is_current") == [
            (1, "not_a_cell", "A. Reader", "a <b>speck</b>")
        ]
        assert page.evaluate("deepliif.sql.n_called") in (before - 1, before)
        assert page.evaluate("deepliif.totals.called === deepliif.sql.n_called")
        page.get_by_role("button", name="Undo", exact=True).click()
        until(page, "deepliif.corrections.kept.length === 0")
        settled(page)
        assert sql(results, "SELECT count(*) FROM corrections") == [(0,)]
        assert page.evaluate("deepliif.sql.n_called") == before


@pytest.mark.slow
def test_a_lasso_corrects_many(chromium, tmp_path):
    results = served.make(tmp_path / "results", tmp_path)
    with served.serving(results) as address, slide_of(chromium, address) as page:
        page.get_by_role("button", name="Lasso").click()
        corners = [
            on_screen(page, x, y) for x, y in [(110, 110), (310, 110), (310, 260), (110, 260), (110, 115)]
        ]
        page.mouse.move(*corners[0])
        page.mouse.down()
        for corner in corners[1:]:
            page.mouse.move(*corner, steps=6)
        page.mouse.up()
        until(page, "deepliif.corrections.line")
        page.get_by_role("button", name="Positive", exact=True).click()
        until(page, "deepliif.corrections.kept.length === 1")
        settled(page)
        inside = "slide_id = 'S-1' AND x BETWEEN 120 AND 300 AND y BETWEEN 120 AND 250"
        called, positive = sql(
            results, f"SELECT count(*), count_if(positive) FROM called_cells WHERE {inside}"
        )[0]
        assert called == positive > 20
        until(page, "deepliif.totals.positive === deepliif.sql.n_positive")


@pytest.mark.slow
def test_regions_are_drawn_edited_kept_and_counted(chromium, tmp_path):
    results = served.make(tmp_path / "results", tmp_path)
    with served.serving(results) as address, slide_of(chromium, address) as page:
        page.get_by_role("button", name="Draw", exact=True).click()
        corners = [
            on_screen(page, x, y) for x, y in [(100, 100), (500, 100), (500, 400), (100, 400), (100, 104)]
        ]
        page.mouse.move(*corners[0])
        page.mouse.down()
        for corner in corners[1:]:
            page.mouse.move(*corner, steps=8)
        page.mouse.up()
        until(page, "deepliif.regions.list.length === 1")
        page.get_by_role("button", name="Save regions").click()
        until(page, "deepliif.regions.kept.length === 1")
        (area, name, author) = sql(results, "SELECT area_mm2, class, author FROM regions")[0]
        assert area == pytest.approx(400 * 300 * 0.25**2 / 1e6, rel=0.03) and (name, author) == (
            "Tumor",
            "A. Reader",
        )
        page.get_by_label("Count in").select_option("Tumor")
        settled(page)
        until(
            page,
            "deepliif.cells.asked.region === 'Tumor' && deepliif.totals.called === deepliif.sql.n_called",
        )
        wanted = sql(results, "SELECT n_called FROM slide_counts(region := 'Tumor') WHERE slide_id = 'S-1'")[
            0
        ][0]
        assert page.evaluate("deepliif.totals.called") == wanted
        # A corner is moved, and the region is larger.
        page.get_by_role("button", name="Edit", exact=True).click()
        page.mouse.move(*corners[1])
        page.mouse.down()
        page.mouse.move(*on_screen(page, 700, 60), steps=4)
        page.mouse.up()
        page.get_by_role("button", name="Save regions").click()
        until(page, "deepliif.regions.kept.length === 2")
        assert sql(results, "SELECT area_mm2 FROM regions")[0][0] > 1.2 * area
        page.get_by_role("button", name="Undo saving").click()
        until(page, "deepliif.regions.kept.length === 1")
        assert sql(results, "SELECT area_mm2 FROM regions")[0][0] == area


@pytest.mark.slow
def test_cut_offs_are_saved_and_taken(chromium, tmp_path):
    results = served.make(tmp_path / "results", tmp_path)
    with served.serving(results) as address, slide_of(chromium, address, refused="/api/cutoffs") as page:
        page.evaluate("deepliif.cutoffs.set('size_thresh', 77, true)")
        page.get_by_label("Name for these cut-offs").fill("mine")
        page.get_by_role("button", name="Save cut-offs").click()
        until(page, "document.getElementById('told').textContent.includes('mine')")
        settled(page)
        shown = page.evaluate("deepliif.totals.called")
        assert sql(
            results, "SELECT n_called FROM slide_counts(cutoffs := 'mine') WHERE slide_id = 'S-1'"
        ) == [(shown,)]
        page.get_by_role("button", name="Defaults").click()
        page.get_by_label("Named cut-offs").select_option("mine")
        until(page, "deepliif.cutoffs.values.size_thresh === 77")
        page.get_by_role("button", name="Save cut-offs").click()
        until(page, "document.getElementById('told').textContent.includes('choose another')")


@pytest.mark.slow
def test_hot_spots_are_found_and_shown(chromium, place):
    _, address = place
    with slide_of(chromium, address) as page:
        page.get_by_label("Cells of a hot spot").fill("100")
        page.get_by_role("button", name="Find").click()
        until(page, "deepliif.spots.length > 0")
        page.get_by_role("button", name="Show", exact=True).first.click()
        # The view moves to it, as far as the slide reaches.
        until(
            page,
            "((at, spot) => Math.hypot(at.x - spot.x, at.y - spot.y) < 100)"
            "(deepliif.cells.view().middle, deepliif.spots[0])",
        )


@pytest.mark.slow
def test_the_keyboard_is_enough(chromium, tmp_path):
    results = served.make(tmp_path / "results", tmp_path)
    with served.serving(results) as address, page_of(chromium, address) as page:
        page.wait_for_selector("tbody tr:not(.spacer)")

        def reach(name):
            for _ in range(90):
                page.keyboard.press("Tab")
                said = page.evaluate(
                    "((at) => at.ariaLabel ?? at.textContent.trim())(document.activeElement)"
                )
                if said.startswith(name):
                    return
            raise AssertionError(f"Tab does not lead to {name}")

        reach("Slides")
        page.keyboard.press("Enter")
        reach("S-1")
        page.keyboard.press("Enter")
        until(page, "window.deepliif?.sql && !deepliif.cells.counting")
        zoom = page.evaluate("deepliif.viewer.viewport.getZoom()")
        reach("Zoom in")
        page.keyboard.press("Enter")
        until(page, f"deepliif.viewer.viewport.getZoom() > {1.2 * zoom}")
        reach("Larger than, px")
        page.keyboard.press("ArrowRight")
        settled(page)
        assert page.evaluate("deepliif.cutoffs.values.size_thresh") == 4
        reach("Select the view")
        page.keyboard.press("Enter")
        for _ in range(7):
            page.keyboard.press("Shift+Tab")
        reach("Negative")
        page.keyboard.press("Enter")
        until(page, "deepliif.corrections.kept.length === 1")
        assert sql(results, "SELECT DISTINCT call FROM corrections") == [("negative",)]
        reach("Add the view")
        page.keyboard.press("Enter")
        reach("Save regions")
        page.keyboard.press("Enter")
        until(page, "deepliif.regions.kept.length === 1")
        assert sql(results, "SELECT class FROM regions") == [("Tumor",)]


def test_sql_is_answered_as_a_table(chromium, place):
    _, address = place
    with page_of(chromium, address, "/#/sql") as page:
        page.get_by_label("SQL", exact=True).fill(
            "SELECT slide_id, n_called FROM slide_counts ORDER BY slide_id"
        )
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("tbody tr:not(.spacer)")
        assert (
            page.locator("tbody tr:not(.spacer)").count() == 3
            and HOSTILE in page.locator("tbody").inner_text()
        )
        with page.expect_download() as saved:
            page.get_by_role("button", name="CSV").click()
        assert "slide_id,n_called" in Path(saved.value.path()).read_text()


def test_a_mistake_in_sql_is_said(chromium, place):
    _, address = place
    with page_of(chromium, address, "/#/sql", refused="/api/sql") as page:
        page.get_by_label("SQL", exact=True).fill("SELEC 1")
        page.get_by_role("button", name="Run").click()
        page.wait_for_selector("p.alarm")
        assert "SELEC" in page.locator("p.alarm").inner_text()


@pytest.mark.parametrize(
    ("path", "scheme"),
    [
        ("/#/", "light"),
        ("/#/slide/S-1", "dark"),
        *(
            pytest.param(path, scheme, marks=pytest.mark.slow)
            for path, scheme in (
                ("/#/", "dark"),
                ("/#/slide/S-1", "light"),
                ("/#/sql", "light"),
                ("/#/sql", "dark"),
            )
        ),
    ],
)
def test_axe_finds_no_serious_fault(chromium, place, path, scheme):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    )
    _, address = place
    with page_of(chromium, address, path, scheme=scheme) as page:
        page.wait_for_selector("h1")
        page.wait_for_timeout(1500)
        found = axe.Axe().run(page).response["violations"]
        serious = [
            (fault["id"], [node["html"][:200] for node in fault["nodes"]][:3])
            for fault in found
            if fault["impact"] in ("serious", "critical")
        ]
        assert serious == []
