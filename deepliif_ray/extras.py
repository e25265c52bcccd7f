"""What comes with an extra: which `pip install` brings a library that is missing."""

from deepliif_ray.errors import MissingExtraError

EXTRAS = {
    "score": (
        "PIL", "aiohttp", "imagecodecs", "numba", "openslide", "pandas", "pydicom", "ray", "safetensors",
        "scipy", "skimage", "tifffile", "torch", "zarr",
    ),
    "train": ("optuna", "tensorboardX"),
    "s3": ("aiobotocore", "aiohttp", "botocore", "s3fs"),
    "gcs": ("gcsfs",),
    "azure": ("adlfs",),
    "czi": ("pylibCZIrw",),
    "anndata": ("anndata",),
    "spatialdata": ("spatialdata",),
    "dicom": ("highdicom",),
}  # fmt: skip
"""Modules that each extra of ``pyproject.toml`` brings."""


def missing_extra(error: BaseException | None, wanted: str) -> MissingExtraError | None:
    """Return the error to raise when ``error``, or one behind it, says that a library of an extra is missing.

    Parameters
    ----------
    error : BaseException or None
    wanted : str
        What was to be done, as the subject of a sentence.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, ModuleNotFoundError):
            library = (error.name or "").partition(".")[0]
            for extra, modules in EXTRAS.items():
                if library in modules:
                    return MissingExtraError(
                        f"{wanted} needs {library}, which is not installed: "
                        f"pip install 'deepliif-ray[{extra}]'"
                    )
        error = error.__cause__ or error.__context__
    return None
