"""Every odd kind of manifest is read for what it says, or refused for what it is."""

import pytest

from benchmarks.odd.manifests import ODD_MANIFESTS, outcome


@pytest.mark.parametrize("kind", ODD_MANIFESTS, ids=lambda kind: kind.name)
def test_odd_manifest(tmp_path, kind):
    got, said, is_right = outcome(kind, tmp_path)
    assert is_right, f"{got}: {said}"
