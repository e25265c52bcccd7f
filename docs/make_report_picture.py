"""Write report/cohort.png: a report of results drawn at random, as Chromium shows it.

    python -m benchmarks.report drawn --patients 60 --output drawn.html
    python docs/make_report_picture.py drawn

It needs playwright and Chromium.
"""

import io
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import sync_playwright

from deepliif_ray.report.choice import Choice
from deepliif_ray.report.cohort import write_report

TARGET = Path(__file__).parent / "report" / "cohort.png"
CHROMIUM = "/usr/bin/chromium"
WIDTH, HEIGHT = 1360, 1230
COLOURS = 128


def main(results: str) -> None:
    """Make the report, and take a picture of its upper part."""
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = Path(folder) / "report.html"
        write_report(results, page, choice=Choice(marker="Ki67", pictures=0))
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        tab.goto(page.as_uri())
        tab.wait_for_selector("html[data-drawn]")
        shown = Image.open(io.BytesIO(tab.screenshot()))
        browser.close()
    shown.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(TARGET, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1])
