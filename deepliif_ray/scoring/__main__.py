"""``python -m deepliif_ray.scoring``: compile the kernels now, not at the first question.

As ``python -m deepliif_ray.cells`` does for those that measure cells.
"""

from deepliif_ray.scoring.hot_spots import hot_spots
from deepliif_ray.scoring.spatial import share_within_percent


def compile_kernels() -> None:
    """Call every kernel once with the kinds of arrays that it is given."""
    cells = [0.0, 1.0], [0.0, 1.0], [True, False]
    hot_spots(*cells, cells=1)
    share_within_percent(*cells, 1)


if __name__ == "__main__":
    compile_kernels()
