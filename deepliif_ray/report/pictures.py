"""Pictures of slides, as a page holds them."""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deepliif_ray import storage
from deepliif_ray.errors import DeepliifRayError
from deepliif_ray.exports.cells import Calls
from deepliif_ray.extras import missing_extra

_QUALITY = 88
"""Of WebP: text and thin outlines stay clear."""


@dataclass(frozen=True)
class Drawn:
    """How far the pictures of a report are."""

    done: int
    of: int
    what: str

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.done / self.of if self.of else 1.0


Watch = Callable[[Drawn], None]
"""Told how far the pictures are."""


@dataclass(frozen=True)
class Shown:
    """A picture in a page, or why there is none.

    Attributes
    ----------
    source : str or None
        A ``data:`` URL; None if it cannot be drawn.
    width, height : int
        In px.
    alt : str
        What it shows, for who cannot see it.
    remarks : tuple of str
        What a person should know of it, without the place of a file; why there is none.
    """

    source: str | None
    width: int
    height: int
    alt: str
    remarks: tuple[str, ...]


def embedded(results: str, slide_id: str, calls: Calls, *, without_slide: bool, **how: Any) -> Shown:
    """Draw a picture of a slide, as `deepliif_ray.pictures.picture.draw_picture` does, into a page.

    A slide that cannot be drawn costs its picture and no more.

    Parameters
    ----------
    results, slide_id : str
    calls : Calls
    without_slide : bool
    **how
        More for ``draw_picture``.

    Raises
    ------
    MissingExtraError
        What draws pictures is not installed.
    """
    try:
        from PIL import Image

        from deepliif_ray.pictures.picture import draw_picture

        with TemporaryDirectory(prefix="deepliif-ray-") as folder:
            file = Path(folder) / "picture.png"
            done = draw_picture(results, slide_id, file, calls=calls, without_slide=without_slide, **how)
            with Image.open(file) as picture:
                size, packed = picture.size, io.BytesIO()
                picture.convert("RGB").save(packed, "WEBP", quality=_QUALITY, method=4)
    except ModuleNotFoundError as error:
        missing = missing_extra(error, "a report with pictures (--pictures 0 leaves them out)")
        if missing is None:
            raise
        raise missing from error
    except DeepliifRayError as error:
        return Shown(None, 0, 0, "", (f"No picture: {storage.scrub(str(error))}",))
    source = "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode()
    return Shown(source, *size, " ".join(done.texts), tuple(_without_places(done.texts)))


def _without_places(texts: tuple[str, ...]) -> list[str]:
    """Return what a picture says of its slide's file; the warnings of the same name its place."""
    told = ("Without the slide", "The record is too old")
    return [text for text in texts if text.startswith(told) or "cannot be decoded" in text]
