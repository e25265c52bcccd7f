"""Score every odd kind of file, and the picture that it was made of: cells and index must be the same.

    python -m benchmarks.inputs [--model stain] [--side 1000] [--only TEXT]

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
from benchmarks.odd import ODD_FILES, SCORED, OddFile, Picture
from benchmarks.odd.manifests import ODD_MANIFESTS, outcome
from deepliif_ray.synthetic import SyntheticTissue

PICTURE = "picture"
MOST_CELLS_PERCENT, MOST_POINTS = 3.0, 1.0
"""How far what is lossy or at another scale may be from the picture."""
_FOUND = """
    SELECT i.slide_id, s.reader, i.n_called, i.index_percent, q.flags
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
    parser.add_argument("--side", type=int, default=1000, help="of the picture, px")
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


def score_kinds(
    folder: Path, kinds: list[OddFile], picture: Picture, model: str = "stain"
) -> tuple[dict[str, Found], dict[str, str]]:
    """Score a picture and the kinds of files that are made of it.

    Parameters
    ----------
    folder : Path
        Empty; files and results go there.
    kinds : list of OddFile
        Those that they are like are made too.
    picture : numpy.ndarray
        uint8 (H, W, 3), 0.25 µm a pixel.
    model : str

    Returns
    -------
    dict of str to Found, dict of str to str
        What was scored, and the reasons of failures, by the name of the kind.
    """
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
    deepliif_ray.score(
        str(folder / "manifest.csv"), results, model=model, execution=deepliif_ray.Execution(engine="local")
    )
    with deepliif_ray.connect(results) as connection:
        found = {slide: Found(*row) for slide, *row in connection.execute(_FOUND).fetchall()}
        failed = dict(connection.execute("SELECT slide_id, reason FROM failures").fetchall())
    return found, failed


def is_right(kind: OddFile, found: dict[str, Found], failed: dict[str, str]) -> bool:
    """Tell whether what became of a kind is right, by what `score_kinds` returned."""
    ours, like = found.get(kind.name), found.get(kind.like)
    if kind.right != SCORED:
        return failed.get(kind.name) == kind.right if ours is None else kind.right in ours.flags
    if ours is None or like is None or ours.index is None or like.index is None:
        return False
    if kind.tolerance == 0 and kind.same_pixels:
        return ours[1:3] == like[1:3]
    return (
        abs(ours.cells - like.cells) <= MOST_CELLS_PERCENT / 100 * like.cells
        and abs(ours.index - like.index) <= MOST_POINTS
    )


def _files(folder: Path, kinds: list[OddFile], side: int, model: str) -> int:
    """Score the files and print their tables; return how many are wrong."""
    picture = np.asarray(SyntheticTissue(side, side, seed=21, mpp=0.25)[:, :])
    found, failed = score_kinds(folder, kinds, picture, model)
    print(f"\nThe picture as PNG: {found[PICTURE].cells:,} cells, index {found[PICTURE].index:.2f} %")
    wrong = 0
    for title, section in groupby(kinds, lambda kind: kind.section):
        print(f"\n## {title}\n\n| kind | read by | outcome | cells | index, % | |")
        print("|---|---|---|---:|---:|---|")
        for kind in section:
            fits = is_right(kind, found, failed)
            wrong += not fits
            told = "right" if fits else "**wrong**"
            shown = _shown(found.get(kind.name), failed.get(kind.name))
            print(f"| {kind.name.replace('_', ' ')} | {shown} | {told} |")
    return wrong


def _shown(found: Found | None, reason: str | None) -> str:
    if found is None:
        return f" | {reason} | | "
    index = "" if found.index is None else f"{found.index:.2f}"
    return f"{found.reader} | {', '.join([SCORED, *found.flags])} | {found.cells:,} | {index}"


def _manifests(folder: Path) -> int:
    """Read the manifests and print their table; return how many are wrong."""
    print("\n## Manifests\n\n| kind | outcome | said | |\n|---|---|---|---|")
    wrong = 0
    for kind in ODD_MANIFESTS:
        got, said, fits = outcome(kind, folder)
        wrong += not fits
        told = "right" if fits else "**wrong**"
        print(f"| {kind.name} | {got} | {said.replace('|', ' ')[:80]} | {told} |")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
