"""What slides have in common whose pixels a library decodes that raises anything over a damaged file."""

from collections.abc import Iterator
from contextlib import contextmanager

from deepliif_ray.errors import SlideCorruptError, SlideError
from deepliif_ray.slides.reader import portable
from deepliif_ray.slides.slide import Slide, square_mpp


class DecodedSlide(Slide):
    """A slide that knows the width and height of its pixels in µm, if any, and tells what cannot be read."""

    _mpp: tuple[float, float] | None

    @property
    def mpp(self) -> float | None:  # noqa: D102  # as in Slide
        return None if self._mpp is None else square_mpp(self.name, *self._mpp)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Raise what goes wrong inside as `SlideCorruptError` of ``what`` was to be decoded."""
        try:
            yield
        except (MemoryError, SlideError):
            raise
        except Exception as error:
            raise SlideCorruptError(
                f"{self.name}: {what} cannot be decoded ({self._reason(error)}); export or copy it again"
            ) from error

    def _reason(self, error: Exception) -> str:
        return f"{type(error).__name__}: {portable(error, self.path)}"
