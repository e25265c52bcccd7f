"""Whether this machine can score, and how fast."""

import os
import platform
import shutil
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import numpy as np
import pyarrow as pa

from deepliif_ray import storage
from deepliif_ray.cells import extract_cells
from deepliif_ray.config import DEFAULT_MODEL
from deepliif_ray.errors import DeepliifRayError

_PACKAGES = ("ray", "torch", "openslide-bin", "duckdb", "pyarrow", "polars", "numba", "fsspec", "s3fs")
_GB = 1e9


def examine() -> pa.Table:
    """Run all checks, one row each: ``check``, ``ok``, ``finding``; one that fails stops no other."""
    rows = [
        {"check": name, "ok": True, "finding": finding}
        for name, finding in (
            ("python", f"{platform.python_version()} on {platform.machine()}"),
            ("versions", ", ".join(f"{name} {version(name)}" for name in _PACKAGES)),
            ("cpu", f"{os.cpu_count()} cores"),
        )
    ]
    for name, check in (
        ("slides", _slides),
        ("slides' process", _protection),
        ("networks", _networks),
        (f"model {DEFAULT_MODEL}", partial(_model, DEFAULT_MODEL)),
        ("model stain", partial(_model, "stain")),
        ("cells", _cells),
        ("cache", _cache),
        ("ray", _ray),
    ):
        rows.append(_guarded(name, check))
    return pa.Table.from_pylist(rows)


def _guarded(name: str, check: Callable[[], str]) -> dict[str, object]:
    try:
        return {"check": name, "ok": True, "finding": check()}
    except (DeepliifRayError, OSError, RuntimeError, ImportError) as error:
        return {"check": name, "ok": False, "finding": f"{type(error).__name__}: {error}"}


def _slides() -> str:
    from deepliif_ray.slides.reader import library_version

    return f"OpenSlide {library_version()}"


def _protection() -> str:
    from deepliif_ray.slides.guard import protection

    return protection()


def _networks() -> str:
    from deepliif_ray.models.selfcheck import time_networks

    return "; ".join(
        f"{speed.device} {speed.precision}: {speed.seconds_per_tile:.2f} s a 512-px tile (published latest "
        f"weights, estimated), {speed.grey_levels:.2f} grey levels from float32"
        for speed in time_networks()
    )


def _model(name: str) -> str:
    from deepliif_ray.models.selfcheck import time_model

    return f"{time_model(name):.3f} s a 512-px tile"


def _cells() -> str:
    seg = np.zeros((1024, 1024, 3), dtype=np.uint8)
    y, x = np.mgrid[:1024, :1024]
    seg[np.hypot(y % 21 - 10, x % 21 - 10) < 8] = (0, 0, 255)
    extract_cells(seg[:64, :64], core=32)  # compiles at first use
    start = time.perf_counter()
    count = extract_cells(seg, core=448).table.num_rows
    return f"{count / (time.perf_counter() - start):,.0f} cells/s"


def _cache() -> str:
    folder = storage.default_cache()
    storage.own_folder(folder)
    if not os.access(folder, os.W_OK):
        raise OSError(f"{folder} cannot be written; set DEEPLIIF_RAY_CACHE to a folder that can")
    return f"{folder}: {shutil.disk_usage(folder).free / _GB:.0f} GB free"


def _ray() -> str:
    from deepliif_ray.cluster import cluster, cpus, gpus

    start = time.perf_counter()
    with cluster(None):
        seconds = time.perf_counter() - start
        return f"{int(cpus())} CPUs and {int(gpus())} GPUs, connected in {seconds:.1f} s"
