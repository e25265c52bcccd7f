"""Whether a picture is of a stained section in transmitted light: told by its pixels, whatever the file says.

Fluorescence, inverted and grey pictures come as ordinary RGB files too. A model finds cells in them, and an
index, that mean nothing.
"""

import numpy as np

from deepliif_ray.errors import SlideUnsuitableError
from deepliif_ray.slides.tissue import TissueMask

DARK = 60
MOST_DARK = 0.5
BRIGHT_PERCENTILE = 90
LEAST_BRIGHT, CERTAINLY_BRIGHT = 115, 200
LEAST_SPREAD = 8.0
LEAST_CONTRAST = 25.0
SPREAD_PERCENTILE = 95
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def check_brightfield(name: str, tissue: TissueMask) -> None:
    """Refuse what is no brightfield picture in colour.

    Judged by the averages of squares of 8 to 16 µm. *Dark ground*: the 90th percentile of luma is below 115,
    or it is below 200 and over half of the squares are below 60. *Grey*: the 95th percentile, over tissue, of
    the distance between channels is below 8, and luma varies by 25, which empty glass does not.

    The limits were set after a look at squares of 16 pixels of 114 real brightfield pictures and 15 of
    fluorescence. Of the former the least 90th percentile of luma is 132, the greatest share below 60 is 40 %,
    and channels are at least 24 apart; of the latter the greatest 90th percentile is 105 and the least share
    62 %. Grey panels among these have channels up to 3 apart.

    Parameters
    ----------
    name : str
        Of the file, for messages.
    tissue : TissueMask

    Raises
    ------
    SlideUnsuitableError
        The picture is dark or has no colour.
    """
    if not tissue.scanned.any():
        raise SlideUnsuitableError(f"{name}: all of it is black; export the slide again")
    mean = tissue.mean[tissue.scanned]
    luma = mean @ _LUMA
    bright, dark = float(np.percentile(luma, BRIGHT_PERCENTILE)), float((luma < DARK).mean())
    if bright < LEAST_BRIGHT or (bright < CERTAINLY_BRIGHT and dark > MOST_DARK):
        raise SlideUnsuitableError(
            f"{name}: its background is dark, as of fluorescence or an inverted picture; only stained "
            "sections in transmitted light (brightfield) are scored"
        )
    stained = tissue.mean[tissue.mask]
    varies = float(np.ptp(np.percentile(luma, (1, 99)))) >= LEAST_CONTRAST
    if varies and len(stained) and np.percentile(np.ptp(stained, axis=1), SPREAD_PERCENTILE) < LEAST_SPREAD:
        raise SlideUnsuitableError(
            f"{name}: a grey picture; stains are told apart by colour: export the slide in colour"
        )
