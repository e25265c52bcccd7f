"""Everything on S3, against a real server: manifest, slides, models, staging, results, queries."""

import csv
import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import fsspec
import pytest

from deepliif_ray import Execution, connect, forget, load_model, score, storage
from deepliif_ray.config import ScoreConfig
from deepliif_ray.models import registered_models
from deepliif_ray.preview import preview
from deepliif_ray.slides import write_pyramid
from deepliif_ray.storage import download
from deepliif_ray.synthetic import SyntheticTissue, write_cohort
from tests.engine.results import VOLATILE, tables
from tests.few import few
from tests.models.published import write_published_folder
from tests.tables import test_forget as forgetting

NAMES = ["with space", "100%", "%41", "a#b", "q?x=1", "a+b", "é😐", "a*[1]", "a::b", "&=;'\"", "x" * 230]
PLACE = {"uri", "slide_fingerprint"}
"""Columns that differ between copies of a cohort."""
TINY = {"net_g": "resnet_6blocks", "net_gs": "unet_32", "scale_size": 32, "ngf": 4}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """Manifest of three synthetic slides of four tiles."""
    return write_cohort(tmp_path_factory.mktemp("cohort"), patients=3, markers=("Ki67",), side=900)


@pytest.fixture(scope="module")
def undisturbed(cohort, tmp_path_factory) -> Path:
    results = tmp_path_factory.mktemp("undisturbed")
    assert score(str(cohort), str(results), model="stain", execution=Execution(engine="local")).scored == 3
    return results


def upload(folder: Path, url: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            storage.write_bytes(storage.join(url, path.relative_to(folder).as_posix()), path.read_bytes())


@pytest.fixture
def remote(s3, cohort) -> str:
    """A bucket that holds the cohort in ``in``."""
    bucket = s3.bucket()
    upload(cohort.parent, f"{bucket}/in")
    return bucket


def assert_same_but_place(a: str | Path, b: str | Path) -> None:
    left, right = tables(a), tables(b)
    for name in VOLATILE:
        columns = [column for column in left[name].column_names if column not in PLACE]
        assert left[name].select(columns).equals(right[name].select(columns)), f"{name} differ"


def test_all_of_it_on_s3(remote, undisturbed):
    results = f"{remote}/out/results of today"
    summary = score(f"{remote}/in/manifest.csv", results, model="stain", execution=Execution(engine="local"))
    assert (summary.scored, summary.failed) == (3, 0)
    assert_same_but_place(undisturbed, results)
    assert storage.list_files(f"{results}/_staging") == []
    assert (
        score(
            f"{remote}/in/manifest.csv", results, model="stain", execution=Execution(engine="local")
        ).skipped
        == 3
    )
    with connect(results) as connection:
        assert connection.execute("SELECT count(*) FROM slide_indices").fetchone() == (3,)


@pytest.mark.slow
def test_the_same_on_memory(cohort, undisturbed):
    try:
        upload(cohort.parent, "memory://in")
        summary = score(
            "memory://in/manifest.csv", "memory://out/a b", model="stain", execution=Execution(engine="local")
        )
        assert (summary.scored, summary.failed) == (3, 0)
        assert_same_but_place(undisturbed, "memory://out/a b")
    finally:
        fsspec.filesystem("memory").rm("/", recursive=True)


def test_the_next_slide_is_downloaded_meanwhile(cohort, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPLIIF_RAY_CACHE", str(tmp_path))
    there = []

    def wait_for_it(progress) -> None:
        deadline = time.monotonic() + 60
        while progress.tiles_done and not there and time.monotonic() < deadline:
            if len(found := [path.name for path in tmp_path.glob("*/*.tiff")]) > 1:
                there.extend(sorted(found))
            time.sleep(0.02)

    try:
        upload(cohort.parent, "memory://in")
        score(
            "memory://in/manifest.csv",
            "memory://out",
            model="stain",
            watch=wait_for_it,
            execution=Execution(engine="local"),
        )
    finally:
        fsspec.filesystem("memory").rm("/", recursive=True)
    assert there == ["P01-Ki67.tiff", "P02-Ki67.tiff"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_under_ray(s3, remote, undisturbed):
    command = [
        sys.executable,
        "-m",
        "deepliif_ray.cli",
        "score",
        f"{remote}/in/manifest.csv",
        f"{remote}/out",
    ]
    ran = subprocess.run(
        [*command, "--model", "stain"], check=False, capture_output=True, text=True, timeout=500
    )
    assert ran.returncode == 0, ran.stderr
    assert_same_but_place(undisturbed, f"{remote}/out")
    assert_not_told(s3, ran, f"{remote}/out")


def test_models_on_s3(s3, tmp_path):
    bucket = s3.bucket()
    zoo = Path(sys.modules["deepliif_ray.models"].__file__).parent / "zoo" / "compact"
    upload(zoo, f"{bucket}/models/compact")
    assert "compact" in registered_models()
    assert load_model(f"{bucket}/models/compact").digest == load_model("compact").digest
    folder = write_published_folder(tmp_path / "published", "eager", **TINY)
    upload(folder, f"{bucket}/models/pub lished")
    assert load_model(f"{bucket}/models/pub lished").digest == load_model(str(folder)).digest


def write_manifest(url: str, rows: list[tuple]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([("slide_id", "patient_id", "marker", "uri"), *rows])
    storage.write_bytes(url, text.getvalue().encode())
    return url


@pytest.mark.parametrize("where", few(["s3", "memory", "local"], 1))
def test_odd_names(where, request, tmp_path):
    if where == "s3":
        root = request.getfixturevalue("s3").bucket()
    else:
        root = "memory://odd" if where == "memory" else str(tmp_path)
    tissue = SyntheticTissue(300, 300, seed=1, mpp=0.25)
    write_pyramid(tmp_path / "any.tiff", tissue, mpp=0.25)
    data = (tmp_path / "any.tiff").read_bytes()
    for name in NAMES:
        storage.write_bytes(storage.join(root, name, f"{name}.tiff"), data)
    rows = [(name, "p", "Ki67", f"{name}/{name}.tiff") for name in NAMES]
    manifest = write_manifest(storage.join(root, "manifest.csv"), rows)
    summary = score(manifest, storage.join(root, "out?*"), model="stain", execution=Execution(engine="local"))
    assert (summary.scored, summary.failures) == (len(NAMES), ())
    with connect(storage.join(root, "out?*")) as connection:
        found = connection.execute("SELECT slide_id, n_cells FROM slides").fetchall()
    assert {name for name, _ in found} == set(NAMES) and len({cells for _, cells in found}) == 1
    storage.remove(storage.join(root, "out?*"))
    assert not any("/out?*/" in url for url in storage.list_files(root))


def test_dicom_series_and_damaged_files(s3, shared_data):
    bucket = s3.bucket()
    upload(shared_data / "slides" / "boxes_dicom", f"{bucket}/boxes")
    upload(shared_data / "slides" / "idc_dicom", f"{bucket}/idc")
    storage.write_bytes(f"{bucket}/empty.svs", b"")
    rows = [
        ("folder", "p", "Ki67", "boxes"),
        ("one file", "p", "Ki67", "boxes/boxes_1.dcm"),
        ("idc", "p", "Ki67", "idc"),
        ("empty", "p", "Ki67", "empty.svs"),
        ("missing", "p", "Ki67", "none.svs"),
    ]
    manifest = write_manifest(f"{bucket}/manifest.csv", rows)
    found = {row["slide_id"]: row for row in preview(manifest, ScoreConfig(assume_mpp=0.25)).to_pylist()}
    local = {}
    for name in ("boxes", "idc"):
        folder = shared_data / "slides" / f"{name}_dicom"
        with_local = write_manifest(f"{bucket}/local.csv", [("a", "p", "Ki67", str(folder))])
        (local[name],) = preview(with_local, ScoreConfig(assume_mpp=0.25)).to_pylist()
    for name, slide_id in (("boxes", "folder"), ("boxes", "one file"), ("idc", "idc")):
        assert (found[slide_id]["width_px"], found[slide_id]["tiles"]) == (
            local[name]["width_px"],
            local[name]["tiles"],
        )
    assert local["idc"]["tiles"] > 0
    assert "empty" in found["empty"]["problem"] and "no such file" in found["missing"]["problem"]


@pytest.mark.timeout(400)
@pytest.mark.slow
def test_a_server_that_goes_and_comes_back(s3, remote, undisturbed):
    """It is stopped for some seconds when the first tiles are staged."""
    restarts = []

    def bring_back() -> None:
        time.sleep(3)
        s3.start()

    def outage(progress) -> None:
        if progress.tiles_done and not restarts:
            s3.stop()
            restarts.append(threading.Thread(target=bring_back))
            restarts[0].start()

    try:
        manifest, results = f"{remote}/in/manifest.csv", f"{remote}/out"
        summary = score(manifest, results, model="stain", watch=outage, execution=Execution(engine="local"))
    finally:
        for restart in restarts:
            restart.join()
    assert (summary.scored, summary.failures, len(restarts)) == (3, (), 1)
    assert_same_but_place(undisturbed, results)


@pytest.mark.slow
def test_a_large_file_arrives_though_the_server_goes(s3, tmp_path, monkeypatch):
    url, content = f"{s3.bucket()}/large.svs", os.urandom(6 * 2**20)
    storage.write_bytes(url, content)
    monkeypatch.setattr(download, "RANGE_BYTES", 2**20)
    asked, pieces = [], download._pieces

    def outage(url, file, begin):
        asked.append(begin)
        if begin:
            s3.stop()
            restart = threading.Timer(1, s3.start)
            restart.start()
            try:
                return pieces(url, file, begin)
            finally:
                restart.join()
        return pieces(url, file, begin)

    monkeypatch.setattr(download, "_pieces", outage)
    assert storage.localize(url, tmp_path).read_bytes() == content
    assert asked == [0, 4 * 2**20]


@pytest.mark.parametrize("when", ["tiles", pytest.param("planned", marks=pytest.mark.slow)])
def test_a_slide_overwritten_meanwhile(remote, when, cohort):
    other = (cohort.parent / "P02-Ki67.tiff").read_bytes()
    done = []

    def overwrite(progress) -> None:
        if not done and (progress.tiles_done if when == "tiles" else progress.planned):
            done.append(storage.write_bytes(f"{remote}/in/P01-Ki67.tiff", other))

    summary = score(
        f"{remote}/in/manifest.csv",
        f"{remote}/out",
        model="stain",
        watch=overwrite,
        execution=Execution(engine="local"),
    )
    assert (summary.scored, summary.failed) == (2, 1)
    with connect(f"{remote}/out") as connection:
        failures = connection.execute("SELECT slide_id, reason FROM failures").fetchall()
    assert failures == [("P01-Ki67", "changed")]


def without_aws() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}


def options_file(s3, folder: Path, secret: str) -> Path:
    path = folder / "storage.yaml"
    path.write_text(f"s3:\n  key: {s3.key}\n  secret: {secret}\n  endpoint_url: {s3.endpoint}\n")
    return path


def profile(s3, folder: Path) -> dict[str, str]:
    (folder / "credentials").write_text(
        f"[lab]\naws_access_key_id = {s3.key}\naws_secret_access_key = {s3.secret}\n"
    )
    (folder / "config").write_text(f"[profile lab]\nendpoint_url = {s3.endpoint}\nregion = us-east-1\n")
    return {
        "AWS_PROFILE": "lab",
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials"),
        "AWS_CONFIG_FILE": str(folder / "config"),
    }


@pytest.mark.parametrize(
    "source", [pytest.param(source, marks=pytest.mark.slow) for source in ("profile", "file")]
)
def test_credentials_from_anywhere_are_nowhere_written(s3, remote, tmp_path, source):
    rows = [
        ("good", "p1", "Ki67", "in/P01-Ki67.tiff"),
        ("missing", "p1", "Ki67", "in/none.tiff"),
        ("elsewhere", "p1", "Ki67", "s3://no-such-bucket/a.tiff"),
        ("other store", "p1", "Ki67", "http://127.0.0.1:9/a.tiff"),
    ]
    write_manifest(f"{remote}/manifest.csv", rows)
    environment, before = without_aws(), []
    environment |= {"DEEPLIIF_RAY_RETRY_S": "1", "DEEPLIIF_RAY_CACHE": str(tmp_path / "cache")}
    environment |= {"DEEPLIIF_RAY_PRIVATE_NETWORKS": "127.0.0.1"}
    if source == "profile":
        environment |= profile(s3, tmp_path)
    else:
        before = ["--storage-options", str(options_file(s3, tmp_path, s3.secret))]
    command = [sys.executable, "-m", "deepliif_ray.cli", *before, "score", f"{remote}/manifest.csv"]
    command += [f"{remote}/out", "--model", "stain", "--engine", "local"]
    ran = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=250)
    assert ran.returncode == 3, ran.stderr
    assert "no such file" in assert_not_told(s3, ran, f"{remote}/out")


def assert_not_told(s3, ran, results: str) -> str:
    """Assert that no output, table or object holds the credentials; return what is text of them."""
    told = ran.stdout + ran.stderr
    with connect(results) as connection:
        for table in ("runs", "slides", "failures"):
            told += repr(connection.execute(f"SELECT * FROM {table}").fetchall())
    written = b"".join(storage.read_bytes(url) for url in storage.list_files(results))
    assert written
    for secret in (s3.secret, s3.key):
        assert secret not in told and secret.encode() not in written
    return told


@pytest.mark.slow
def test_wrong_credentials_are_told_at_once_and_not_shown(s3, remote, tmp_path):
    secret = "hush-wrong-7731"
    command = [sys.executable, "-m", "deepliif_ray.cli", "--storage-options"]
    command += [str(options_file(s3, tmp_path, secret)), "plan", f"{remote}/in/manifest.csv"]
    began = time.monotonic()
    ran = subprocess.run(command, env=without_aws(), check=False, capture_output=True, text=True, timeout=250)
    assert ran.returncode == 2 and "check the credentials" in ran.stderr
    assert secret not in ran.stdout + ran.stderr
    assert time.monotonic() - began < 60


@pytest.mark.slow
def test_a_patient_is_forgotten_on_s3(s3):
    """Joined objects and objects of one slide, and all that lies beside them."""
    root = f"{s3.bucket()}/results"
    forgetting.fill(root, joined=True)
    before = forgetting.state(root)
    summary = forget(root, patients=[forgetting.PATIENT])
    assert (set(summary.slides), summary.left) == (forgetting.GONE, ())
    assert forgetting.traces(root, forgetting.PATIENT, *forgetting.GONE) == []
    assert forgetting.state(root) == before
