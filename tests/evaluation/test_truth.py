import io

import pytest
from PIL import Image

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError
from deepliif_ray.evaluation.truth import list_images, read_image_of, read_truths


def png(value, size=(8, 6)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def strip():
    image = Image.new("RGB", (36, 6))
    for panel in range(6):
        image.paste((panel, 0, 0), (6 * panel, 0, 6 * panel + 6, 6))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(request):
    url = f"memory://truth-{request.node.name}"
    yield url
    storage.remove(url)


def put(folder, files):
    for name, data in files.items():
        storage.write_bytes(f"{folder}/{name}", data)


def test_layouts(folder):
    put(
        folder,
        {
            "0.png": png(1),
            "0.csv": b"\xef\xbb\xbfx,y,positive\n1,2,1\n3.5,4,0\n",
            "a/ihc.png": png(10),
            "a/truth.png": png(11),
            "a/seg.png": png(12),
            "a/dapi.png": png(13),
            "b.jpg": png(20),
            "b_Seg.png": png(21),
            "b_Hema.PNG": png(22),
            "c.png": strip(),
            "counts.json": b"{}",
            "other.csv": b"x",
        },
    )
    zero, a, b, c = read_truths(folder)
    assert [truth.name for truth in (zero, a, b, c)] == ["0", "a", "b", "c"]
    assert zero.points.xy.tolist() == [[1, 2], [3.5, 4]]
    assert zero.points.positive.tolist() == [True, False]
    assert (zero.mask, zero.rgb[0, 0, 0]) == (None, 1)
    assert (a.rgb[0, 0, 0], a.mask[0, 0, 0], a.modalities["dapi"][0, 0, 0]) == (10, 11, 13)
    assert (b.rgb[0, 0, 0], b.mask[0, 0, 0], b.modalities["hematoxylin"][0, 0, 0]) == (20, 21, 22)
    assert (c.rgb[0, 0, 0], c.mask[0, 0, 0], c.rgb.shape) == (0, 5, (6, 6, 3))
    assert {name: image[0, 0, 0] for name, image in c.modalities.items()} == {
        "hematoxylin": 1, "dapi": 2, "lap2": 3, "marker": 4,
    }  # fmt: skip


def test_kinds(folder):
    put(folder, {"a/ihc.png": png(10), "a/truth.png": png(11), "a/seg.png": png(12)})
    assert next(read_truths(folder, "seg")).mask[0, 0, 0] == 12
    assert next(read_truths(folder, "truth")).mask[0, 0, 0] == 11
    with pytest.raises(ConfigError, match=r"a/ihc\.png: no points"):
        next(read_truths(folder, "points"))
    with pytest.raises(ConfigError, match="use one of auto"):
        read_truths(folder, "masks")


def test_the_folder_may_be_one_image(folder):
    put(folder, {"a/ihc.png": png(10), "a/truth.png": png(11)})
    assert [truth.name for truth in read_truths(f"{folder}/a/")] == ["a"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"notes.txt": b""}, "no images here"),
        ({"a.png": png(1)}, "neither centroids nor a mask"),
        ({"a_seg.png": png(1)}, "no IHC image"),
        ({"a.png": png(1), "a_seg.png": png(1, (9, 6))}, r"a_seg\.png: 9 × 6 pixels"),
        ({"a.png": png(1), "a.csv": b"x,y\n1,2\n"}, r"a\.csv: not a table of centroids"),
        ({"a.png": png(1), "a.csv": b"x,y,positive\n1,2,yes\n"}, r"a\.csv: not a table of centroids"),
        ({"a.png": png(1)[:45], "a.csv": b"x,y,positive\n"}, r"a\.png: cannot be decoded"),
        ({"a.png": png(1), "a.jpg": png(1), "a_seg.png": png(1)}, "both the ihc of one image"),
    ],
)
def test_what_cannot_be_used_is_named(folder, files, message):
    put(folder, files)
    with pytest.raises(ConfigError, match=message):
        list(read_truths(folder))


TABLE = "name,mpp\n"


def test_pixel_sizes_of_images(folder):
    points = b"x,y,positive\n1,2,1\n"
    put(
        folder,
        {
            "0.png": png(1),
            "0.csv": points,
            "a/ihc.png": png(10),
            "a/truth.png": png(11),
            "sub/1.png": png(1),
            "sub/1.csv": points,
            "mpp.csv": b"\xef\xbb\xbfname,mpp,note\n0,0.16,camera\na,0.5,\n",
        },
    )
    assert [(t.name, t.mpp) for t in read_truths(folder, mpp=0.3)] == [
        ("0", 0.16),
        ("a", 0.5),
        ("sub/1", 0.3),
    ]
    with pytest.raises(ConfigError, match=r"mpp\.csv: there is no row for 1; add name and mpp"):
        read_truths(folder)
    put(folder, {"sub/mpp.csv": b"name,mpp\n1,0.2\n"})
    assert [image.mpp for image in list_images(folder)] == [0.16, 0.5, 0.2]
    assert [truth.mpp for truth in read_truths(f"{folder}/sub")] == [0.2]
    put(folder, {"a/mpp.csv": b"name,mpp\na,0.4\n"})
    assert [truth.mpp for truth in read_truths(f"{folder}/a")] == [0.4]


def test_without_a_table_nobody_knows(folder):
    put(folder, {"0.png": png(1), "0.csv": b"x,y,positive\n"})
    assert [truth.mpp for truth in read_truths(folder)] == [None]
    assert [truth.mpp for truth in read_truths(folder, mpp=0.23)] == [0.23]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("image,mpp\n0,0.25\n", r"mpp\.csv: not a table of pixel sizes"),
        (f"{TABLE}0\n", r"mpp\.csv: not a table of pixel sizes"),
        (f"{TABLE}0,fine\n", r"mpp\.csv: not a table of pixel sizes"),
        (f"{TABLE}0,25\n", r"mpp\.csv: 0: 25 µm per pixel is outside 0\.05 to 4"),
        (f"{TABLE}0,nan\n", r"mpp\.csv: 0: nan µm per pixel"),
        (f"{TABLE}0.png,0.25\n", r"mpp\.csv: there is no image 0\.png beside it; names are without a suffix"),
        (f"{TABLE}0,0.25\n0,0.25\n", r"mpp\.csv: 0 is listed twice"),
        (TABLE, r"mpp\.csv: there is no row for 0"),
    ],
)
def test_tables_of_pixel_sizes_that_cannot_be_used(folder, table, message):
    put(folder, {"0.png": png(1), "0.csv": b"x,y,positive\n", "mpp.csv": table.encode()})
    with pytest.raises(ConfigError, match=message):
        read_truths(folder)


def test_images_without_truth_can_be_listed(folder):
    put(folder, {"b/0.jpg": png(7), "c.png": strip(), "readme.csv": b"x"})
    zero, c = list_images(folder)
    assert [(image.name, image.mpp) for image in (zero, c)] == [("b/0", None), ("c", None)]
    assert read_image_of(zero)[0, 0, 0] == 7
    assert (read_image_of(c).shape, read_image_of(c)[0, 0, 0]) == ((6, 6, 3), 0)
