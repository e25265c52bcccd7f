"""The cohort manifest: one row a slide."""

from deepliif_ray.manifest.markers import read_registry
from deepliif_ray.manifest.rows import Record, read_rows, write_rows
from deepliif_ray.manifest.slides import Manifest, SlideEntry, check_rows, read_manifest

__all__ = [
    "Manifest",
    "Record",
    "SlideEntry",
    "check_rows",
    "read_manifest",
    "read_registry",
    "read_rows",
    "write_rows",
]
