"""The models that ship, held to how far light of another colour and other pixel sizes move them."""

import io

import pytest
from PIL import Image

from deepliif_ray import storage
from deepliif_ray.evaluation.robustness import measure_robustness
from deepliif_ray.synthetic.panels import synthetic_panels

# Most that any step of a sweep may move the field below: the index in points, the number of cells in %.
# What was measured stands beside; limits are rounded up. Tighten them when a change makes models more robust.
LIMITS = {
    ("stain", "tint"): (7.0, 5.5),  # 6.66, 5.23
    ("stain", "scale"): (1.0, 4.0),  # 0.81, 3.49
    ("compact", "tint"): (0.3, 1.5),  # 0.13, 0.69
    ("compact", "scale"): (1.0, 1.5),  # 0.83, 0.69
}


@pytest.fixture(scope="module")
def field():
    url = "memory://robust-models"
    buffer = io.BytesIO()
    Image.fromarray(synthetic_panels(0, 3, 512).ihc).save(buffer, "PNG")
    storage.write_bytes(f"{url}/field.png", buffer.getvalue())
    yield url
    storage.remove(url)


@pytest.mark.parametrize("model", ["stain", "compact"])
def test_models_stay_as_robust_as_measured(model, field):
    found = measure_robustness(model, field, mpp=0.25, device="cpu", sweeps=["tint", "scale"])
    assert found.shifts[0].before.cells > 80  # enough for one cell to be about a per cent
    for sweep in ("tint", "scale"):
        points, percent = LIMITS[model, sweep]
        for shift in found.shifts:
            if shift.sweep == sweep:
                assert shift.index_points is not None and shift.cells_percent is not None
                assert abs(shift.index_points) <= points, shift
                assert abs(shift.cells_percent) <= percent, shift
