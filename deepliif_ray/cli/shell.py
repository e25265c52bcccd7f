"""SQL at a terminal: one question after another, with history and completion."""

import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from deepliif_ray import storage
from deepliif_ray.console import Format, chosen_format, errors, show, visible
from deepliif_ray.errors import DeepliifRayError
from deepliif_ray.query.literals import quoted
from deepliif_ray.query.session import Session, is_complete

if TYPE_CHECKING:
    from types import FrameType

    import pyarrow as pa

MOST_ROWS = 1000
_HISTORY = "sql_history"
_PRIVATE_FOLDER, _PRIVATE = 0o700, 0o600
_WORD = re.compile(r"[\w.]*$")
_OF_A_VIEW = re.compile(r"\b(?:from|join|describe|summarize)\s+$", re.IGNORECASE)
HELP = f"""A statement ends with a semicolon and may have several lines. Answers are of the results as they
were when this began.

.tables             the views and table macros
.describe VIEW      what each column or parameter means, with its unit
.mode FORMAT        how answers are shown: {", ".join(Format)}
.output FILE        write the next answer to this file, in the format of its suffix
.help               this
.quit               leave, as Ctrl-D does; Ctrl-C stops a query, or clears what was typed

Of an answer shown as a table there are {MOST_ROWS:,} rows at most; other formats and files have all."""


class Shell:
    """What is typed, and what is said to it.

    Parameters
    ----------
    session : Session
        Answers the questions.
    form : Format
        How answers are shown at first.
    """

    def __init__(self, session: Session, form: Format) -> None:
        self._session, self._form = session, form
        self._output: Path | None = None

    def run(self, history: History) -> None:
        """Ask for statements and answer them, until the end of input or ``.quit``."""
        prompt: PromptSession[str] = PromptSession(
            "sql> ",
            history=history,
            completer=Names(self._session),
            complete_while_typing=False,
            multiline=Condition(lambda: not is_finished(get_app().current_buffer.text)),
            prompt_continuation="...> ",
            enable_history_search=True,
        )
        # The prompt itself sees Ctrl-C as a key.
        with _signals({signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: _leave}):
            while True:
                try:
                    text = prompt.prompt().strip()
                except KeyboardInterrupt:
                    continue  # what was typed is let go
                except EOFError:
                    return
                try:
                    if text in (".quit", ".exit"):
                        return
                    with _signals({signal.SIGINT: _stop_once}):
                        self.do(text)
                except KeyboardInterrupt:
                    _say("stopped")
                except DeepliifRayError as error:
                    _say("error: " + storage.scrub(str(error)))

    def do(self, text: str) -> None:
        """Do what one input says: a command that begins with a dot, or statements.

        Raises
        ------
        DeepliifRayError
            It cannot be done; the message says why.
        """
        if text.startswith("."):
            self._command(*text.removesuffix(";").split(maxsplit=1))
            return
        for query in self._session.statements(text):
            is_shown = self._output is None and self._form is Format.TABLE
            began = time.perf_counter()
            table = self._session.answer(query, MOST_ROWS if is_shown else None)
            self._show(table, time.perf_counter() - began)

    def _command(self, name: str, *rest: str) -> None:
        given = rest[0].strip() if rest else ""
        if name == ".help":
            print(HELP)
        elif name == ".tables":
            print("views: ", ", ".join(self._session.views()))
            print("macros:", ", ".join(f"{macro}(…)" for macro in self._session.macros()))
        elif name == ".describe" and given:
            query = f"SELECT * EXCLUDE (view, source) FROM described({quoted(given)})"
            form = Format.TABLE if self._form is Format.PARQUET else self._form
            show(self._session.answer(query), form)
        elif name == ".mode" and given in set(Format):
            self._form = Format(given)
        elif name == ".output" and given:
            path = Path(given).expanduser()
            chosen_format(None, path)
            self._output = path
        else:
            _say(f"{name} {given}".strip() + " is no command here:\n" + HELP)

    def _show(self, table: "pa.Table", seconds: float) -> None:
        if self._output is not None:
            path, self._output = self._output, None
            show(table, None, path)
            _say(f"{_counted(table)} written to {path}")
            return
        if self._form is Format.PARQUET:
            _say("Parquet is not for a terminal; choose a file with .output FILE")
            return
        more = self._form is Format.TABLE and table.num_rows > MOST_ROWS
        show(table.slice(0, MOST_ROWS) if more else table, self._form)
        rows = f"the first {MOST_ROWS:,} rows" if more else _counted(table)
        _say(f"{rows} in {seconds:.2f} s")


class Names(Completer):
    """Completes names of views, macros and columns, words of SQL, and commands."""

    def __init__(self, session: Session) -> None:
        self._columns, self._words = session.columns(), session.keywords()
        self._sources = sorted([*session.views(), *(f"{macro}(" for macro in session.macros())])

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield what may stand where the cursor is."""
        before = document.text_before_cursor
        match = _WORD.search(before)
        typed = match[0] if match else ""
        if not before.startswith("."):
            typed = typed.rpartition(".")[2]  # the column of a view
        for word in self._candidates(before, before[: len(before) - len(typed)], document.text):
            if word.lower().startswith(typed.lower()):
                yield Completion(word, start_position=-len(typed))

    def _candidates(self, before: str, above: str, text: str) -> list[str]:
        if before.startswith("."):
            command, gap, _ = before.partition(" ")
            if not gap:
                return [".describe", ".help", ".mode", ".output", ".quit", ".tables"]
            forms = [str(form) for form in Format]
            return {".describe": sorted(self._columns), ".mode": forms}.get(command, [])
        if _OF_A_VIEW.search(above):
            return self._sources
        named = [name for name in self._columns if re.search(rf"\b{re.escape(name)}\b", text)]
        columns = {column for name in named or self._columns for column in self._columns[name]}
        return sorted(columns) if above.endswith(".") else [*sorted(columns), *self._sources, *self._words]


def is_finished(text: str) -> bool:
    """Tell whether Enter ends the input: a command, a whole statement, or nothing."""
    return not text.strip() or text.lstrip().startswith(".") or is_complete(text)


def run_shell(results: str, session: Session, form: Format) -> None:
    """Ask and answer at this terminal until the person leaves."""
    print(f"{visible(results)}: SQL that ends with a semicolon; .help for help, .tables for what there is")
    Shell(session, form).run(kept_history())


def kept_history() -> History:
    """Return what was typed before, kept in a file that only this user may read; else that of this time."""
    base = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state")
    try:
        folder = base.expanduser() / "deepliif-ray"
        folder.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        file = folder / _HISTORY
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, _PRIVATE)
        try:
            os.fchmod(handle, _PRIVATE)
        finally:
            os.close(handle)
    except (OSError, RuntimeError):  # no home, or none that may be written to
        return InMemoryHistory()
    return FileHistory(str(file))


@contextmanager
def _signals(wanted: dict[int, Any]) -> Iterator[None]:
    """Have signals handled so for a while."""
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: "FrameType | None") -> None:
    sys.exit(128 + number)


def _stop_once(number: int, frame: "FrameType | None") -> None:
    """Stop what is going on; who presses Ctrl-C twice does not want to leave."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _counted(table: "pa.Table") -> str:
    return f"{table.num_rows:,} row{'s' * (table.num_rows != 1)}"


def _say(text: str) -> None:
    errors.print(visible(text, keep="\n"), markup=False)
