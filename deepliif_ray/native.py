"""How a model wants to see tissue."""

from dataclasses import dataclass


@dataclass(frozen=True)
class NativeView:
    """What a model knows tissue to look like; slides are brought to it before it sees them.

    Attributes
    ----------
    mpp : float, optional
        µm per pixel at which it sees tissue: tiles are cut so that it does, whatever the slide's. None where
        the published rule says how large tiles are: 512, 256 or 128 px.
    tile : int
        Side of the tiles that it sees at that scale, px.
    od : float, optional
        Optical density of hematoxylin (`deepliif_ray.slides.contrast`) that it knows: tiles of a paler slide
        are brought to it. None: it sees hematoxylin as it is.
    white : float, optional
        Grey level of glass that it knows, in every channel: tiles are brought to it, so that neither the
        lamp nor the camera's white balance matters. None: it sees light as it is.
    """

    mpp: float | None = None
    tile: int = 512
    od: float | None = None
    white: float | None = None

    @property
    def changes_colour(self) -> bool:
        """Whether tiles are changed before the model sees them."""
        return self.od is not None or self.white is not None


PUBLISHED = NativeView()
"""How published models see tissue: as it is, at the published sizes of tiles."""
