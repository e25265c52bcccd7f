"""Commands that run job files, here or on a cluster."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepliif_ray.cli.cohort import about_cohort, show_warnings
from deepliif_ray.cli.common import ERROR, FormatOption, app, command_name, stoppable
from deepliif_ray.cli.journeys import Group
from deepliif_ray.cli.training import describe_training
from deepliif_ray.console import describe, errors, show
from deepliif_ray.engine.run.progress import Progress

if TYPE_CHECKING:
    from deepliif_ray.jobs.server import JobServer

_MOST_FAILURES = 20

jobs_app = typer.Typer(cls=Group, help="See and stop the jobs of a cluster.", no_args_is_help=True)
app.add_typer(jobs_app, name="jobs")

JobArgument = Annotated[str, typer.Argument(metavar="JOB.yaml", help="URL of the job file.")]
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="URL of the cluster's job server, such as http://head:8265; by default $RAY_API_SERVER_ADDRESS.",
    ),
]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Name that `submit` and `jobs list` show.")]


def _describe(progress: Any) -> str:
    return describe(progress) if isinstance(progress, Progress) else describe_training(progress)


def run_file(url: str, *, address: str | None = None) -> int:
    """Run a job file, tell how it went, and return its exit code."""
    from deepliif_ray.jobs.run import run_job

    def say(text: str) -> None:
        errors.print(text, markup=False)

    with stoppable(_describe) as progress:
        outcome = run_job(url, address=address, watch=progress, say=say)
    show_warnings(outcome.summary.get("warnings", []))
    leftovers = [(slide_id, None) for slide_id in outcome.summary.get("leftovers", [])]
    for text in about_cohort(0, outcome.summary.get("retired", []), leftovers):
        say(text)
    failures = outcome.summary.get("failures", [])
    for failure in failures[:_MOST_FAILURES]:
        errors.print(f"failed: {failure['slide_id']!r}: {failure['message']}", markup=False)
    if len(failures) > _MOST_FAILURES:
        errors.print(f"… and {len(failures) - _MOST_FAILURES} more; see `{command_name()} status`")
    figures = outcome.summary["figures"].items()
    told = ", ".join(f"{name} {value:,.6g}" for name, value in figures if value is not None)
    errors.print(f"{outcome.summary['job']}: {told}", markup=False)
    for limit in outcome.broken:
        errors.print(f"limit broken: {limit}", markup=False)
    return outcome.exit_code


@app.command()
def run(
    job: JobArgument,
    address: Annotated[
        str | None,
        typer.Option(help="Address of a Ray cluster; by default $RAY_ADDRESS, or this machine alone."),
    ] = None,
) -> None:
    """Run a job file here; run it again to go on after a stop."""
    raise typer.Exit(run_file(job, address=address))


@app.command()
def submit(
    job: JobArgument,
    address: ServerOption = None,
    working_dir: Annotated[
        Path | None, typer.Option(help="Folder that goes along as a whole; by default the files it names.")
    ] = None,
    env_file: Annotated[
        Path | None, typer.Option(help="File of NAME=value: environment variables of the job.")
    ] = None,
    follow: Annotated[bool, typer.Option(help="Show what the job writes until it ends.")] = True,
) -> None:
    """Submit a job file to a running cluster, and follow it; submitting it twice is safe."""
    from deepliif_ray.jobs.server import JobServer
    from deepliif_ray.jobs.submit import submit as send

    server = JobServer(address)
    sent = send(job, server, working_dir=working_dir, env_file=env_file)
    what = "submitted" if sent.is_new else "is running already"
    errors.print(f"job {sent.submission_id} {what}", markup=False)
    if follow:
        raise typer.Exit(_follow(server, sent.submission_id))


def _follow(server: "JobServer", submission_id: str) -> int:
    from deepliif_ray.jobs.server import exit_code

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    try:
        details = server.follow(submission_id, write)
    except KeyboardInterrupt as error:
        where = f" --address {shlex.quote(server.address)}" if server.address else ""
        errors.print(
            f"the job goes on; to see it again: {command_name()} jobs logs {submission_id} --follow{where}",
            markup=False,
        )
        raise typer.Exit(ERROR) from error
    code = exit_code(details)
    errors.print(f"job {submission_id} {details.status.value.lower()}, exit code {code}", markup=False)
    if details.driver_exit_code is None and code and details.message:
        errors.print(details.message, markup=False)
    return code


@jobs_app.command("list")
def list_(address: ServerOption = None, form: FormatOption = None) -> None:
    """Show the jobs that were submitted to a cluster, the newest first."""
    from deepliif_ray.jobs.server import JobServer

    show(JobServer(address).table(), form)


@jobs_app.command()
def logs(
    submission_id: IdArgument,
    address: ServerOption = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Until the job ends; the exit code is then the job's.")
    ] = False,
) -> None:
    """Show what a job wrote."""
    from deepliif_ray.jobs.server import JobServer

    server = JobServer(address)
    if follow:
        raise typer.Exit(_follow(server, submission_id))
    sys.stdout.write(server.logs(submission_id))


@jobs_app.command()
def stop(submission_id: IdArgument, address: ServerOption = None) -> None:
    """Stop a job; what it has finished is kept, and submitting its file again goes on from there."""
    from deepliif_ray.jobs.server import JobServer

    stopped = JobServer(address).stop(submission_id)
    errors.print(f"job {submission_id} {'stops' if stopped else 'had ended already'}", markup=False)


@jobs_app.command()
def schema() -> None:
    """Print the JSON schema of job files, for editors."""
    from deepliif_ray.jobs.config import json_schema

    sys.stdout.write(json_schema())
