"""What a published model folder says about itself: ``train_opt.txt``, read as data.

The rules are those of published DeepLIIF 1.2.7 (Ghahremani et al. 2022) at inference.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepliif_ray.errors import ModelError
from deepliif_ray.models.networks import GeneratorSpec

OPTIONS_FILE = "train_opt.txt"
SUPPORTED_MODELS = ("DeepLIIF", "DeepLIIFKD")
MARKER = "Marker"
ORIGINAL_NAMES = ("IHC", "Hema", "DAPI", "Lap2", "Marker")
ORIGINAL_WEIGHTS = (0.5, 0.0, 0.0, 0.0, 0.5)
PAPER_WEIGHTS = (0.25, 0.15, 0.25, 0.1, 0.25)
ORIGINAL_MODALITIES = 4
BACKGROUND = 10
MAX_MODALITIES = 64
MAX_SCALE_SIZE = 4096
_DEFAULT_NOTE = re.compile(r"\s*\[default:.*\]\s*$")
_NUMPY_SCALAR = re.compile(r"\b(?:np|numpy)\.\w+\(([^()]*)\)")
_LITERAL_ERRORS = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


@dataclass(frozen=True)
class ModelOptions:
    """The options of a model folder that decide its results, defaults filled in.

    Parameters
    ----------
    modality_names : tuple of str
        Names of the translated modalities in order; the first is the output of ``G1``.
    seg_weights : tuple of float
        Weight of each segmentation: the one from the IHC image first, then one a modality.
    translators : tuple of GeneratorSpec
        One a modality.
    segmenters : tuple of GeneratorSpec
        One a segmentation weight.
    scale_size : int
        Side in px of the images the networks work on.
    background_marker : int
        Marker value of a tile that is skipped as empty, 0–255.
    segmenter_prefix : str
        What the names of the segmentation networks begin with, such as ``G5`` or ``GS``.
    first_segmenter : int
        Number of the segmentation network that reads the IHC image: 1 in old folders, 0 in new ones.
    """

    modality_names: tuple[str, ...]
    seg_weights: tuple[float, ...]
    translators: tuple[GeneratorSpec, ...]
    segmenters: tuple[GeneratorSpec, ...]
    scale_size: int
    background_marker: int
    segmenter_prefix: str
    first_segmenter: int

    @property
    def marker(self) -> int | None:
        """Index in ``modality_names`` of the marker image, or None."""
        return self.modality_names.index(MARKER) if MARKER in self.modality_names else None

    def translator_name(self, index: int) -> str:
        """Return the name of the network that makes modality ``index`` (from 0)."""
        return f"G{index + 1}"

    def segmenter_name(self, index: int) -> str:
        """Return the name of the network of segmentation weight ``index`` (0 reads the IHC image)."""
        return f"{self.segmenter_prefix}{self.first_segmenter + index}"


def parse_options(text: str) -> dict[str, Any]:
    """Return the ``key: value`` lines of a ``train_opt.txt``.

    Values are Python literals or else plain text; nothing is evaluated. ``[default: …]`` at a line's end and
    lines without a colon are dropped; the last of two lines with one key counts.
    """
    options: dict[str, Any] = {}
    for line in text.lstrip("\ufeff").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            options[key.strip()] = _literal(_DEFAULT_NOTE.sub("", value).strip())
    return options


def _literal(value: str) -> Any:
    """Return the Python literal in ``value``, or ``value`` itself if there is none."""
    try:
        return ast.literal_eval(_NUMPY_SCALAR.sub(r"\1", value))
    except _LITERAL_ERRORS:
        return value


def resolve_options(given: Mapping[str, Any], networks: Sequence[str], source: str) -> ModelOptions:
    """Fill in the defaults of published inference.

    Parameters
    ----------
    given : mapping
        What `parse_options` returned.
    networks : sequence of str
        Names of the networks in the folder, such as ``G1``, ``G51``.
    source : str
        URL of the options file, for messages.

    Raises
    ------
    ModelError
        An option has a value that is wrong or not supported.
    """
    read = _Reader(given, source)
    model = read.text("model", "DeepLIIF")
    if model not in SUPPORTED_MODELS:
        raise read.error("model", f"only {' and '.join(SUPPORTED_MODELS)} models can be used")
    if read.whole("input_no", 1, 1, MAX_MODALITIES) != 1:
        raise read.error("input_no", "models of several input images cannot be used")
    if given.get("seg_gen", True) in (False, "False"):
        raise read.error("seg_gen", "a model without segmentation generators finds no cells")
    count = _modality_count(read)
    names = _names(read, count)
    scale_size = read.whole("scale_size", 512, 1, MAX_SCALE_SIZE)
    norm = read.text("norm", "batch")
    # DeepLIIFKD ignores ``upsample``, and segmentation networks are always built with these two defaults.
    upsample = read.text("upsample", "convtranspose") if model == "DeepLIIF" else "convtranspose"
    padding = read.text("padding", "zero")
    prefix = _segmenter_prefix(read, networks)
    try:
        translators = tuple(
            GeneratorSpec(name, norm, padding, upsample)
            for name in read.architectures(("netG", "net_g"), "resnet_9blocks", count)
        )
        segmenters = tuple(
            GeneratorSpec(name, norm, "reflect" if name.startswith("resnet") else "zero")
            for name in read.architectures(("net_gs",), "unet_512", count + 1)
        )
    except ModelError as error:
        raise ModelError(f"{source}: {error}") from error
    for spec in {*translators, *segmenters}:
        if scale_size % spec.divisor:
            raise read.error("scale_size", f"{spec.architecture} needs a multiple of {spec.divisor}")
    return ModelOptions(
        modality_names=names,
        seg_weights=_weights(read, count),
        translators=translators,
        segmenters=segmenters,
        scale_size=scale_size,
        background_marker=_background(read, names),
        segmenter_prefix=prefix,
        first_segmenter=0 if f"{prefix}0" in networks else 1,
    )


class _Reader:
    """Typed access to the options of one file."""

    def __init__(self, given: Mapping[str, Any], source: str) -> None:
        self.given = given
        self.source = source

    def error(self, key: str, why: str) -> ModelError:
        return ModelError(f"{self.source}: {key} is {self.given.get(key)!r}; {why}")

    def present(self, key: str) -> bool:
        return self.given.get(key) not in (None, "", "None", [], ())

    def text(self, key: str, default: str) -> str:
        value = self.given[key] if self.present(key) else default
        if not isinstance(value, str):
            raise self.error(key, "a word was expected")
        return value

    def whole(self, key: str, default: int, low: int, high: int) -> int:
        value = self.given[key] if self.present(key) else default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.error(key, f"a whole number from {low} to {high} was expected")
        return value

    def items(self, key: str) -> list[Any]:
        """Return the value as a list; words may be separated by commas."""
        value = self.given[key]
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return list(value) if isinstance(value, list | tuple) else [value]

    def architectures(self, keys: Sequence[str], default: str, count: int) -> list[str]:
        key = next((key for key in keys if self.present(key)), None)
        found = self.items(key) if key else [default]
        if len(found) == 1:
            found = found * count
        if key and (len(found) < count or not all(isinstance(name, str) for name in found)):
            raise self.error(key, f"one architecture or {count} were expected")
        return found[:count]


def _modality_count(read: _Reader) -> int:
    if not read.present("modalities_no") and read.present("targets_no"):
        return read.whole("targets_no", 0, 1, MAX_MODALITIES) - 1  # older: the segmentation counted too
    return read.whole("modalities_no", ORIGINAL_MODALITIES, 0, MAX_MODALITIES)


def _names(read: _Reader, count: int) -> tuple[str, ...]:
    if not read.present("modalities_names"):
        if count == ORIGINAL_MODALITIES and "modalities_names" not in read.given:
            return ORIGINAL_NAMES[1:]
        return tuple(f"mod{index + 1}" for index in range(count))
    names = [str(name) for name in read.items("modalities_names")]
    if len(names) != count + 1 or len(set(names)) != len(names):
        raise read.error("modalities_names", f"{count + 1} different names were expected, the input's first")
    return tuple(names[1:])


def _weights(read: _Reader, count: int) -> tuple[float, ...]:
    if read.present("seg_weights"):
        weights = tuple(_number(item) for item in read.items("seg_weights"))
        if len(weights) != count + 1 or None in weights or not any(weights):
            raise read.error("seg_weights", f"{count + 1} numbers, not all zero, were expected")
        return tuple(weight for weight in weights if weight is not None)
    if count != ORIGINAL_MODALITIES:
        return (1 / (count + 1),) * (count + 1)
    return PAPER_WEIGHTS if "modalities_names" in read.given else ORIGINAL_WEIGHTS


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) < float("inf") else None


def _background(read: _Reader, names: tuple[str, ...]) -> int:
    """Marker value of a skipped tile: the greatest channel of the marker's background color."""
    if not read.present("background_colors") or MARKER not in names:
        return BACKGROUND
    index = names.index(MARKER)
    colors = read.given["background_colors"]
    color = colors[index] if isinstance(colors, list | tuple) and len(colors) > index else None
    channels = [_number(value) for value in color] if isinstance(color, list | tuple) else []
    known = [int(value) for value in channels if value is not None and 0 <= value <= 255]
    if not known or len(known) != len(channels):
        raise read.error("background_colors", f"{len(names)} colors of numbers from 0 to 255 were expected")
    return max(known)


def _segmenter_prefix(read: _Reader, networks: Sequence[str]) -> str:
    if read.present("mod_id_seg"):
        return f"G{read.given['mod_id_seg']}"
    longest = max(networks, key=len, default="G5")
    return longest[:2]
