"""Patterns of file names: ``{patient_id}/{marker}/{slide_id}.svs``."""

import re

from deepliif_ray.errors import ConfigError

_TOKEN = re.compile(r"\{(?P<name>[A-Za-z_]\w*)\}|(?P<any>\*\*/|\*)|(?P<brace>[{}])")


class PathPattern:
    """Takes the fields of a manifest row out of a path.

    ``{name}`` stands for one or more characters other than ``/``, as few as possible, ``*`` for any, ``**/``
    for any folders. A name that occurs twice must stand for the same text both times.

    Parameters
    ----------
    text : str
        The pattern, relative to the folder that is scanned.

    Raises
    ------
    ConfigError
        A brace is not part of a ``{name}``.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: list[str] = []
        parts, end = [], 0
        for token in _TOKEN.finditer(text):
            parts.append(re.escape(text[end : token.start()]))
            parts.append(self._regex(token))
            end = token.end()
        parts.append(re.escape(text[end:]))
        self._regex_of_all = re.compile("".join(parts), re.DOTALL)

    def _regex(self, token: re.Match[str]) -> str:
        if token["brace"]:
            raise ConfigError(
                f"pattern {self.text!r}: {token['brace']} at character {token.start() + 1} is not part of a "
                "{name} of letters, digits and _"
            )
        if token["any"]:
            return "(?:.*/)?" if token["any"] == "**/" else "[^/]*"
        name = token["name"]
        if name in self.names:
            return f"(?P={name})"
        self.names.append(name)
        return f"(?P<{name}>[^/]+?)"

    def match(self, path: str) -> dict[str, str] | None:
        """Return the fields of a path relative to the scanned folder, or None if it has another form."""
        found = self._regex_of_all.fullmatch(path)
        return found and found.groupdict()
