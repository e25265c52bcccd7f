import io

import pytest
from PIL import Image

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError
from deepliif_ray.evaluation.truth import read_truths


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
