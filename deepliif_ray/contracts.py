"""The contracts of ``schemas/``: table columns, manifest columns and the marker registry, as data.

The files lie at the root of the repository; a wheel carries them inside the package.
"""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # of C where it is there: a tenth of the time
_PACKAGED = files("deepliif_ray") / "schemas"
_REPOSITORY = Path(__file__).parents[1] / "schemas"


@cache
def load(name: str) -> dict[str, Any]:
    """Return the contract ``name``.

    Parameters
    ----------
    name : str
        File name in ``schemas/`` without ``.yaml``: ``cells``, ``slides``, ``failures``, ``runs``,
        ``patients``, ``views``, ``manifest`` or ``markers``.

    Returns
    -------
    dict
        The parsed YAML. It is shared between callers: read it, do not change it.

    Raises
    ------
    FileNotFoundError
        There is no such contract.
    """
    folder = _PACKAGED if _PACKAGED.is_dir() else _REPOSITORY
    text = (folder / f"{name}.yaml").read_text(encoding="utf-8")
    contract: dict[str, Any] = yaml.load(text, _LOADER)
    return contract
