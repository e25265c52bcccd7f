"""Other ways to store colours, turned into plain RGB."""

import numpy as np
from numpy.typing import NDArray


def divided(colours: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return colours that were multiplied by their transparency as they were before."""
    most = np.maximum(alpha.astype(np.uint16), 1)
    divided: NDArray[np.uint8] = np.minimum(
        (colours.astype(np.uint16) * 255 + most // 2) // most, 255
    ).astype(np.uint8)
    return divided


def ycbcr_to_rgb(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Return 8-bit YCbCr pixels (..., 3) as RGB, by the equations of JFIF."""
    luma, blue, red = (pixels[..., channel].astype(np.float32) for channel in range(3))
    rgb = np.stack(
        [
            luma + 1.402 * (red - 128),
            luma - 0.344136 * (blue - 128) - 0.714136 * (red - 128),
            luma + 1.772 * (blue - 128),
        ],
        axis=-1,
    )
    rounded: NDArray[np.uint8] = np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
    return rounded
