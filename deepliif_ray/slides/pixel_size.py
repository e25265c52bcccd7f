"""Micrometres per pixel that a TIFF file states: in OME-XML, by ImageJ, by a scanner, or in its tags."""

import math
import re
from typing import Any

import tifffile

PRINT_MPP = 10.0
"""A TIFF's resolution tag coarser than this (µm per pixel; 2,540 dpi) is a print size, no microscope's."""
_UM = {
    "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "nm": 1e-3, "nanometer": 1e-3, "å": 1e-4, "pm": 1e-6, "mm": 1e3, "millimeter": 1e3, "cm": 1e4,
    "centimeter": 1e4, "m": 1e6, "meter": 1e6, "in": 25_400.0, "inch": 25_400.0, "inches": 25_400.0,
    "thou": 25.4, "mil": 25.4,
}  # fmt: skip
_MPP = re.compile(r"\bMPP\s*=\s*([0-9]*[.,]?[0-9]+)", re.IGNORECASE)


def pixel_size(file: tifffile.TiffFile, series: int, page: Any) -> tuple[float, float] | None:
    """Return µm per pixel across and down, or None where the file states none that a microscope has."""
    for found in (_ome(file, series), _imagej(file, page), _described(page), _tags(page)):
        if found is not None and all(math.isfinite(value) and value > 0 for value in found):
            return found
    return None


def _ome(file: tifffile.TiffFile, series: int) -> tuple[float, float] | None:
    if not file.is_ome:
        return None
    images = tifffile.xml2dict(file.ome_metadata or "<OME/>").get("OME", {}).get("Image", [])
    image = (images if isinstance(images, list) else [images])[series : series + 1]
    pixels = image[0].get("Pixels", {}) if image else {}
    sizes = []
    for axis in "XY":
        unit = _UM.get(str(pixels.get(f"PhysicalSize{axis}Unit", "µm")).lower())
        value = pixels.get(f"PhysicalSize{axis}")
        if unit is None or not isinstance(value, int | float):
            return None
        sizes.append(float(value) * unit)
    return sizes[0], sizes[1]


def _imagej(file: tifffile.TiffFile, page: Any) -> tuple[float, float] | None:
    if not file.is_imagej or file.imagej_metadata is None:
        return None
    text = str(file.imagej_metadata.get("unit", "")).replace("\\u00B5", "µ").lower()
    unit = _UM.get(text)
    densities = _densities(page)
    if unit is None or densities is None:
        return None
    return unit / densities[0], unit / densities[1]


def _described(page: Any) -> tuple[float, float] | None:
    found = _MPP.search(str(getattr(page, "description", "") or "")[:4096])
    if found is None:
        return None
    mpp = float(found[1].replace(",", "."))
    return mpp, mpp


def _tags(page: Any) -> tuple[float, float] | None:
    densities = _densities(page)
    unit = {2: 25_400.0, 3: 1e4}.get(int(page.tags.valueof(296, default=2)))
    if densities is None or unit is None:
        return None
    across, down = unit / densities[0], unit / densities[1]
    return (across, down) if math.sqrt(across * down) <= PRINT_MPP else None


def _densities(page: Any) -> tuple[float, float] | None:
    """Return pixels per unit across and down."""
    pairs = [page.tags.valueof(code) for code in (282, 283)]
    if any(not isinstance(pair, tuple) or len(pair) != 2 or 0 in pair for pair in pairs):
        return None
    return pairs[0][0] / pairs[0][1], pairs[1][0] / pairs[1][1]
