"""After `python -m deepliif_ray.cells`, scoring compiles nothing any more."""

import os
import subprocess
import sys

import pytest

AFTER = """
import sys
from pathlib import Path
from numba.core import event
from deepliif_ray.cells.__main__ import compile_kernels
from deepliif_ray import Execution, score
from deepliif_ray.synthetic import write_cohort

compile_kernels()
compiled = []

class Listener(event.Listener):
    def on_start(self, event):
        compiled.append(event.data["dispatcher"].__name__)

    def on_end(self, event):
        pass

event.register("numba:compile", Listener())
manifest = write_cohort(Path(sys.argv[1]), side=600, patients=1)
local = Execution(engine="local")
assert score(str(manifest), sys.argv[1] + "/results", model="stain", execution=local).scored
assert not compiled, compiled
"""


@pytest.mark.slow
def test_scoring_compiles_nothing_that_was_not_compiled_before(tmp_path):
    subprocess.run([sys.executable, "-c", AFTER, str(tmp_path)], check=True, env=os.environ, timeout=200)
