import csv
import multiprocessing
import os
import shutil
import threading
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deepliif_ray.errors import (
    ResolutionError,
    SlideCorruptError,
    SlideError,
    SlideMissingError,
    SlideUnreadableError,
    SlideUnsuitableError,
)
from deepliif_ray.slides import TileGrid, field, open_slide, plan_slide, reader, slide, write_pyramid

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (90, 130, 3), dtype=np.uint8)


def read_all(path):
    with open_slide(path) as opened:
        return opened.read_rgb(0, 0, 0, opened.width, opened.height)


def test_every_real_slide_opens_and_reads(shared_data):
    seen = {}
    for path in sorted((shared_data / "slides").rglob("*")):
        if path.is_file():
            with open_slide(path) as opened:
                seen[path.name] = opened.mpp
                assert opened.levels[0].downsample == 1
                grid = TileGrid(opened.width, opened.height, 256, 16)
                for index in (0, len(grid) - 1):
                    tile = opened.read_tile(grid[index].x, grid[index].y, 256)
                    assert (tile.shape, tile.dtype) == ((256, 256, 3), np.uint8)
    assert len(seen) == 9
    assert seen["CMU-1-Small-Region.svs"] == seen["😐.svs"] == pytest.approx(0.499)
    assert seen["tcga-cr-7395-01a-01-ts1.svs"] is None
    assert seen["boxes.tiff"] is None  # 72 dpi is a print size
    assert seen["multiframe_camelyon_challenge_image.dcm"] == pytest.approx(28.9685)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_every_bad_file_fails_typed_and_always_alike(shared_data, tmp_path):
    bad = shared_data / "bad"
    with (bad / "OUTCOMES.csv").open(newline="") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    assert len(names) == 15
    for name in names:
        messages = set()
        elsewhere = tmp_path / name
        shutil.copytree((bad / name).parent, elsewhere.parent, dirs_exist_ok=True)
        for path in (bad / name, bad / name, elsewhere):
            with pytest.raises(SlideError) as caught, open_slide(path) as opened:
                plan_slide(opened, assume_mpp=0.25)
            messages.add((type(caught.value), str(caught.value)))
        ((kind, message),) = messages
        assert kind in (SlideUnreadableError, SlideCorruptError, SlideUnsuitableError)
        assert message.startswith(f"{elsewhere.name}: ")
        assert str(tmp_path) not in message


def test_damaged_tiles_fail_alone_in_any_order(shared_data):
    path = shared_data / "bad/derived/cmu_bitrot_200bytes.svs"
    with open_slide(path) as opened:
        grid = TileGrid(opened.width, opened.height, 128, 8)
    indexes = range(0, len(grid), 7)

    def outcomes(order):
        found = {}
        with open_slide(path) as opened:
            for index in order:
                try:
                    found[index] = opened.read_tile(grid[index].x, grid[index].y, 128).tobytes()
                except SlideCorruptError as error:
                    found[index] = str(error)
        return found

    forward = outcomes(indexes)
    broken = [index for index, found in forward.items() if isinstance(found, str)]
    assert 0 < len(broken) < len(indexes)
    assert outcomes(reversed(indexes)) == forward
    for index in broken:
        assert outcomes([index])[index] == forward[index]


def test_threads_share_a_slide_with_damage(shared_data):
    path = shared_data / "bad/derived/cmu_bitrot_200bytes.svs"
    results = []
    with open_slide(path) as opened:
        tiles = list(TileGrid(opened.width, opened.height, 128, 8))[::20]

        def work():
            outcome = []
            for tile in tiles:
                try:
                    outcome.append(opened.read_tile(tile.x, tile.y, 128).sum())
                except SlideCorruptError as error:
                    outcome.append(str(error))
            results.append(outcome)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results[0] == results[1] == results[2]


def test_forked_child_reads_with_a_handle_of_its_own(tmp_path):
    write_pyramid(tmp_path / "a.tiff", IMAGE, mpp=0.25, quality=None)
    context = multiprocessing.get_context("fork")
    with open_slide(tmp_path / "a.tiff") as opened:
        opened.read_tile(0, 0, 64)
        mine = opened._handle

        def child(queue):
            pixels = opened.read_tile(0, 0, 64)
            queue.put((opened._handle is mine, pixels))

        queue = context.Queue()
        process = context.Process(target=child, args=(queue,))
        process.start()
        same, pixels = queue.get(timeout=30)
        process.join(30)
        assert process.exitcode == 0
        assert not same
        np.testing.assert_array_equal(pixels, IMAGE[:64, :64])
        assert opened._handle is mine


def test_closed_slide_is_not_read(tmp_path):
    write_pyramid(tmp_path / "a.tiff", IMAGE, mpp=0.25)
    with open_slide(tmp_path / "a.tiff") as opened:
        pass
    with pytest.raises(ValueError, match="closed"):
        opened.read_tile(0, 0, 64)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 100))
def test_small_images_are_mirrored_as_published(tmp_path_factory, width, height, size):
    image = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("mirror") / "a.png"
    Image.fromarray(image).save(path)
    expected = image
    while expected.shape[1] < size:
        expected = np.concatenate([expected, expected[:, ::-1]], axis=1)
    while expected.shape[0] < size:
        expected = np.concatenate([expected, expected[::-1]], axis=0)
    with open_slide(path) as opened:
        tile = opened.read_tile(0, 0, size)
        with pytest.raises(ValueError, match="no tile"):
            opened.read_tile(width, 0, size)
    np.testing.assert_array_equal(tile, expected[:size, :size])


def save(tmp_path, image, name="a.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.tiff", "a.jpg", "a.weird"])
def test_plain_formats(tmp_path, name):
    path = tmp_path / name
    kind = {"jpg": "JPEG", "png": "PNG"}.get(path.suffix[1:], "TIFF")
    image = np.add.outer(np.arange(90), np.arange(130)).astype(np.uint8)[..., None] // np.array(
        [1, 2, 3], np.uint8
    )
    Image.fromarray(image).save(path, kind, dpi=(300, 300), **({"quality": 95} if kind == "JPEG" else {}))
    with open_slide(path) as opened:
        assert (opened.vendor, opened.mpp) == (kind.lower(), None)
        assert (opened.width, opened.height, len(opened.levels)) == (130, 90, 1)
    error = np.abs(read_all(path).astype(int) - image).mean()
    assert error < 3 if kind == "JPEG" else error == 0


def test_palettes_become_rgb(tmp_path):
    palette = Image.fromarray(IMAGE).quantize(16)
    for name in ("a.png", "a.tif"):
        np.testing.assert_array_equal(
            read_all(save(tmp_path, palette, name)), np.asarray(palette.convert("RGB"))
        )


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_what_has_no_colour_is_refused(tmp_path, name):
    grey = IMAGE[..., 0]
    for image in (grey, grey.astype(np.uint16) * 256 + 37, grey > 128):
        with pytest.raises(SlideUnsuitableError, match=f"{name}.*RGB"):
            open_slide(save(tmp_path, Image.fromarray(image), name))


def test_transparency_lies_over_white(tmp_path):
    alpha = RNG.integers(0, 256, IMAGE.shape[:2], dtype=np.uint8)
    alpha[:10], alpha[10:20] = 0, 255
    read = read_all(save(tmp_path, Image.fromarray(np.dstack([IMAGE, alpha]))))
    share = alpha[..., None] / 255
    assert (read[:10] == 255).all()
    assert (read[10:20] == IMAGE[10:20]).all()
    assert np.abs(read - (IMAGE * share + 255 * (1 - share))).max() <= 1
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 200, 0, 0])
    read = read_all(save(tmp_path, palette, transparency=1))
    assert (read == 255).all()


def test_flatten_over_a_background():
    rgba = RNG.integers(0, 256, (20, 20, 4), dtype=np.uint8)
    share = rgba[..., 3:] / 255
    expected = rgba[..., :3] * share + np.array([10, 200, 255]) * (1 - share)
    assert np.abs(slide.flatten(rgba, (10, 200, 255)) - expected).max() <= 0.5 + 1e-9


def test_unsuitable_plain_images(tmp_path, monkeypatch):
    with pytest.raises(SlideUnsuitableError, match="32-bit float"):
        open_slide(save(tmp_path, Image.fromarray(IMAGE[..., 0].astype(np.float32)), "a.tif"))
    for name in ("a.tif", "a.jpg"):
        with pytest.raises(SlideUnsuitableError, match=r"CMYK|separated"):
            open_slide(save(tmp_path, Image.fromarray(IMAGE).convert("CMYK"), name))
    path = save(tmp_path, Image.fromarray(IMAGE))
    monkeypatch.setattr(field, "MAX_PIXELS", 130 * 90 - 1)
    with pytest.raises(SlideUnreadableError, match="pyramidal"):
        open_slide(path)


def test_large_plain_image_is_refused_before_decoding(tmp_path):
    # A few bytes that claim 40,000 x 40,000 pixels.
    data = bytearray(save(tmp_path, Image.new("1", (8, 8))).read_bytes())
    data[16:24] = (40_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(SlideUnreadableError, match="too large"):
        open_slide(tmp_path / "bomb.png")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_truncated_and_rotten_plain_images_never_crash(tmp_path, name):
    whole = save(tmp_path, Image.fromarray(IMAGE), name).read_bytes()
    rng = np.random.default_rng(1)
    path = tmp_path / f"bad-{name}"
    refused = 0
    for trial in range(60):
        data = bytearray(whole[: int(rng.integers(1, len(whole)))] if trial % 2 else whole)
        for place in rng.integers(0, min(len(data), 400), 5 * (trial % 2 == 0)):
            data[place] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            read_all(path)
        except SlideError as error:
            refused += 1
            assert str(error).startswith(path.name)
    assert refused >= 25


def test_missing_and_forbidden(tmp_path):
    for path in (tmp_path / "none.svs", tmp_path / "none" / "a.svs"):
        with pytest.raises(SlideMissingError, match="none"):
            open_slide(path)
    with pytest.raises(SlideUnreadableError):
        open_slide(tmp_path)
    if os.geteuid() != 0:
        path = save(tmp_path, Image.fromarray(IMAGE))
        path.chmod(0)
        with pytest.raises(SlideMissingError, match="permissions"):
            open_slide(path)


def test_slide_that_vanishes_while_read(tmp_path, monkeypatch):
    write_pyramid(tmp_path / "a.tiff", IMAGE, mpp=0.25)
    with open_slide(tmp_path / "a.tiff") as opened:
        opened._handle = None
        (tmp_path / "a.tiff").unlink()
        with pytest.raises(SlideCorruptError):
            opened.read_tile(0, 0, 64)


def test_pixels_that_are_not_square(tmp_path):
    write_pyramid(tmp_path / "a.tiff", IMAGE, mpp=0.25)
    with open_slide(tmp_path / "a.tiff") as opened:
        opened._mpp_y = 0.27
        assert opened.mpp == pytest.approx((0.25 * 0.27) ** 0.5)
        opened._mpp_y = 0.28
        with pytest.raises(ResolutionError, match="not square"):
            _ = opened.mpp
        plan = plan_slide(opened, mpp=0.25)
        assert (plan.mpp, plan.mpp_source) == (0.25, "manifest")
        assert "not square" in plan.warnings[0]


def test_messages_are_portable(tmp_path):
    error = OSError(f"Reading {tmp_path}/x.dcm: bad\n  marker 0xd9 at 0x7f00aa.")
    assert reader.portable(error, tmp_path / "x.dcm") == "Reading x.dcm: bad marker 0xd9 at (address)"
