"""Slides that are folders or archives, of OME-Zarr or DICOM. Their libraries are imported when needed."""

from pathlib import Path

from deepliif_ray.slides.slide import Slide

ZARR_ARCHIVES = (".zarr.zip", ".ozx")
ZARR_MARKERS = ("zarr.json", ".zattrs", ".zgroup")
"""Files one of which lies directly in every Zarr group."""


def is_folder(path: Path) -> bool:
    """Tell whether `open_folder` opens it."""
    return path.is_dir() or path.name.lower().endswith(ZARR_ARCHIVES)


def open_folder(path: Path, series: int | None, plane: int | None) -> Slide:
    """Open a folder or an archive; parameters and errors as `deepliif_ray.slides.reader.open_slide`.

    A folder of one file is that file.
    """
    if path.is_dir() and not any((path / marker).is_file() for marker in ZARR_MARKERS):
        files = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
        if len(files) == 1 and files[0].is_file():
            from deepliif_ray.slides.reader import open_slide

            return open_slide(files[0], series=series, plane=plane)
        from deepliif_ray.slides.dicom import open_dicom

        return open_dicom(path, series=series, plane=plane)
    from deepliif_ray.slides.ome_zarr import open_zarr

    return open_zarr(path, series=series, plane=plane)
