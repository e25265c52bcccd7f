"""A cohort's own markers, from a file of the form of ``schemas/markers.yaml``."""

import yaml

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError, StorageError
from deepliif_ray.scoring.markers import Registry, builtin, parse_markers

_MAX_BYTES = 2**20


def read_registry(url: str) -> Registry:
    """Return the built-in registry with the markers of the YAML file at ``url``.

    Raises
    ------
    ConfigError
        The file cannot be read or used; the message says where.
    """
    try:
        size = storage.size(url)
        if size is not None and size > _MAX_BYTES:
            raise ConfigError(f"{url}: larger than {_MAX_BYTES // 2**20} MiB; a file of markers is small")
        text = storage.read_bytes(url).decode("utf-8-sig")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise ConfigError(f"{url}: YAML aliases (*name) are not accepted; write each entry out")
        document = yaml.safe_load(text)
    except (StorageError, yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ConfigError(f"{url}: not a readable YAML file ({str(error)[:300]})") from error
    try:
        return builtin().extended(parse_markers(document, url))
    except ConfigError as error:
        raise ConfigError(str(error) if url in str(error) else f"{url}: {error}") from error
