"""Defaults of DeepLIIF's published post-processing, in one place (Ghahremani et al. 2022, and its code)."""

SEG_THRESH = 120
"""Red plus blue of a cell's pixel exceed this."""
NOISE_THRESH = 4
"""Cells are larger than this, px at 40x."""
