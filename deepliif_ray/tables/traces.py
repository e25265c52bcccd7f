"""What of the objects of results is about slides or patients: by their rows, their names, and in text."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deepliif_ray import storage
from deepliif_ray.tables.ledger import slide_key
from deepliif_ray.tables.records import read_if_there

Holders = dict[tuple[str | None, str | None], int]
"""Rows of a Parquet object by slide_id and patient_id; None where it has no such column, or no value."""
ID_COLUMNS = ("slide_id", "patient_id")
_WHOLE = 2**20
"""Objects up to this size are read in one piece; of larger ones only the two columns."""
_OTHER_KEY = re.compile(r"(?:^|-)[0-9a-f]{12}-")
_SHORT_NUMBER = re.compile(r"\d{1,3}")


def is_named_for(name: str, key: str) -> bool:
    """Tell whether an object called ``name`` is of the slide with this `slide_key`.

    What follows the key is an attempt. A slide may be called as another one's key, so that its objects begin
    with that; then what follows holds the digits and the hyphen of a key of its own.
    """
    return name.startswith(f"{key}-") and _OTHER_KEY.search(name[len(key) + 1 :]) is None


@dataclass(frozen=True)
class Target:
    """Whose traces are looked for: all of some slides, and what else names some patients.

    Attributes
    ----------
    slides, patients : frozenset of str
    """

    slides: frozenset[str]
    patients: frozenset[str]

    @cached_property
    def keys(self) -> frozenset[str]:
        """The `slide_key` of each slide."""
        return frozenset(map(slide_key, self.slides))

    def holds(self, slide: str | None, patient: str | None) -> bool:
        """Tell whether a row of this slide and patient is one of them."""
        return slide in self.slides or patient in self.patients

    def count(self, holders: Holders) -> int:
        """Return how many rows of an object are of them."""
        return sum(rows for pair, rows in holders.items() if self.holds(*pair))

    def mask(self, table: pa.Table) -> pa.ChunkedArray:
        """Return for each row of a table whether it is one of them, boolean (rows,)."""
        found = pa.chunked_array([pa.repeat(pa.scalar(value=False), table.num_rows)])
        for name, ids in zip(ID_COLUMNS, (self.slides, self.patients), strict=True):
            if name in table.column_names:
                known = pa.array(sorted(ids), pa.string())
                found = pc.or_(found, pc.is_in(table.column(name).cast(pa.string()), value_set=known))
        return found

    def names(self, name: str) -> bool:
        """Tell whether an object of this name is one slide's of them; see `is_named_for`."""
        # A key ends in 12 digits and a hyphen: few places in a name can be the end of one.
        ends = (match.end(1) for match in re.finditer(r"(?=-([0-9a-f]{12})-)", name))
        return any(name[:end] in self.keys and is_named_for(name, name[:end]) for end in ends)

    @cached_property
    def _quoted(self) -> "re.Pattern[str]":
        ids = self.slides | self.patients
        forms = {form for text in ids for form in (repr(text), ascii(text), f"'{text}'", json.dumps(text))}
        return _any_of(forms)

    @cached_property
    def _plain(self) -> "re.Pattern[str]":
        ids = (text for text in self.slides | self.patients if not _SHORT_NUMBER.fullmatch(text))
        return _any_of(ids, r"(?<![\w-])", r"(?![\w-])")

    def is_quoted_in(self, text: str) -> bool:
        """Tell whether a sentence names one of them in quotes, as this software does."""
        return self._quoted.search(text) is not None

    def is_named_in(self, text: str) -> bool:
        """Tell whether a text names one of them: in quotes, or as a word of its own.

        Numbers of up to three digits are looked for in quotes only; they may be anything.
        """
        return self.is_quoted_in(text) or self._plain.search(text) is not None


def _any_of(texts: Iterable[str], before: str = "", after: str = "") -> "re.Pattern[str]":
    escaped = [re.escape(text) for text in sorted(texts, key=len, reverse=True)]
    return re.compile(f"{before}(?:{'|'.join(escaped)}){after}" if escaped else r"(?!)")


class Reader:
    """Reads of Parquet objects below a results location which slides and patients they hold.

    Parameters
    ----------
    results : str
        URL of the results.
    """

    def __init__(self, results: str) -> None:
        self._results = results
        self._files, self._root = storage.arrow_filesystem(results)

    def holders(self, path: str, size: int) -> Holders | str | None:
        """Return which slides and patients an object holds, or what is wrong with it; None if it is gone.

        Parameters
        ----------
        path : str
            Below the results.
        size : int
            Bytes, as the listing says.

        Raises
        ------
        StorageError
            The store does not answer.
        """
        if size > _WHOLE:
            try:
                with self._files.open_input_file(f"{self._root.rstrip('/')}/{path}") as file:
                    return _holders(pq.ParquetFile(file, pre_buffer=True))
            except FileNotFoundError:
                return None
            except (pa.ArrowException, ValueError, KeyError, OSError):
                pass  # damaged, or the store had trouble: the whole of it tells
        content = read_if_there(storage.join(self._results, path))
        return None if content is None else holders_of(content)


def holders_of(content: bytes) -> Holders | str:
    """Return which slides and patients an object of this content holds, or what is wrong with it."""
    try:
        return _holders(pq.ParquetFile(pa.BufferReader(content), pre_buffer=False))
    except (pa.ArrowException, ValueError, KeyError, OSError) as error:
        return f"cannot be read ({' '.join(str(error).split())})"


def _holders(file: pq.ParquetFile) -> Holders:
    found: Holders = {}
    columns = [name for name in ID_COLUMNS if name in file.schema_arrow.names]
    if not columns:
        return found
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, columns=columns, use_threads=False)
        for row in table.group_by(columns).aggregate([([], "count_all")]).to_pylist():
            slide, patient = (row.get(name) for name in ID_COLUMNS)
            pair = (None if slide is None else str(slide), None if patient is None else str(patient))
            found[pair] = found.get(pair, 0) + row["count_all"]
    return found


def texts_of(value: Any) -> Iterable[str]:
    """Yield every text in a JSON value or a row, names of members too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from texts_of(name)
            yield from texts_of(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from texts_of(item)


def naming_columns(target: Target, table: pa.Table) -> list[str]:
    """Return the columns of a table in which a text names one of the target."""
    found = []
    for name in table.column_names:
        column = table.column(name)
        kind = column.type
        if pa.types.is_nested(kind):
            texts: Iterable[str] = texts_of(column.to_pylist())
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
            texts = (str(text) for text in pc.unique(column).to_pylist() if text is not None)
        else:
            continue
        if any(map(target.is_named_in, texts)):
            found.append(name)
    return found
