"""Score every odd kind of file, and the picture that it was made of: cells and index must be the same.

    python -m benchmarks.inputs [--model stain] [--side 1200] [--only TEXT]

Prints a Markdown table a section, a row a kind, and then what becomes of odd manifests; exit code 1 says that
a row is not right. A kind is added in `benchmarks.odd`.
"""

import argparse
import csv
import sys
import tempfile
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

import deepliif_ray
from benchmarks.odd import ODD_FILES, SCORED, OddFile
from benchmarks.odd.manifests import ODD_MANIFESTS, outcome
from deepliif_ray.slides import SyntheticTissue

PICTURE = "picture"
_FOUND = """
    SELECT i.slide_id, s.reader, i.n_cells, i.index_percent, q.flags
    FROM slide_indices AS i JOIN slides AS s USING (slide_id) JOIN slide_quality AS q USING (slide_id)
"""


class Found(NamedTuple):
    """What became of a file that was scored."""

    reader: str
    cells: int
    index: float | None
    flags: list[str]


def main() -> int:
    """Run the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="stain")
    parser.add_argument("--side", type=int, default=1200, help="of the picture, px")
    parser.add_argument("--only", default="", help="kinds and sections whose name holds this text")
    arguments = parser.parse_args()
    kinds = [k for k in ODD_FILES.values() if arguments.only.casefold() in f"{k.section} {k.name}".casefold()]
    manifests = [k for k in ODD_MANIFESTS if arguments.only.casefold() in f"manifests {k.name}".casefold()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wrong = _files(folder, kinds, arguments.side, arguments.model) if kinds else 0
        wrong += _manifests(folder) if manifests else 0
    print(f"\n{len(kinds)} kinds of files and {len(manifests)} of manifests, {wrong} wrong")
    return int(wrong > 0)


def _files(folder: Path, kinds: list[OddFile], side: int, model: str) -> int:
    """Score the files and print their tables; return how many are wrong."""
    picture = np.asarray(SyntheticTissue(side, side, seed=21, mpp=0.25)[:, :])
    Image.fromarray(picture).save(folder / f"{PICTURE}.png")
    rows = [[PICTURE, "P", "Ki67", f"{PICTURE}.png", "0.25", "", ""]]
    needed = {kind.name: kind for kind in (*kinds, *(ODD_FILES[k.like] for k in kinds if k.like != PICTURE))}
    for kind in needed.values():
        file = f"{kind.name}{kind.suffix}"
        kind.make(folder / file, picture)
        mpp = "" if kind.mpp is None else str(kind.mpp)
        chosen = [str(kind.manifest.get(key, "")) for key in ("series", "plane")]
        rows.append([kind.name, f"P {kind.name}", "Ki67", file, mpp, *chosen])
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as sink:
        writer = csv.writer(sink)
        writer.writerow(["slide_id", "patient_id", "marker", "uri", "mpp", "series", "plane"])
        writer.writerows(rows)
    results = str(folder / "results")
    deepliif_ray.score(str(folder / "manifest.csv"), results, model=model, engine="local")
    with deepliif_ray.connect(results) as connection:
        found = {slide: Found(*row) for slide, *row in connection.execute(_FOUND).fetchall()}
        failed = dict(connection.execute("SELECT slide_id, reason FROM failures").fetchall())
    print(f"\nThe picture as PNG: {found[PICTURE].cells:,} cells, index {found[PICTURE].index:.2f} %")
    wrong = 0
    for title, section in groupby(kinds, lambda kind: kind.section):
        print(
            f"\n## {title}\n\n| kind | read by | outcome | cells | index, % | |\n|---|---|---|---:|---:|---|"
        )
        for kind in section:
            is_right = _is_right(kind, found.get(kind.name), failed.get(kind.name), found.get(kind.like))
            wrong += not is_right
            told = "right" if is_right else "**wrong**"
            shown = _shown(found.get(kind.name), failed.get(kind.name))
            print(f"| {kind.name.replace('_', ' ')} | {shown} | {told} |")
    return wrong


def _shown(found: Found | None, reason: str | None) -> str:
    if found is None:
        return f" | {reason} | | "
    index = "" if found.index is None else f"{found.index:.2f}"
    return f"{found.reader} | {', '.join([SCORED, *found.flags])} | {found.cells:,} | {index}"


def _is_right(kind: OddFile, found: Found | None, reason: str | None, like: Found | None) -> bool:
    if kind.right != SCORED:
        return reason == kind.right if found is None else kind.right in found.flags
    if found is None or like is None or found.index is None or like.index is None:
        return False
    if kind.tolerance == 0 and kind.same_pixels:
        return found[1:3] == like[1:3]
    return (
        abs(found.cells - like.cells) <= kind.most_cells_percent / 100 * like.cells
        and abs(found.index - like.index) <= kind.most_points
    )


def _manifests(folder: Path) -> int:
    """Read the manifests and print their table; return how many are wrong."""
    print("\n## Manifests\n\n| kind | outcome | said | |\n|---|---|---|---|")
    wrong = 0
    for kind in ODD_MANIFESTS:
        got, said, is_right = outcome(kind, folder)
        wrong += not is_right
        told = "right" if is_right else "**wrong**"
        print(f"| {kind.name} | {got} | {said.replace('|', ' ')[:80]} | {told} |")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
