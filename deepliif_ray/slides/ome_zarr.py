"""OME-Zarr slides, read chunk by chunk by the zarr library: folders on disk and in stores, and ZIP archives.

A pixel whose chunk is absent, or holds nothing but the array's fill value, was not scanned: its alpha is 0.
Zarr's writers leave out such chunks, so the two are the same.
"""

import json
import math
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import StorePath

from deepliif_ray.errors import SlideError, SlideUnreadableError, SlideUnsuitableError
from deepliif_ray.slides.decoded import DecodedSlide
from deepliif_ray.slides.depth import DEPTHS, bit_depth, eight_bits, refuse_dark, sampled
from deepliif_ray.slides.link import is_inside
from deepliif_ray.slides.ngff import Dataset, Image, colour_order, micrometers, read_images
from deepliif_ray.slides.slide import Level, Slide
from deepliif_ray.slides.tiff import chosen_plane
from deepliif_ray.slides.zarr_files import Read, ReadStore, archive_reader, folder_reader, kept
from deepliif_ray.slides.zarr_level import ZarrLevel

# Codecs that only unpack numbers; another could run code (pickle) or is no lossless store of pixels.
_CODECS = frozenset(
    (
        "bytes", "endian", "blosc", "zstd", "gzip", "zlib", "bz2", "lz4", "lzma", "shuffle", "delta",
        "transpose", "crc32", "crc32c", "adler32", "fletcher32", "sharding_indexed",
    )
)  # fmt: skip
_VERSIONS: tuple[tuple[Literal[2, 3], str], ...] = ((3, "zarr.json"), (2, ".zarray"))
_LISTED = 8


class ZarrSlide(DecodedSlide):
    """An OME-Zarr image; see `open_zarr` and `open_stored`."""

    reader = "zarr"
    vendor = "ome-zarr"

    def __init__(self, path: Path, read: Read, series: int | None, plane: int | None) -> None:
        self.path = path
        self._read, self._store = read, ReadStore(read)
        notes: list[str] = []
        image = self._chosen(read_images(self._file, self.name), series, notes)
        self._order = colour_order(image, self.name)
        self._arrays, self.levels = self._pyramid(image, plane, notes)
        self._bits = 8
        self._judge(image, notes)
        self._mpp = self._pixel_size(image, notes)
        self.notes = tuple(notes)

    def read_level(  # noqa: D102  # as in Slide
        self, level: int, x: int, y: int, width: int, height: int
    ) -> NDArray[np.uint8]:
        source = self._arrays[level]
        pixels = np.zeros((height, width, 4), np.uint8)
        x0, x1 = min(max(x, 0), source.width), min(max(x + width, 0), source.width)
        y0, y1 = min(max(y, 0), source.height), min(max(y + height, 0), source.height)
        if x0 < x1 and y0 < y1:
            with self._told(f"pixels at {x}, {y} ({width} × {height}, level {level})"):
                values = source.read(slice(y0, y1), slice(x0, x1))
                absent = source.absent(values, y0, x0)
            inside = pixels[y0 - y : y1 - y, x0 - x : x1 - x]
            inside[..., :3] = eight_bits(values[..., self._order], self._bits)
            inside[..., 3] = np.where(absent, 0, 255)
        return pixels

    def close(self) -> None:
        """Do nothing: no file is open between reads."""

    def _file(self, name: str) -> bytes | None:
        return self._read([(name, None, None)])[0] if is_inside(name) else None

    def _chosen(self, images: list[Image], series: int | None, notes: list[str]) -> Image:
        if series is not None and series >= len(images):
            raise SlideUnsuitableError(
                f"{self.name}: series {series} is asked for, but it holds {len(images)}, counted from 0"
            )
        if series is None and len(images) > 1:
            likely = [number for number, image in enumerate(images) if not image.is_beside]
            if len(likely) != 1:
                listed = "; ".join(
                    f"{number}: {self._title(image)}" for number, image in enumerate(images[:_LISTED])
                )
                raise SlideUnsuitableError(
                    f"{self.name}: it holds {len(images)} images ({listed}); say which one in the "
                    "manifest's column series"
                )
            series = likely[0]
        if len(images) > 1:
            self.series = series
        return images[series or 0]

    def _title(self, image: Image) -> str:
        array = self._open(image, image.datasets[0])
        size = f"{array.width} × {array.height}"
        return f"{image.name!r} of {size}" if image.name else size

    def _open(self, image: Image, dataset: Dataset) -> ZarrLevel:
        path = f"{image.group}/{dataset.path}" if image.group else dataset.path
        try:
            version, document = next(
                (version, json.loads(text))
                for version, file in _VERSIONS
                if (text := self._file(f"{path}/{file}")) is not None
            )
            _check_codecs(document, self.name)
            array = zarr.open_array(StorePath(self._store, path), mode="r", zarr_format=version)
        except (MemoryError, SlideError):
            raise
        except StopIteration:
            raise SlideUnreadableError(
                f"{self.name}: level {dataset.path!r} is not there; copy or convert the slide again"
            ) from None
        except Exception as error:
            raise SlideUnreadableError(
                f"{self.name}: level {dataset.path!r} cannot be opened ({self._reason(error)}); "
                "convert the slide again"
            ) from error
        if array.ndim != len(image.axes):
            raise SlideUnreadableError(
                f"{self.name}: level {dataset.path!r} has {array.ndim} axes, its metadata "
                f"{len(image.axes)}; convert the slide again"
            )
        return ZarrLevel(array, image.axes, {})

    def _pyramid(
        self, image: Image, plane: int | None, notes: list[str]
    ) -> tuple[list[ZarrLevel], tuple[Level, ...]]:
        opened = [(dataset, self._open(image, dataset)) for dataset in image.datasets]
        opened.sort(key=lambda pair: -pair[1].width * pair[1].height)
        finest, full = opened[0]
        self._finest = finest
        sizes = dict(zip(image.axes, full.array.shape, strict=True))
        self._check(sizes, full.array.dtype)
        depth = sizes.get("z", 1)
        self.plane, said = chosen_plane(self.name, depth, plane)
        self.n_planes = depth
        notes += said
        arrays, levels = [], []
        for dataset, source in opened:
            shape = dict(zip(image.axes, source.array.shape, strict=True))
            downsample = _downsample(full, source)
            if (
                downsample is None
                or shape.get("c") != sizes.get("c")
                or source.array.dtype != full.array.dtype
                or _is_moved(image.axes, finest, dataset)
            ):
                notes.append(
                    f"level {dataset.path!r} is left out: it does not show the same as {finest.path!r}"
                )
                continue
            z = (self.plane or 0) * shape.get("z", 1) // depth
            at = {axis: z if axis == "z" else 0 for axis in image.axes if axis not in "yxc"}
            arrays.append(ZarrLevel(source.array, image.axes, at))
            levels.append(Level(source.width, source.height, downsample))
        return arrays, tuple(levels)

    def _check(self, sizes: dict[str, int], dtype: Any) -> None:
        """Refuse what is not one image of three channels of 8 or 16 bits."""
        what = None
        if not {"y", "x"} <= set(sizes) or 0 in sizes.values():
            what = f"axes {sizes}"
        elif sizes.get("t", 1) > 1:
            what = f"{sizes['t']} points in time"
        elif sizes.get("c", 1) != 3:
            what = "one channel, grey" if sizes.get("c", 1) == 1 else f"{sizes['c']} channels"
        elif dtype not in (np.dtype("u1"), np.dtype("u2")):
            what = f"pixels of type {dtype}"
        elif any(size > 1 for axis, size in sizes.items() if axis not in "tczyx"):
            what = f"axes {sizes}"
        if what is not None:
            raise SlideUnsuitableError(
                f"{self.name}: {what}; only RGB brightfield images of 8 or 16 bits are scored"
            )

    def _judge(self, image: Image, notes: list[str]) -> None:
        """Find the range of 16-bit values, and refuse pictures of fluorescence; both from a sample."""
        coarse = self._arrays[-1]
        with self._told("a sample of its pixels"):
            samples = [
                coarse.read(slice(y, y + height), slice(x, x + width)).reshape(-1, 3)
                for x, y, width, height in sampled(coarse.width, coarse.height)
            ]
        values = np.concatenate(samples)
        if values.dtype == np.uint16:
            most = int(values.max(initial=0))
            self._bits = bit_depth(most, _stated_bits(image))
            if self._bits < DEPTHS[-1]:
                notes.append(f"16-bit pixels are read as {self._bits}-bit ones: the brightest is {most}")
        if not image.is_rgb:
            refuse_dark(values[(values != coarse.fill).any(axis=1)], self._bits, self.name)

    def _pixel_size(self, image: Image, notes: list[str]) -> tuple[float, float] | None:
        scale = self._finest.scale
        if scale is None:
            return None
        sides = [micrometers(scale[image.axes.index(a)], image.units[image.axes.index(a)]) for a in "xy"]
        if sides[0] is None or sides[1] is None:
            units = sorted({str(image.units[image.axes.index(axis)]) for axis in "xy"})
            notes.append(f"the size of its pixels has no usable unit ({', '.join(units)}), so it is not used")
            return None
        return sides[0], sides[1]


def _stated_bits(image: Image) -> int | None:
    """Return of how many bits the values are by OMERO's windows, if they agree and say so."""
    ends = {dict(channel.get("window") or {}).get("max") for channel in image.channels}
    return next((bits for bits in DEPTHS if ends == {(1 << bits) - 1}), None)


def _downsample(full: ZarrLevel, source: ZarrLevel) -> float | None:
    """Return how many pixels of the finest level one of this level spans; None if their shapes differ."""
    across, down = full.width / source.width, full.height / source.height
    larger = across if full.width >= full.height else down
    fits = abs(full.width / larger - source.width) <= 1 and abs(full.height / larger - source.height) <= 1
    if not fits:
        return None
    whole = round(larger)
    is_whole = all(
        math.floor(size / whole) <= part <= math.ceil(size / whole)
        for size, part in ((full.width, source.width), (full.height, source.height))
    )
    return float(whole) if is_whole else larger


def _is_moved(axes: str, finest: Dataset, dataset: Dataset) -> bool:
    """Tell whether a level begins elsewhere than the finest: by more than a pixel of it."""
    if finest.scale is None or dataset.scale is None:
        return False
    return any(
        abs(dataset.translation[at] - finest.translation[at]) > 1.01 * dataset.scale[at]
        for at in (axes.index("y"), axes.index("x"))
    )


def _check_codecs(document: Any, name: str) -> None:
    """Refuse arrays packed in a way that is not known to only unpack numbers."""
    waiting = [document.get(key) for key in ("codecs", "compressor", "filters")]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            codec = str(item.get("name", item.get("id"))).removeprefix("numcodecs.").lower()
            if codec not in _CODECS:
                raise SlideUnreadableError(
                    f"{name}: its pixels are packed by {codec!r}, which is not read; convert the "
                    "slide again with Blosc, Zstandard or gzip"
                )
            settings = item.get("configuration") or {}
            waiting += [settings.get("codecs"), settings.get("index_codecs")]


def open_zarr(path: Path, *, series: int | None = None, plane: int | None = None) -> Slide:
    """Open a local OME-Zarr folder or archive; as `deepliif_ray.slides.reader.open_slide`."""
    if path.is_dir():
        return ZarrSlide(path, folder_reader(path), series, plane)
    try:
        return ZarrSlide(path, archive_reader(path), series, plane)
    except zipfile.BadZipFile as error:
        raise SlideUnreadableError(f"{path.name}: no sound ZIP archive ({error}); copy it again") from error


def open_stored(path: Path, read: Read, *, series: int | None = None, plane: int | None = None) -> Slide:
    """Open an OME-Zarr folder in a store.

    Parameters
    ----------
    path : Path
        The name of the folder.
    read : Read
        What reads files below it.
    series, plane
        As for `deepliif_ray.slides.reader.open_slide`.
    """
    return ZarrSlide(path, kept(read), series, plane)
