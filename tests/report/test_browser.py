"""A report in a real browser: it loads nothing and breaks nothing, and the keyboard sorts and filters it."""

import random
import shutil

import pytest

from deepliif_ray.report import numbers
from tests.few import few
from tests.report.cohorts import HOSTILE, report, write_cohort

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("Chromium is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    root, folder = (tmp_path_factory.mktemp(name) for name in ("results", "report"))
    write_cohort(str(root))
    report(root, folder)
    return folder / "report.html"


@pytest.fixture
def page(browser, file):
    tab = browser.new_page()
    tab.complaints, tab.requests = [], []
    tab.on("console", lambda message: tab.complaints.append(message.text))
    tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
    tab.on("dialog", lambda dialog: tab.complaints.append(dialog.message) or dialog.dismiss())
    tab.on("request", lambda request: tab.requests.append(request.url))
    tab.goto(file.as_uri())
    tab.wait_for_selector("html[data-drawn]")
    yield tab
    tab.close()


def test_it_loads_nothing_and_no_script_of_others_runs(page, file):
    assert page.complaints == []
    assert [url for url in page.requests if not url.startswith("data:")] == [file.as_uri()]
    assert page.locator(f"text={HOSTILE.split('>')[0]}").count() >= 1
    assert page.locator("img").count() == 0
    # Its policy stops what would run or load, even if it came in.
    for name, holds in (("script", "{textContent: 'window.ran = 1'}"), ("img", "{src: 'http://[::1]:9/'}")):
        page.evaluate(f"document.body.append(Object.assign(document.createElement('{name}'), {holds}))")
    page.wait_for_timeout(100)
    assert page.evaluate("window.ran") is None and len(page.complaints) == 2


def test_every_plot_is_drawn_and_named(page):
    plots = page.locator(".plot svg[aria-label]")
    for number in range(page.locator(".plot").count()):
        page.locator(".plot").nth(number).scroll_into_view_if_needed()
        page.wait_for_selector(f":nth-match(.plot, {number + 1}) svg[aria-label]")
    assert plots.count() == page.locator(".plot").count() >= 12
    assert page.evaluate(
        "[...document.querySelectorAll('.plot > svg, .plot > figure')].every((e) => e.innerHTML.length > 500)"
    )
    # Bars of the waterfall are as high as indices: the highest of CD3 first.
    tall = page.evaluate(
        "() => { const s = document.querySelector('[data-plot=waterfall][data-marker=\"0\"] svg');"
        "return [...s.querySelectorAll('g[aria-label=rect] rect')].map((r) => r.getBBox().height); }"
    )
    shown = page.evaluate(
        "data.indices.index_percent.filter((v, at) => v !== null && data.indices.marker[at] === 0)"
    )
    scale = tall[0] / max(shown)
    assert tall == pytest.approx([scale * value for value in sorted(shown, reverse=True)], abs=0.6)


def test_only_plots_near_by_are_drawn_at_first(page):
    drawn = page.evaluate(
        "[...document.querySelectorAll('.plot')]"
        ".map((e) => [e.getBoundingClientRect().top, e.childElementCount])"
    )
    near = [count for top, count in drawn if top < page.viewport_size["height"] + 500]  # 600 are drawn ahead
    assert near and all(near)
    assert [count for top, count in drawn if top > page.viewport_size["height"] + 2000].count(0) > 0


def column(page, at):
    return page.locator(f"#matrix tbody tr > :nth-child({at})").all_inner_texts()


@pytest.mark.slow
def test_the_keyboard_sorts(page):
    head = page.locator("#matrix thead th").nth(3)  # Ki67
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    told = page.evaluate("data.markers")
    assert head.inner_text().strip() == "Ki67" == told[2]
    falling = [text.split("\n")[0] for text in column(page, 4)]
    values = [float(text) for text in falling if text[0].isdigit()]
    assert values == sorted(values, reverse=True) and len(values) >= 12
    assert all(not text[0].isdigit() for text in falling[len(values) :])
    page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "ascending"
    rising = [text.split("\n")[0] for text in column(page, 4)]
    assert [float(text) for text in rising[: len(values)]] == sorted(values)
    other = page.locator("#markers table thead th").nth(1)
    other.locator("button").focus()
    page.keyboard.press("Enter")
    counts = page.locator("#markers table tbody td:nth-child(2)").all_inner_texts()
    assert (
        counts == sorted(counts, key=int, reverse=True) and other.get_attribute("aria-sort") == "descending"
    )


def test_the_keyboard_searches_and_filters(page):
    everyone = len(column(page, 1))
    page.get_by_label("Find a patient").focus()
    page.keyboard.type("p-HE")
    assert column(page, 1) == ["P-he"]
    assert page.locator("#matrix .count").inner_text() == f"1 of {everyone} patients"
    assert "not_hematoxylin_dab" in page.locator("#matrix tbody").inner_text()
    page.keyboard.press("Control+A")
    page.keyboard.press("Backspace")
    page.get_by_label("Show patients").select_option(label="with an unknown index")
    assert sorted(column(page, 1)) == ["P-lost", "P-none"]
    shown = page.locator("#matrix tbody").inner_text()
    assert "no cell was counted" in shown and "failed: missing" in shown
    page.get_by_label("Show patients").select_option(label="all")
    page.locator("#matrix select").nth(1).select_option(label="Ki67: low")
    assert 0 < len(column(page, 1)) < everyone
    page.get_by_label("Rows on a page").first.select_option(label="50")
    page.locator("#flagged select").first.select_option(label="pen")
    assert page.locator("#flagged tbody tr").count() == 1


def test_numbers_are_written_as_in_python(page):
    draw = random.Random(1)
    values = [draw.uniform(-100, 100) for _ in range(300)] + [n / 16 for n in range(-40, 40)] + [0.0, 100.0]
    for digits in (0, 1, 2, 3):
        written = page.evaluate(
            "([values, digits]) => values.map((value) => fixed(value, digits))", [values, digits]
        )
        assert written == [numbers.fixed(value, digits) for value in values]
    assert page.evaluate("[fixed(null), whole(null), whole(1234567)]") == ["unknown", "unknown", "1,234,567"]


def test_it_prints_with_all_plots(browser, file, tmp_path):
    tab = browser.new_page()
    tab.goto(file.as_uri())
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.locator(".plot svg[aria-label]").count() == tab.locator(".plot").count()
    printed = tab.pdf(prefer_css_page_size=True)
    assert printed.startswith(b"%PDF") and len(printed) > 50_000
    tab.close()


@pytest.mark.parametrize("scheme", few(["light", "dark"], 1))
def test_text_can_be_told_from_its_ground(browser, file, scheme):
    tab = browser.new_page(color_scheme=scheme)
    tab.goto(file.as_uri())
    tab.wait_for_selector("html[data-drawn]")
    worst = tab.evaluate(CONTRAST)
    assert worst[0] >= 4.5, worst
    tab.add_style_tag(content=".lead { opacity: 0.4 }")
    assert tab.evaluate(CONTRAST)[0] < 4.5, "this finds what is too pale"
    tab.close()


CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] + below[i] * (1 - top[3]));
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => [r, g, b].map((v) => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  let worst = [21, ''];
  for (const element of document.querySelectorAll('main *, header *, footer *, nav *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const hidden = element.closest('svg, noscript') || element.disabled || !element.getClientRects().length;
    if (!own || hidden) continue;
    const chain = [];
    let opacity = 1;
    for (let at = element; at; at = at.parentElement) {
      chain.unshift(getComputedStyle(at).backgroundColor);
      opacity *= Number(getComputedStyle(at).opacity);
    }
    const ground = chain.reduce((below, colour) => over(rgba(colour), below), [255, 255, 255]);
    const text = rgba(getComputedStyle(element).color);
    const seen = over([...text.slice(0, 3), text[3] * opacity], ground);
    const [a, b] = [light(seen), light(ground)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst[0]) worst = [ratio, element.className + ': ' + element.textContent.slice(0, 40)];
  }
  return worst;
}"""
