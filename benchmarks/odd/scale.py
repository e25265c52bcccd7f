"""The same tissue at other scales, and pixel sizes that are not true."""

from pathlib import Path

from PIL import Image

from benchmarks.odd.kind import Maker, Picture, section

odd = section("Scale")
TRUE = 0.25
SCALES = (0.125, 0.18, 0.227, 0.3, 0.346, 0.355, 0.36, 0.5, 0.55, 0.71, 0.72)
CLAIMS = {
    0.04: "resolution", 0.06: "implausible_scale", 0.1: "implausible_scale", 0.125: "implausible_scale",
    0.5: "implausible_scale", 0.7: "implausible_scale", 1.0: "implausible_scale", 1.9: "implausible_scale",
    4.5: "resolution",
}  # fmt: skip


def _scaled(mpp: float) -> Maker:
    def make(path: Path, picture: Picture) -> None:
        size = round(picture.shape[1] * TRUE / mpp), round(picture.shape[0] * TRUE / mpp)
        method = Image.Resampling.LANCZOS if mpp < TRUE else Image.Resampling.BICUBIC
        Image.fromarray(picture).resize(size, method).save(path, compress_level=1)

    return make


for _mpp in SCALES:
    odd(name=f"at_{_mpp:g}_µm", suffix=".png", mpp=_mpp, same_pixels=False)(_scaled(_mpp))
for _mpp, _right in CLAIMS.items():
    odd(_right, name=f"claims_{_mpp:g}_for_{TRUE:g}_µm", suffix=".png", mpp=_mpp, same_pixels=False)(
        _scaled(TRUE)
    )
