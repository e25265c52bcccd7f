"""DeepLIIF's graph of generators (Ghahremani et al. 2022).

Translators turn the IHC tile into other modalities (hematoxylin, DAPI, Lap2, marker); one segmenter reads the
IHC tile, one each modality, and their outputs are averaged with the folder's weights. Only the networks that
segmentation, marker and the requested modalities need are loaded and run.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from deepliif_ray.errors import ModelError
from deepliif_ray.models.base import Inference, UInt8Array, check_tiles
from deepliif_ray.models.checkpoint import Checkpoint
from deepliif_ray.models.device import DTYPES
from deepliif_ray.models.networks import use_precision
from deepliif_ray.models.running import Images, brightest, run_tiles
from deepliif_ray.native import PUBLISHED

CUDA_BATCH = 8
MAX_CPU_WORKERS = 8
"""Tiles at work at once on a CPU: each takes about 0.5 GB."""
SEG = "seg"
"""8-bit images (B, S, S, 3) by index of the modality, and `SEG`."""


class DeepLIIF:
    """A published model, ready for inference.

    Parameters
    ----------
    name : str
        Name for people.
    checkpoint : Checkpoint
        What was read from its folder; its networks are moved and converted in place.
    device : torch.device
        Where to compute.
    precision : str
        ``float32`` or ``bfloat16``.

    Attributes
    ----------
    batch_size : int
        Number of tiles that a GPU runs at once, which bounds its memory. The last, smaller batch is filled
        up, so that a tile's result does not depend on how many others came with it. A CPU runs each tile by
        itself on one thread, several tiles side by side, because the order in which its libraries add up
        depends on the size of the batch and the number of threads.
    """

    def __init__(self, name: str, checkpoint: Checkpoint, device: torch.device, precision: str) -> None:
        self.name = name
        self.digest = checkpoint.digest
        self.device = str(device)
        self.precision = precision
        self.options = checkpoint.options
        self.background_marker = self.options.background_marker
        self.has_marker = self.options.marker is not None
        self.native = PUBLISHED
        self.modality_names = tuple(self.options.modality_names[index] for index in checkpoint.translators)
        self.batch_size = CUDA_BATCH
        try:
            self._translators = self._prepare(checkpoint.translators, device)
            self._segmenters = self._prepare(checkpoint.segmenters, device)
        except RuntimeError as error:
            raise ModelError(f"{name}: does not fit on {device} ({error})") from error

    def _prepare(self, networks: dict[int, nn.Module], device: torch.device) -> dict[int, nn.Module]:
        dtype = DTYPES[self.precision]
        return {index: use_precision(network.to(device), dtype) for index, network in networks.items()}

    def infer(self, tiles: UInt8Array, modalities: Sequence[str] = ()) -> Inference:
        """Return segmentation, marker map and the named modalities of ``tiles``.

        Tiles of another size than the networks' are enlarged or reduced with Pillow's bicubic filter, and the
        8-bit results brought back the same way, as published.

        Parameters
        ----------
        tiles : numpy.ndarray
            uint8 RGB (N, H, W, 3), H = W.
        modalities : sequence of str
            Names out of ``modality_names``.

        Raises
        ------
        ConfigError
            ``tiles`` has another shape or dtype, or a modality is not loaded.
        ModelError
            PyTorch failed, for example for want of memory.
        """
        check_tiles(tiles, modalities, self.modality_names, self.name)
        wanted = {self.options.modality_names.index(name): name for name in modalities}
        marker = self.options.marker
        keep = set(wanted) if marker is None else {*wanted, marker}
        count, side = tiles.shape[:2]
        keys: list[int | str] = [SEG, *sorted(keep)]
        results: Images[int | str] = {key: np.empty((count, side, side, 3), np.uint8) for key in keys}
        batches = run_tiles(
            tiles,
            lambda batch: self._run(batch, keep),
            size=self.options.scale_size,
            device=torch.device(self.device),
            exact=self.precision == "float32",
            batch_size=self.batch_size,
        )
        try:
            for start, images in batches:
                for key, result in results.items():
                    result[start : start + len(images[key])] = images[key]
        except RuntimeError as error:
            raise ModelError(
                f"{self.name}: inference of {count} tiles failed on {self.device} ({error}); "
                "if memory ran out, use a smaller batch size"
            ) from error
        return Inference(
            results[SEG],
            None if marker is None else brightest(results[marker]),
            {name: results[index] for index, name in wanted.items()},
        )

    @torch.inference_mode()
    def _run(self, tiles: UInt8Array, keep: set[int]) -> Images[int | str]:
        """Return 8-bit images of one batch (B, S, S, 3): the modalities in ``keep`` and the segmentation."""
        pixels = torch.tensor(tiles, device=self.device)
        image = (pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
        needed = keep | {index - 1 for index in self._segmenters if index}
        translated = {i: network(image) for i, network in self._translators.items() if i in needed}
        seg = torch.zeros_like(image)
        for index, network in self._segmenters.items():
            seg += self.options.seg_weights[index] * network(translated[index - 1] if index else image)
        images: Images[int | str] = {index: _to_8bit(translated[index]) for index in keep}
        images[SEG] = _to_8bit(seg)
        return images


def _to_8bit(image: Tensor) -> UInt8Array:
    """Return images (B, 3, H, W) in [-1, 1] as uint8 (B, H, W, 3), truncated as published."""
    grey = ((image + 1) / 2 * 255).clamp(0, 255).to(torch.uint8)
    array: UInt8Array = grey.permute(0, 2, 3, 1).cpu().numpy()
    return array
