"""Metrics: what Prometheus would read from a Ray cluster that scores."""

import re
import socket
import time
import urllib.request

import pytest
import ray

from deepliif_ray import Execution, connect, score
from deepliif_ray.engine.run.metrics import RayMeter
from deepliif_ray.engine.run.progress import STEPS
from deepliif_ray.synthetic import write_cohort


def free_port():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def scrape(port):
    """Return the metrics of this package by name and tags."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    found = {}
    for line in text.splitlines():
        match = re.fullmatch(r"ray_(deepliif_\w+)\{(.*)\} (\S+)", line)
        if match:
            tags = dict(re.findall(r'(\w+)="([^"]*)"', match[2]))
            value = tags.get("outcome") or tags.get("stage") or tags.get("reason") or ""
            if "le" not in tags:
                found[match[1], value] = found.get((match[1], value), 0) + float(match[3])
    return found


@pytest.mark.slow
def test_a_scrape_of_a_run(tmp_path):
    port = free_port()
    manifest = write_cohort(tmp_path / "cohort", patients=1, side=1100)
    with manifest.open("a") as file:
        file.write("gone,P9,Ki67,gone.svs,x\n")
    ray.init(
        "local",
        num_cpus=2,
        object_store_memory=2**28,
        log_to_driver=False,
        include_dashboard=False,
        _metrics_export_port=port,
        _system_config={"metrics_report_interval_ms": 500},
    )
    try:
        summary = score(str(manifest), str(tmp_path / "r"), model="stain", execution=Execution(engine="ray"))
        deadline, found = time.monotonic() + 120, {}
        while time.monotonic() < deadline and found.get(("deepliif_slides_left", "")) != 0:
            time.sleep(1)
            found = scrape(port)
        meter, start = RayMeter(on_gpus=False), time.perf_counter()
        for _ in range(1000):
            for step in STEPS:
                meter.spent(step, 0.1)
            meter.tiles("inferred", 16)
        per_tile = (time.perf_counter() - start) / 1000 / 16
    finally:
        ray.shutdown()
    with connect(tmp_path / "r") as connection:
        query = "SELECT sum(n_tiles_inferred), sum(n_tiles_empty) FROM slides"
        inferred, empty = connection.execute(query).fetchall()[0]
        timings = connection.execute("SELECT timings FROM runs").fetchall()[0][0]
    assert found["deepliif_tiles_total", "inferred"] == inferred
    assert found.get(("deepliif_tiles_total", "empty"), 0) == empty
    assert found["deepliif_failures_total", "missing"] == summary.failed == 1
    assert (found["deepliif_slides_done", ""], found["deepliif_slides_left", ""]) == (2, 0)
    # Ray keeps the buckets of a histogram, and makes its sum up from them.
    counts = {step: found["deepliif_stage_seconds_count", step] for step in STEPS}
    assert (counts["plan"], counts["finalize"]) == (3, 2)
    assert counts["read"] == counts["wait"] == counts["infer"] == counts["measure"] == counts["write"] >= 2
    busy = sum(timings[f"{step}_s"] for step in ("read", "infer", "measure", "write"))
    assert found["deepliif_actor_busy_seconds_total", ""] == pytest.approx(busy, abs=0.01)
    assert found["deepliif_read_wait_seconds_total", ""] == pytest.approx(timings["wait_s"], abs=0.01)
    assert timings["wait_s"] > 0
    assert per_tile < 1e-3
    print(f"{1e6 * per_tile:.1f} µs a tile", sorted(found.items()))
