"""Tensors out of the files that PyTorch writes, without running anything that is in them.

A ``.pth`` file goes through `torch.load` with ``weights_only=True``. A serialized ``.pt`` file is a
TorchScript archive: a zip of a pickle, raw tensors and program text. Here the pickle is read with a list of
allowed names and the program is never looked at, whereas `torch.jit.load` would compile and hold it.
"""

import io
import pickle
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from deepliif_ray.errors import ModelError

MAX_BYTES = 4 << 30  # a published U-Net is 0.22 GB; ten times the width still fits
MAX_ENTRIES = 20_000
MAX_PICKLE_BYTES = 16 << 20
MAX_DEPTH = 64
ZIP_MAGIC = b"PK\x03\x04"
_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_BROKEN = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    AttributeError,
    ImportError,
    LookupError,
    TypeError,
    ValueError,
    ArithmeticError,
    RuntimeError,  # torch's own, RecursionError and NotImplementedError too
    MemoryError,
)


def read_state(data: bytes, source: str) -> dict[str, Tensor]:
    """Return the tensors of a state-dict file (``.pth``) by name.

    Raises
    ------
    ModelError
        The file is damaged, too large, or holds anything but tensors.
    """
    if data.startswith(ZIP_MAGIC):
        with _opened(data, source):
            pass  # torch.load does not limit what a compressed archive unpacks to
    try:
        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except _BROKEN as error:
        raise _refused(source, error) from error
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ModelError(
            f"{source}: holds something else than a state dict of tensors; save net.state_dict()"
        )
    if not all(type(value) in (Tensor, torch.nn.Parameter) and _is_plain(value) for value in loaded.values()):
        raise ModelError(f"{source}: holds tensors without numbers of their own; save net.state_dict() again")
    return _bounded({str(name): tensor for name, tensor in loaded.items()}, source)


def read_torchscript(data: bytes, source: str) -> dict[str, Tensor]:
    """Return the parameters and buffers of a serialized network (``.pt``) by their state-dict names.

    Raises
    ------
    ModelError
        The file is damaged, too large, not a TorchScript archive, or its pickle asks for anything beyond
        modules, tensors and plain values.
    """
    with _opened(data, source) as archive:
        try:
            program = next(
                name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")
            )
            if archive.getinfo(program).file_size > MAX_PICKLE_BYTES:
                raise ModelError(f"{source}: its table of contents is over {MAX_PICKLE_BYTES >> 20} MiB")
            root = _ScriptUnpickler(archive, program).load()
            if not isinstance(root, _ScriptObject):
                raise ModelError(f"{source}: not a serialized network but a file of another kind")
            tensors = dict(islice(_tensors(root, ""), MAX_ENTRIES + 1))
            if len(tensors) > MAX_ENTRIES:
                raise ModelError(f"{source}: names more than {MAX_ENTRIES} tensors")
            return _bounded(tensors, source)
        except StopIteration:
            raise ModelError(f"{source}: not a TorchScript archive (no data.pkl)") from None
        except _BROKEN as error:
            raise _refused(source, error) from error


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized


def _bounded(tensors: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return ``tensors``, unless they pretend to more numbers than a file may hold.

    A few bytes can name one storage many times over, or repeat its numbers by strides of 0.

    Raises
    ------
    ModelError
        Together they have over `MAX_BYTES`, or one of them more than its own storage.
    """
    for name, tensor in tensors.items():
        if tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
            raise ModelError(f"{source}: {name} claims more numbers than the file holds; download it again")
    total = sum(tensor.numel() * tensor.itemsize for tensor in tensors.values())
    if total > MAX_BYTES:
        raise ModelError(f"{source}: its tensors have {total} bytes together; at most {MAX_BYTES} are read")
    return tensors


def _opened(data: bytes, source: str) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except _BROKEN as error:
        raise _refused(source, error) from error
    entries = archive.infolist()
    total = sum(entry.file_size for entry in entries)
    if len(entries) > MAX_ENTRIES or total > MAX_BYTES:
        raise ModelError(
            f"{source}: unpacks to {len(entries)} entries and {total} bytes; at most {MAX_ENTRIES} and "
            f"{MAX_BYTES} are read"
        )
    return archive


def _refused(source: str, error: BaseException) -> ModelError:
    return ModelError(f"{source}: cannot be read as network weights; download it again ({_brief(error)})")


def _brief(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__


class _ScriptObject:
    """Stands for a module of the archive: only its attributes matter."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.attributes = state


def _tensors(root: _ScriptObject, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a tree of modules; one that names a module twice over and over is no tree."""
    waiting = [(root, prefix, 0)]
    seen = {id(root)}
    while waiting:
        module, prefix, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise ValueError("its modules are nested too deeply")
        for name, value in module.attributes.items():
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value
            elif isinstance(value, _ScriptObject):
                if id(value) in seen:
                    raise ValueError("a module is part of itself or of two others")
                seen.add(id(value))
                waiting.append((value, f"{prefix}{name}.", depth + 1))


class _ScriptUnpickler(pickle.Unpickler):
    """Builds tensors, modules without behaviour, and plain values; refuses every other name."""

    def __init__(self, archive: zipfile.ZipFile, program: str) -> None:
        super().__init__(io.BytesIO(archive.read(program)))
        self._archive = archive
        self._folder = program.removesuffix("data.pkl") + "data/"
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for ``module.name``; only names that torch.jit.save writes are known."""
        if module == "__torch__" or module.startswith("__torch__."):
            return _ScriptObject
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
            ("collections", "OrderedDict"): OrderedDict,
            ("torch.jit._pickle", "restore_type_tag"): _first,
            **{
                ("torch.jit._pickle", f"build_{kind}list"): _first
                for kind in ("int", "double", "bool", "tensor")
            },
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no network needs")
        return known[module, name]

    def persistent_load(self, pid: Any) -> Tensor:
        """Return the flat tensor that the archive's entry ``pid`` holds."""
        _, dtype, key, _, count = pid
        if not isinstance(dtype, torch.dtype) or not isinstance(count, int):
            raise pickle.UnpicklingError("a tensor's storage is described wrongly")
        if key not in self._storages:
            raw = self._archive.read(f"{self._folder}{key}")
            if len(raw) != count * dtype.itemsize:
                raise pickle.UnpicklingError(
                    f"tensor {key} has {len(raw)} bytes, not {count * dtype.itemsize}"
                )
            self._storages[key] = (
                torch.frombuffer(bytearray(raw), dtype=dtype) if raw else torch.empty(0, dtype=dtype)
            )
        return self._storages[key]


def _rebuild(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return torch.as_strided(storage, size, stride, offset)  # refuses to leave the storage


def _first(value: Any, *_: Any) -> Any:
    return value
