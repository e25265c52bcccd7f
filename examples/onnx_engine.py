"""A model engine in one file: segmentation networks in ONNX, run by ONNX Runtime.

Install it as a package beside deepliif_ray, with this in its ``pyproject.toml``::

    [project]
    name = "deepliif-ray-onnx"
    version = "1.0"
    dependencies = ["deepliif-ray[score]", "onnxruntime"]

    [project.entry-points."deepliif_ray.models"]
    onnx = "onnx_engine:OnnxModel"

A bundle is then a folder with the network, ``weights.onnx``, and a ``model.json``::

    {"format": "deepliif_ray.model/1", "name": "my-network", "architecture": "onnx", "native_mpp": 0.25}

``deepliif-ray score manifest.csv results --model path/to/bundle`` scores with it, on one machine or many. The
network takes float32 (N, 3, H, W) from 0 to 1, and gives the segmentation map in the same form: red positive,
blue negative, green boundary.
"""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import onnxruntime

from deepliif_ray import storage
from deepliif_ray.errors import ModelError
from deepliif_ray.models import Inference
from deepliif_ray.models.base import UInt8Array, check_tiles
from deepliif_ray.models.plugins import Request
from deepliif_ray.native import NativeView

WEIGHTS = "weights.onnx"


class OnnxModel:
    """What the engine asks of a model (`deepliif_ray.models.base.Model`), from a bundle."""

    device, precision = "cpu", "float32"
    modality_names: tuple[str, ...] = ()
    background_marker, has_marker = 0, False

    def __init__(self, request: Request) -> None:
        if request.folder is None:
            raise ModelError("onnx: name the folder of a bundle, not this engine")
        if request.modalities or request.precision not in (None, "float32"):
            raise ModelError(f"{request.folder}: gives no modalities, and float32 only")
        mpp = request.described.get("native_mpp")
        if not isinstance(mpp, (int, float)) or not 0.1 <= mpp <= 1:
            raise ModelError(f"{request.folder}: native_mpp is {mpp!r}; give µm per pixel, 0.1 to 1")
        self.native = NativeView(mpp=float(mpp), tile=512)
        self.name = str(request.described.get("name") or "onnx")
        weights = storage.read_bytes(storage.join(request.folder, WEIGHTS))
        # Everything that numbers follow from: scored slides are compared by it.
        origin = json.dumps([self.native.mpp, onnxruntime.__version__]).encode() + weights
        self.digest = hashlib.sha256(origin).hexdigest()[:32]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # libraries round differently with other numbers of threads
        self._session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def infer(self, tiles: UInt8Array, modalities: Sequence[str] = ()) -> Inference:
        """Return the segmentation of tiles, each run alone: its result must not depend on its neighbours."""
        check_tiles(tiles, modalities, self.modality_names, self.name)
        maps = [self._segment(tile) for tile in tiles]
        return Inference(np.stack(maps) if maps else np.empty_like(tiles), None)

    def _segment(self, tile: UInt8Array) -> UInt8Array:
        pixels = np.moveaxis(tile, 2, 0)[None].astype(np.float32) / 255
        (found,) = self._session.run(None, {self._input: pixels})
        segmentation: UInt8Array = np.moveaxis((found[0] * 255).round().clip(0, 255), 0, 2).astype(np.uint8)
        return segmentation
