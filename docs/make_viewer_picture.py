"""Write pictures/viewer.jpg: a slide of the demonstration in the viewer.

deepliif-ray demo demo; python docs/make_viewer_picture.py demo
"""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.viewer.browser import ARGUMENTS, CHROMIUM, until
from tests.viewer.served import serving

TARGET = Path(__file__).with_name("pictures") / "viewer.jpg"
SLIDE = "P02-Ki67"


def main(demo: Path) -> None:
    """Write the picture of the demonstration in the folder ``demo``."""
    with serving(str(demo / "results")) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1200, "height": 720})
        page.goto(address)
        page.goto(f"{address.partition('/?')[0]}/#/slide/{SLIDE}")
        until(page, "window.deepliif?.sql")
        page.evaluate("deepliif.viewer.viewport.zoomBy(4, null, true)")
        until(page, "deepliif.cells.how === 'outlines'")
        page.wait_for_timeout(2000)
        # Where the results lie on this machine is nobody's business.
        page.evaluate(
            "(name) => (document.getElementById('results').textContent = name)", f"{demo.name}/results"
        )
        Image.open(io.BytesIO(page.screenshot())).convert("RGB").save(TARGET, quality=72, optimize=True)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
