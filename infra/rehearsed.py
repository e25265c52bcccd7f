"""What a data team does in the rehearsal: receives slides, writes job files, submits them, asks SQL."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import yaml

from deepliif_ray import storage
from deepliif_ray.query import ask
from deepliif_ray.synthetic import write_cohort
from deepliif_ray.tables.records import read_records

TINY_NETWORK = {"widths": [8, 12], "depths": [0, 1]}
_COMMAND_S = 900.0
_NOISE = re.compile(r"^━|job_manager\.py|logging\.cc:|^\d+/\d+ slides · |\(raylet\)|^\s+\(\d\) ?raylet")
"""Lines of Ray and of progress that are left out of what a job says."""


class Trouble(Exception):  # noqa: N818 - what it is called in the script
    """Something is not as it should be."""


def say(text: str) -> None:
    """Tell what happens."""
    print(text, flush=True)  # noqa: T201


class Submitted:
    """A job that was submitted and is followed."""

    def __init__(self, process: "subprocess.Popen[str]", summary: str) -> None:
        self.process, self._summary = process, summary

    def figures(self) -> dict[str, Any]:
        """Return the figures of the summary that the job has written."""
        figures: dict[str, Any] = json.loads(storage.read_bytes(self._summary))["figures"]
        return figures


class Office:
    """Where the team sits: job files in a folder of this machine, everything else in a bucket."""

    def __init__(self, jobs: Path, bucket: str) -> None:
        jobs.mkdir(parents=True)
        self._jobs, self.bucket = jobs, bucket
        self.manifest = f"{bucket}/manifests/cohort.csv"
        self.results = f"{bucket}/results/cohort"
        self.nightly = {
            "schedule": {"cron": "0 2 * * *", "time_zone": "Etc/UTC"},
            "fail_if": ["failed_percent > 0"],
        }

    def check(self, is_so: object, what: str, otherwise: str = "") -> None:
        """End the rehearsal unless something is so; say what is checked, if it has words.

        Raises
        ------
        Trouble
            It is not so.
        """
        if not is_so:
            raise Trouble(otherwise or f"this is not so: {what}")
        if what:
            say(f"  ok: {what}")

    def expect(self, figures: dict[str, Any], **expected: int) -> None:
        """Check figures of a job."""
        told = ", ".join(f"{name} {value}" for name, value in expected.items())
        found = {name: figures.get(name) for name in expected}
        self.check(found == expected, told, f"expected {expected}, found {found}")

    def _start(self, arguments: tuple[str, ...]) -> "subprocess.Popen[str]":
        say("$ deepliif-ray " + " ".join(f"'{a}'" if "{" in a or " " in a else a for a in arguments))
        return subprocess.Popen(
            [sys.executable, "-m", "deepliif_ray.cli", *arguments],
            cwd=self._jobs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def _end(self, process: "subprocess.Popen[str]") -> None:
        try:
            said, _ = process.communicate(timeout=_COMMAND_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Trouble(f"the command did not end: {process.communicate()[0][-3000:]}") from None
        if process.returncode:
            raise Trouble(f"exit code {process.returncode}:\n{said[-4000:]}")
        for line in said.splitlines():
            if line.strip() and not _NOISE.search(line):
                say(f"  {line}")

    def command(self, *arguments: str) -> None:
        """Run a command and show what it says."""
        self._end(self._start(arguments))

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Write a YAML file beside the job files."""
        (self._jobs / name).write_text(yaml.safe_dump(content, sort_keys=False))

    @contextmanager
    def submitting(self, name: str, job: dict[str, Any]) -> Iterator[Submitted]:
        """Submit a job; when the context ends, wait until the job has."""
        summary = f"{self.bucket}/summaries/{name}.json"
        self.write(f"{name}.yaml", {**job, "notifications": {"file": summary}})
        process = self._start(("submit", f"{name}.yaml"))
        try:
            yield Submitted(process, summary)
        except BaseException as error:
            process.kill()
            said = process.communicate()[0]
            if isinstance(error, Trouble):
                raise Trouble(f"{error}; the job said:\n{said[-4000:]}") from error
            raise
        self._end(process)

    def submit(self, name: str, job: dict[str, Any]) -> dict[str, Any]:
        """Submit a job, follow it to its end, and return its figures."""
        with self.submitting(name, job) as run:
            pass
        return run.figures()

    def receive(self, letter: str, *, seed: int, patients: int, markers: tuple[str, ...], side: int) -> None:
        """Have synthetic slides arrive in the bucket; patients are called by a letter and a number."""
        folder = self._jobs.parent / f"arriving-{letter}"
        cohort = write_cohort(folder, seed=seed, patients=patients, markers=markers, side=side)
        with cohort.open(newline="") as file:
            for row in csv.DictReader(file):
                patient, slide = (letter + row[key][1:] for key in ("patient_id", "slide_id"))
                url = f"{self.bucket}/slides/{patient}/{row['marker']}/{slide}.tiff"
                storage.write_file(url, folder / row["uri"])
                say(f"  arrived: {url}")

    def scan(self, *, extend: bool = False) -> None:
        """Make the manifest of the slides in the bucket, or extend it."""
        more = ("--extend", self.manifest) if extend else ()
        pattern = "{patient_id}/{marker}/{slide_id}.tiff"
        self.command(
            "manifest",
            "scan",
            f"{self.bucket}/slides",
            "--pattern",
            pattern,
            "--output",
            self.manifest,
            *more,
        )

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Ask SQL of the results, and show question and answer."""
        return _shown(query, ask(self.results, query))

    def models(self) -> list[dict[str, Any]]:
        """Return which models have scored the slides that the tables show."""
        return self.ask(
            "SELECT model_name, model_uri, model_digest, count(*) AS slides, sum(n_cells)::BIGINT AS cells "
            "FROM slides GROUP BY ALL ORDER BY ALL"
        )

    def generations(self) -> list[dict[str, Any]]:
        """Return what each model has found, the oldest first, by all records that the results hold."""
        records = read_records(self.results, "slides").table
        objects = f"{self.results}/slides/*.parquet"
        query = (
            "SELECT model_uri, left(model_digest, 12) AS digest, count(DISTINCT slide_id) AS slides, "
            "sum(n_cells)::BIGINT AS cells, sum(n_positive)::BIGINT AS positive "
            f"FROM '{objects}' GROUP BY ALL ORDER BY min(epoch_us(committed_at))"
        )
        with duckdb.connect() as connection:
            times = records.schema.get_field_index("committed_at")
            plain = records.column(times).cast(pa.timestamp("us"))  # zoned times would need pytz
            connection.register(objects, records.set_column(times, "committed_at", plain))
            return _shown(query, connection.sql(query).to_arrow_table())

    def commits(self) -> dict[str, str]:
        """Return the attempt that wrote each slide."""
        rows = ask(self.results, "SELECT slide_id, attempt FROM slides").to_pylist()
        return {row["slide_id"]: row["attempt"] for row in rows}

    def staged(self) -> int:
        """Return how many blocks of tiles of unfinished slides are staged."""
        return len(storage.list_files(f"{self.results}/_staging", ".arrow"))

    def objects(self) -> int:
        """Return how many objects a query of all cells reads: records of slides, and cells."""
        (row,) = ask(self.results, "SELECT count(DISTINCT cells_path) AS n FROM slides").to_pylist()
        return len(storage.list_files(f"{self.results}/slides", ".parquet")) + int(row["n"])

    def tables(self) -> dict[str, pa.Table]:
        """Return all that the results say, but for when, where and how long."""
        volatile = "run_id, attempt, committed_at, epoch, cells_path, cells_bytes, cells_digest, timings"
        return {
            "cells": ask(self.results, "SELECT * EXCLUDE (attempt) FROM cells ORDER BY slide_id, cell_id"),
            "slides": ask(self.results, f"SELECT * EXCLUDE ({volatile}) FROM slides ORDER BY slide_id"),
            "failures": ask(self.results, "SELECT slide_id, reason FROM failures ORDER BY ALL"),
        }


def _shown(query: str, answer: pa.Table) -> list[dict[str, Any]]:
    say(f"SQL> {query}")
    found: list[dict[str, Any]] = answer.to_pylist()
    for row in found:
        say("  " + ", ".join(f"{name} {value}" for name, value in row.items()))
    return found
