"""OME-Zarr in a store, read by a process that has no network: what it asks for, and what goes wrong."""

import time
from pathlib import Path

import fsspec
import numpy as np
import pytest

from deepliif_ray import storage
from deepliif_ray.errors import (
    SlideCrashedError,
    SlideError,
    SlideTooLargeError,
    SlideUnreadableError,
    StorageError,
)
from deepliif_ray.slides import guard, helper, open_guarded, open_slide, plan_slide
from deepliif_ray.slides.link import is_inside
from deepliif_ray.storage.slide_files import is_zarr, slide_files
from tests.slides.zarrs import write_zarr

IMAGE = np.random.default_rng(0).integers(1, 256, (1500, 1700, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("zarr") / "slide.zarr"
    write_zarr(folder, IMAGE | 128, version="0.5", axes="cyx", chunk=256, channels_together=True)
    return folder


@pytest.fixture
def url(local):
    url = "memory://slides/slide.zarr"
    for path in local.rglob("*"):
        if path.is_file():
            storage.write_bytes(storage.join(url, path.relative_to(local).as_posix()), path.read_bytes())
    yield url
    guard.end_helper()
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def asked(monkeypatch):
    """What is asked of the store: a list of lists, one a round."""
    rounds = []
    read = storage.read_ranges

    def reading(folder, wanted):
        rounds.append(wanted)
        return read(folder, wanted)

    monkeypatch.setattr(storage, "read_ranges", reading)
    return rounds


def test_what_is_read_is_what_is_asked_for(local, url, asked):
    with open_slide(local) as here, open_guarded(url) as there:
        assert (there.name, there.reader, there.levels, there.mpp) == (
            "slide.zarr",
            "zarr",
            here.levels,
            here.mpp,
        )
        asked.clear()
        np.testing.assert_array_equal(there.read_tile(100, 300, 512), here.read_tile(100, 300, 512))
        assert [len(wanted) for wanted in asked] == [9]  # chunks, in one round
        asked.clear()
        np.testing.assert_array_equal(there.read_tile(548, 300, 512), here.read_tile(548, 300, 512))
        assert [len(wanted) for wanted in asked] == [6]  # the other three are remembered
        assert plan_slide(here) == plan_slide(there)


def test_nothing_is_downloaded(url, tmp_path):
    assert storage.localize(url, tmp_path / "cache") == url
    assert storage.localize(f"{url}/zarr.json", tmp_path / "cache") == url
    assert not (tmp_path / "cache").exists()
    assert is_zarr(slide_files(url))


def test_a_helper_that_was_replaced_asks_again(url):
    with open_guarded(url) as slide:
        pixels = slide.read_tile(0, 0, 300)
        guard.end_helper()
        np.testing.assert_array_equal(slide.read_tile(0, 0, 300), pixels)


def test_waiting_for_the_store_is_not_the_slides_time(url, monkeypatch):
    read = storage.read_ranges

    def slow(folder, wanted):
        time.sleep(1.2 * any("c/" in name for name, _, _ in wanted))
        return read(folder, wanted)

    with open_guarded(url) as slide:
        monkeypatch.setattr(storage, "read_ranges", slow)
        monkeypatch.setattr(helper, "TIME_LIMIT_S", 1)
        assert slide.read_tile(0, 0, 300).shape == (300, 300, 3)


def test_trouble_with_the_store_is_no_fault_of_the_slide(url, monkeypatch):
    with open_guarded(url) as slide:
        pixels = slide.read_tile(0, 0, 300)

        def broken(folder, wanted):
            raise StorageError(f"{folder}: cannot be read (no route)")

        with monkeypatch.context() as patch:
            patch.setattr(storage, "read_ranges", broken)
            with pytest.raises(StorageError, match="no route") as caught:
                slide.read_tile(700, 700, 300)
            assert not isinstance(caught.value, SlideError)
            with pytest.raises(StorageError, match="no route"):
                open_guarded(url)
        np.testing.assert_array_equal(slide.read_tile(0, 0, 300), pixels)


def test_limits(url, monkeypatch):
    with open_guarded(url) as slide:
        monkeypatch.setattr(helper, "MAX_PIECE", 10_000)
        with pytest.raises(SlideTooLargeError, match=r"slide\.zarr: reading it needs a chunk of more than"):
            slide.read_tile(0, 0, 300)
        monkeypatch.undo()
        monkeypatch.setattr(helper, "MAX_FETCHED", 200_000)
        with pytest.raises(SlideTooLargeError, match="of its store"):
            slide.read_tile(0, 0, 800)
        monkeypatch.undo()
        slide.read_tile(0, 0, 800)


@pytest.mark.parametrize(
    "name", ["../key", "/etc/passwd", "a//b", "a/../../b", ".", "", "a\0", "a/", "x" * 2000]
)
def test_only_files_below_the_folder_are_given_away(name):
    assert not is_inside(name)
    with pytest.raises(helper.Ended) as caught:
        helper._checked([["zarr.json", None, None], [name, None, None]])
    assert caught.value.kind is SlideCrashedError


def test_no_such_folder(url):
    with pytest.raises(FileNotFoundError):
        storage.localize("memory://slides/none.zarr", Path("cache"))
    with pytest.raises(SlideUnreadableError, match="no Zarr group"):
        open_guarded("memory://slides/none.zarr")
