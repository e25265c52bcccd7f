"""Results with slides that can be read, and cells where a test wants them."""

import numpy as np

from deepliif_ray import storage
from deepliif_ray.slides import write_pyramid
from tests.annotations.files import cell_at
from tests.query import fake_results as fake

MPP = 0.25


def cell(number, x, y, half=5, *, positive=False, **more):
    """Return a square cell of 2 half + 1 pixels a side around the pixel x, y."""
    size = (2 * half + 1) ** 2
    said = {"majority_positive": positive, "positive_px": size * positive, "x_um": x * MPP, "y_um": y * MPP}
    return cell_at(number, x, y, half, **said, **more)


def gradient(height, width):
    """Return pixels that are all different from their neighbours: red tells x, green tells y."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 / width, y * 255 / height, np.full(x.shape, 200)], axis=2).astype(np.uint8)


def commit(root, cells, slide_id="S-1", path=None, **more):
    """Commit a slide with such cells; ``path`` is its file, that is taken for the one that was scored."""
    if path is not None:
        said = {"uri": str(path), "slide_version": storage.version(str(path))}
        more = said | {"slide_fingerprint": storage.content_fingerprint(str(path), path)} | more
    return fake.commit(str(root), slide_id, cells, **({"size_thresh": 3} | more))


def slide(folder, pixels, name="a.tiff", **more):
    """Write pixels as a slide without loss."""
    path = folder / name
    write_pyramid(path, pixels, mpp=MPP, quality=None, **more)
    return path
