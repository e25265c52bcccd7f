"""Chromium as the tests of the viewer start it."""

import os
import shutil
import time
from typing import Any

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist",
]  # fmt: skip
"""GL in software; without a sandbox, which containers do not allow."""


def until(page: Any, expression: str, seconds: float = 30) -> Any:
    """Wait until an expression is true in a page; Playwright's own way breaks the page's security policy."""
    end = time.monotonic() + seconds
    while not (value := page.evaluate(f"() => {expression}")):
        assert time.monotonic() < end, expression
        time.sleep(0.03)
    return value
