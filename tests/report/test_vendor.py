"""Libraries of pages are those that their list names, with their licences."""

import hashlib
import re
from pathlib import Path

import deepliif_ray

VENDOR = Path(deepliif_ray.__file__).parent / "vendor"


def test_files_are_as_published():
    told = (VENDOR / "README.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `(\w+)/` \| `[\w@/-]+` \| ([\d.]+) \| (\w+) .*`([\w.-]+)` \| `(\w{64})` \|$", told, re.M
    )
    assert len(rows) >= 2
    for folder, version, licence, name, digest in rows:
        content = (VENDOR / folder / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
        assert licence == "ISC" and "Permission to use, copy" in (VENDOR / folder / "LICENSE").read_text()
        assert version.rpartition(".")[0].encode() in content[:200]
    assert {path.name for path in VENDOR.iterdir()} >= {folder for folder, *_ in rows}
