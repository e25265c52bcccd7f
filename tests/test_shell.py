"""SQL at a terminal: in a pseudo-terminal as a person types, and from files and pipes."""

import fcntl
import os
import pty
import re
import select
import signal
import stat
import subprocess
import sys
import termios
import time

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from deepliif_ray import cli
from deepliif_ray.cli import shell
from deepliif_ray.console import Format
from deepliif_ray.errors import ConfigError, QueryError
from deepliif_ray.query import Limits, Session
from deepliif_ray.query.session import is_complete
from tests.query import fake_results as fake

END = r"\x04"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("shell") / "it's here")
    fake.commit(root, "a|b", [fake.cell(0, positive=True), fake.cell(1)])
    return root


@pytest.fixture(scope="module")
def session(root):
    with Session(root) as session:
        yield session


class Terminal:
    """A person at the prompt, who reads before typing on."""

    def __init__(self, arguments, home):
        self.seen = ""
        environment = os.environ | {
            "PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm", "COLUMNS": "200", "XDG_STATE_HOME": str(home)
        }  # fmt: skip
        self._end, theirs = pty.openpty()
        command = [sys.executable, "-m", "deepliif_ray.cli", "sql", *arguments]
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
            # It sends Ctrl-C as a signal only to those whose terminal it is.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )
        os.close(theirs)

    def type(self, text):
        os.write(self._end, text.encode())

    def read_until(self, pattern, seconds=20):
        """Return what came until something like ``pattern``, without what steers the terminal."""
        deadline = time.monotonic() + seconds
        while not (match := re.search(pattern, self.seen)):
            ready = select.select([self._end], [], [], max(0, deadline - time.monotonic()))[0]
            assert ready, f"no {pattern!r} in {self.seen!r}"
            got = os.read(self._end, 65536).decode("utf-8", "replace")
            self.seen += re.sub(r"\x1b\[[?\d;]*[a-zA-Z]|\x1b[=>]|\r", "", got)
        found, self.seen = self.seen[: match.end()], self.seen[match.end() :]
        return found

    def press_until(self, key, pattern):
        """Press a key every half second until it has an effect: while the prompt goes away it has none."""
        for _ in range(40):
            self.type(key)
            until = time.monotonic() + 0.5  # the terminal's echo of the key is none
            while select.select([self._end], [], [], max(0, until - time.monotonic()))[0]:
                self.seen += os.read(self._end, 65536).decode("utf-8", "replace")
                if re.search(pattern, self.seen):
                    self.read_until(pattern)
                    return
        self.read_until(pattern)

    def left(self):
        """Return the exit code."""
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            os.close(self._end)


def test_a_person_at_a_terminal(root, tmp_path):
    terminal = Terminal([root], tmp_path)
    terminal.read_until("sql>")
    terminal.type("SELECT 40 +\r")
    terminal.read_until(r"\.\.\.>")
    terminal.type("2 AS answer;\r")
    assert "42" in terminal.read_until("1 row in ")
    terminal.read_until("sql>")
    terminal.type("SELECT nothing FROM slides;\r")
    terminal.read_until("error: .*nothing")
    terminal.read_until("sql>")
    terminal.type("DELETE FROM slides;\r")
    terminal.read_until("DELETE is refused")
    terminal.read_until("sql>")
    terminal.type("FROM patient_ind\t")
    terminal.read_until("ices")  # what Tab completes
    terminal.type(" SELECT notes LIMIT 1;\r")
    assert "nuclei count" in terminal.read_until("1 row in ")
    # Ctrl-C stops a query that would take years, and what was typed.
    terminal.read_until("sql>")
    terminal.type("SELECT sum(a.range * b.range) FROM range(100000000) a, range(100000000) b;\r")
    terminal.press_until("\x03", "stopped")
    terminal.read_until("sql>")
    terminal.type("SELECT 'not sent'")
    terminal.read_until("sent'")
    terminal.type("\x03")
    terminal.read_until("sql>")
    terminal.type(f".output {tmp_path}/a.csv\r")
    terminal.read_until(r"csv\n(.|\n)*sql>")
    terminal.type("SELECT slide_id FROM called_cells;\r")
    terminal.read_until("2 rows written")
    terminal.read_until("sql>")
    assert (tmp_path / "a.csv").read_text() == "slide_id\na|b\na|b\n"
    terminal.type("\x04")
    assert terminal.left() == 0
    history = tmp_path / "deepliif-ray" / "sql_history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "+SELECT 40 +\n+2 AS answer;\n" in history.read_text()


@pytest.mark.slow  # another process; Ctrl-D above is its cheaper relative
def test_sigterm_ends_it(root, tmp_path):
    terminal = Terminal([root], tmp_path)
    terminal.read_until("sql>")
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.left() in (128 + signal.SIGTERM, -signal.SIGTERM)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("SELECT 1;", True), ("SELECT 1", False), ("SELECT ';", False), ("SELECT ';';", True),
        ("SELECT 'é';", True), ("SELECT 1; -- done", True), ("-- ;", False), ("/* ; */", False),
        ("SELECT $$;", False), ('SELECT "a;', False), ("", False), ("SELECT 1; SELECT 2", False),
    ],
)  # fmt: skip
def test_where_a_statement_ends(text, whole):
    assert is_complete(text) is whole


def completed(session, text):
    found = shell.Names(session).get_completions(Document(text), CompleteEvent())
    return [completion.text for completion in found]


def test_completion(session):
    assert completed(session, "FROM patient_ind") == ["patient_indices", "patient_indices("]
    assert completed(session, "SELECT tissue_p") == ["tissue_percent"]
    assert completed(session, "SELECT c.majority") == ["majority_positive"]
    assert completed(session, "SELECT hematoxylin_od_m") == ["hematoxylin_od_mean"]
    assert completed(session, "sel") == ["SELECT"]
    assert completed(session, ".d") == [".describe"] and completed(session, ".mode ma") == ["markdown"]
    assert completed(session, ".describe slide_q") == ["slide_quality", "slide_quality_at"]
    # Columns of the views that the statement names, where it names one.
    assert "focus" not in completed(session, "SELECT slide_id FROM runs, cells WHERE f")
    assert completed(session, "FROM runs WHERE sta") == ["started_at", "status", "stained_cells("]


def typed(session, text, form=Format.CSV):
    shell.Shell(session, form).do(text)


def test_commands_of_the_shell(session, tmp_path, capsys):
    typed(session, ".tables")
    assert "slide_quality" in (said := capsys.readouterr().out) and "called_cells(…)" in said
    typed(session, ".describe called_cells")
    assert "column,area_um2,DOUBLE,um2," in capsys.readouterr().out
    typed(session, "SELECT 1 AS a; SELECT 2 AS b;")
    assert capsys.readouterr().out == "a\n1\nb\n2\n"
    typed(session, "SELECT range FROM range(1500);", Format.TABLE)
    said = capsys.readouterr()
    assert said.out.count("\n") == 1001 and "the first 1,000 rows" in said.err
    for wrong in (".mode xml", ".nothing", ".output"):
        typed(session, wrong)
        assert "no command here" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        typed(session, ".output no/such/folder/a.csv")
    with pytest.raises(QueryError, match="nothing is called 'it's'"):
        typed(session, ".describe it's")
    with pytest.raises(QueryError):
        typed(session, "SELECT 1; DROP VIEW slides;")
    assert capsys.readouterr().out == ""  # none is answered when one is refused


def test_a_session_in_the_sandbox(root):
    with Session(root, Limits()) as session:
        assert session.answer("SELECT count(*) AS n FROM cells").to_pylist() == [{"n": 2}]
        with pytest.raises(QueryError):
            session.answer("FROM read_text('/etc/passwd')")


def run(monkeypatch, *arguments):
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as exit_:
        patch.setattr(sys, "argv", ["deepliif-ray", *map(str, arguments)])
        cli.main()
    return exit_.value.code or 0


def test_files_and_pipes(root, tmp_path, monkeypatch, capsys):
    asked = tmp_path / "asked.sql"
    asked.write_text("\ufeff-- two\nSELECT 1 AS a;\nSELECT ';' AS b", encoding="utf-8")
    assert run(monkeypatch, "sql", root, "--file", asked, "--format", "csv") == 0
    assert capsys.readouterr().out == "a\n1\n\nb\n;\n"
    with asked.open() as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", stream)
        assert run(monkeypatch, "sql", root, "--format", "csv") == 0
    assert capsys.readouterr().out == "a\n1\n\nb\n;\n"
    assert run(monkeypatch, "sql", root, "--file", asked, "--output", tmp_path / "a.csv") == 2
    assert "2 answers" in capsys.readouterr().err and not (tmp_path / "a.csv").exists()
    asked.write_text("SELECT slide_id, 'x\ny' AS t, NULL AS n, 1.5 AS m, '<b>*' AS h FROM slides;")
    assert run(monkeypatch, "sql", root, "--file", asked, "--output", tmp_path / "a.md") == 0
    assert (tmp_path / "a.md").read_text() == (
        "| slide_id | t | n | m | h |\n| --- | --- | --- | ---: | --- |\n"
        "| a\\|b | x<br>y |  | 1.5 | &lt;b>\\* |\n"
    )
    for text in (b"", b"-- nothing", b"\xff\xfe", b"SELECT 1; SELEKT 2", b"SELECT 1; DELETE FROM slides"):
        asked.write_bytes(text)
        assert run(monkeypatch, "sql", root, "--file", asked) == 2
        assert capsys.readouterr().out == ""
    assert run(monkeypatch, "sql", root, "--file", tmp_path / "none.sql") == 2
    assert run(monkeypatch, "sql", root, "SELECT 1", "--file", asked) == 2
    capsys.readouterr()


def test_describe_a_view(root, monkeypatch, capsys):
    assert run(monkeypatch, "sql", root, "--describe", "slide_h_scores", "--format", "csv") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "kind,name,type,unit,description,source"
    assert lines[1].startswith('parameter,cutoffs,struct or VARCHAR,"",')
    assert run(monkeypatch, "sql", root, "--describe", "it's") == 2
    assert "nothing is called 'it's'" in capsys.readouterr().err
