"""A cohort's own markers, from a file of the form of ``schemas/markers.yaml``."""

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError, StorageError
from deepliif_ray.scoring.markers import Registry, builtin, parse_markers


def read_registry(url: str) -> Registry:
    """Return the built-in registry with the markers of the YAML file at ``url``.

    Raises
    ------
    ConfigError
        The file cannot be read or used; the message says where.
    """
    try:
        document, _ = storage.read_yaml(url)
    except StorageError as error:
        raise ConfigError(f"{url}: not a readable YAML file ({str(error)[:300]})") from error
    try:
        return builtin().extended(parse_markers(document, url))
    except ConfigError as error:
        raise ConfigError(str(error) if url in str(error) else f"{url}: {error}") from error
