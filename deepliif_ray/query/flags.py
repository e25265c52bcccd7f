"""What the flags of slides mean."""

FLAGS = {
    "out_of_focus": "out of focus",
    "little_tissue": "little tissue",
    "pen": "pen or ink on the slide",
    "pale_hematoxylin": "pale hematoxylin",
    "not_hematoxylin_dab": "colours that hematoxylin and DAB do not make, so the index means nothing",
    "dark_background": "dark background",
    "tinted_background": "tinted background",
    "bad_tiles": "parts of the slide could not be read",
    "implausible_scale": "nuclei of an unlikely size, so the pixel size is probably wrong",
    "cells_lost": "its cells are lost",
    "same_content": "another slide of these results has the same content",
}
"""The flags of the view slide_quality, in words."""
