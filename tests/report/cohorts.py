"""Results to report of, and what a report says, read back."""

import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser

from deepliif_ray.report.choice import Choice
from deepliif_ray.report.cohort import write_report
from tests.annotations.files import cell_at
from tests.query import fake_results as fake

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;{{7*7}}<!--\u2028\u202e"
DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)
NOW = datetime(2026, 3, 1, 10, 15, tzinfo=UTC)
NO_PICTURES = Choice(pictures=0)
GOOD = {
    "focus": 900.0,
    "tissue_percent": 60.0,
    "pen_percent": 0.0,
    "hematoxylin_od": 0.12,
    "dab_od": 0.1,
    "counterstain_od": 0.3,
    "stain_residual": 0.01,
    "background_grey": 240.0,
    "background_cast": 3.0,
    "n_tiles_bad": 0,
    "nucleus_area_um2": 34.0,
    "small_percent": 1.0,
}


def cells(count, positive, first=0):
    """Return cells over 800 × 600 px, of which so many are positive."""
    made = []
    for number in range(count):
        x, y = 20 + (number * 37) % 780, 20 + (number * 53) % 560
        yes = number < positive
        more = {"majority_positive": yes, "positive_px": 121 * yes, "x_um": x / 4, "y_um": y / 4}
        grade = {
            "dab_od_mean": (0.25, 0.45, 0.65)[number % 3] if yes else 0.05,
            "od_mean": 40.0 + number % 50,
        }
        made.append(cell_at(first + number, x, y, **more, **grade, marker_max=250 if yes else 10))
    return made


def commit(root, slide, patient, marker, count, positive, *, site="North", **more):
    said = {"patient_id": patient, "marker": marker, "attributes": [("site", site)]}
    said |= GOOD | {"slide_version": "v", "slide_fingerprint": slide, "attempt": fake.slide_key(slide)[-8:]}
    return fake.commit(root, slide, cells(count, positive), **(said | more))


def write_cohort(root):
    """Write results with all that a report has to tell."""
    for number in range(10):
        patient, site = f"P{number:02d}", ("North", "South")[number % 2]
        commit(root, f"K{number:02d}a", patient, "Ki67", 600, 30 + 12 * number, site=site)
        commit(root, f"K{number:02d}b", patient, "Ki67", 550, 25 + 12 * number, site=site)
        commit(root, f"C{number:02d}", patient, "CD3", 120, 8 * number, site=site, second=number)
    commit(root, "out", "P-out", "CD3", 100, 1, site="South", focus=3.0)
    commit(root, "few", "P-few", "Ki67", 40, 20, pen_percent=2.0)
    commit(root, "none", "P-none", "Ki67", 0, 0)
    commit(root, "eosin", "P-he", "Ki67", 600, 300, stain_residual=0.5, warnings=["an <b>odd</b> slide"])
    commit(root, f"S{HOSTILE}", f"P{HOSTILE}", "ER", 120, 60, site=HOSTILE, dab_od=None, focus=float("nan"))
    fake.fail(root, "lost", patient_id="P-lost", marker="ER", reason="missing", message=f"gone {HOSTILE}")
    fake.fail(root, "K99", patient_id="P00", marker="Ki67", reason="corrupt", stage="read", message="torn")
    ended = {"status": "finished", "finished_at": fake.moment(90), "config": '{"seg_thresh":120}'}
    counts = {"n_slides": 37, "n_scored": 35, "n_skipped": 0, "n_failed": 2, "n_tiles": 140, "n_cells": 9000}
    spent = dict.fromkeys(
        ("plan_s", "read_s", "wait_s", "infer_s", "measure_s", "write_s", "finalize_s"), 1.5
    )
    fake.run(root, "r1", **ended, **counts, timings=spent)


class Read(HTMLParser):
    """What a page holds: tables by caption, tiles, texts, scripts, attributes."""

    def __init__(self, text):
        super().__init__()
        self.text, self.tables, self.tiles, self.elements = text, {}, {}, []
        self._rows, self._cell, self._caption, self._tile, self._inside = [], None, None, None, []
        self.feed(text)
        self.data = json.loads(DATA.search(text)[1])

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        if tag == "table":
            self._rows = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._cell = ""
        elif tag == "caption":
            self._caption = ""
        elif tag in ("dt", "dd"):
            self._tile = ""
        if tag == "span" and attributes.get("class") in ("number", "note"):
            self._tile = (self._tile or "") + "|"

    def handle_data(self, data):
        for name in ("_cell", "_caption", "_tile"):
            if getattr(self, name) is not None:
                setattr(self, name, getattr(self, name) + data)

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._rows[-1].append(self._cell.strip())
            self._cell = None
        elif tag == "caption":
            self._inside.append(self._caption.strip())
            self._caption = None
        elif tag == "table":
            self.tables[self._inside.pop()] = self._rows
        elif tag == "dt":
            self._label, self._tile = self._tile.strip(), None
        elif tag == "dd":
            self.tiles[self._label], self._tile = self._tile.strip().strip("|").split("|"), None

    def indices(self):
        """Return the embedded indices by patient and marker."""
        columns = dict(self.data["indices"])
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        for row in rows:
            row["flags"] = [self.data["flags"][at] for at in row["flags"]]
        return {
            (self.data["patients"][row["patient"]], self.data["markers"][row["marker"]]): row for row in rows
        }


def report(root, folder, choice=NO_PICTURES, name="report.html", **more):
    """Write a report and read it."""
    path = folder / name
    write_report(str(root), path, choice=choice, now=NOW, overwrite=True, **more)
    return Read(path.read_text(encoding="utf-8"))
