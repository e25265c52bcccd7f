"""URLs and bytes: the one place that talks to fsspec.

A URL is anything fsspec understands (``s3://…``, ``gs://…``, ``memory://…``, ``file://…``) or a plain local
path. Local files are written to a temporary name and renamed; object stores write whole objects. Either way
a reader sees an object complete or not at all. Trouble with a store that may pass is tried again, and what is
told of it holds no credentials.
"""

from deepliif_ray.storage.addresses import post
from deepliif_ray.storage.cache import drop_copies, find_copies, localize, pin
from deepliif_ray.storage.cache_folder import CACHE_VARIABLE, default_cache, own_folder
from deepliif_ray.storage.content import content_fingerprint
from deepliif_ray.storage.credentials import (
    OPTIONS_VARIABLE,
    refuse_credentials,
    scrub,
    scrubbed,
    use_options_file,
)
from deepliif_ray.storage.documents import listed, shown
from deepliif_ray.storage.locks import Lock
from deepliif_ray.storage.objects import (
    READ_THREADS,
    Stored,
    arrow_filesystem,
    check_writable,
    exists,
    list_files,
    list_stored,
    read_bytes,
    read_range,
    read_ranges,
    read_threads,
    remove,
    remove_empty,
    size,
)
from deepliif_ray.storage.slide_files import slide_files, version
from deepliif_ray.storage.small import read_small, read_yaml
from deepliif_ray.storage.urls import (
    absolute,
    is_absolute,
    is_local,
    join,
    local_path,
    parent,
    place,
    resolve,
)
from deepliif_ray.storage.writing import create_bytes, write_bytes, write_file

__all__ = [
    "CACHE_VARIABLE",
    "OPTIONS_VARIABLE",
    "READ_THREADS",
    "Lock",
    "Stored",
    "absolute",
    "arrow_filesystem",
    "check_writable",
    "content_fingerprint",
    "create_bytes",
    "default_cache",
    "drop_copies",
    "exists",
    "find_copies",
    "is_absolute",
    "is_local",
    "join",
    "list_files",
    "list_stored",
    "listed",
    "local_path",
    "localize",
    "own_folder",
    "parent",
    "pin",
    "place",
    "post",
    "read_bytes",
    "read_range",
    "read_ranges",
    "read_small",
    "read_threads",
    "read_yaml",
    "refuse_credentials",
    "remove",
    "remove_empty",
    "resolve",
    "scrub",
    "scrubbed",
    "shown",
    "size",
    "slide_files",
    "use_options_file",
    "version",
    "write_bytes",
    "write_file",
]
