"""The manifests, rendered once."""

import os
import shutil
from pathlib import Path

import pytest
import yaml

from tests.infra.manifests import KUBERNETES, RAY_KINDS, ROOT, TARGETS, render, strict


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    """Objects by target; ``raycronjob`` is the local overlay with the component of that name."""
    everything = {target: render(KUBERNETES / target) for target in TARGETS}
    copy = tmp_path_factory.mktemp("kubernetes")
    shutil.copytree(KUBERNETES, copy, dirs_exist_ok=True)
    overlay = copy / "overlays" / "local" / "kustomization.yaml"
    overlay.write_text(overlay.read_text() + "components:\n  - ../../components/raycronjob\n")
    return everything | {"raycronjob": render(overlay.parent)}


@pytest.fixture(scope="session")
def kuberay_schemas():
    """KubeRay's published schemas by kind, as they are and strict; too large, and not ours, to lie here."""
    shared = Path(os.environ.get("DEEPLIIF_RAY_SHARED", ROOT.parent / "shared"))
    folder = Path(os.environ.get("KUBERAY_CRDS", shared / "reference" / "kuberay"))
    if not folder.is_dir():
        pytest.skip(
            "KubeRay's CRDs are not here: set KUBERAY_CRDS to ray-operator/config/crd/bases of KubeRay"
        )
    found = {}
    for path in folder.glob("ray.io_*.yaml"):
        crd = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)  # 25,000 lines each
        kind = crd["spec"]["names"]["kind"]
        if kind in RAY_KINDS:
            versions = {v["name"]: v["schema"]["openAPIV3Schema"] for v in crd["spec"]["versions"]}
            found[kind] = versions["v1"], strict(versions["v1"])
    return found
