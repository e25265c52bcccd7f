"""A cluster's job server: what may be asked of it, with errors that say what to do."""

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from aiohttp import ClientError
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError, JobError

ERROR = 1
_CHATTY = (
    "ray.dashboard.modules.job.sdk",
    "ray.dashboard.modules.dashboard_sdk",
    "ray._private.runtime_env.packaging",
)
_PATIENCE_S = 600.0
_LOOK_S = 1.0


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn what Ray raises into errors of this package."""
    try:
        yield
    except AuthenticationError as error:
        first = str(error).split("\n", 1)[0]
        raise ConfigError(
            f"{what}: {first[:300]} (set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN)"
        ) from error
    except (RuntimeError, ValueError, OSError, ClientError) as error:  # ConnectionError is an OSError
        lines = [line for line in str(error).splitlines() if line.strip(" .")]
        raise JobError(f"{what}: {storage.scrub(lines[-1]) if lines else type(error).__name__}") from error


class JobServer:
    """The job server of a Ray cluster.

    Parameters
    ----------
    address : str, optional
        Such as ``http://head:8265``; by default $RAY_API_SERVER_ADDRESS, or the cluster of this machine.

    Raises
    ------
    ConfigError
        The token is missing or wrong.
    JobError
        Nothing answers there.
    """

    def __init__(self, address: str | None) -> None:
        self.address = address
        if address is not None:
            os.environ["RAY_API_SERVER_ADDRESS"] = address  # Ray prefers the variable to its argument
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
        with _told(f"job server {address or 'of this machine'}"):
            self._client = JobSubmissionClient(address)

    def submit(self, *, submission_id: str, **options: Any) -> bool:
        """Submit a job; return False if someone else just submitted one of this name.

        Raises
        ------
        JobError
            The cluster refused it.
        """
        try:
            with _told(f"cannot submit {submission_id}"):
                self._client.submit_job(submission_id=submission_id, **options)
        except JobError as error:
            if "already exists" in str(error.__cause__):
                return False
            raise
        return True

    def generations(self, prefix: str) -> dict[int, bool]:
        """Return the number at the end of the names that begin with ``prefix``, and whether the job runs."""
        pattern = re.compile(re.escape(prefix) + r"(\d+)")
        found = {}
        for job in self._jobs():
            if match := pattern.fullmatch(job.submission_id or ""):
                found[int(match[1])] = not job.status.is_terminal()
        return found

    def table(self) -> pa.Table:
        """Return the submitted jobs, the newest first."""
        jobs = sorted(
            (job for job in self._jobs() if job.submission_id),
            key=lambda job: job.start_time or 0,
            reverse=True,
        )
        rows = [
            {
                "job": job.submission_id,
                "kind": (job.metadata or {}).get("kind"),
                "status": job.status.value.lower(),
                "exit_code": job.driver_exit_code,
                "started_at": job.start_time,
                "ended_at": job.end_time,
                "results": (job.metadata or {}).get("results") or (job.metadata or {}).get("output"),
            }
            for job in jobs
        ]
        moment = pa.timestamp("ms", tz="UTC")
        schema = pa.schema(
            {"job": pa.string(), "kind": pa.string(), "status": pa.string(), "exit_code": pa.int64()}
            | {"started_at": moment, "ended_at": moment, "results": pa.string()}
        )
        return pa.Table.from_pylist(rows, schema=schema)

    def _jobs(self) -> list[JobDetails]:
        with _told("cannot list jobs"):
            return list(self._client.list_jobs())

    def details(self, submission_id: str) -> JobDetails:
        """Return what the cluster knows of a job.

        Raises
        ------
        JobError
            There is no such job.
        """
        with _told(f"job {submission_id}"):
            return self._client.get_job_info(submission_id)

    def logs(self, submission_id: str) -> str:
        """Return everything a job has written so far."""
        with _told(f"logs of {submission_id}"):
            return str(self._client.get_job_logs(submission_id))

    def stop(self, submission_id: str) -> bool:
        """Ask a job to stop; return False if it had ended already."""
        with _told(f"cannot stop {submission_id}"):
            return bool(self._client.stop_job(submission_id))

    def follow(self, submission_id: str, write: Callable[[str], None]) -> JobDetails:
        """Write what a job writes until it ends, and return how it ended.

        A connection that is lost is made again, for up to ten minutes.

        Raises
        ------
        JobError
            There is no such job, or the server does not come back.
        """
        self.details(submission_id)
        shown, reached = 0, time.monotonic()

        async def tail() -> None:
            nonlocal shown, reached
            position = 0  # every connection begins with the first line again
            async for text in self._client.tail_job_logs(submission_id):
                reached = time.monotonic()
                if position + len(text) > shown:
                    write(text[max(shown - position, 0) :])
                    shown = position + len(text)
                position += len(text)

        while True:
            try:
                with _told(f"logs of {submission_id}"):
                    asyncio.run(tail())
                details = self.details(submission_id)
                reached = time.monotonic()
                if details.status.is_terminal():
                    return details
            except JobError:
                if time.monotonic() - reached > _PATIENCE_S:
                    raise
            time.sleep(_LOOK_S)


def exit_code(details: JobDetails) -> int:
    """Return the exit code of a job that has ended; Ray itself tells success or failure only."""
    if details.status == JobStatus.SUCCEEDED:
        return 0
    code = details.driver_exit_code
    return code if code is not None and 0 < code < 256 else ERROR
