"""Finding, reading and writing panels, and the stores of tiles, on real and on damaged files."""

import io
import json
import pickle
import shutil
import subprocess
import sys
import uuid

import numpy as np
import polars as pl
import pytest
import ray
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError
from deepliif_ray.training.panels.files import (
    MODALITIES,
    SEG,
    STRIP,
    Panels,
    PanelSource,
    panel_of,
    read_panels,
    write_panels,
)
from deepliif_ray.training.panels.listing import list_panels
from deepliif_ray.training.panels.store import PanelStore, load_panels

SIDE = 16


@pytest.fixture
def memory():
    """URL of an empty folder in memory."""
    url = f"memory://{uuid.uuid4().hex}"
    yield url
    storage.remove(url)


def noise(seed=0, height=SIDE, width=SIDE, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def tile(name="tile", modalities=MODALITIES, height=SIDE, width=SIDE, seed=0):
    images = [noise(seed + n, height, width) for n in range(len(modalities) + 2)]
    return Panels(name, images[0], dict(zip((*modalities, SEG), images[1:], strict=True)))


def same(a, b):
    return (
        np.array_equal(a.ihc, b.ihc)
        and list(a.targets) == list(b.targets)
        and all(np.array_equal(a.targets[name], b.targets[name]) for name in a.targets)
    )


def put(url, image, **options):
    """Write an array or Pillow image as the format that the URL's extension says."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    data = io.BytesIO()
    form = {"jpg": "JPEG", "tif": "TIFF", "png": "PNG"}[url.rpartition(".")[2].lower()]
    image.save(data, form, **options)
    storage.write_bytes(url, data.getvalue())
    return url


def strip_of(panels):
    return np.concatenate([panels.ihc, *panels.targets.values()], axis=1)


def read_all(uri, modalities=MODALITIES):
    return {source.name: read_panels(source) for source in list_panels(uri, modalities)}


def test_real_strips(shared_data):
    found = read_all(str(shared_data / "deepliif/train"))
    assert list(found) == ["Bladder1", "Lung1"]
    strip = np.asarray(Image.open(shared_data / "deepliif/train/Lung1.png"))
    assert np.array_equal(strip_of(found["Lung1"]), strip)
    seg = found["Bladder1"].targets[SEG]
    assert (seg[seg.any(axis=2)].max(axis=1) > 200).all()  # red, green or blue: it is the last panel indeed


def test_real_folders_of_single_files(shared_data):
    folder = shared_data / "deepliif/official"
    found = read_all(str(folder))
    assert list(found) == ["34_3", "6_2"]
    for name, panels in found.items():
        for panel in STRIP[1:]:
            assert np.array_equal(
                panels.targets[panel], np.asarray(Image.open(folder / name / f"{panel}.png"))
            )
    assert list(read_all(str(folder / "6_2"))) == ["6_2"]


@given(
    modalities=st.lists(st.text("abcAdapiü ,1", min_size=1, max_size=5), max_size=4, unique=True),
    height=st.integers(1, 9),
    width=st.integers(1, 40),
)
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read_again_whatever_its_shape(modalities, height, width):
    folder = "memory://written-and-read"
    storage.remove(folder)
    panels = tile("some/where", modalities, height, width)
    write_panels(folder, panels)
    found = read_all(folder, modalities)
    assert list(found) == ["some/where"]
    assert same(found["some/where"], panels)
    reordered = modalities[::-1]
    assert list(read_all(folder, reordered)["some/where"].targets) == [*reordered, SEG]


def test_local_folders_too(tmp_path):
    write_panels(str(tmp_path), tile())
    assert same(read_all(str(tmp_path))["tile"], tile())
    assert [path.name for path in tmp_path.iterdir()] == ["tile.png"]


@pytest.mark.parametrize(
    ("panels", "message"),
    [
        (tile("../up"), "may begin with a dot"),
        (tile("a//b"), "may begin with a dot"),
        (tile("case_Hema"), "rename it"),
        (Panels("x", noise(), {"dapi": noise()}), "no panel seg"),
        (Panels("x", noise(), {"dapi": noise(height=3), SEG: noise()}), "panel dapi"),
        (Panels("x", noise(), {SEG: noise()[..., 0]}), "panel seg"),
        (Panels("x", noise(), {SEG: noise().astype(float)}), "float64"),
        (Panels("x", noise(), {"ihc": noise(), SEG: noise()}), "none of them ihc or seg"),
    ],
)
def test_what_cannot_be_a_strip_is_not_written(memory, panels, message):
    with pytest.raises(ConfigError, match=message):
        write_panels(memory, panels)
    assert storage.list_files(memory) == []


def test_published_strips_give_the_modalities_that_are_asked_for(memory):
    panels = tile()
    url = put(f"{memory}/a.png", strip_of(panels))
    read = read_panels(PanelSource("a", (url,), ("marker", "dapi")))
    assert list(read.targets) == ["marker", "dapi", SEG]
    assert all(np.array_equal(read.targets[name], panels.targets[name]) for name in read.targets)


def test_strips_of_other_modalities(memory):
    panels = tile(modalities=("cd3", "panck"))
    put(f"{memory}/a.png", strip_of(panels))
    assert same(read_all(memory, ("cd3", "panck"))["a"], panels)
    wide = tile(modalities=("cd3", "panck"), height=16, width=10)
    put(f"{memory}/a.png", strip_of(wide))
    assert same(read_all(memory, ("cd3", "panck"))["a"], wide)


@pytest.mark.parametrize(
    ("stem", "found"),
    [
        ("A_1_Hema", ("A_1", "hematoxylin")),
        ("A_Hematoxylin", ("A", "hematoxylin")),
        ("a_mod2-DAPI", ("a", "dapi")),
        ("LAP2", ("", "lap2")),
        ("A_SegRefined", None),
        ("A_Marker_s", None),
        ("Bladder1", None),
        ("A_CD3", ("A", "cd3")),
        ("unihc", None),
    ],
)
def test_names_of_files(stem, found):
    assert panel_of(stem, ("cd3",)) == found


def test_files_as_published_software_names_them(memory):
    panels = [tile(seed=10 * n) for n in range(3)]
    suffixes = [
        ["", "_Hema", "_DAPI", "_Lap2", "_Marker", "_Seg"],
        ["_IHC", "_Hematoxylin", "_DAPI", "_Lap2", "_Marker", "_Seg"],
        ["", "_mod1-hema", "_mod2-dapi", "_mod3-LAP2", "_mod4-Marker", "_seg"],
    ]
    for number, (made, names) in enumerate(zip(panels, suffixes, strict=True)):
        for image, suffix in zip([made.ihc, *made.targets.values()], names, strict=True):
            put(f"{memory}/in/t_{number}{suffix}.{'tif' if number else 'png'}", image)
    put(f"{memory}/in/t_0_SegOverlaid.png", noise())
    put(f"{memory}/in/t_0_IHC_s.png", noise())
    put(f"{memory}/in/._t_1.png", noise())
    storage.write_bytes(f"{memory}/in/t_0.json", b"{}")
    put(f"{memory}/others/strip_seg.png", strip_of(panels[0]))  # ends like a panel, but stands alone
    found = read_all(memory)
    assert list(found) == ["in/t_0", "in/t_1", "in/t_2", "others/strip_seg"]
    assert all(same(a, b) for a, b in zip(found.values(), [*panels, panels[0]], strict=True))
    assert list(read_all(f"{memory}/in", ("lap2",))["t_1"].targets) == ["lap2", SEG]


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("strips", [False, True])
def test_manifests(memory, form, strips):
    panels = [tile(seed=10 * n) for n in range(2)]
    rows = []
    for number, made in enumerate(panels):
        if strips:
            put(f"{memory}/data/{number}.png", strip_of(made))
            rows.append({"name": f"n{number}", "strip": f"../data/{number}.png"})
            continue
        for name, image in {"ihc": made.ihc, **made.targets}.items():
            put(f"{memory}/data/{number}-{name}.png", image)
        rows.append({"Seg": f"{memory}/data/{number}-seg.png", "name": f"n{number}", "note": "x"})
        rows[-1] |= {name: f"../data/{number}-{name}.png" for name in ("ihc", *MODALITIES)}
    data = io.BytesIO()
    frame = pl.DataFrame(rows)
    {"csv": frame.write_csv, "parquet": frame.write_parquet, "jsonl": frame.write_ndjson}[form](data)
    url = f"{memory}/lists/tiles.{form}"
    storage.write_bytes(url, data.getvalue())
    found = read_all(url)
    assert list(found) == ["n0", "n1"]
    assert all(same(a, b) for a, b in zip(found.values(), panels, strict=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a readable csv"),
        ("name,strip\n", "no rows"),
        ("name,ihc,seg\na,b,c\n", "no column hematoxylin, dapi, lap2, marker"),
        ("name,strip\na,1.png\nb,\n", "strip of row 2 is empty"),
        ("name,strip\na,1.png,3\n", "not a readable csv"),
    ],
)
def test_manifests_that_cannot_be_used(memory, text, message):
    storage.write_bytes(f"{memory}/m.csv", text.encode())
    with pytest.raises(ConfigError, match=message) as caught:
        list_panels(f"{memory}/m.csv")
    assert f"{memory}/m.csv" in str(caught.value)


def deep_png():
    """A 16-bit RGB PNG, which Pillow can read but not write."""
    import struct
    import zlib

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    size, rows = 6 * SIDE, b"".join(b"\0" + bytes(6 * 6 * SIDE) for _ in range(SIDE))
    head = struct.pack(">IIBBBBB", size, SIDE, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


BAD = {
    "five.png": (lambda: strip_of(tile(modalities=MODALITIES[:3])), "5 square panels; 6 panels"),
    "one.jpg": (noise, "1 square panel; 6 panels"),
    "odd.png": (lambda: noise(width=6 * SIDE + 1), "97 × 16 pixels; 6 panels"),
    "alpha.png": (lambda: noise(width=6 * SIDE, channels=4), "RGB with alpha"),
    "grey.tif": (lambda: noise(width=6 * SIDE)[..., 0], "are grey"),
    "grey16.png": (lambda: noise(width=6 * SIDE)[..., 0].astype(np.uint16), "16-bit grey"),
    "palette.png": (lambda: Image.fromarray(strip_of(tile())).quantize(), "a palette"),
    "cmyk.jpg": (lambda: Image.fromarray(strip_of(tile())).convert("CMYK"), "CMYK"),
    "deep.png": (deep_png, "16 bits a color"),
    "cut.png": (lambda: encoded(strip_of(tile()))[:-400], "can be read"),
    "empty.png": (lambda: b"", "can be read"),
    "text.png": (lambda: b"not an image", "can be read"),
}


def encoded(image):
    put("memory://encoded.png", image)
    return storage.read_bytes("memory://encoded.png")


@pytest.mark.parametrize("name", BAD)
def test_bad_strips_are_named(memory, name):
    content, message = BAD[name][0](), BAD[name][1]
    url = f"{memory}/{name}"
    if isinstance(content, bytes):
        storage.write_bytes(url, content)
    else:
        put(url, content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_all(memory)
    assert url in str(caught.value)


def test_strips_noted_to_hold_other_panels(memory):
    write_panels(memory, tile(modalities=("cd3",)))
    with pytest.raises(ConfigError, match=r"tile\.png: holds the panels ihc, cd3, seg, but no dapi"):
        read_all(memory, ("dapi",))


def test_single_files_of_other_sizes_are_named(memory):
    for name in STRIP:
        put(f"{memory}/a/{name}.png", noise(width=SIDE + (name == "lap2")))
    with pytest.raises(ConfigError, match=r"a/lap2.png: has 17 × 16 pixels, but .*a/ihc.png 16 × 16"):
        read_all(memory)


def test_single_files_that_are_missing_are_named(memory):
    for name in ("Hema", "DAPI", "Lap2", "Seg"):
        put(f"{memory}/a_{name}.png", noise())
    put(f"{memory}/lonely.png", noise())
    put(f"{memory}/a_SEG.tif", noise())
    with pytest.raises(ConfigError) as caught:
        list_panels(memory)
    text = str(caught.value)
    assert "no file for ihc, marker of the same tile" in text
    assert "lonely.png: no panels beside it" in text
    assert "another file for the panel seg" in text


@pytest.mark.parametrize("uri", ["memory://nothing-here", "no/such/folder"])
def test_nothing_there(uri):
    with pytest.raises(ConfigError, match="no panels there"):
        list_panels(uri)
    with pytest.raises(ConfigError, match="no such file"):
        read_all(f"{uri}/strip.png")


@given(
    place=st.floats(0, 1, exclude_max=True),
    value=st.integers(0, 255),
    cut=st.booleans(),
    form=st.integers(0, 2),
)
@settings(max_examples=150, deadline=None)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damage_is_reported_as_such(place, value, cut, form):
    url = f"memory://damaged.{('png', 'jpg', 'tif')[form]}"
    put(url, strip_of(tile()))
    data = bytearray(storage.read_bytes(url))
    at = int(place * len(data))
    data = data[:at] if cut else data[:at] + bytes([value]) + data[at + 1 :]
    storage.write_bytes(url, bytes(data))
    try:
        read_all(url)
    except ConfigError as error:
        assert url in str(error)


@pytest.fixture(scope="module")
def cluster():
    ray.init("local", include_dashboard=False, num_cpus=2, object_store_memory=2**28, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def folders(tmp_path):
    """Twelve tiles of several sizes, and one in a folder of another source."""
    for number in range(12):
        write_panels(str(tmp_path / "a"), tile(f"{number:02d}", seed=number, width=SIDE + number))
    write_panels(str(tmp_path / "b"), tile("z", seed=50))
    return [str(tmp_path / "a"), str(tmp_path / "b")]


def test_the_local_store(folders):
    store = PanelStore.local(folders)
    assert [store.name_of(n) for n in range(len(store))] == [*(f"{n:02d}" for n in range(12)), "z"]
    assert [store.source_of(n) for n in range(len(store))] == [0] * 12 + [1]
    assert same(store.get(7), tile(seed=7, width=SIDE + 7))
    assert not store.get(7).ihc.flags.writeable
    assert same(pickle.loads(pickle.dumps(store)).get(12), store.get(12))


@pytest.mark.slow
def test_the_store_on_ray_is_the_local_one(cluster, folders):
    local = PanelStore.local(folders)
    store = PanelStore(load_panels(folders))
    assert len(store) == 13

    @ray.remote(num_cpus=1)
    class Worker:
        """Takes all CPUs, together with its like, as training does."""

        def __init__(self, given):
            self.store = given["store"]

        def tiles(self):
            found = [self.store.get(n) for n in range(len(self.store))]
            return found, [self.store.source_of(n) for n in range(len(found))]

    for tiles, sources in ray.get(
        [w.tiles.remote() for w in [Worker.remote({"store": store}) for _ in "ab"]]
    ):
        assert sources == [0] * 12 + [1]
        assert all(
            same(panels, local.get(n)) and panels.name == local.name_of(n) for n, panels in enumerate(tiles)
        )


@pytest.mark.slow
def test_no_process_holds_a_copy_of_its_own(cluster, tmp_path):
    for number in range(3):
        write_panels(str(tmp_path), tile(f"{number}", seed=number, height=200, width=200))
    store = PanelStore(load_panels([str(tmp_path)]))
    first, again = store.get(2), store.get(2)
    assert first.ihc.__array_interface__["data"] == again.ihc.__array_interface__["data"]
    assert not first.ihc.flags.writeable


@pytest.mark.slow
def test_bad_files_are_named_by_both_stores(cluster, folders, tmp_path):
    for number in range(11):
        put(f"{tmp_path}/b/bad{number:02d}.png", noise())
    for make in (PanelStore.local, lambda uris: PanelStore(load_panels(uris))):
        with pytest.raises(ConfigError, match="11 problems") as caught:
            make(folders)
        text = str(caught.value)
        assert all(f"b/bad{n:02d}.png" in text for n in range(10))
        assert "and 1 more" in text
    for make in (PanelStore.local, load_panels):
        with pytest.raises(ConfigError, match="no such place: no panels there"):
            make([*folders, "no such place"])
        with pytest.raises(ConfigError, match="at least one"):
            make([])


def run(*arguments):
    command = [sys.executable, "-m", "deepliif_ray.cli", "panels", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_the_command_that_makes_synthetic_panels_and_the_one_that_checks(tmp_path):
    made = run("synthesize", tmp_path / "s", "--count", 2, "--size", 64, "--seed", 3)
    assert made.returncode == 0, made.stderr
    put(f"{tmp_path}/s/bad.png", noise())
    checked = run("check", tmp_path / "s", tmp_path / "none", "--format", "json")
    assert checked.returncode == 2
    rows = json.loads(checked.stdout)
    assert [(row["tiles"], row["sizes"], row["bad"]) for row in rows] == [(2, "64×64", 1), (0, "", None)]
    assert "bad.png" in checked.stderr
    assert "none: no panels there" in checked.stderr
    shutil.rmtree(tmp_path / "s/none", ignore_errors=True)
    assert run("check", tmp_path / "s/synthetic-3-00000.png").returncode == 0
