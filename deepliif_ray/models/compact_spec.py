"""What decides the layers of a compact network."""

from dataclasses import dataclass

from deepliif_ray.errors import ModelError
from deepliif_ray.models.calling import CallRule
from deepliif_ray.models.local_contrast import ContrastRule
from deepliif_ray.native import NativeView

CLASSES = ("background", "positive", "negative", "boundary")
"""Of the softmax, in the order of the network's first output channels."""
FOLD = 2
"""The network works at half resolution: FOLD x FOLD pixels are folded into channels."""
RGB = 3
MAX_TILE_SIZE = 4096
MAX_PARAMETERS = 200_000_000
"""The network that ships has a million."""
MAX_MODALITIES = 16
MAX_SMOOTHING = 8


@dataclass(frozen=True)
class CompactSpec:
    """Everything that decides a compact network's layers.

    Parameters
    ----------
    widths : tuple of int
        Channels of each level, from half resolution downwards.
    depths : tuple of int
        Residual blocks of each level on the way down; there is one on the way up.
    modalities : tuple of str
        Images that are made beside the segmentation, in order.
    tile_size : int
        Side of the tiles that it was made for, px. Tiles of another side are taken for the same field at
        another resolution, and resized.
    native_mpp : float
        µm per pixel of the tiles that it was made for.
    native_od, native_white : float, optional
        Hematoxylin and glass that it was made for; see `deepliif_ray.native.NativeView`.
    call : CallRule, optional
        How its cells are called; None: as the network draws them.
    smoothing : float
        Standard deviation, px, of the Gaussian that the network smooths what it sees with; 0: none.
        Sharpness, grain and JPEG's blocks differ between scanners, and nuclei are much larger.
    local_contrast : ContrastRule, optional
        How its shares of cells are weighed with local contrast; None: they stay as they are.

    Raises
    ------
    ModelError
        The values do not make a network.
    """

    widths: tuple[int, ...] = (16, 32, 64, 128)
    depths: tuple[int, ...] = (1, 2, 2, 2)
    modalities: tuple[str, ...] = ("hematoxylin", "dapi", "lap2", "marker")
    tile_size: int = 512
    native_mpp: float = 0.25
    native_od: float | None = None
    native_white: float | None = None
    call: CallRule | None = None
    smoothing: float = 0.0
    local_contrast: ContrastRule | None = None

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or len(self.widths) != len(self.depths):
            raise ModelError(f"compact network: widths {self.widths} and depths {self.depths} do not match")
        if not all(0 < w <= 1024 for w in self.widths) or not all(0 <= d <= 32 for d in self.depths):
            raise ModelError(f"compact network: widths {self.widths} or depths {self.depths} out of range")
        numbers = (*self.widths, *self.depths, self.tile_size)
        if not all(type(n) is int for n in numbers) or not all(type(m) is str for m in self.modalities):
            raise ModelError(
                "compact network: widths, depths and tile_size are not whole numbers, or modalities no names"
            )
        # A residual block has two convolutions of 3 x 3; each level has one more on the way up.
        parameters = sum(18 * w * w * (d + 1) for w, d in zip(self.widths, self.depths, strict=True))
        if parameters > MAX_PARAMETERS or len(self.modalities) > MAX_MODALITIES:
            raise ModelError(
                f"compact network: about {parameters:,} parameters and {len(self.modalities)} modalities; at "
                f"most {MAX_PARAMETERS:,} and {MAX_MODALITIES} are loaded"
            )
        if len(set(self.modalities)) != len(self.modalities):
            raise ModelError(f"compact network: modalities {self.modalities} repeat")

        if not isinstance(self.native_mpp, int | float) or not 0.05 <= self.native_mpp <= 4:
            raise ModelError(f"compact network: native_mpp {self.native_mpp!r} is not within 0.05 to 4 µm")
        for name, most in (("native_od", 2), ("native_white", 255)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int | float) or not 0 < value <= most):
                raise ModelError(f"compact network: {name} {value!r} is not within 0 to {most}")
        if self.tile_size % self.divisor or not 0 < self.tile_size <= MAX_TILE_SIZE:
            raise ModelError(
                f"compact network: tile_size {self.tile_size} is no multiple of {self.divisor} "
                f"up to {MAX_TILE_SIZE}"
            )
        widest = min(MAX_SMOOTHING, self.tile_size / 4)  # beyond, the Gaussian is wider than the tile
        if not isinstance(self.smoothing, int | float) or not 0 <= self.smoothing <= widest:
            raise ModelError(
                f"compact network: smoothing {self.smoothing!r} is not within 0 to {widest:g} px"
            )

    @property
    def native(self) -> NativeView:
        """How it wants to see tissue."""
        return NativeView(self.native_mpp, self.tile_size, self.native_od, self.native_white)

    @property
    def divisor(self) -> int:
        """Number of pixels that a tile's side must be a multiple of."""
        return int(FOLD * 2 ** (len(self.widths) - 1))

    @property
    def channels(self) -> int:
        """Channels of the output: one a class, three a modality."""
        return len(CLASSES) + RGB * len(self.modalities)
