import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deepliif_ray import storage
from deepliif_ray.errors import StorageError, StorageMissingError
from deepliif_ray.storage import client

NAMES = ["plain", "with space", "100%", "a#b", "q?x=1", "é😐", "x" * 200]


@pytest.mark.parametrize(
    ("uri", "folder", "expected"),
    [
        ("a.svs", "s3://bucket/in", "s3://bucket/in/a.svs"),
        ("../b/a.svs", "s3://bucket/in", "s3://bucket/b/a.svs"),
        ("s3://other/a.svs", "/data", "s3://other/a.svs"),
        ("/abs/a.svs", "s3://bucket", "/abs/a.svs"),
        ("sub/a b#1%.svs", "/data", "/data/sub/a b#1%.svs"),
        ("a.svs", "file:///data", "/data/a.svs"),
    ],
)
def test_relative_uris_are_taken_from_the_folder(uri, folder, expected):
    assert storage.resolve(uri, folder) == expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", ["local", "memory"])
def test_what_is_written_is_read_and_listed(memory, tmp_path, where, name):
    root = str(tmp_path) if where == "local" else "memory://root"
    url = storage.join(root, "sub", f"{name}.bin")
    assert not storage.exists(url)
    storage.write_bytes(url, b"1")
    storage.write_bytes(url, b"22")
    assert storage.read_bytes(url) == b"22"
    assert storage.list_files(root) == [url]
    assert storage.list_files(root, ".bin") == [url] and storage.list_files(root, ".txt") == []
    storage.remove(root)
    assert storage.list_files(root) == []
    storage.remove(root)


def test_a_file_moved_in_is_complete_and_gone_from_where_it_was(memory, tmp_path):
    for target in (str(tmp_path / "there" / "a"), "memory://there/a"):
        source = tmp_path / "source"
        source.write_bytes(b"content")
        storage.write_file(target, source)
        assert storage.read_bytes(target) == b"content" and not source.exists()


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.write_bytes", fail)
    with pytest.raises(StorageError, match="disk full"):
        storage.write_bytes(str(tmp_path / "a"), b"1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["nosuch://a/b", "memory://missing", "/no/such/file"])
def test_what_cannot_be_read_is_named(url):
    with pytest.raises(StorageError, match=url.rpartition("/")[2]):
        storage.read_bytes(url)


def test_version_follows_writing_and_companions(tmp_path):
    slide, sibling = tmp_path / "a.dcm", tmp_path / "b.dcm"
    slide.write_bytes(b"1")
    sibling.write_bytes(b"1")
    seen = {storage.version(str(slide))}
    os.utime(sibling, ns=(5, 5))
    seen.add(storage.version(str(slide)))
    slide.write_bytes(b"12")
    seen.add(storage.version(str(slide)))
    (tmp_path / "notes.txt").write_text("not part of the slide")
    seen.add(storage.version(str(slide)))
    assert len(seen) == 3
    with pytest.raises(FileNotFoundError):
        storage.version(str(tmp_path / "none.svs"))


def test_slides_of_several_files_arrive_whole(memory, tmp_path):
    for name in ("s.mrxs", "s/Slidedat.ini", "s/Data0000.dat", "other.txt", "dicom/1.dcm", "dicom/2.dcm"):
        memory.pipe_file(f"/in/{name}", name.encode())
    mirax = storage.localize("memory://in/s.mrxs", tmp_path)
    assert mirax.name == "s.mrxs"
    assert sorted(p.name for p in mirax.parent.rglob("*") if p.is_file()) == [
        "Data0000.dat",
        "Slidedat.ini",
        "s.mrxs",
    ]
    dicom = storage.localize("memory://in/dicom", tmp_path)
    assert dicom.name == "dicom" and len(list(dicom.iterdir())) == 2


def test_a_server_that_does_not_answer_is_no_missing_slide(monkeypatch):
    """fsspec's HTTP raises FileNotFoundError for a refused connection."""

    def refused(*_):
        raise FileNotFoundError("slide.svs") from ConnectionRefusedError("refused")

    monkeypatch.setattr(sys.modules["deepliif_ray.storage.slide_files"], "_slide_files", refused)
    with pytest.raises(StorageError, match="cannot be looked at"):
        storage.version("memory://in/slide.svs")


def test_many_may_ask_for_the_same_slide_at_once(tmp_path, monkeypatch):
    (tmp_path / "a.svs").write_bytes(b"x" * 1_000_000)
    monkeypatch.setattr(client, "PROTOCOLS", client.PROTOCOLS | {"local"})
    url, cache = f"local://{tmp_path}/a.svs", tmp_path / "cache"  # local, but treated as any other store
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: storage.localize(url, cache), range(16)))
    assert len(set(paths)) == 1 and paths[0].read_bytes() == b"x" * 1_000_000
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1


def test_a_download_cut_short_is_noticed(memory, tmp_path, monkeypatch):
    memory.pipe_file("/in/a.svs", b"x" * 1000)
    monkeypatch.setattr(type(memory), "cat_ranges", lambda *_, **__: [b"x"])
    with pytest.raises(StorageError, match="1 of 1000 bytes"):
        storage.localize("memory://in/a.svs", tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.is_dir() and not p.name.endswith(".part")]


@pytest.mark.parametrize("name", ["a*", "a?", "a[12]"])
def test_only_what_is_named_is_removed(memory, name):
    for other in ("a1", "a2", "ab"):
        storage.write_bytes(f"memory://root/{other}/kept", b"1")
    storage.write_bytes(f"memory://root/{name}/gone", b"1")
    storage.remove(f"memory://root/{name}")
    assert [url.rsplit("/", 2)[1] for url in storage.list_files("memory://root")] == ["a1", "a2", "ab"]


def test_dicom_siblings_are_those_of_its_own_folder(memory):
    for name in ("d/1.dcm", "d/2.DCM", "d/notes.txt", "d/other/3.dcm", "e/4.dcm"):
        storage.write_bytes(f"memory://in/{name}", b"1")
    files = storage.slide_files("memory://in/d/1.dcm")
    assert [file.path for file in files] == ["/in/d/1.dcm", "/in/d/2.DCM"]


def test_local_slides_are_used_where_they_are(tmp_path):
    slide = tmp_path / "a b#%.svs"
    slide.write_bytes(b"1")
    assert storage.localize(str(slide), tmp_path / "cache") == slide
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("where", ["local", "memory"])
def test_of_many_that_create_at_once_one_does(tmp_path, where):
    root = str(tmp_path) if where == "local" else f"memory://{tmp_path.name}"
    with ThreadPoolExecutor(8) as pool:
        for number in range(100):
            barrier = threading.Barrier(8)

            def create(n, url=f"{root}/{number}", barrier=barrier):
                barrier.wait()
                return storage.create_bytes(url, b"%d" % n)

            made = list(pool.map(create, range(8)))
            assert sum(made) == 1
            assert storage.read_bytes(f"{root}/{number}") == b"%d" % made.index(True)
    assert len(storage.list_files(root)) == 100


def test_creating_on_a_disk_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    url = f"{tmp_path}/new/file"
    assert storage.create_bytes(url, b"one")
    assert not storage.create_bytes(url, b"two")
    assert storage.read_bytes(url) == b"one"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_a_full_disk_leaves_nothing_created(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(StorageError, match="No space left"):
            storage.create_bytes(f"{tmp_path}/file", b"one")
    assert not list(tmp_path.iterdir())


def content(url, cache):
    return storage.content_fingerprint(url, storage.localize(url, cache))


def test_content_is_what_a_copy_has_too(tmp_path):
    for name in ("a", "b"):
        storage.write_bytes(f"{tmp_path}/{name}.mrxs", b"index")
        storage.write_bytes(f"{tmp_path}/{name}/Data0.dat", b"pixels")
        storage.write_bytes(f"memory://content/{name}.mrxs", b"index")
        storage.write_bytes(f"memory://content/{name}/Data0.dat", b"pixels")
    urls = [f"{tmp_path}/a.mrxs", f"{tmp_path}/b.mrxs", "memory://content/a.mrxs", "memory://content/b.mrxs"]
    assert len({content(url, tmp_path / "cache") for url in urls}) == 1
    versions = {storage.version(url) for url in urls}
    assert len(versions) == 4
    known = content(urls[0], tmp_path)
    storage.write_bytes(f"{tmp_path}/a/Data0.dat", b"pixelz")
    assert content(urls[0], tmp_path) != known
    storage.write_bytes(f"{tmp_path}/b/Data1.dat", b"pixels")
    (tmp_path / "b" / "Data0.dat").unlink()
    assert content(urls[1], tmp_path) != known  # which file holds what counts


def test_content_of_dicom_is_that_of_its_files_however_they_are_named(tmp_path):
    for folder, names in (("x", ("1.dcm", "2.dcm")), ("y", ("b.dcm", "a.dcm"))):
        for n, name in enumerate(names):
            storage.write_bytes(f"{tmp_path}/{folder}/{name}", b"%d" % n)
    urls = [f"{tmp_path}/x", f"{tmp_path}/x/2.dcm", f"{tmp_path}/y"]
    assert len({content(url, tmp_path) for url in urls}) == 1


def test_times_that_were_set_back_are_another_version(tmp_path):
    slide = tmp_path / "a.svs"
    slide.write_bytes(b"one")
    before, known = slide.stat(), storage.version(str(slide))
    slide.write_bytes(b"two")
    os.utime(slide, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert slide.stat().st_mtime_ns == before.st_mtime_ns
    assert storage.version(str(slide)) != known


def test_a_store_that_says_nothing_of_versions_proves_nothing(monkeypatch):
    storage.write_bytes("memory://silent/a.svs", b"x")
    monkeypatch.setattr(sys.modules["deepliif_ray.storage.slide_files"], "_VERSION_KEYS", ())
    assert storage.version("memory://silent/a.svs").startswith("?")


def test_local_folders_are_listed_as_they_are(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "one.json").write_bytes(b"12")
    (tmp_path / "two.json").write_bytes(b"")
    (tmp_path / "half.json.tmp").write_bytes(b"1")
    (tmp_path / "link.json").symlink_to(tmp_path / "two.json")
    (tmp_path / "nowhere.json").symlink_to(tmp_path / "none")
    (tmp_path / "folder.json").symlink_to(tmp_path / "a")
    folder = str(tmp_path)
    sizes = {name: stored.size for name, stored in storage.list_stored(folder, ".json").items()}
    assert sizes.pop("folder.json") > 0
    assert sizes == {"a/b/one.json": 2, "two.json": 0, "link.json": 0}
    assert storage.list_files(folder + "/a/") == [f"{folder}/a/b/one.json"]
    assert storage.list_files(f"{folder}/two.json") == storage.list_files(f"{folder}/none") == []


def test_a_local_folder_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    """It was an empty one: results in it would have been none."""

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match="cannot be listed"):
        storage.list_files(str(tmp_path))


def test_local_files_of_any_size_are_read_whole(tmp_path):
    for size in (0, 1, 2**20, 3 * 2**20 + 1):
        content = os.urandom(size)
        (tmp_path / "file").write_bytes(content)
        assert storage.read_bytes(str(tmp_path / "file")) == content
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit((tmp_path / "pipe").write_bytes, content)
        assert storage.read_bytes(str(tmp_path / "pipe")) == content
        writing.result()
    with pytest.raises(StorageError, match="cannot be read"):
        storage.read_bytes(str(tmp_path))
    with pytest.raises(StorageMissingError):
        storage.read_bytes(str(tmp_path / "none"))
