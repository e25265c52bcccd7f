"""OME-Zarr slides read in place on a real S3 server, chunk by chunk."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepliif_ray import Execution, connect, score, storage
from deepliif_ray.errors import SlideCorruptError, StorageError
from deepliif_ray.slides import guard, open_guarded, open_slide
from deepliif_ray.synthetic import SyntheticTissue
from tests.integration.test_s3 import upload
from tests.slides.zarrs import write_zarr

SIDE = 1300


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """Three folders of the same pixels: a plain image, and OME-Zarr in versions 0.4 and 0.5, sharded."""
    folder = tmp_path_factory.mktemp("zarrs")
    image = np.maximum(np.asarray(SyntheticTissue(SIDE, SIDE, seed=2)[:, :]), 1)
    Image.fromarray(image).save(folder / "plain.png")
    write_zarr(folder / "v4.zarr", image, chunk=256)
    write_zarr(folder / "v5 é", image, version="0.5", shard=512, chunk=256, channels_together=True)
    rows = "".join(f"{name},p,Ki67,{name},0.25\n" for name in ("plain.png", "v4.zarr/", "v5 é"))
    (folder / "manifest.csv").write_text(f"slide_id,patient_id,marker,uri,mpp\n{rows}")
    return folder


@pytest.fixture
def remote(s3, cohort) -> str:
    bucket = s3.bucket()
    upload(cohort, f"{bucket}/in")
    return f"{bucket}/in"


@pytest.mark.slow
def test_a_tile_takes_its_chunks_and_no_more(remote, cohort, monkeypatch):
    asked, got = [], []
    read = storage.read_ranges

    def counting(folder, wanted):
        pieces = read(folder, wanted)
        asked.extend(wanted)
        got.extend(len(piece or b"") for piece in pieces)
        return pieces

    monkeypatch.setattr(storage, "read_ranges", counting)
    for name, requests in (("v4.zarr", 3 * 9), ("v5 é", 3 + 1 + 5)):
        stored = sum(path.stat().st_size for path in (cohort / name).rglob("*") if path.is_file())
        with open_slide(cohort / name) as here, open_guarded(f"{remote}/{name}") as there:
            asked.clear(), got.clear()
            np.testing.assert_array_equal(there.read_tile(300, 300, 512), here.read_tile(300, 300, 512))
            assert len(asked) == requests, asked
            assert sum(got) < 0.5 * stored


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_cells_are_those_of_the_plain_image(remote, tmp_path, engine):
    results = str(tmp_path / "results")
    assert (
        score(f"{remote}/manifest.csv", results, model="stain", execution=Execution(engine=engine)).scored
        == 3
    )
    with connect(results) as connection:
        found = connection.execute(
            "SELECT slide_id, any_value(reader), count(*), sum(area_px), sum(positive_px), "
            "any_value(tissue_mm2) "
            "FROM cells JOIN slides USING (slide_id) GROUP BY slide_id ORDER BY slide_id"
        ).fetchall()
    assert [row[1] for row in found] == ["pillow", "zarr", "zarr"]
    assert found[0][2:5] == found[1][2:5] == found[2][2:5]
    assert found[0][2] > 100
    assert (
        score(f"{remote}/manifest.csv", results, model="stain", execution=Execution(engine="local")).skipped
        == 3
    )


@pytest.mark.slow
def test_objects_lost_damaged_and_out_of_reach(s3, remote, monkeypatch):
    monkeypatch.setenv("DEEPLIIF_RAY_RETRY_S", "0.3")
    url = f"{remote}/v4.zarr"
    for place in storage.list_files(url):
        parts = place.removeprefix(f"{url}/").replace("/", ".").split(".")
        if parts[0] == "0" and parts[-2:] == ["2", "2"]:
            storage.remove(place)
        if parts[0] == "0" and parts[-2:] == ["3", "3"]:
            storage.write_bytes(place, b"" if parts[2] == "0" else b"damage")
    with open_guarded(url) as slide:
        alpha = slide.read_level(0, 400, 400, 368, 368)[..., 3]
        assert (alpha[112:368, 112:368] == 0).all()
        assert (alpha == 0).sum() == 256**2
        with pytest.raises(SlideCorruptError):
            slide.read_tile(780, 780, 100)
        slide.read_tile(0, 0, 100)
        s3.stop()
        try:
            with pytest.raises(StorageError):
                slide.read_tile(1000, 0, 300)
        finally:
            s3.start()
        slide.read_tile(1000, 0, 300)
    guard.end_helper()
