"""Manifests that are larger than they look."""

import gzip
import io
import resource

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepliif_ray import storage
from deepliif_ray.errors import ManifestError
from deepliif_ray.manifest import content, parquet, read_manifest, rows

HEADER = "slide_id,patient_id,marker,uri"


def refused(data, name):
    url = f"memory://bounds/{name}"
    storage.write_bytes(url, data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ManifestError) as caught:
        read_manifest(url)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    return str(caught.value), grown


def parquet_file(**columns):
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue()


@pytest.mark.slow
def test_too_many_bytes():
    text, _ = refused(b"x" * (content.MAX_BYTES + 1), "m.csv")
    assert "larger than 64 MiB" in text
    text, grown = refused(gzip.compress(bytes(2**30), 1), "bomb.csv.gz")
    assert "larger than 64 MiB, unpacked" in text and grown < 300


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.parquet"])
def test_too_many_rows(monkeypatch, name):
    monkeypatch.setattr(rows, "MAX_ROWS", 3)
    monkeypatch.setattr(parquet, "MAX_ROWS", 3)
    ids = [f"S{n}" for n in range(4)]
    data = {
        "m.csv": f"{HEADER}\n" + "".join(f"{i},P,Ki67,{i}\n" for i in ids),
        "m.jsonl": "".join(f'{{"slide_id": "{i}"}}\n' for i in ids),
    }
    made = data[name].encode() if name in data else parquet_file(slide_id=ids)
    assert "more than 3 rows" in refused(made, name)[0]


def test_too_many_columns():
    many = ",".join(f"c{n}" for n in range(content.MAX_COLUMNS))
    assert "more than 1,000 columns" in refused(f"{HEADER},{many}\n{',' * 1003}x\n".encode(), "m.csv")[0]
    lines = "".join(f'{{"c{n}": 1}}\n' for n in range(content.MAX_COLUMNS + 1))
    assert "more than 1,000 columns" in refused(lines.encode(), "m.jsonl")[0]


def test_a_value_that_is_stored_once_and_stands_in_every_row():
    """A file of about a megabyte that would unpack to over 100 GB."""
    value = pa.DictionaryArray.from_arrays(pa.array([0] * 200_000, pa.int32()), ["é" * 2**19])
    data = parquet_file(slide_id=[str(n) for n in range(200_000)], note=value)
    assert len(data) < 2e6
    text, grown = refused(data, "m.parquet")
    assert "more than 64 MiB" in text and grown < 1_500
    lists = pa.ListArray.from_arrays(
        pa.array([0, 1_000_000], pa.int32()),
        pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000, pa.int32()), ["x" * 10_000]),
    )
    text, grown = refused(parquet_file(slide_id=["a"], tags=lists), "lists.parquet")
    assert "the lists of column 'tags" in text and grown < 300
