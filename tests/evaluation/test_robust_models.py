"""The models that ship, held to how far light of another colour and other pixel sizes move them."""

import io

import pytest
from PIL import Image

from deepliif_ray import storage
from deepliif_ray.evaluation.robustness import measure_robustness
from deepliif_ray.synthetic.panels import synthetic_panels

# Most that any step of a sweep may move a field of so many px: the index in points, the number of cells in %.
# What was measured stands beside; limits are rounded up. Tighten them when a change makes models more robust.
LIMITS = {
    ("stain", 512): {"tint": (7.0, 5.5), "scale": (1.0, 4.0)},  # 6.66, 5.23; 0.81, 3.49
    ("compact", 512): {"tint": (0.3, 1.5), "scale": (1.0, 1.5)},  # 0.13, 0.69; 0.83, 0.69
    ("stain", 1024): {"tint": (5.5, 3.5), "scale": (1.2, 3.0)},  # 5.31, 3.18; 1.09, 2.92
    ("compact", 1024): {"tint": (0.3, 0.5), "scale": (1.0, 1.0)},  # 0.21, 0.21; 0.80, 0.84
}
LEAST_CELLS = {512: 80, 1024: 300}
"""In the small field one cell is about a per cent; in the large one a single cell does not matter."""


@pytest.fixture(params=[512, pytest.param(1024, marks=pytest.mark.slow)], scope="module")
def field(request):
    url = f"memory://robust-models-{request.param}"
    buffer = io.BytesIO()
    Image.fromarray(synthetic_panels(0, 3, request.param).ihc).save(buffer, "PNG")
    storage.write_bytes(f"{url}/field.png", buffer.getvalue())
    yield request.param, url
    storage.remove(url)


@pytest.mark.parametrize("model", ["stain", "compact"])
def test_models_stay_as_robust_as_measured(model, field):
    side, url = field
    limits = LIMITS[model, side]
    found = measure_robustness(model, url, mpp=0.25, device="cpu", sweeps=list(limits))
    assert found.shifts[0].before.cells > LEAST_CELLS[side]
    for shift in found.shifts:
        if shift.sweep in limits:
            points, percent = limits[shift.sweep]
            assert shift.index_points is not None and shift.cells_percent is not None
            assert abs(shift.index_points) <= points, shift
            assert abs(shift.cells_percent) <= percent, shift
