"""Small documents that people write: YAML read within bounds, and values shown in messages, cut.

A few hundred bytes of YAML aliases stand for gigabytes, and a file of brackets overflows the stack of its
reader. Neither is needed in a job, a training configuration or a file of options.
"""

import reprlib
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any, TypeVar

import yaml

from deepliif_ray.errors import ConfigError

MAX_BYTES = 2**20
"""What such a document may have."""
MAX_DEPTH = 32
_MAX_NUMBER = 100  # characters; longer ones take ever longer to convert
_MOST_PROBLEMS = 20

T = TypeVar("T")
_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80
_short.maxlevel = 3


class _Loader(yaml.SafeLoader):
    """YAML without what makes much of little: no anchors or aliases, no merging, no key twice."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            self._refuse("anchors and aliases (& and *) are not read here; write the value out", event)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self._refuse(f"more than {MAX_DEPTH} levels of nesting", event)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        if (
            isinstance(node, yaml.ScalarNode)
            and len(node.value) > _MAX_NUMBER
            and node.tag.endswith((":int", ":float"))
        ):
            self._refuse(f"a number of more than {_MAX_NUMBER} characters", event)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag.endswith(":merge"):
                self._refuse("merge keys (<<) are not read here; write the values out", key_node)
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):  # the others are refused below
                if key in seen:
                    self._refuse(f"the key {shown(key)} is there twice", key_node)
                seen.add(key)
        found: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return found

    def _refuse(self, why: str, place: Any) -> None:
        raise yaml.constructor.ConstructorError(None, None, why, place.start_mark)


def parse_yaml(content: bytes, source: str) -> Any:
    """Return what a YAML document in UTF-8 says.

    Messages name the line, but show nothing of it: it may hold secrets.

    Parameters
    ----------
    content : bytes
    source : str
        Names the document in messages.

    Raises
    ------
    ConfigError
        It is not YAML, has more than `MAX_BYTES` or `MAX_DEPTH`, an alias, or a key twice.
    """
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{source}: has more than the {MAX_BYTES:,} bytes that such a file may have")
    try:
        return yaml.load(content.decode("utf-8-sig"), _Loader)
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        why = (
            shown(error.problem, quoted=False) if isinstance(error, yaml.constructor.ConstructorError) else ""
        )
        raise ConfigError(f"{source}: not valid YAML{line}{why and ': ' + why}") from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise ConfigError(f"{source}: not YAML in UTF-8 ({type(error).__name__})") from None


def shown(value: object, *, quoted: bool = True) -> str:
    """Return a value as a message may show it: some eighty characters of it, however large it is."""
    if quoted:
        return _short.repr(value)
    text = _short.repr(value) if isinstance(value, Collection) and not isinstance(value, str) else str(value)
    return text if len(text) <= _short.maxstring else f"{text[: _short.maxstring]}…"


def listed(errors: Sequence[T], sentence: Callable[[T], str], between: str) -> str:
    """Return a sentence for each error as one text; of many errors, the first twenty."""
    more = len(errors) - _MOST_PROBLEMS
    told = [sentence(error) for error in errors[:_MOST_PROBLEMS]]
    return between.join([*told, *([f"and {more} more"] if more > 0 else [])])
