"""A store in memory whose listings are late: new objects are missing, removed ones stay for a while."""

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from deepliif_ray.storage import client


class LaggingStore(MemoryFileSystem):
    """``lagging://``: listings are as they were `lag` changes ago; an object itself is there, or gone."""

    protocol = "lagging"
    store: dict = {}  # noqa: RUF012  # as in the class that it comes from
    pseudo_dirs = [""]  # noqa: RUF012
    lag = 0
    changes: list = []  # noqa: RUF012
    stale_listings = 0

    @classmethod
    def begin(cls, lag: int, holding: dict | None = None) -> None:
        """Let the store hold some objects or none; from now on listings are late by ``lag`` changes."""
        cls.store.clear()
        cls.store.update(holding or {})
        cls.lag, cls.stale_listings, cls.changes[:] = lag, 0, []
        cls._changed()

    @classmethod
    def _changed(cls) -> None:
        cls.changes.append({name: file.size for name, file in cls.store.items()})

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        super().pipe_file(path, value, mode=mode, **kwargs)
        self._changed()

    def put_file(self, lpath, rpath, **_):
        with open(lpath, "rb") as file:  # noqa: PTH123  # as fsspec gives it
            self.pipe_file(rpath, file.read())

    def rm_file(self, path):
        super().rm_file(path)
        self._changed()

    def rm(self, path, recursive=False, maxdepth=None):
        path = self._strip_protocol(path)
        if path in self.store:
            self.rm_file(path)
            return
        names = self.find(path)
        if not names:
            raise FileNotFoundError(path)
        for name in names:  # a store removes what is not there without a word
            if name in self.store:
                self.rm_file(name)

    def find(self, path, maxdepth=None, withdirs=False, detail=False, **_):
        path = self._strip_protocol(path)
        now = {name: file.size for name, file in self.store.items()}
        listed = self.changes[max(0, len(self.changes) - 1 - self.lag)]
        type(self).stale_listings += listed != now
        found = {
            name: {"name": name, "size": size, "type": "file"}
            for name, size in sorted(listed.items())
            if name == path or name.startswith(f"{path.rstrip('/')}/")
        }
        return found if detail else list(found)


fsspec.register_implementation("lagging", LaggingStore, clobber=True)
client.PROTOCOLS.add("lagging")
