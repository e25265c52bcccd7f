"""Submission: what is sent (against a server that only remembers), and a real cluster with a job server."""

import json
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError
from deepliif_ray.jobs.submit import read_env, submit
from deepliif_ray.synthetic import write_cohort
from deepliif_ray.tables.ledger import Ledger
from infra.ray_nodes import RayNodes, free_port

SECRET = "s3cret-token-of-the-hook"
JOB = {"kind": "score_cohort", "manifest": "m.csv", "results": "s3://bucket/results", "model": "stain"}


class Memory:
    """A job server that remembers what it was given, and the files with it."""

    def __init__(self, running=()):
        self.jobs = dict.fromkeys(running, True)
        self.sent, self.files = [], {}

    def generations(self, prefix):
        self.prefix = prefix
        return self.jobs

    def submit(self, **options):
        folder = options["runtime_env"].get("working_dir")
        if folder is not None:
            found = (p for p in Path(folder).rglob("*") if p.is_file())
            self.files = {str(p.relative_to(folder)): p.read_text() for p in found}
        self.sent.append(options)
        return options["submission_id"] not in getattr(self, "taken", ())


def write_job(folder: Path, **options) -> str:
    (folder / "m.csv").write_text("slide_id,patient_id,marker,uri\na,p,Ki67,s3://bucket/a.svs\n")
    (folder / "night.yaml").write_text(yaml.safe_dump(JOB | options))
    return str(folder / "night.yaml")


def test_the_job_goes_with_the_small_files_it_names(tmp_path):
    (tmp_path / "large.svs").write_bytes(b"not sent")
    server = Memory()
    sent = submit(write_job(tmp_path, metadata={"owner": "us"}), server)
    assert sent.is_new and re.fullmatch(r"night-[0-9a-f]{12}-1", sent.submission_id)
    (options,) = server.sent
    assert set(server.files) == {"night.yaml", "m.csv"}
    assert options["entrypoint"] == "python -m deepliif_ray.cli run night.yaml"
    assert options["metadata"]["owner"] == "us" and options["metadata"]["kind"] == "score_cohort"
    assert options["metadata"]["results"] == "s3://bucket/results"


def test_a_name_follows_from_the_file_and_counts_on(tmp_path):
    first = submit(write_job(tmp_path), Memory()).submission_id
    assert submit(write_job(tmp_path), Memory()).submission_id == first
    assert submit(write_job(tmp_path, model="compact"), Memory()).submission_id != first
    running = Memory([3])
    running.jobs = {1: False, 2: False, 3: True}
    found = submit(write_job(tmp_path), running)
    assert (found.is_new, found.submission_id[-2:], running.sent) == (False, "-3", [])
    ended = Memory()
    ended.jobs = {1: False, 2: False}
    assert submit(write_job(tmp_path), ended).submission_id.endswith("-3")
    late = Memory()
    late.taken = {first}
    assert not submit(write_job(tmp_path), late).is_new


def test_a_folder_may_go_as_a_whole_and_a_remote_file_needs_none(tmp_path):
    (tmp_path / "jobs").mkdir()
    job = write_job(tmp_path / "jobs")
    server = Memory()
    submit(job, server, working_dir=tmp_path)
    assert server.sent[0]["entrypoint"].endswith("run jobs/night.yaml") and "jobs/m.csv" in server.files
    storage.write_bytes("memory://submit/night.yaml", Path(job).read_bytes())
    submit("memory://submit/night.yaml", server)
    assert server.sent[1]["runtime_env"] == {}
    assert server.sent[1]["entrypoint"].endswith("run memory://submit/night.yaml")
    with pytest.raises(ConfigError, match="does not lie in the working directory"):
        submit(job, server, working_dir=tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"results": "results"}, "results is results, which the cluster cannot see"),
        ({"resources": {"engine": "local"}}, "resources.engine is local"),
        ({"notifications": {"file": "x.json"}}, "notifications.file is x.json"),
        ({"manifest": "../m.csv"}, "outside the job file's folder"),
        ({"manifest": "absent.csv"}, "absent.csv: cannot be read"),
        ({"manifest": "relative.csv"}, "row 2: uri 'a.svs' is relative"),
    ],
)
def test_what_works_on_one_machine_only_is_refused(tmp_path, options, expected):
    (tmp_path / "relative.csv").write_text("slide_id,patient_id,marker,uri\na,p,Ki67,a.svs\n")
    server = Memory()
    with pytest.raises(ConfigError, match=re.escape(expected)):
        submit(write_job(tmp_path, **options), server)
    assert server.sent == []


def test_secrets_go_by_reference(tmp_path):
    env = tmp_path / "secrets.env"
    env.write_text(f"# comment\n\nHOOK=https://x/{SECRET}\nexport QUOTED='a b=c'\nEMPTY=\n")
    server = Memory()
    submit(write_job(tmp_path, notifications={"webhook": "env:HOOK"}), server, env_file=env)
    (options,) = server.sent
    assert options["runtime_env"]["env_vars"] == {
        "HOOK": f"https://x/{SECRET}",
        "QUOTED": "a b=c",
        "EMPTY": "",
    }
    assert SECRET not in json.dumps([options["metadata"], options["entrypoint"], server.files])
    env.write_text(f"HOOK {SECRET}")
    with pytest.raises(ConfigError, match="line 1 is not NAME=value") as caught:
        read_env(env)
    assert SECRET not in str(caught.value)


# A real cluster


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """Environment in which ``deepliif-ray submit`` finds a running head that wants a token."""
    nodes = RayNodes(tmp_path_factory.mktemp("head"), {}, head_cpus=2)
    yield {**nodes.environment, "GCS": nodes.gcs}
    nodes.stop()


def cli(env, *arguments):
    command = [sys.executable, "-m", "deepliif_ray.cli", *(str(a) for a in arguments)]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, check=False, timeout=280, cwd="/tmp"
    )


@pytest.fixture
def received():
    """Summaries posted to the URL that comes with them."""
    found = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            found.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/{SECRET}", found
    server.shutdown()


@pytest.mark.slow
def test_submitted_to_a_cluster(head, tmp_path, received):
    hook, summaries = received
    cohort = write_cohort(tmp_path / "cohort", patients=1, side=600)
    job = {
        "kind": "score_cohort",
        "manifest": str(cohort),
        "results": str(tmp_path / "results"),
        "model": "stain",
    }
    job |= {"notifications": {"webhook": "env:HOOK"}, "fail_if": ["scored > 1"], "metadata": {"owner": "us"}}
    path = tmp_path / "night.yaml"
    path.write_text(yaml.safe_dump(job))
    (tmp_path / "env").write_text(f"HOOK={hook}\n")
    submitting = ("submit", path, "--env-file", tmp_path / "env")

    begun = cli(head, *submitting, "--no-follow")
    assert begun.returncode == 0, begun.stderr
    name = re.fullmatch(r"job (\S+) submitted\n", begun.stderr)[1]
    again = cli(head, *submitting)  # while it runs: the same job is followed, and its exit code returned
    assert f"job {name} is running already" in again.stderr
    assert again.returncode == 4, again.stderr + again.stdout
    assert "limit broken: scored > 1: scored is 2" in again.stdout
    assert again.stdout.count("limit broken") == 1
    assert f"job {name} failed, exit code 4" in again.stderr

    later = cli(head, *submitting)  # after it ended: a new one, which finds everything done
    assert later.returncode == 0, later.stdout
    assert f"job {name[:-1]}2 submitted" in later.stderr and "skipped 2" in later.stdout
    assert [s["exit_code"] for s in summaries] == [4, 0] and summaries[0]["figures"]["scored"] == 2
    assert Ledger(str(tmp_path / "results")).runs().num_rows == 2

    listed = json.loads(cli(head, "jobs", "list", "--format", "json").stdout)
    assert [(row["job"], row["status"], row["exit_code"]) for row in listed[:2]] == [
        (f"{name[:-1]}2", "succeeded", 0),
        (name, "failed", 4),
    ]
    assert SECRET not in json.dumps(listed)
    logs = cli(head, "jobs", "logs", name)
    assert "limit broken" in logs.stdout and SECRET not in logs.stdout
    assert cli(head, "jobs", "logs", name, "--follow").returncode == 4


@pytest.mark.slow
def test_interrupted_and_stopped(head, tmp_path):
    cohort = write_cohort(tmp_path / "cohort", patients=1, side=600)
    job = {
        "kind": "reprocess",
        "manifest": str(cohort),
        "results": str(tmp_path / "results"),
        "model": "stain",
    }
    job |= {
        "resources": {"cpus": 64, "wait_minutes": 10},
        "notifications": {"file": str(tmp_path / "last.json")},
    }
    path = tmp_path / "waits.yaml"
    path.write_text(yaml.safe_dump(job))
    command = [sys.executable, "-m", "deepliif_ray.cli", "submit", str(path)]
    following = subprocess.Popen(command, env=head, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in following.stdout:
        if "Running entrypoint" in line:
            break
    following.send_signal(signal.SIGINT)
    _, shown = following.communicate(timeout=60)
    assert following.returncode == 1, shown
    name = re.search(r"job (\S+) submitted", shown)[1]
    assert f"the job goes on; to see it again: deepliif-ray jobs logs {name} --follow" in shown
    wait_for(
        lambda: "waiting: the cluster lacks CPUs (has 2 of 64)" in cli(head, "jobs", "logs", name).stdout
    )
    assert json.loads(cli(head, "jobs", "list", "--format", "json").stdout)[0]["status"] == "running"

    assert "stops" in cli(head, "jobs", "stop", name).stderr
    followed = cli(head, "jobs", "logs", name, "--follow")
    assert followed.returncode == 1 and f"job {name} stopped" in followed.stderr
    assert json.loads((tmp_path / "last.json").read_text())["status"] == "interrupted"
    assert "had ended already" in cli(head, "jobs", "stop", name).stderr


def wait_for(condition) -> None:
    give_up = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(1)


@pytest.mark.slow
def test_who_may_not_and_where_nobody_answers(head, tmp_path):
    job = write_job(tmp_path)
    for env in (
        {**head, "RAY_AUTH_TOKEN": "wrong" * 10},
        {k: v for k, v in head.items() if k != "RAY_AUTH_TOKEN"},
    ):
        refused = cli(env, "submit", job)
        assert refused.returncode == 2 and "RAY_AUTH_TOKEN_PATH" in refused.stderr, refused.stderr
    by_file = {k: v for k, v in head.items() if k != "RAY_AUTH_TOKEN"}
    (tmp_path / "token").write_text(head["RAY_AUTH_TOKEN"])
    assert cli({**by_file, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}, "jobs", "list").returncode == 0
    nobody = cli(head, "jobs", "list", "--address", f"http://127.0.0.1:{free_port()}")
    assert nobody.returncode == 1 and "Failed to connect" in nobody.stderr
    unknown = cli(head, "jobs", "logs", "nobody", "--follow")
    assert unknown.returncode == 1 and "job nobody" in unknown.stderr and "does not exist" in unknown.stderr


@pytest.mark.slow
def test_room_that_is_not_there(head, tmp_path):
    job = {"kind": "score_cohort", "manifest": "m.csv", "results": "results", "model": "stain"}
    path = write_job(tmp_path, **job, resources={"cpus": 4096, "wait_minutes": 0})
    here = {k: v for k, v in head.items() if k != "RAY_API_SERVER_ADDRESS"}
    alone = cli(here, "run", path)
    assert alone.returncode == 2 and "this machine lacks CPUs" in alone.stderr
    joined = cli(here, "run", path, "--address", head["GCS"])
    assert joined.returncode == 1 and "still lacks CPUs (has 2 of 4096) after 0 minutes" in joined.stderr
