"""Progress on a terminal, and where there is none."""

import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from deepliif_ray import console as module
from deepliif_ray.console import ProgressLine
from deepliif_ray.engine.run.progress import Progress
from deepliif_ray.tables.optimize import OptimizeProgress
from deepliif_ray.training.run.outcome import TrainProgress


@pytest.fixture
def shown(monkeypatch):
    """What is written, once to a terminal and once to a file; every change is shown."""

    def run(described, *, terminal):
        out = io.StringIO()
        console = Console(file=out, force_terminal=terminal, width=100, highlight=False, soft_wrap=True)
        monkeypatch.setattr(module, "errors", console)
        clock = iter(range(0, 10_000, 100))
        monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
        with ProgressLine(lambda progress: f"{progress.text} [a]") as line:
            for progress in described:
                line(progress)
        return out.getvalue()

    return run


def test_a_bar_on_a_terminal_that_goes_away(shown):
    text = shown(
        [SimpleNamespace(text="half", share=0.5), SimpleNamespace(text="all", share=1.0)], terminal=True
    )
    assert "all [a]" in text and "━" * 20 in text
    assert text.endswith("\x1b[2K") or "\x1b[2K" in text[-20:]


def test_what_has_no_share_is_shown_too(shown):
    assert "unknown [a]" in shown([SimpleNamespace(text="unknown")], terminal=True)


def test_plain_lines_elsewhere(shown):
    text = shown(
        [SimpleNamespace(text="half", share=0.5), SimpleNamespace(text="all", share=1.0)], terminal=False
    )
    assert text == "half [a]\nall [a]\n" and not re.search("\x1b", text)


def test_shares():
    assert Progress(slides=4, scored=1, failed=1).share == 0.5
    assert Progress(slides=0).share is None
    assert OptimizeProgress(8, 2).share == 0.25 and OptimizeProgress().share is None
    assert TrainProgress(3, 12).share == 0.25
