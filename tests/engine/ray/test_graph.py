"""The Ray engine against the local one, on synthetic and on real files."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import ray
from PIL import Image

from deepliif_ray import Execution, score
from deepliif_ray.engine.ray import graph
from deepliif_ray.slides import write_pyramid
from tests.engine.results import assert_same, tables
from tests.models.published import reference_weights, write_published_folder

TINY = {"net_g": "resnet_6blocks", "net_gs": "unet_32", "scale_size": 32, "ngf": 4}


@pytest.fixture(scope="module", autouse=True)
def _cluster():
    ray.init("local", include_dashboard=False, num_cpus=2, object_store_memory=2**29, log_to_driver=False)
    yield
    ray.shutdown()


def write_manifest(path: Path, rows: list[tuple]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["slide_id", "patient_id", "marker", "uri", "mpp"])
        writer.writerows(rows)
    return path


@pytest.mark.parametrize(
    "separate",
    [
        pytest.param(False, id="one stage as on CPUs"),
        pytest.param(True, id="stages as for GPUs", marks=pytest.mark.slow),
    ],
)
def test_both_engines_give_the_same_tables(cohort, undisturbed, tmp_path, monkeypatch, separate):
    monkeypatch.setattr(graph, "run", partial(graph.run, separate=separate))
    seen = []
    summary = score(
        str(cohort),
        str(tmp_path),
        model="stain",
        watch=lambda p: seen.append((p.tiles_done, p.done)),
        execution=Execution(engine="ray"),
    )
    assert (summary.scored, summary.failed) == (6, 0)
    assert seen == sorted(seen)
    assert_same(undisturbed, tmp_path)


def real_cohort(shared_data: Path, folder: Path) -> Path:
    """Manifest of fourteen real files, four of them not readable."""
    rows = [(f"roi-{n}", "p1", "CD3", shared_data / f"deepliif/large/ROI_{n}.png", 0.25) for n in (1, 7)]
    rows += [(f"bcdata-{n}", f"p{n}", "Ki-67", shared_data / f"bcdata/{n}.png", 0.25) for n in (0, 3)]
    for n in ("A_1_1", "A_2_1"):
        core = np.asarray(Image.open(shared_data / f"cores/ZT135_15_{n}.jpg").convert("RGB"))
        write_pyramid(folder / f"{n}.tiff", core, mpp=0.45)
        rows.append((f"core {n}", "p5", "MIB-1", f"{n}.tiff", ""))
    slides = shared_data / "slides"
    without = shutil.copy(slides / "tcga-cr-7395-01a-01-ts1.svs", folder / "without.svs")
    rows += [
        ("cmu", "p6", "Ki67", slides / "CMU-1-Small-Region.svs", ""),
        ("tcga", "p7", "Ki67", slides / "tcga-cr-7395-01a-01-ts1.svs", 0.25),
        ("tcga without mpp", "p7", "Ki67", without, ""),
        ("dicom", "p8", "p53", slides / "idc_dicom", ""),
        ("😐", "p9", "PD-L1", slides / "😐.svs", ""),
    ]
    bad = ("derived/cmu_bitrot_200bytes.svs", "derived/zero_bytes.svs", "wsi/unopenable.tiff")
    rows += [(name, "p10", "Ki67", shared_data / "bad" / name, "") for name in bad]
    return write_manifest(folder / "manifest.csv", rows)


def check_real(results: Path) -> None:
    found = tables(results)
    assert found["slides"].num_rows == 10
    reasons = {row["slide_id"]: row["reason"] for row in found["failures"].to_pylist()}
    assert reasons == {
        "tcga without mpp": "resolution",
        "derived/cmu_bitrot_200bytes.svs": "corrupt",
        "derived/zero_bytes.svs": "unreadable",
        "wsi/unopenable.tiff": "unreadable",
    }


@pytest.mark.slow
def test_real_files_good_and_bad(shared_data, tmp_path):
    manifest = real_cohort(shared_data, tmp_path)
    local = score(str(manifest), str(tmp_path / "local"), model="stain", execution=Execution(engine="local"))
    assert (local.scored, local.failed) == (10, 4)
    check_real(tmp_path / "local")


@pytest.mark.slow
def test_real_files_are_the_same_on_ray(shared_data, tmp_path):
    manifest = real_cohort(shared_data, tmp_path)
    command = [sys.executable, "-m", "deepliif_ray.cli", "score", "--model", "stain", str(manifest)]
    target = str(tmp_path / "ray")
    ran = subprocess.run([*command, target], check=False, capture_output=True, text=True, timeout=250)
    assert ran.returncode == 3, ran.stderr
    check_real(tmp_path / "ray")
    score(str(manifest), str(tmp_path / "local"), model="stain", execution=Execution(engine="local"))
    assert_same(tmp_path / "local", tmp_path / "ray")


@pytest.mark.slow
def test_published_folders_of_both_forms_give_the_same_tables(cohort, tmp_path):
    for form in ("eager", "serialized"):
        folder = write_published_folder(tmp_path / form, form, **TINY)
        engine = "ray" if form == "eager" else "local"
        assert (
            score(
                str(cohort),
                str(tmp_path / f"of {form}"),
                model=str(folder),
                execution=Execution(engine=engine),
            ).failed
            == 0
        )
    assert_same_but_model(tmp_path / "of eager", tmp_path / "of serialized")


def assert_same_but_model(a: Path, b: Path) -> None:
    left, right = (tables(results) for results in (a, b))
    assert left["cells"].num_rows > 0
    for name, table in left.items():
        columns = [c for c in table.column_names if c not in ("model_uri", "model_name")]
        assert table.select(columns).equals(right[name].select(columns)), name


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_full_size_published_folders_on_real_fields(shared_data, shared_reference, tmp_path):
    rows = [(f"bcdata-{n}", "p", "Ki67", shared_data / f"bcdata/{n}.png", 0.25) for n in (0, 1)]
    manifest = write_manifest(tmp_path / "manifest.csv", rows)
    for form in ("eager", "serialized"):
        folder = write_published_folder(
            tmp_path / form,
            form,
            ngf=64,
            weights_fn=reference_weights(shared_reference),
            only={"G4", "G51", "G55"},
        )
        engine = "ray" if form == "eager" else "local"
        summary = score(
            str(manifest), str(tmp_path / f"of {form}"), model=str(folder), execution=Execution(engine=engine)
        )
        assert (summary.scored, summary.failed) == (2, 0)
    assert_same_but_model(tmp_path / "of eager", tmp_path / "of serialized")


@pytest.mark.slow  # of the normal suite is the same by SIGTERM, in tests/integration
def test_interrupt_stops_cleanly(cohort, undisturbed, tmp_path):
    command = [sys.executable, "-m", "deepliif_ray.cli", "score", str(cohort), str(tmp_path)]
    command += ["--model", "stain"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list(tmp_path.glob("_staging/*/*/plan.json")) and process.poll() is None:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "run the same command again" in said
    assert score(str(cohort), str(tmp_path), model="stain", execution=Execution(engine="local")).failed == 0
    assert_same(undisturbed, tmp_path)
