"""The stains of an IHC slide, as optical densities."""

HEMATOXYLIN = (0.650, 0.704, 0.286)
DAB = (0.268, 0.570, 0.776)
"""Unit vectors of optical density in red, green and blue.

Ruifrok and Johnston, Quantification of histochemical staining by color deconvolution, Anal Quant Cytol Histol
2001; 23:291-299.
"""
