"""``python -m deepliif_ray.cells``: compile the kernels now, so that the first slide need not wait for it.

numba compiles a kernel when it is first called, for the kinds of arrays that it is given, and keeps the
result beside the package. Here a few small images are measured, whole and cut, as scoring does.
"""

import numpy as np

from deepliif_ray.cells.extract import extract_cells


def compile_kernels() -> None:
    """Call every kernel once with each kind of arrays that scoring gives it."""
    blobs = np.zeros((48, 48, 3), np.uint8)
    blobs[6:20, 6:20, 0] = blobs[20:40, 22:44, 2] = 255
    blobs[26:30, 28:32] = 0
    for writeable in (True, False):  # what comes from a file or from another process cannot be written to
        images = [blobs.copy(), blobs[..., 0].copy(), blobs.copy()]
        for image in images:
            image.flags.writeable = writeable
        for core in (None, 24):
            extract_cells(*images, mpp=0.5, noise_thresh=4, core=core)


if __name__ == "__main__":
    compile_kernels()
