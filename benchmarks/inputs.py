"""Score every odd kind of file, and the picture that it was made of: cells and index must be the same.

    python -m benchmarks.inputs [--model stain] [--side 1200]

Prints a Markdown table, a row a kind; exit code 1 says that a row is not right. Another kind is added in
`benchmarks.odd_files`.
"""

import argparse
import csv
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import deepliif_ray
from benchmarks.odd_files import ODD_FILES, SCORED, OddFile
from deepliif_ray.slides import SyntheticTissue

MOST_CELLS_PERCENT, MOST_POINTS = 3.0, 1.0
"""How far a lossy file may be from the picture."""


def main() -> int:
    """Run the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="stain")
    parser.add_argument("--side", type=int, default=1200, help="of the picture, px")
    arguments = parser.parse_args()
    picture = np.asarray(SyntheticTissue(arguments.side, arguments.side, seed=21, mpp=0.25)[:, :])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Image.fromarray(picture).save(folder / "picture.png")
        rows = [["picture", "P", "Ki67", "picture.png", "0.25", "", ""]]
        for kind in ODD_FILES.values():
            file = f"{kind.name}{kind.suffix}"
            kind.make(folder / file, picture)
            mpp = "" if kind.states_mpp else "0.25"
            chosen = [str(kind.manifest.get(key, "")) for key in ("series", "plane")]
            rows.append([kind.name, f"P {kind.name}", "Ki67", file, mpp, *chosen])
        with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as sink:
            writer = csv.writer(sink)
            writer.writerow(["slide_id", "patient_id", "marker", "uri", "mpp", "series", "plane"])
            writer.writerows(rows)
        results = str(folder / "results")
        deepliif_ray.score(str(folder / "manifest.csv"), results, model=arguments.model, engine="local")
        return report(results)


def report(results: str) -> int:
    """Print the table; return 1 if a row of it is not right."""
    with deepliif_ray.connect(results) as connection:
        scored = connection.execute(
            "SELECT i.slide_id, s.reader, i.n_cells, i.index_percent "
            "FROM slide_indices AS i JOIN slides AS s USING (slide_id)"
        ).fetchall()
        failed = dict(connection.execute("SELECT slide_id, reason FROM failures").fetchall())
    found = {slide: (reader, cells, index) for slide, reader, cells, index in scored}
    _, cells, index = found["picture"]
    print("| kind | read by | outcome | cells | index, % | |\n|---|---|---|---:|---:|---|")
    print(f"| the picture as PNG | pillow | scored | {cells:,} | {index:.2f} | |")
    wrong = 0
    for kind in ODD_FILES.values():
        is_right = _is_right(kind, found.get(kind.name), failed.get(kind.name), (cells, index))
        wrong += not is_right
        told = "right" if is_right else "**wrong**"
        title = kind.name.replace("_", " ")
        if kind.name in found:
            reader, count, share = found[kind.name]
            print(f"| {title} | {reader} | scored | {count:,} | {share:.2f} | {told} |")
        else:
            print(f"| {title} | | {failed.get(kind.name)} | | | {told} |")
    print(f"\n{len(ODD_FILES)} kinds, {wrong} wrong")
    return int(wrong > 0)


def _is_right(
    kind: OddFile, found: tuple[str, int, float] | None, reason: str | None, picture: tuple[int, float]
) -> bool:
    if kind.right != SCORED or found is None:
        return found is None and reason == kind.right
    cells, index = picture
    if kind.tolerance == 0:
        return found[1:] == picture
    return abs(found[1] - cells) <= MOST_CELLS_PERCENT / 100 * cells and abs(found[2] - index) <= MOST_POINTS


if __name__ == "__main__":
    sys.exit(main())
