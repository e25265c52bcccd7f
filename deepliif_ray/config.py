"""What may be chosen about scoring, validated."""

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deepliif_ray.errors import ConfigError

DEFAULT_MODEL = "compact"
"""What scores when nobody chooses: the model that ships with the package."""
RESULT_VERSION = 2
"""Raised whenever a release changes numbers, so that slides scored before are scored again."""


class ScoreConfig(BaseModel):
    """Options that change what is measured; part of every result's origin.

    Attributes
    ----------
    tile_size : int, optional
        Side of a tile in level-0 pixels. When not given, what shows tissue at the model's own scale (128 µm
        for models that ship), or as published: 512 at 40x, 256 at 20x, 128 at 10x.
    overlap : int, optional
        Context on each side of a tile in level-0 pixels; a sixteenth of the tile when not given.
    assume_mpp : float, optional
        Resolution in µm per pixel of slides for which neither manifest nor file gives one.
    max_bad_tiles_percent : float
        Share of a slide's tiles to be read that may be undecodable; with more the slide fails. Bad tiles
        count as not read. 1 by default: a damaged block in a scan of thousands of tiles does not cost the
        slide, while one of under a hundred tiles, where each matters, fails at the first.
    seg_thresh, noise_thresh, large_noise_thresh
        See `deepliif_ray.cells.extract_cells`. Sizes are pixels at 40x (0.0625 µm²), scaled to the slide;
        for published models they are pixels of the slide.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tile_size: int | None = Field(default=None, ge=16, le=4096)
    overlap: int | None = Field(default=None, ge=0)
    assume_mpp: float | None = Field(default=None, gt=0.01, lt=100, allow_inf_nan=False)
    max_bad_tiles_percent: float = Field(default=1.0, ge=0, le=100, allow_inf_nan=False)
    seg_thresh: int = Field(default=120, ge=0, le=510)
    noise_thresh: int = Field(default=4, ge=0)
    large_noise_thresh: int | Literal["default"] | None = "default"

    def fingerprint(self, *, precision: str) -> str:
        """Return a short text that differs whenever the results of equal slides might."""
        text = f"{RESULT_VERSION}\0{precision}\0{self.model_dump_json()}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def score_config(**options: object) -> ScoreConfig:
    """Return the validated configuration.

    Raises
    ------
    ConfigError
        An option is unknown or its value cannot be used; the message lists every one.
    """
    try:
        return ScoreConfig.model_validate(options)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in e['loc'])} is {e['input']!r}: {e['msg']}"
            for e in error.errors()
        )
        raise ConfigError(f"cannot use these options: {problems}") from error
