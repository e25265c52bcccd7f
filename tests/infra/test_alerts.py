import shutil
import subprocess
from pathlib import Path

import pytest
import yaml


def test_alerts_fire_when_they_should_and_only_then(rendered, tmp_path):
    """Prometheus' own tool plays series through the rules; ``apt-get install prometheus`` has it."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here")
    (rule,) = (t for t in rendered["overlays/aws"] if t["kind"] == "PrometheusRule")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": rule["spec"]["groups"]}))
    shutil.copy(Path(__file__).with_name("alerts_test.yaml"), tmp_path)
    done = subprocess.run(
        [promtool, "test", "rules", "alerts_test.yaml"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
