"""DICOM slides of every kind: the pixels that were written, or a refusal that says what the file is."""

import shutil

import numpy as np
import pytest
from pydicom.dataset import Dataset

from deepliif_ray.errors import SlideCorruptError, SlideUnreadableError, SlideUnsuitableError
from deepliif_ray.slides import dicom, open_guarded, open_slide, plan_slide
from tests.slides.dicoms import (
    BIG,
    DEFLATED,
    HTJ2K,
    IMPLICIT,
    J2K,
    JPEG,
    JPEGLS,
    NATIVE,
    RLE,
    jpeg,
    place,
    tiles_of,
    write_dicom,
)
from tests.slides.picture import PICTURE

IMAGE = PICTURE[:500]
YBR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


def shows(slide, image, off=0):
    """Assert that ``slide`` shows ``image``, to ``off`` grey levels on average."""
    assert (slide.width, slide.height) == (image.shape[1], image.shape[0])
    pixels = slide.read_level(0, 0, 0, slide.width, slide.height)
    assert (pixels[..., 3] == 255).all()
    if off:
        assert np.abs(pixels[..., :3].astype(int) - image).mean() < off
    else:
        np.testing.assert_array_equal(pixels[..., :3], image)
    if slide.width > 500:
        np.testing.assert_array_equal(slide.read_level(0, 200, 100, 300, 250), pixels[100:350, 200:500])


@pytest.mark.parametrize(
    ("options", "reader", "off"),
    [
        ({}, "openslide", 0),
        ({"syntax": JPEG, "colours": "YBR_FULL_422"}, "openslide", 2),
        ({"syntax": BIG}, "pydicom", 0),
        ({"syntax": IMPLICIT}, "pydicom", 0),
        ({"syntax": DEFLATED}, "pydicom", 0),
        ({"PlanarConfiguration": 1}, "pydicom", 0),
        ({"syntax": J2K}, "pydicom", 0),
        ({"syntax": J2K, "colours": "YBR_RCT", "offsets": "extended"}, "pydicom", 0),
        ({"syntax": HTJ2K, "offsets": "fragments"}, "pydicom", 0),
        ({"syntax": JPEGLS, "offsets": "none"}, "pydicom", 0),
        ({"syntax": RLE}, "pydicom", 0),
    ],
    ids=str,
)
def test_encodings(tmp_path, options, reader, off):
    write_dicom(tmp_path / "a.dcm", IMAGE, **options)
    with open_slide(tmp_path / "a.dcm") as slide:
        assert (slide.reader, slide.vendor) == (reader, "dicom")
        assert slide.mpp == pytest.approx(0.25)
        shows(slide, IMAGE, off)
    with open_guarded(tmp_path) as there, open_slide(tmp_path / "a.dcm") as here:
        assert plan_slide(there) == plan_slide(here)


@pytest.mark.parametrize(
    ("space", "more", "tags"),
    [
        ("RGB", {}, ("RGB", "YBR_FULL_422", "YBR_FULL")),
        ("YCBCR", {}, ("RGB", "YBR_FULL_422", "YBR_FULL")),
        ("YCBCR", {"subsampling": "420", "markers": False}, ("RGB", "YBR_FULL_422", "YBR_FULL")),
        ("RGB", {"markers": False}, ("RGB",)),  # nothing in the data tells, so the tag does
        ("YCBCR", {"markers": False, "subsampling": "444"}, ("YBR_FULL_422", "YBR_FULL")),
    ],
    ids=str,
)
def test_colours_are_those_of_the_data(tmp_path, space, more, tags):
    for tagged in tags:
        write_dicom(
            tmp_path / "a.dcm",
            IMAGE,
            syntax=JPEG,
            colours=tagged,
            encode=lambda tile: jpeg(tile, space, **more),
        )
        with open_slide(tmp_path / "a.dcm") as slide:
            shows(slide, IMAGE, 3)


def test_colours_as_luminance_and_difference_without_jpeg(tmp_path):
    ybr = np.clip(np.rint(IMAGE @ YBR.T + [0, 128, 128]), 0, 255).astype(np.uint8)
    for syntax in (NATIVE, RLE, JPEGLS, J2K):
        encode = None
        if syntax == J2K:
            from imagecodecs import jpeg2k_encode

            def encode(tile):
                return jpeg2k_encode(tile, level=0, reversible=True, mct=False, codecformat="j2k")

        write_dicom(tmp_path / "a.dcm", ybr, syntax=syntax, colours="YBR_FULL", encode=encode)
        with open_slide(tmp_path / "a.dcm") as slide:
            shows(slide, IMAGE, 1)


@pytest.mark.parametrize("syntax", [NATIVE, BIG, RLE])
def test_sixteen_bits(tmp_path, syntax):
    write_dicom(tmp_path / "a.dcm", IMAGE.astype(np.uint16) << 4, syntax=syntax, BitsStored=12, HighBit=11)
    with open_slide(tmp_path / "a.dcm") as slide:
        shows(slide, IMAGE)


@pytest.mark.parametrize("syntax", [NATIVE, J2K])
def test_tiles_that_say_where_they_lie(tmp_path, syntax):
    tiles, order = list(tiles_of(IMAGE, 256)), [4, 0, 5, 3, 2]  # of six, one is not there
    write_dicom(
        tmp_path / "a.dcm", IMAGE, syntax=syntax, frames=[tiles[i] for i in order],
        DimensionOrganizationType="TILED_SPARSE",
        PerFrameFunctionalGroupsSequence=[place(i % 3 * 256, i // 3 * 256) for i in order],
    )  # fmt: skip
    with open_slide(tmp_path / "a.dcm") as slide:
        assert slide.reader == "pydicom"
        pixels = slide.read_level(0, 0, 0, 700, 500)
        here = np.ones((500, 700), bool)
        here[:256, 256:512] = False
        np.testing.assert_array_equal(pixels[..., 3] == 255, here)
        np.testing.assert_array_equal(pixels[here][:, :3], IMAGE[here])


def test_focal_planes(tmp_path):
    planes = [np.full_like(IMAGE, 220), IMAGE, 255 - IMAGE // 2]
    tiles = [tile for plane in planes for tile in tiles_of(plane, 256)]
    write_dicom(tmp_path / "full.dcm", IMAGE, frames=tiles, TotalPixelMatrixFocalPlanes=3, series="1.1")
    write_dicom(
        tmp_path / "sparse.dcm", IMAGE, frames=tiles[::-1], series="1.2",
        DimensionOrganizationType="TILED_SPARSE", PerFrameFunctionalGroupsSequence=[
            place(i % 3 * 256, i // 3 * 256, z) for z in (0.004, 0.002, 0.0) for i in (5, 4, 3, 2, 1, 0)
        ],
    )  # fmt: skip
    for name in ("full.dcm", "sparse.dcm"):
        with open_slide(tmp_path / name) as slide:
            assert (slide.plane, slide.n_planes, len(slide.notes)) == (1, 3, 1)
            shows(slide, planes[1])
        for plane in range(3):
            with open_slide(tmp_path / name, plane=plane) as slide:
                assert slide.plane == plane
                shows(slide, planes[plane])
        with pytest.raises(SlideUnsuitableError, match="no plane 3; the image has 3"):
            open_slide(tmp_path / name, plane=3)


def test_concatenations(tmp_path):
    tiles = list(tiles_of(IMAGE, 256))
    for name, first, last in (("b.dcm", 0, 2), ("a.dcm", 2, 6)):
        write_dicom(
            tmp_path / name,
            IMAGE,
            frames=tiles[first:last],
            ConcatenationUID="1.5",
            ConcatenationFrameOffsetNumber=first,
        )
    for place_ in (tmp_path, tmp_path / "a.dcm"):
        with open_slide(place_) as slide:
            shows(slide, IMAGE)
    (tmp_path / "a.dcm").unlink()
    with pytest.raises(SlideUnreadableError, match="2 frames where 3 × 2 × 1 are needed"):
        open_slide(tmp_path)


def test_levels_labels_and_files_of_any_name(tmp_path):
    """A folder as from a disc: no suffixes, sub-folders, a label and an overview before the slide."""
    folder = tmp_path / "disc"
    for number, (image, kind) in enumerate(
        (
            (IMAGE[:90, :90], "LABEL"),
            (IMAGE[:200], "OVERVIEW"),
            (IMAGE[::2, ::2], "VOLUME"),
            (IMAGE, "VOLUME"),
        )
    ):
        (folder / f"S{number}").mkdir(parents=True)
        write_dicom(folder / f"S{number}" / "I001", image, kind=kind)
    for path in (folder,):
        with open_slide(path) as slide:
            assert [level.downsample for level in slide.levels] == [1, 2]
            shows(slide, IMAGE)
    for number in (2, 3):
        shutil.rmtree(folder / f"S{number}")
    with pytest.raises(
        SlideUnsuitableError, match="no image of a slide in this DICOM series but label, overview"
    ):
        open_slide(folder)


@pytest.mark.parametrize("below", ["", "one/", "one/deep/"])
def test_two_series_in_a_folder_are_refused_or_chosen(tmp_path, below):
    (tmp_path / below).mkdir(parents=True, exist_ok=True)
    (tmp_path / "two").mkdir()
    write_dicom(tmp_path / below / "a.dcm", IMAGE, series="1.1")
    write_dicom(tmp_path / ("two" if below else "") / "b.dcm", 255 - IMAGE, series="1.2")
    with pytest.raises(SlideUnreadableError, match=r"2 DICOM series: 1\.1 \(.*a\.dcm\); 1\.2 \(.*b\.dcm\)"):
        open_guarded(tmp_path)
    with open_slide(tmp_path, series=1) as slide:
        shows(slide, 255 - IMAGE)
    with pytest.raises(SlideUnsuitableError, match="series 2 is asked for"):
        open_slide(tmp_path, series=2)
    with open_slide(tmp_path / below / "a.dcm") as slide:  # a file names its series
        shows(slide, IMAGE)


GREY = {"image": IMAGE[..., :1], "colours": "MONOCHROME2"}
EPI = Dataset()
EPI.IlluminationTypeCodeSequence = [Dataset()]
EPI.IlluminationTypeCodeSequence[0].CodeMeaning = "Epifluorescence illumination"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (GREY, "pixels are MONOCHROME2, 1 a pixel"),
        ({"image": IMAGE[..., :1], "colours": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"NumberOfOpticalPaths": 2}, "2 optical paths"),
        ({"OpticalPathSequence": [EPI]}, "light is Epifluorescence"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "CT Image Storage"),
        ({"kind": "LABEL"}, "label"),
    ],
)
def test_what_is_no_brightfield_slide_is_refused_by_name(tmp_path, options, words):
    write_dicom(tmp_path / "a.dcm", **{"image": IMAGE, **options})
    with pytest.raises(SlideUnsuitableError, match=words):
        open_slide(tmp_path / "a.dcm")


def test_two_images_of_one_size_are_refused_and_copies_are_one(tmp_path):
    write_dicom(tmp_path / "a.dcm", IMAGE)
    shutil.copy(tmp_path / "a.dcm", tmp_path / "copy of a.dcm")
    with open_slide(tmp_path) as slide:
        shows(slide, IMAGE)
    write_dicom(tmp_path / "b.dcm", 255 - IMAGE)
    with pytest.raises(SlideUnsuitableError, match="2 images of 700 × 500 pixels in one series"):
        open_slide(tmp_path)


@pytest.mark.parametrize("syntax", [JPEG, J2K, JPEGLS, RLE, BIG])
def test_damage_is_corrupt_where_it_is(tmp_path, syntax):
    path = tmp_path / "a.dcm"
    write_dicom(path, IMAGE, syntax=syntax)
    with open_guarded(path) as slide:
        sound = slide.read_rgb(0, 0, 0, 400, 256)
    data = bytearray(path.read_bytes())
    data[-3000:] = b"" if syntax == BIG else b"\x07" * 3000
    path.write_bytes(data)
    with open_guarded(path) as slide:
        with pytest.raises(SlideCorruptError, match=r"a\.dcm: frame 5 of 700 × 500 pixels cannot be decoded"):
            slide.read_rgb(0, 600, 400, 100, 100)
        np.testing.assert_array_equal(slide.read_rgb(0, 0, 0, 400, 256), sound)


def test_encodings_that_are_not_read_are_named(tmp_path):
    write_dicom(tmp_path / "a.dcm", IMAGE, syntax="1.2.840.10008.1.2.4.100", encode=lambda tile: b"\0\0")
    with pytest.raises(SlideUnreadableError, match="MPEG2"):
        open_slide(tmp_path / "a.dcm")


def test_real_slides_are_the_same_by_both_readers(shared_data, monkeypatch):
    for name in ("camelyon_dicom", "idc_dicom", "boxes_dicom"):
        folder = shared_data / "slides" / name
        with open_slide(folder) as usual, monkeypatch.context() as patch:
            patch.setattr(dicom, "_is_usual", lambda *_: False)
            with open_slide(folder) as other:
                assert (usual.reader, other.reader) == ("openslide", "pydicom")
                assert (usual.levels, usual.mpp) == (other.levels, other.mpp)
                shows(other, usual.read_rgb(0, 0, 0, usual.width, usual.height))


def test_a_real_slide_in_jpeg_ls_is_the_one_without_compression(shared_data):
    with (
        open_slide(shared_data / "bad/wsi/sm_image_jpegls/sm_image_jpegls.dcm") as packed,
        open_slide(shared_data / "slides/idc_dicom") as plain,
    ):
        shows(packed, plain.read_rgb(0, 0, 0, 50, 50))
