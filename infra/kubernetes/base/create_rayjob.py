"""Make one RayJob of a schedule: a running copy of the suspended RayJob that is its template.

A CronJob runs this in a pod. The RayJob is named for the scheduled time, which the pod's Job carries in its
name, so a pod that is tried again, or a request whose answer was lost, makes nothing twice. It needs the
standard library alone.

Settings come from the environment: ``TEMPLATE`` (name of the RayJob to copy), ``SCHEDULE`` (first part of the
new name, and the label by which runs are found), ``JOB_NAME``, ``NAMESPACE``, ``OVERLAP`` (``forbid``: do
nothing while an earlier run is not finished; ``allow``), ``QUEUE`` (a Kueue queue, or empty).

Exit codes: 0 made, or made before, or left out because an earlier run goes on; 1 the Kubernetes API did not
answer (worth another try); 2 wrong settings; 3 not allowed.
"""

import http.client
import json
import logging
import os
import random
import re
import ssl
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

TRY_AGAIN, WRONG_SETTINGS, NOT_ALLOWED = 1, 2, 3

API = "ray.io/v1"
SCHEDULE_LABEL = "deepliif-ray.io/schedule"
TIME_ANNOTATION = "deepliif-ray.io/scheduled-time"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
FINISHED = {"Complete", "Failed", "ValidationFailed"}
"""What KubeRay calls a RayJob that is over (``status.jobDeploymentStatus``)."""

MAX_NAME = 47  # KubeRay adds to it and keeps within 63
ATTEMPTS = 6
TOKEN_ATTEMPTS = 2  # the kubelet may be about to replace an expired token
TIMEOUT_S = 10.0
LONGEST_WAIT_S = 30.0
PASSING = {408, 429, 500, 502, 503, 504}

log = logging.getLogger("create_rayjob")


class GiveUpError(Exception):
    """The RayJob could not be made; ``code`` is what to exit with."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class RefusedError(Exception):
    """The API answered with an error that another try would not change."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Settings:
    """What the environment says."""

    template: str
    schedule: str
    job_name: str
    namespace: str
    overlap: str
    queue: str
    host: str
    port: int
    account: Path

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Settings":
        """Return the settings in ``environment``; raise `GiveUpError` if they make no sense."""
        try:
            settings = cls(
                template=environment["TEMPLATE"],
                schedule=environment["SCHEDULE"],
                job_name=environment["JOB_NAME"],
                namespace=environment["NAMESPACE"],
                overlap=environment["OVERLAP"],
                queue=environment.get("QUEUE", ""),
                host=environment["KUBERNETES_SERVICE_HOST"],
                port=int(environment["KUBERNETES_SERVICE_PORT"]),
                account=Path(
                    environment.get("SERVICE_ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount")
                ),
            )
        except KeyError as error:
            raise GiveUpError(WRONG_SETTINGS, f"{error.args[0]} is not set") from error
        except ValueError as error:
            raise GiveUpError(WRONG_SETTINGS, f"KUBERNETES_SERVICE_PORT: {error}") from error
        if settings.overlap not in ("forbid", "allow"):
            raise GiveUpError(WRONG_SETTINGS, f"OVERLAP is {settings.overlap!r}, not forbid or allow")
        return settings


class Kubernetes:
    """The RayJobs of one namespace, over the API's HTTPS, with bounded tries."""

    def __init__(self, settings: Settings) -> None:
        self._address = settings.host, settings.port
        self._account = settings.account
        self._path = f"/apis/{API}/namespaces/{settings.namespace}/rayjobs"
        try:
            self._context = ssl.create_default_context(cafile=str(settings.account / "ca.crt"))
        except OSError as error:
            raise GiveUpError(WRONG_SETTINGS, f"no certificate in {settings.account}: {error}") from error

    def get(self, name: str) -> dict[str, Any]:
        """Return the RayJob called ``name``."""
        return self._ask("GET", f"{self._path}/{name}")

    def of_schedule(self, schedule: str) -> list[dict[str, Any]]:
        """Return the RayJobs made for ``schedule``."""
        return list(self._ask("GET", f"{self._path}?labelSelector={SCHEDULE_LABEL}%3D{schedule}")["items"])

    def create(self, job: dict[str, Any]) -> bool:
        """Make the RayJob; return False if one of that name exists."""
        try:
            self._ask("POST", self._path, json.dumps(job).encode())
        except RefusedError as refused:
            if refused.status == 409 and refused.reason == "AlreadyExists":
                return False
            raise
        return True

    def _ask(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        for attempt in range(1, ATTEMPTS + 1):
            pause = min(2.0 ** (attempt - 1), LONGEST_WAIT_S) * random.uniform(0.5, 1)
            try:
                status, retry_after, answer = self._once(method, path, body)
            except (OSError, http.client.HTTPException) as error:
                trouble = f"{type(error).__name__}: {error}"
            else:
                fine = 200 <= status < 300
                if fine and answer is not None:
                    return answer
                answer = answer or {"message": "not JSON"}  # a proxy's page
                refused = RefusedError(status, answer.get("reason", ""), answer.get("message", ""))
                passing = fine or status in PASSING or (status == 401 and attempt < TOKEN_ATTEMPTS)
                if not passing:
                    raise refused
                trouble = str(refused)
                if retry_after.isdecimal():
                    pause = min(max(pause, float(retry_after)), LONGEST_WAIT_S)
            log.warning("%s %s, try %d of %d: %s", method, path, attempt, ATTEMPTS, trouble)
            if attempt < ATTEMPTS:
                time.sleep(pause)
        raise GiveUpError(TRY_AGAIN, f"the Kubernetes API did not answer: {trouble}")

    def _once(self, method: str, path: str, body: bytes | None) -> tuple[int, str, dict[str, Any] | None]:
        """Return status, Retry-After and the JSON object answered, or None if the answer is none."""
        token = (self._account / "token").read_text(encoding="ascii").strip()  # it is replaced every hour
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection = http.client.HTTPSConnection(*self._address, timeout=TIMEOUT_S, context=self._context)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        return response.status, response.headers.get("Retry-After", ""), answer


def name_of(settings: Settings) -> tuple[str, str]:
    """Return the name of the RayJob and the scheduled time, empty for a Job that was made by hand.

    A CronJob names its Jobs for itself and the minutes since 1970 that they were scheduled for.
    """
    scheduled = re.fullmatch(rf"{re.escape(settings.schedule)}-(\d+)", settings.job_name)
    if scheduled:
        when = datetime.fromtimestamp(int(scheduled[1]) * 60, UTC)
        name, at = f"{settings.schedule}-{when:%Y%m%d-%H%M}", f"{when:%Y-%m-%dT%H:%M:%SZ}"
    else:
        name, at = settings.job_name, ""
    if len(name) > MAX_NAME or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        raise GiveUpError(
            WRONG_SETTINGS,
            f"a RayJob cannot be called {name!r}: lower-case letters, digits and hyphens, a letter first, "
            f"at most {MAX_NAME}",
        )
    return name, at


def copy_of(template: Mapping[str, Any], name: str, at: str, settings: Settings) -> dict[str, Any]:
    """Return a RayJob like ``template`` that runs."""
    labels = {**template["metadata"].get("labels", {}), SCHEDULE_LABEL: settings.schedule}
    if settings.queue:
        labels[QUEUE_LABEL] = settings.queue
    metadata: dict[str, Any] = {"name": name, "namespace": settings.namespace, "labels": labels}
    if at:
        metadata["annotations"] = {TIME_ANNOTATION: at}
    spec = {**template["spec"], "suspend": False}
    return {"apiVersion": API, "kind": "RayJob", "metadata": metadata, "spec": spec}


def is_finished(job: Mapping[str, Any]) -> bool:
    """Tell whether a RayJob is over; one that waits in a queue is not."""
    return job.get("status", {}).get("jobDeploymentStatus") in FINISHED


def make(settings: Settings) -> str:
    """Make the RayJob of this scheduled time and return what happened.

    Raises
    ------
    GiveUpError
        It could not be made.
    """
    name, at = name_of(settings)
    kubernetes = Kubernetes(settings)
    try:
        runs = {job["metadata"]["name"]: job for job in kubernetes.of_schedule(settings.schedule)}
        if name in runs:
            return f"RayJob {name} exists already"
        unfinished = sorted(other for other, job in runs.items() if not is_finished(job))
        if unfinished and settings.overlap == "forbid":
            return f"left out: {', '.join(unfinished)} not finished"
        job = copy_of(kubernetes.get(settings.template), name, at, settings)
        if kubernetes.create(job):
            return f"RayJob {name} created"
        labels = kubernetes.get(name)["metadata"].get("labels", {})
    except RefusedError as refused:
        code = NOT_ALLOWED if refused.status in (401, 403) else WRONG_SETTINGS
        raise GiveUpError(code, f"the Kubernetes API refused: {refused}") from refused
    if labels.get(SCHEDULE_LABEL) != settings.schedule:
        raise GiveUpError(WRONG_SETTINGS, f"a RayJob {name} exists that is not of {settings.schedule}")
    return f"RayJob {name} exists already"


def main() -> int:
    """Make the RayJob; return the exit code."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        log.info(make(Settings.read(os.environ)))
    except GiveUpError as error:
        log.error("%s", error)
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
