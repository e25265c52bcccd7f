r"""What an id may not be: nothing said in words, or what a spreadsheet or a data frame made of it.

Rules, by example; all are about the whole value, and apply to ``slide_id`` and ``patient_id``:

====================  ==================================================================================
refused               because
====================  ==================================================================================
NA, null, -, #N/A     says that there is no value (of ``marker`` and ``uri`` too)
1.2E+11               a spreadsheet's way to write a long number: its last digits are gone
17.0                  a number column with gaps, from a data frame; fine beside 17.1, 17.2
2024-01-02, 1-Feb     a date; often an id such as 1-2 that was taken for one
17 beside 0017        zeros at the front are gone: all ids with such zeros have one length, this is shorter
1234567890123450000   a spreadsheet keeps 15 digits: all ids of over 15 digits end in zeros
="17", '17            a spreadsheet's marks for text
true                  a truth value, not a name
P1 beside P\u200b1    two names that look the same
====================  ==================================================================================

Ids of digits alone, of whatever length, are right as long as none of this holds.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

_NOTHING = frozenset((
    "na", "n/a", "n.a.", "n.a", "n/k", "nan", "null", "none", "nil", "nul", "unknown", "undefined",
    "not_available", "not_applicable", "nat", "<na>", "(null)", "<null>", "(none)", "<none>", "(empty)",
    "(blank)", "#n/a", "#na", "#null!", "#value!", "#ref!", "#name?", "#div/0!", "#num!", "#spill!",
    "#getting_data", "#calc!", "#error!", "#nv", "#wert!", "#bezug!", "1.#ind", "1.#qnan", "-nan",
    "-1.#ind", "\\n",
))  # fmt: skip
_NOBODY = frozenset((
    "missing", "unk", "unkn", "undef", "empty", "blank", "void", "tbd", "tba", "notavailable",
    "notapplicable", "not_known", "no_data", "nodata",
))  # fmt: skip
"""Said of patients and markers; a slide or a file may well be called so."""
_MARKS = re.compile(r"[-–—−_.?*#/\\~…]+")
_EXPONENT = re.compile(r"[+-]?\d([.,]\d+)?[eE]\+\d{1,3}", re.ASCII)
_FLOAT = re.compile(r"(\d+)\.0+", re.ASCII)
_FRACTION = re.compile(r"\d+\.\d*[1-9]\d*", re.ASCII)
_TEXT_MARK = re.compile(r"=\".*\"|'[\d.+-]+", re.ASCII)
_DIGITS = re.compile(r"\d+", re.ASCII)
_MONTH = (
    r"(?:jan|jän|janv|feb|févr|fev|mar|mär|mrz|mars|apr|avr|abr|may|mai|maj|mag|jun|juin|giu|jul|juil|lug|aug|août|"
    r"ago|sep|sept|set|oct|okt|ott|nov|dec|dez|déc|dic)\.?"
)
_DAY, _MONTHS = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])"
_DATE = re.compile(
    rf"(?:19|20)\d\d(?P<a>[-/.]){_MONTHS}(?P=a){_DAY}(?:[ T]\d.*)?"  # 2024-01-02
    rf"|{_DAY}(?P<b>[-/.]){_MONTHS}(?P=b)(?:19|20)\d\d(?: \d.*)?"  # 02/01/2024
    rf"|{_MONTHS}(?P<c>[-/.]){_DAY}(?P=c)(?:19|20)\d\d(?: \d.*)?"  # 1/13/2024
    rf"|\d{{1,4}}[-/. ]{{1,2}}{_MONTH}(?:[-/. ]{{1,2}}\d\d(?:\d\d)?)?"  # 1-Feb, 01-Feb-24
    rf"|{_MONTH}[-/. ]{{1,2}}\d{{1,4}}",  # Jan-05
    re.IGNORECASE,
)
_DIGITS_KEPT = 15


def is_nothing(text: str, column: str = "") -> bool:
    """Tell whether a value of a column says that there is none: empty, NA, null, -, #N/A and their like."""
    bare = "".join(
        c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) not in ("Cf", "Cc")
    )
    bare = bare.strip().strip("\"'").strip().casefold()
    word = re.sub(r"\s+", "_", bare)
    if column in ("patient_id", "marker") and word in _NOBODY:
        return True
    return not bare or word in _NOTHING or _MARKS.fullmatch(bare) is not None


def mangled_ids(name: str, values: Sequence[str]) -> Iterator[tuple[int, str, bool]]:
    """Yield position and problem of each id that software changed; see the rules above.

    Last comes whether that is certain, or only seen by comparison with other ids.

    Parameters
    ----------
    name : str
        The column.
    values : sequence of str
        All its values.
    """
    texts = [text.strip() for text in values]
    has_fractions = any(_FRACTION.fullmatch(text) for text in texts)
    width = _zero_padded_width(texts)
    cut = _cut_digits(texts)
    for position, text in enumerate(texts):
        problem = _mangled(text, has_fractions, text in cut)
        if problem is not None:
            yield position, f"{name} {text!r} {problem}", True
        elif width and _DIGITS.fullmatch(text) and len(text) < width:
            told = f"is shorter than ids here that begin with 0; it is probably {text.zfill(width)!r}"
            yield position, f"{name} {text!r} {told}, which lost its zeros in a spreadsheet", False


def _mangled(text: str, has_fractions: bool, is_cut: bool) -> str | None:
    """Say what happened to an id; None if nothing is seen."""
    advice = "format the column as text and enter it again"
    number = _FLOAT.fullmatch(text)
    if _EXPONENT.fullmatch(text):
        return f"is a number that lost its last digits in a spreadsheet; {advice}"
    if number and not has_fractions:
        return f"looks like {number[1]!r} read as a number; write {number[1]!r}"
    if _DATE.fullmatch(text):
        return f"is a date, maybe an id that a spreadsheet took for one; {advice}"
    if is_cut:
        return f"ends in zeros from the 16th digit on: a spreadsheet cut it; {advice}"
    if _TEXT_MARK.fullmatch(text):
        plain = text.strip("=\"'")
        return f"holds a spreadsheet's mark for text; write {plain!r}"
    if text.casefold() in ("true", "false"):
        return f"is a truth value, not a name; {advice}"
    return None


def _zero_padded_width(texts: Iterable[str]) -> int:
    """Return the one length of all ids of digits that begin with 0; 0 if there are several, or none."""
    lengths = {len(text) for text in texts if len(text) > 1 and text[0] == "0" and _DIGITS.fullmatch(text)}
    return lengths.pop() if len(lengths) == 1 else 0


def _cut_digits(texts: Iterable[str]) -> set[str]:
    long = {text for text in texts if len(text) > _DIGITS_KEPT and _DIGITS.fullmatch(text)}
    zeros = sum(len(text) - _DIGITS_KEPT for text in long)
    all_end_so = all(not text[_DIGITS_KEPT:].strip("0") for text in long)
    return long if all_end_so and zeros >= 3 else set()  # by chance once in a thousand


def look_alikes(values: Iterable[str]) -> Iterator[tuple[list[str], bool]]:
    """Yield groups of different names that are probably one, and whether no eye can tell them apart.

    Names that can be told apart differ in case, spaces, dashes, underscores, or zeros before a number.
    """
    groups: dict[str, set[str]] = defaultdict(set)
    seen: dict[str, set[str]] = defaultdict(set)
    for text in dict.fromkeys(values):
        shown = _shown(text)
        seen[shown].add(text)
        groups[_loose(shown)].add(shown)
    for texts in seen.values():
        if len(texts) > 1:
            yield sorted(texts), True
    for shown_names in groups.values():
        if len(shown_names) > 1:
            yield sorted(shown_names), False


def _shown(text: str) -> str:
    """Return a name as it looks: nothing invisible, one kind of space and of dash."""
    kept = (c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c) not in ("Cf", "Cc"))
    dashes = "".join("-" if unicodedata.category(c) == "Pd" else c for c in kept)
    return re.sub(r"\s+", " ", dashes).strip()


def _loose(shown: str) -> str:
    bare = re.sub(r"[\s_-]+", "-", unicodedata.normalize("NFKC", shown).casefold())
    bare = re.sub(r"(?<![0-9])0+(?=[0-9])", "", bare)
    return re.sub(r"(?<![0-9])-|-(?![0-9])", "", bare)  # P-1-1 is not P11
