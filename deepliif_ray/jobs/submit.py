"""Job files on a running cluster, through Ray's job submission API."""

import re
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepliif_ray import __version__, storage
from deepliif_ray.errors import ConfigError, StorageError
from deepliif_ray.jobs.config import DriverResources, Job, Retrain, ScoreCohort, job_name, read_job
from deepliif_ray.jobs.server import JobServer

_MOST_BYTES = 50 * 2**20
_ENV_LINE = re.compile(r"(?:export\s+)?(?P<name>[A-Za-z_]\w*)=(?P<value>.*)", re.ASCII)


@dataclass(frozen=True)
class Submission:
    """A job on a cluster.

    Attributes
    ----------
    submission_id : str
        ``<name>-<digest of the job file>-<generation>``.
    is_new : bool
        Whether it was submitted now; if not, it was running already.
    """

    submission_id: str
    is_new: bool


def submit(
    url: str, server: JobServer, *, working_dir: Path | None = None, env_file: Path | None = None
) -> Submission:
    """Submit the job file at ``url``, unless the same file is running there already.

    Parameters
    ----------
    url : str
        A local file goes to the cluster in a working directory, with the files that it names by relative
        paths (manifest, training configuration). A remote one is read there.
    server : JobServer
    working_dir : Path, optional
        A folder that goes to the cluster as a whole instead; the job file must lie in it.
    env_file : Path, optional
        Lines of NAME=value: environment variables of the job.

    Raises
    ------
    ConfigError
        The job file cannot be used, or would not work on a cluster.
    JobError
        The cluster does not answer, or refused the job.
    """
    job, digest = read_job(url)
    _check(job, url)
    prefix = f"{job_name(job, url)}-{digest}-"
    env_vars = {} if env_file is None else read_env(env_file)
    generation = 1
    for known, is_running in server.generations(prefix).items():
        if is_running:
            return Submission(f"{prefix}{known}", is_new=False)
        generation = max(generation, known + 1)
    with _folder(job, url, working_dir) as (folder, name):
        runtime_env: dict[str, Any] = {"env_vars": env_vars} if env_vars else {}
        if folder is not None:
            runtime_env["working_dir"] = str(folder)
        is_new = server.submit(
            submission_id=f"{prefix}{generation}",
            entrypoint=f"python -m deepliif_ray.cli run {shlex.quote(name)}",
            runtime_env=runtime_env,
            metadata=_metadata(job, digest),
            **_driver_needs(job),
        )
    return Submission(f"{prefix}{generation}", is_new)


def _check(job: Job, url: str) -> None:
    """Refuse what works on one machine only."""
    if isinstance(job, ScoreCohort | Retrain) and job.resources.engine == "local":
        raise ConfigError(f"{url}: resources.engine is local; on a cluster use ray, or `run` the file here")
    places = {key: getattr(job, key) for key in job.OUTPUTS} | {"notifications.file": job.notifications.file}
    places |= {key: getattr(job, key) for key in ("truth",) if hasattr(job, key)}
    for key, place in places.items():
        if place is not None and storage.is_local(place) and not storage.is_absolute(place):
            raise ConfigError(
                f"{url}: {key} is {place}, which the cluster cannot see; use a URL such as s3://… "
                "or the absolute path of a shared folder"
            )


def _metadata(job: Job, digest: str) -> dict[str, str]:
    """Return what Ray shows beside the job to everyone who may list jobs."""
    own = {
        "kind": job.kind,
        "digest": digest,
        "software_version": __version__,
    }
    for key in (*job.INPUTS, *job.OUTPUTS):
        if (place := getattr(job, key)) is not None:
            own[key] = storage.scrub(place)
    return {**job.metadata, **own}


def _driver_needs(job: Job) -> dict[str, float]:
    """Return what the job's first process needs itself; of other jobs, their workers do the work."""
    if not isinstance(job.resources, DriverResources):
        return {}
    needs = {"entrypoint_num_cpus": job.resources.cpus, "entrypoint_num_gpus": job.resources.gpus}
    return {name: value for name, value in needs.items() if value is not None}


def read_env(path: Path) -> dict[str, str]:
    """Return the variables of a file with lines NAME=value; empty lines and those that begin with # are none.

    Raises
    ------
    ConfigError
        A line is something else. Messages do not show values.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__})") from error
    found = {}
    for number, line in enumerate((text.strip() for text in lines), start=1):
        if not line or line.startswith("#"):
            continue
        match = _ENV_LINE.fullmatch(line)
        if match is None:
            raise ConfigError(f"{path}: line {number} is not NAME=value")
        value = match["value"]
        quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'"
        found[match["name"]] = value[1:-1] if quoted else value
    return found


@contextmanager
def _folder(job: Job, url: str, working_dir: Path | None) -> Iterator[tuple[Path | None, str]]:
    """Give the folder that goes to the cluster, and the job file's name as the cluster knows it."""
    if not storage.is_local(url):
        if working_dir is not None:
            raise ConfigError(f"{url}: a remote job file needs no working directory; leave it out")
        yield None, url
        return
    path = storage.local_path(url).absolute()
    if working_dir is not None:
        root = working_dir.absolute()
        if not path.is_relative_to(root):
            raise ConfigError(f"{url}: does not lie in the working directory {working_dir}; move it there")
        yield root, str(path.relative_to(root))
        return
    with tempfile.TemporaryDirectory(prefix="deepliif-ray-job-") as folder:
        _copy(path, Path(folder) / path.name)
        for key in job.INPUTS:
            named = getattr(job, key)
            if named is None or storage.is_absolute(named):
                continue
            target = (Path(folder) / named).resolve()
            if not target.is_relative_to(Path(folder).resolve()):
                raise ConfigError(f"{url}: {key} is {named}, outside the job file's folder; move it inside")
            _copy(path.parent / named, target)
            if key == "manifest":
                _check_slides(str(path.parent / named))
        yield Path(folder), path.name


def _copy(source: Path, target: Path) -> None:
    try:
        if source.stat().st_size > _MOST_BYTES:
            raise ConfigError(
                f"{source}: more than {_MOST_BYTES >> 20} MiB; put it into object storage and name its URL"
            )
        content = storage.read_bytes(str(source))
    except (OSError, StorageError) as error:
        raise ConfigError(f"{source}: cannot be read ({error}); correct the job file") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def _check_slides(manifest: str) -> None:
    """Refuse a manifest that goes to the cluster while the slides it names do not."""
    from deepliif_ray.manifest import read_manifest, read_rows

    read_manifest(manifest)
    _, rows = read_rows(manifest)
    for number, row in rows:
        if not storage.is_absolute(row["uri"].strip()):
            raise ConfigError(
                f"{manifest}: row {number}: uri {row['uri']!r} is relative, so the cluster would not find "
                "the slide; write URLs, or name the manifest by the absolute path of a shared folder"
            )
