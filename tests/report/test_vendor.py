"""Libraries of pages are those that their list names, with their licences."""

import hashlib
import re
from pathlib import Path

import deepliif_ray

VENDOR = Path(deepliif_ray.__file__).parent / "vendor"


def test_files_are_as_published():
    told = (VENDOR / "README.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `(\w+)/` \| `[\w@/-]+` \| ([\d.]+) \| ([\w.-]+) .*`([\w.-]+)` \| `(\w{64})` \|$", told, re.M
    )
    assert len(rows) >= 2
    for folder, version, licence, name, digest in rows:
        content = (VENDOR / folder / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
        assert version.rpartition(".")[0].encode() in content[:200]
        (text,) = (VENDOR / folder).glob("LICENSE*")
        assert licence and "opyright" in text.read_text(encoding="utf-8")
    assert {path.name for path in VENDOR.iterdir() if path.is_dir()} == {folder for folder, *_ in rows}
