"""DICOM annotations: read back by pydicom alone, they tell what the views tell, and of which slide."""

from pathlib import Path

import numpy as np
import pytest
import shapely
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError, SlideChangedError, SlideUnsuitableError
from deepliif_ray.query import ask
from deepliif_ray.slides import open_guarded
from tests.exports import slides
from tests.exports.test_columns import called, corrected
from tests.slides.dicoms import write_dicom
from tests.slides.picture import PICTURE

NAME = 'it\'s, "S" 1'
SERIES, FRAME = generate_uid(), generate_uid()
KNOWN = {"PatientID": "P-17", "PatientName": "Müller^Ana", "SpecificCharacterSet": "ISO_IR 192"}


def write(folder, image=PICTURE[:500, :400], **more):
    folder.mkdir(exist_ok=True)
    told = {"series": SERIES, "FrameOfReferenceUID": FRAME, "StudyID": "7"} | KNOWN | more
    return write_dicom(folder / "a.dcm", image, **told)


def commit(root, path, **more):
    said = {"slide_version": storage.version(str(path)), "uri": str(path)}
    said |= {"slide_fingerprint": storage.content_fingerprint(str(path), Path(path))}
    slides.commit(root, NAME, **({"width_px": 400, "height_px": 500} | said | more))


@pytest.fixture
def header(tmp_path):
    return write(tmp_path / "slide")


@pytest.fixture
def root(tmp_path, header):
    root = str(tmp_path / "results")
    commit(root, tmp_path / "slide" / "a.dcm")
    return root


def test_the_header_of_a_slide(tmp_path, header):
    private = Dataset()
    private.add_new(0x00091001, "LO", "secret")
    with open_guarded(tmp_path / "slide" / "a.dcm") as slide:
        told = Dataset.from_json(slide.dicom_header())
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyID", "PatientID", "FrameOfReferenceUID"):
        assert told[name].value == header[name].value
    assert str(told.PatientName) == "Müller^Ana" and "SharedFunctionalGroupsSequence" not in told
    (tmp_path / "a.png").write_bytes(b"")
    from PIL import Image

    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    with open_guarded(tmp_path / "a.png") as slide:
        assert slide.dicom_header() is None


class TestAnnotations:
    """What highdicom wrote."""

    @pytest.fixture(autouse=True)
    def libraries(self):
        pytest.importorskip("highdicom", reason="pip install 'deepliif-ray[dicom]'")

    @pytest.mark.parametrize("points", [False, True])
    @pytest.mark.parametrize("strength", [False, True])
    def test_it_tells_what_the_view_tells(self, root, header, tmp_path, points, strength):
        from deepliif_ray.exports.dicom import export_dicom_annotations

        done = export_dicom_annotations(root, tmp_path / "a.dcm", points=points, strength=strength)
        rows, made = called(root), dcmread(tmp_path / "a.dcm")
        names = {row["cell_id"]: "Positive" if row["positive"] else "Negative" for row in rows}
        if strength:
            names = {row["cell_id"]: ("Negative", "1+", "2+", "3+")[row["strength"]] for row in rows}
        assert done.n_cells == sum(g.NumberOfAnnotations for g in made.AnnotationGroupSequence) == len(rows)
        assert {g.AnnotationGroupLabel for g in made.AnnotationGroupSequence} == set(names.values())
        for group in made.AnnotationGroupSequence:
            there = [row for row in rows if names[row["cell_id"]] == group.AnnotationGroupLabel]
            assert group.NumberOfAnnotations == len(there)
            at = np.frombuffer(group.PointCoordinatesData, "<f4").reshape(-1, 2)
            if points:
                assert group.GraphicType == "POINT"
                np.testing.assert_allclose(at, [[row["x"] + 0.5, row["y"] + 0.5] for row in there], atol=1e-4)
            else:
                assert group.GraphicType == "POLYGON"
                begins = (np.frombuffer(group.LongPrimitivePointIndexList, "<i4") - 1) // 2
                rings = [shapely.Polygon(part) for part in np.split(at, begins[1:])]
                assert all(shapely.is_valid(rings))
                assert [ring.area for ring in rings] == pytest.approx(
                    [row["area_px"] for row in there], abs=0.2
                )
                assert [ring.bounds for ring in rings] == [
                    tuple(row[f"bbox_{edge}"] for edge in ("x0", "y0", "x1", "y1")) for row in there
                ]
            (area,) = group.MeasurementsSequence
            assert area.ConceptNameCodeSequence[0].CodeMeaning == "Area"
            assert area.MeasurementUnitsCodeSequence[0].CodeValue == "um2"
            values = np.frombuffer(area.MeasurementValuesSequence[0].FloatingPointValues, "<f4")
            np.testing.assert_allclose(values, [row["area_um2"] for row in there], rtol=1e-6)
            (kind,) = group.AnnotationPropertyTypeCodeSequence
            assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("84640000", "SCT")
            assert group.AnnotationGroupGenerationType == "AUTOMATIC"
            (by,) = group.AnnotationGroupAlgorithmIdentificationSequence
            assert (by.AlgorithmName, by.AlgorithmVersion) == ("stain", "m1")

    def test_it_refers_to_the_slide(self, root, header, tmp_path):
        from deepliif_ray.exports.dicom import export_dicom_annotations

        export_dicom_annotations(root, tmp_path / "a.dcm")
        made = dcmread(tmp_path / "a.dcm")
        assert made.SOPClassUID == "1.2.840.10008.5.1.4.1.1.91.1" and made.Modality == "ANN"
        assert made.AnnotationCoordinateType == "2D" and made.PixelOriginInterpretation == "VOLUME"
        assert made.ReferencedImageSequence[0].ReferencedSOPInstanceUID == header.SOPInstanceUID
        assert made.ReferencedSeriesSequence[0].SeriesInstanceUID == SERIES
        assert made.StudyInstanceUID == header.StudyInstanceUID and made.SeriesInstanceUID != SERIES
        assert str(made.PatientName) == "Müller^Ana" and made.PatientID == "P-17" and made.StudyID == "7"

    def test_what_people_corrected_is_not_automatic(self, root, tmp_path):
        from deepliif_ray.exports.cells import Calls
        from deepliif_ray.exports.dicom import export_dicom_annotations

        corrected(root, tmp_path)
        for calls, kind in ((Calls(), "SEMIAUTOMATIC"), (Calls(corrections=False), "AUTOMATIC")):
            export_dicom_annotations(root, tmp_path / "a.dcm", calls=calls, overwrite=True)
            groups = dcmread(tmp_path / "a.dcm").AnnotationGroupSequence
            assert {group.AnnotationGroupGenerationType for group in groups} == {kind}
            source = "called_cells" if calls.corrections else "called_cells(corrections := false)"
            counted = ask(root, f"SELECT count(*) AS n FROM {source}").to_pylist()[0]["n"]
            assert sum(group.NumberOfAnnotations for group in groups) == counted

    def test_another_slide_than_the_scored_one_is_refused(self, root, tmp_path):
        from deepliif_ray.exports.dicom import export_dicom_annotations

        write(tmp_path / "slide", 255 - PICTURE[:500, :400])
        with pytest.raises(SlideChangedError, match=r"a\.dcm.*not the file that was scored"):
            export_dicom_annotations(root, tmp_path / "a.dcm")
        assert not (tmp_path / "a.dcm").exists()

    def test_what_annotations_cannot_refer_to_is_refused(self, tmp_path):
        from PIL import Image

        from deepliif_ray.exports.dicom import export_dicom_annotations

        root = str(tmp_path / "plain")
        Image.fromarray(PICTURE[:500, :400]).save(tmp_path / "a.png")
        commit(root, tmp_path / "a.png")
        with pytest.raises(SlideUnsuitableError, match=r"a\.png: no DICOM slide.*convert"):
            export_dicom_annotations(root, tmp_path / "a.dcm")
        write(tmp_path / "slide", FrameOfReferenceUID="")
        root = str(tmp_path / "lacking")
        commit(root, tmp_path / "slide" / "a.dcm")
        with pytest.raises(SlideUnsuitableError, match="lacks FrameOfReferenceUID"):
            export_dicom_annotations(root, tmp_path / "a.dcm")

    def test_too_many_cells_are_refused_by_name(self, root, tmp_path, monkeypatch):
        from deepliif_ray.exports import dicom

        monkeypatch.setattr(dicom, "MOST_CELLS", 5)
        with pytest.raises(ConfigError, match=r"cells count.*--region"):
            dicom.export_dicom_annotations(root, tmp_path / "a.dcm")

    @pytest.mark.parametrize(
        "name", ["camelyon_dicom/multiframe_camelyon_challenge_image.dcm", "boxes_dicom/boxes_0.dcm"]
    )
    def test_real_slides(self, shared_data, tmp_path, name):
        from deepliif_ray.exports.dicom import export_dicom_annotations

        path = shared_data / "slides" / name
        with open_guarded(path) as slide:
            size = {"width_px": slide.width, "height_px": slide.height}
        root = str(tmp_path / "real")
        commit(root, path, **size)
        done = export_dicom_annotations(root, tmp_path / "a.dcm", slide=NAME)
        source, made = dcmread(path, stop_before_pixels=True), dcmread(tmp_path / "a.dcm")
        assert sum(group.NumberOfAnnotations for group in made.AnnotationGroupSequence) == done.n_cells > 20
        assert made.ReferencedImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert made.StudyInstanceUID == source.StudyInstanceUID
        assert str(made.get("PatientID") or "") == str(source.get("PatientID") or "")
