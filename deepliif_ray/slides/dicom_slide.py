"""A DICOM slide, read frame by frame."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepliif_ray.slides.dicom_frames import Frames
from deepliif_ray.slides.slide import Level, Slide, square_mpp
from deepliif_ray.slides.tiff import chosen_plane

_KEPT_FRAMES = 64


class DicomSlide(Slide):
    """A DICOM slide; see `deepliif_ray.slides.dicom.open_dicom`.

    Parameters
    ----------
    path : Path
    images : list of Frames
        Its levels, finest first; those of another shape are left out.
    plane : int, optional
        The focal plane; the middle one by default.
    """

    reader = "pydicom"
    vendor = "dicom"

    def __init__(self, path: Path, images: list[Frames], plane: int | None) -> None:
        self.path = path
        finest = images[0]
        self.n_planes = finest.n_planes
        self.plane, said = chosen_plane(self.name, self.n_planes, plane)
        notes = list(said)
        self._images, levels = [], []
        for image in images:
            downsample = finest.width / image.width
            if abs(finest.height / downsample - image.height) > 1:
                notes.append(
                    f"a level of {image.width} × {image.height} pixels is left out: its shape is another"
                )
                continue
            self._images.append(image)
            levels.append(Level(image.width, image.height, downsample))
        self.levels = tuple(levels)
        self.notes = tuple(notes)
        self._frame = lru_cache(_KEPT_FRAMES)(self._read_frame)

    @property
    def mpp(self) -> float | None:  # noqa: D102  # as in Slide
        spacing = self._images[0].spacing_um
        return None if spacing is None else square_mpp(self.name, *spacing)

    def read_level(  # noqa: D102  # as in Slide
        self, level: int, x: int, y: int, width: int, height: int
    ) -> NDArray[np.uint8]:
        image = self._images[level]
        wide, high = image.tile
        pixels = np.zeros((height, width, 4), np.uint8)
        right, bottom = min(x + width, image.width), min(y + height, image.height)
        for row in range(max(y, 0) // high, -(-bottom // high)):
            for column in range(max(x, 0) // wide, -(-right // wide)):
                frame = self._frame(level, column, row)
                if frame is None:
                    continue
                x0, x1 = max(column * wide, x), min((column + 1) * wide, right)
                y0, y1 = max(row * high, y), min((row + 1) * high, bottom)
                inside = pixels[y0 - y : y1 - y, x0 - x : x1 - x]
                inside[..., :3] = frame[
                    y0 - row * high : y1 - row * high, x0 - column * wide : x1 - column * wide
                ]
                inside[..., 3] = 255
        return pixels

    def _read_frame(self, level: int, column: int, row: int) -> NDArray[np.uint8] | None:
        image = self._images[level]
        return image.read(column, row, (self.plane or 0) * image.n_planes // self.n_planes)

    def close(self) -> None:
        """Do nothing: no file is open between reads."""
