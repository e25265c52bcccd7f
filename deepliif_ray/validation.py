"""Options that people write: their base class, and how what is wrong with them is said."""

import difflib
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError

_MEMBER = re.compile(r"literal\[.*\]|int|float")


class Options(BaseModel):
    """Validated, unchangeable options; the texts under its fields are their descriptions everywhere.

    Raises
    ------
    ConfigError
        An option is unknown or its value cannot be used; the message lists every one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    if not TYPE_CHECKING:

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                found = problems(error, type(self))
                raise ConfigError(f"cannot use this {type(self).__name__}: {found}") from error

        # For pydantic: not to be called for parts of something larger, whose problems are told at once.
        __init__.__pydantic_base_init__ = True


def problems(error: ValidationError, kind: Any, *, between: str = "; ", mark: str = "", skip: int = 0) -> str:
    """Return what is wrong with options, one sentence a key; of very many, the first.

    Parameters
    ----------
    error : ValidationError
    kind : type
        What they were validated as: its keys are suggested for unknown ones.
    between, mark : str
        What stands between two sentences, and before each.
    skip : int
        Parts of every place that tell nothing, such as the tag of a union.
    """
    found: dict[str, list[Any]] = {}
    for problem in error.errors():
        # pydantic puts the members of a union after the last key.
        parts = [str(part) for part in problem["loc"][skip:]]
        parts = [storage.shown(part, quoted=False) for part in parts if not _MEMBER.fullmatch(part)]
        found.setdefault(".".join(parts), []).append(problem)
    sentences = _Sentences(kind)
    return storage.listed(list(found.items()), lambda item: mark + sentences.about(*item), between)


class _Sentences:
    """Says what is wrong with one key after the other; which keys there are is said once."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self._listed = False

    def about(self, key: str, told: list[Any]) -> str:
        first = told[0]
        if first["type"] == "missing":
            return f"{key} is missing; add it"
        if first["type"] == "extra_forbidden":
            return f"{key} is not a key here; {self._hint(key)}"
        why = ", or ".join(dict.fromkeys(str(one["msg"]).removeprefix("Value error, ") for one in told))
        return f"{key} is {storage.shown(first['input'])}: {why}" if key else why

    @cached_property
    def _schema(self) -> dict[str, Any]:
        return TypeAdapter(self._kind).json_schema()

    def _hint(self, key: str) -> str:
        close = difflib.get_close_matches(key.rpartition(".")[2], _keys(self._schema), n=1, cutoff=0.7)
        if close:
            return f"did you mean {close[0]}?"
        if "." in key or self._listed or "properties" not in self._schema:
            return "remove it"
        self._listed = True
        return f"known keys: {', '.join(self._schema['properties'])}"


def _keys(schema: Any) -> list[str]:
    """Return all property names anywhere in a JSON schema."""
    if isinstance(schema, list):
        return [key for part in schema for key in _keys(part)]
    if not isinstance(schema, dict):
        return []
    own = list(schema.get("properties", {}))
    return own + [key for part in schema.values() for key in _keys(part)]
