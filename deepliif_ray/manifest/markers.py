"""A cohort's own markers, from a file of the form of ``schemas/markers.yaml``."""

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError, StorageError
from deepliif_ray.scoring.marker_entries import parse_markers
from deepliif_ray.scoring.markers import Registry, builtin


def read_registry(url: str) -> Registry:
    """Return the built-in registry with the markers of the YAML file at ``url``.

    Raises
    ------
    ConfigError
        The file cannot be read or used; the message says where.
    """
    source = storage.scrub(url)
    try:
        document, _ = storage.read_yaml(url)
    except StorageError as error:
        raise ConfigError(f"{source}: the file of markers cannot be read ({error})") from error
    try:
        return builtin().extended(parse_markers(document, source))
    except ConfigError as error:
        raise ConfigError(str(error) if source in str(error) else f"{source}: {error}") from error
