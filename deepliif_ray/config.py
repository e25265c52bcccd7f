"""What may be chosen about scoring: what is computed, and how it runs."""

import hashlib
import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from deepliif_ray.published import NOISE_THRESH, SEG_THRESH
from deepliif_ray.validation import Options

DEFAULT_MODEL = "compact"
"""What scores when nobody chooses: the model that ships with the package."""
RESULT_VERSION = 6
"""Raised whenever a release changes numbers, so that slides scored before are scored again."""
Precision = Literal["float32", "bfloat16"]
DEVICE = r"^(cpu|cuda(:\d+)?)$"
"""Names of devices."""
_ADDRESS = re.compile(r"auto|local|(ray://)?(\[[0-9A-Fa-f:]+\]|[^\s/:]+):\d{1,5}(/.*)?")


class ScoreConfig(Options):
    """Options that change what is computed; part of every result's origin.

    Sizes of cells are pixels at 40x (0.0625 µm²), scaled to the slide; for published models they are pixels
    of the slide. See `deepliif_ray.cells.extract_cells`.
    """

    tile_size: int | None = Field(default=None, ge=16, le=4096)
    """Side of a tile, level-0 px; by default what shows tissue at the model's own scale (128 µm for models
    that ship), or as published: 512 at 40x, 256 at 20x, 128 at 10x."""
    overlap: int | None = Field(default=None, ge=0)
    """Context on each side of a tile, level-0 px; by default a sixteenth of the tile."""
    assume_mpp: float | None = Field(default=None, gt=0.01, lt=100, allow_inf_nan=False)
    """µm per px of slides for which neither manifest nor file says."""
    max_bad_tiles_percent: float = Field(default=1.0, ge=0, le=100, allow_inf_nan=False)
    """A slide fails if more of its tiles cannot be decoded; fewer count as not read."""
    seg_thresh: int = Field(default=SEG_THRESH, ge=0, le=510)
    """Red plus blue of a cell's pixel exceed this."""
    noise_thresh: int = Field(default=NOISE_THRESH, ge=0)
    """Cells are larger than this, px at 40x."""
    large_noise_thresh: int | Literal["default"] | None = "default"
    """Cells are smaller than this, px at 40x; none: no limit, default: 16000, as published."""

    def fingerprint(self, *, precision: str) -> str:
        """Return a short text that differs whenever the results of equal slides might."""
        text = f"{RESULT_VERSION}\0{precision}\0{self.model_dump_json()}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Workers(Options):
    """What infers, with what."""

    engine: Literal["ray", "local"] = "ray"
    """A Ray cluster, or local: this process alone. Both give the same tables."""
    device: str | None = Field(default=None, json_schema_extra={"pattern": DEVICE})
    """cpu or cuda; by default GPUs where there are any."""
    precision: Precision | None = None
    """By default bfloat16 on GPUs and float32 on CPUs."""
    batch_size: int | None = Field(default=None, ge=1)
    """Tiles that networks run at once on a GPU."""
    actors: int | None = Field(default=None, ge=1)
    """Models side by side under Ray; by default one per GPU, or per CPU without GPUs."""

    @field_validator("device")
    @classmethod
    def _is_device(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(DEVICE, value):
            raise ValueError("use cpu, cuda or cuda:N")
        return value


class Execution(Workers):
    """How a run is carried out; none of it changes what a slide's cells are, but for `precision`."""

    address: str | None = None
    """Address of a Ray cluster; by default $RAY_ADDRESS, or a cluster of this machine alone."""
    take_over: bool = False
    """Take the results over from a run that works on them; that one ends."""

    @field_validator("address")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None and not _ADDRESS.fullmatch(value):
            raise ValueError("use HOST:PORT, ray://HOST:PORT, auto or local")
        return value

    @model_validator(mode="after")
    def _local_has_no_cluster(self) -> "Execution":
        if self.engine == "local" and self.address is not None:
            raise ValueError("the local engine has no cluster; leave out address, or use the ray engine")
        return self
