"""A store that answers slowly and keeps a log of what it was asked for, for tests with several processes."""

import os
import time
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from deepliif_ray.storage import client


class SlowStore(LocalFileSystem):
    """The local disk as a remote store: ``slow:///path``; $SLOW_STORE_LOG names its log."""

    protocol = "slow"

    def cat_ranges(self, paths, starts, ends, **_):
        for start in starts:
            with Path(os.environ["SLOW_STORE_LOG"]).open("a") as log:
                log.write(f"{start}\n")
        time.sleep(float(os.environ.get("SLOW_STORE_S", "0.05")))
        found = []
        for path, start, end in zip(paths, starts, ends, strict=True):
            with Path(self._strip_protocol(path)).open("rb") as file:
                file.seek(start)
                found.append(file.read(end - start))
        return found


fsspec.register_implementation("slow", SlowStore, clobber=True)
client.PROTOCOLS.add("slow")
