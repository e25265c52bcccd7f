import numpy as np
import pytest
from PIL import Image

from deepliif_ray.cells import refine_mask


@pytest.mark.parametrize("name", ["34_3", "6_2", "mosaic"])
def test_refined_mask_is_the_published_one(shared_reference, name):
    folder = shared_reference / "postprocess"
    seg, expected = (
        np.asarray(Image.open(folder / f"{name}-{part}.png").convert("RGB")) for part in ("seg", "refined")
    )
    assert np.array_equal(refine_mask(seg), expected)


def test_map_without_cells_is_black():
    assert not refine_mask(np.zeros((20, 20, 3), np.uint8)).any()
