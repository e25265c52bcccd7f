"""OME-Zarr: the same pixels and cells as a plain image of them, or a refusal that says what it is."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from deepliif_ray import Execution, connect, score
from deepliif_ray.errors import (
    ResolutionError,
    SlideCorruptError,
    SlideUnreadableError,
    SlideUnsuitableError,
)
from deepliif_ray.slides import open_guarded, open_slide, plan_slide
from deepliif_ray.synthetic import SyntheticTissue
from tests.slides.zarrs import RGB, write_zarr

HEIGHT, WIDTH = 700, 900


@pytest.fixture(scope="module")
def image():
    """Tissue on glass, (700, 900, 3); nowhere black."""
    tissue = SyntheticTissue(WIDTH, HEIGHT, seed=5)
    return np.maximum(np.asarray(tissue[:, :]), 1)


def same(folder: Path, image, **chosen):
    """Assert that a folder shows ``image``, and return the open slide."""
    slide = open_slide(folder, **chosen)
    assert (slide.width, slide.height, slide.reader, slide.vendor) == (WIDTH, HEIGHT, "zarr", "ome-zarr")
    np.testing.assert_array_equal(slide.read_rgb(0, 130, 70, 600, 500), image[70:570, 130:730])
    np.testing.assert_array_equal(slide.read_level(0, WIDTH - 9, HEIGHT - 7, 9, 7)[..., 3], 255)
    return slide


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"version": "0.5"},
        {"version": "0.5", "shard": 512, "chunk": 128},
        {"version": "0.5", "axes": "cyx"},
        {"axes": "yxc", "channels_together": True},
        {"axes": "xyc"},
        {"axes": "czyx", "unit": "nanometer"},
        {"axes": "tczyx", "unit": "millimeter", "omero": None},
        {"fill": 255},
        {"chunk": 100, "compressors": None},
        {"omero": [{"label": name, "color": "FFFFFF"} for name in ("Red", "Green", "Blue")]},
    ],
    ids=str,
)
def test_layouts(tmp_path, image, options):
    write_zarr(tmp_path / "a.zarr", image, **options)
    with same(tmp_path / "a.zarr", image) as slide:
        assert slide.mpp == pytest.approx(0.25)
        assert [level.downsample for level in slide.levels] == [1, 2]
        np.testing.assert_array_equal(slide.read_rgb(1, 0, 0, 450, 350), image[::2, ::2])
        assert (slide.series, slide.plane, slide.n_planes, slide.notes) == (None, None, 1, ())


def test_channels_in_another_order(tmp_path, image):
    names = [{"label": name, "color": "808080"} for name in "BGR"]
    write_zarr(tmp_path / "a.zarr", image[..., ::-1], omero=names)
    same(tmp_path / "a.zarr", image)


def test_through_the_guard_as_an_archive_and_without_a_suffix(tmp_path, image):
    folder = tmp_path / "slide seven"
    write_zarr(folder, image, version="0.5")
    with zipfile.ZipFile(tmp_path / "a.ozx", "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    with zipfile.ZipFile(tmp_path / "b.zarr.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, Path("in a folder") / path.relative_to(folder))
    for name in ("slide seven", "a.ozx", "b.zarr.zip"):
        with same(tmp_path / name, image) as here, open_guarded(tmp_path / name) as there:
            np.testing.assert_array_equal(there.read_tile(300, 200, 512), here.read_tile(300, 200, 512))
            assert plan_slide(here) == plan_slide(there)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_sixteen_bits_by_their_real_range(tmp_path, image, bits):
    write_zarr(tmp_path / "a.zarr", image.astype(np.uint16) << (bits - 8))
    slide = same(tmp_path / "a.zarr", image)
    assert bool(slide.notes) == (bits < 16)


def test_the_stated_range_of_a_dim_image_is_kept(tmp_path, image):
    omero = [{**channel, "window": {"min": 0, "max": 4095}} for channel in RGB]
    write_zarr(tmp_path / "a.zarr", (image // 2).astype(np.uint16) << 4, omero=omero)
    same(tmp_path / "a.zarr", image // 2)


def test_the_middle_plane_or_the_one_asked_for(tmp_path, image):
    planes = [np.full_like(image, 200), image, 255 - image // 2]
    write_zarr(tmp_path / "a.zarr", image, planes=planes)
    with same(tmp_path / "a.zarr", planes[1]) as slide:
        assert (slide.plane, slide.n_planes) == (1, 3)
        assert "the middle one" in slide.notes[0]
    with same(tmp_path / "a.zarr", planes[2], plane=2) as slide:
        assert (slide.plane, slide.n_planes, len(slide.notes)) == (2, 3, 1)
    with pytest.raises(SlideUnsuitableError, match="no plane 3; the image has 3"):
        open_slide(tmp_path / "a.zarr", plane=3)


def test_several_images(tmp_path, image):
    folder = tmp_path / "a.zarr"
    root = zarr.create_group(folder, zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    other = 255 - image // 2
    for number, (pixels, name) in enumerate(
        ((image, "S1"), (other[:300, :400], "label image"), (other, "S2"))
    ):
        write_zarr(None, pixels, group=root.create_group(str(number)), name=name)
    with pytest.raises(SlideUnsuitableError, match=r"holds 3 images \(0: 'S1' of 900 × 700; 1: .*series"):
        open_slide(folder)
    with same(folder, image, series=0) as slide:
        assert slide.series == 0
    same(folder, other, series=2)
    with pytest.raises(SlideUnsuitableError, match="series 3 is asked for, but it holds 3"):
        open_slide(folder, series=3)
    shutil.rmtree(folder / "2")
    with same(folder, image) as slide:  # a label beside the slide is not meant
        assert slide.series == 0
    (folder / "OME").mkdir()
    (folder / "OME" / "METADATA.ome.xml").write_text(
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image Name="macro image"/>'
        '<Image Name="slide"/></OME>'
    )
    with open_slide(folder) as slide:  # OME-XML's names go before those of the multiscales
        assert (slide.series, slide.width) == (1, 400)


FLUORESCENT = [
    {"label": n, "color": c} for n, c in (("DAPI", "0000FF"), ("FITC", "00FF00"), ("Cy3", "FF0000"))
]
CYAN = [{"label": f"Channel {i}", "color": color} for i, color in enumerate(("00FFFF", "FF00FF", "FFFF00"))]
BGR = [{"label": f"Channel {i}", "color": color} for i, color in enumerate(("0000FF", "00FF00", "FF0000"))]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"omero": FLUORESCENT}, "a channel is named 'DAPI'"),
        ({"omero": CYAN}, "shown in 00FFFF, FF00FF, FFFF00"),
        ({"omero": BGR}, "shown in 0000FF"),
        ({"times": 2}, "2 points in time"),
        ({"channels": 1}, "one channel, grey"),
        ({"axes": "yx"}, "one channel, grey"),
        ({"channels": 4}, "4 channels"),
        ({"channels": 2}, "2 channels"),
        ({"dtype": np.float32}, "pixels of type float32"),
        ({"dtype": np.int16}, "pixels of type int16"),
        ({"dtype": np.uint32}, "pixels of type uint32"),
        ({"dark": True}, "most of it is dark, as in fluorescence"),
        ({"dark": True, "dtype": np.uint16}, "most of it is dark, as in fluorescence"),
    ],
    ids=str,
)
def test_what_is_no_brightfield_image_is_refused_by_name(tmp_path, image, change, words):
    options = dict(change)
    pixels = image
    if "channels" in options:
        pixels = np.concatenate([image, image], axis=2)[..., : options.pop("channels")]
    if options.pop("dark", False):
        pixels = (255 - image) // 3
        pixels[:8, :8] = 255
    write_zarr(tmp_path / "a.zarr", pixels.astype(options.pop("dtype", np.uint8)), **options)
    with pytest.raises(SlideUnsuitableError, match=words) as caught:
        open_slide(tmp_path / "a.zarr")
    assert str(caught.value).startswith("a.zarr: ")


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"plate": {"wells": []}}, "plate"),
        ({"well": {"images": []}}, "well"),
        ({"labels": ["cells"]}, "labels"),
        ({"image-label": {}, "multiscales": []}, "labels"),
    ],
)
@pytest.mark.parametrize("version", [2, 3])
def test_plates_and_labels_are_refused(tmp_path, attributes, words, version):
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=version)
    group.attrs.update(attributes if version == 2 else {"ome": attributes})
    with pytest.raises(SlideUnsuitableError, match=words):
        open_slide(tmp_path / "a.zarr")


def test_chunks_that_are_absent_were_not_scanned(tmp_path, image):
    folder = tmp_path / "a.zarr"
    write_zarr(folder, image, chunk=256, axes="cyx")
    for channel in "012":
        (folder / "0" / channel / "1" / "2").unlink() if (folder / "0" / channel).is_dir() else (
            folder / "0" / f"{channel}.1.2"
        ).unlink()
    with open_slide(folder) as slide:
        pixels = slide.read_level(0, 0, 0, WIDTH, HEIGHT)
        absent = np.zeros((HEIGHT, WIDTH), bool)
        absent[256:512, 512:768] = True
        np.testing.assert_array_equal(pixels[..., 3] == 0, absent)
        np.testing.assert_array_equal(pixels[~absent][:, :3], image[~absent])
        assert (slide.read_rgb(0, 520, 260, 100, 100) == 255).all()


@pytest.mark.parametrize("options", [{}, {"version": "0.5", "shard": 512, "chunk": 128}])
def test_black_is_not_absent_unless_all_of_a_chunk_is(tmp_path, image, options):
    pixels = image.copy()
    pixels[300:330, 300:360] = 0
    pixels[512:640, 512:640] = 0
    write_zarr(tmp_path / "a.zarr", pixels, **{"chunk": 128, **options})
    with open_slide(tmp_path / "a.zarr") as slide:
        alpha = slide.read_level(0, 0, 0, WIDTH, HEIGHT)[..., 3]
        assert (alpha[512:640, 512:640] == 0).all()
        assert (alpha == 0).sum() == 128**2
        # Of a chunk of which only a black part is read, all is looked at.
        assert (slide.read_level(0, 305, 305, 10, 10)[..., 3] == 255).all()


def test_a_lost_chunk_of_one_colour_is_damage(tmp_path, image):
    folder = tmp_path / "a.zarr"
    write_zarr(folder, image, chunk=256, axes="cyx", version="0.5")
    (folder / "0" / "c" / "2" / "1" / "2").unlink()
    with open_slide(folder) as slide:
        with pytest.raises(SlideCorruptError, match="a chunk of one colour is absent"):
            slide.read_rgb(0, 500, 250, 200, 200)
        np.testing.assert_array_equal(slide.read_rgb(0, 0, 0, 500, 700), image[:, :500])


@pytest.mark.parametrize("how", ["cut", "rotten", "empty"])
def test_a_damaged_chunk_is_corrupt_there_alone(tmp_path, image, how):
    folder = tmp_path / "a.zarr"
    write_zarr(folder, image, chunk=256, axes="cyx", version="0.5")
    chunk = folder / "0" / "c" / "1" / "1" / "1"
    data = chunk.read_bytes()
    chunk.write_bytes({"cut": data[: len(data) // 2], "rotten": b"\0" * len(data), "empty": b""}[how])
    with open_guarded(folder) as slide:
        with pytest.raises(
            SlideCorruptError, match=r"a\.zarr: pixels at 300, 300 \(100 × 100, level 0\) cannot"
        ):
            slide.read_rgb(0, 300, 300, 100, 100)
        np.testing.assert_array_equal(slide.read_rgb(0, 520, 0, 300, 300), image[:300, 520:820])


def test_levels_that_show_something_else_are_left_out(tmp_path, image):
    folder = tmp_path / "a.zarr"
    attributes = write_zarr(folder, image, levels=3)
    group = zarr.open_group(folder, mode="r+")
    macro = group.create_array("macro", shape=(1, 3, 1, 100, 300), chunks=(1, 1, 1, 100, 300), dtype="u1")
    macro[:] = 200
    scales = attributes["multiscales"][0]
    scales["datasets"].insert(0, {"path": "macro", "coordinateTransformations": []})
    moved = scales["datasets"][2]["coordinateTransformations"]
    moved.append({"type": "translation", "translation": [0, 0, 0, 100.0, 0]})
    group.attrs.update(attributes)
    with same(folder, image) as slide:
        assert [level.downsample for level in slide.levels] == [1, 4]
        assert [note.partition(" is left")[0] for note in slide.notes] == ["level '1'", "level 'macro'"]


def test_pixel_sizes(tmp_path, image):
    folder = tmp_path / "a.zarr"
    for unit in (None, "parsec"):
        write_zarr(folder, image, unit=unit)
        with open_slide(folder) as slide:
            assert slide.mpp is None
            assert "no usable unit" in slide.notes[0]
    attributes = write_zarr(folder, image)
    scales = attributes["multiscales"][0]
    for dataset in scales["datasets"]:
        dataset["coordinateTransformations"][0]["scale"][-1] *= 2
    zarr.open_group(folder, mode="r+").attrs.update(attributes)
    with open_slide(folder) as slide, pytest.raises(ResolutionError, match="not square"):
        _ = slide.mpp
    attributes = write_zarr(folder, image)
    attributes["multiscales"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [1, 1, 1, 2, 2]}]
    zarr.open_group(folder, mode="r+").attrs.update(attributes)
    with open_slide(folder) as slide:
        assert slide.mpp == pytest.approx(0.5)


def test_nothing_but_unpacking_is_done(tmp_path, image):
    """A codec of numcodecs unpickles, which runs what the file says."""
    folder = tmp_path / "a.zarr"
    write_zarr(folder, image, levels=1)
    document = json.loads((folder / "0" / ".zarray").read_text())
    for place in ({"filters": [{"id": "pickle"}]}, {"compressor": {"id": "pickle", "protocol": 5}}):
        (folder / "0" / ".zarray").write_text(json.dumps(document | place))
        with pytest.raises(SlideUnreadableError, match="packed by 'pickle'"):
            open_slide(folder)
    write_zarr(folder, image, levels=1, version="0.5", shard=512)
    document = json.loads((folder / "0" / "zarr.json").read_text())
    document["codecs"][0]["configuration"]["codecs"].append({"name": "numcodecs.pickle", "configuration": {}})
    (folder / "0" / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(SlideUnreadableError, match="packed by 'pickle'"):
        open_slide(folder)


def test_paths_that_lead_elsewhere_are_not_followed(tmp_path, image):
    write_zarr(tmp_path / "other.zarr", image)
    folder = tmp_path / "a.zarr"
    attributes = write_zarr(folder, image, levels=1)
    for path in ("../other.zarr/0", "/etc", "0/../../other.zarr/0", ""):
        attributes["multiscales"][0]["datasets"][0]["path"] = path
        zarr.open_group(folder, mode="r+").attrs.update(attributes)
        with pytest.raises(SlideUnreadableError):
            open_slide(folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        '{"multiscales": 3}',
        '{"multiscales": []}',
        '{"multiscales": [{}]}',
        '{"multiscales": [{"datasets": []}]}',
        '{"multiscales": [{"axes": ["y", "y"], "datasets": [{"path": "0"}]}]}',
        '{"multiscales": [{"axes": ["y", "x"], "datasets": [{"path": "0"}]}]}',
        '{"multiscales": [{"datasets": [{"path": "nowhere"}]}]}',
        '{"multiscales": [{"datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", '
        '"scale": [1]}]}]}]}',
        '{"bioformats2raw.layout": 3}',
        "{}",
    ],
    ids=lambda text: text[:40],
)
def test_metadata_that_are_none_have_an_error_of_their_own(tmp_path, image, text):
    write_zarr(tmp_path / "a.zarr", image[:64, :64])
    (tmp_path / "a.zarr" / ".zattrs").write_text(text)
    with pytest.raises(SlideUnreadableError, match=r"^a\.zarr: "):
        open_guarded(tmp_path / "a.zarr")


def test_a_folder_that_is_no_slide(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SlideUnreadableError, match="empty: a folder without DICOM or OME-Zarr"):
        open_slide(tmp_path / "empty")
    (tmp_path / "a.ozx").write_bytes(b"PK")
    with pytest.raises(SlideUnreadableError, match=r"a\.ozx: no sound ZIP archive"):
        open_slide(tmp_path / "a.ozx")


@pytest.mark.slow
def test_scores_as_the_plain_image_does(tmp_path, image):
    """Cells and tissue of a folder, named with and without a slash or by its metadata, are the PNG's."""
    write_zarr(tmp_path / "a.zarr", image, version="0.5", shard=512)
    Image.fromarray(image).save(tmp_path / "png.png")
    uris = ("png.png", "a.zarr", "a.zarr/", "a.zarr/zarr.json", str(tmp_path / "a.zarr"))
    results = str(tmp_path / "results")
    for number, uri in enumerate(uris):  # one manifest may name a slide once
        row = f"{number},p{number},Ki67,{uri},0.25\n"
        (tmp_path / "m.csv").write_text(f"slide_id,patient_id,marker,uri,mpp\n{row}")
        assert (
            score(str(tmp_path / "m.csv"), results, model="stain", execution=Execution(engine="local")).scored
            == 1
        )
    with connect(results) as connection:
        found = connection.execute(
            "SELECT count(*), sum(area_px), sum(positive_px), s.tissue_mm2 FROM cells JOIN slides s "
            "USING (slide_id) GROUP BY slide_id, s.tissue_mm2"
        ).fetchall()
        readers = connection.execute("SELECT DISTINCT reader FROM slides ORDER BY 1").fetchall()
    assert len(found) == len(uris)
    assert len({row[:3] for row in found}) == 1
    assert found[0][0] > 10
    assert readers == [("pillow",), ("zarr",)]
