import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.infra.fake_kubernetes import FakeKubernetes, certificate, serving, status
from tests.infra.manifests import KUBERNETES

SCRIPT = KUBERNETES / "base" / "create_rayjob.py"
LABEL = "deepliif-ray.io/schedule"
MINUTES = 29_689_920  # since 1970: 2026-06-14 00:00 UTC
NAME = "deepliif-reprocess-20260614-0000"
TEMPLATE = {"entrypoint": "deepliif-ray run /etc/deepliif-ray/job.yaml", "suspend": True, "backoffLimit": 1}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("create_rayjob", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["create_rayjob"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    folder = tmp_path_factory.mktemp("account")
    certificate(folder)
    return folder


@pytest.fixture
def fake(account, script, monkeypatch):
    fake = FakeKubernetes()
    fake.add(
        "deepliif-ray-template", {"app.kubernetes.io/part-of": "deepliif-ray"}, dict(TEMPLATE), "Suspended"
    )
    (account / "token").write_text("good\n")
    fake.slept = []
    monkeypatch.setattr(script.time, "sleep", fake.slept.append)
    with serving(fake, account) as port:
        fake.environment = {
            "TEMPLATE": "deepliif-ray-template", "SCHEDULE": "deepliif-reprocess", "OVERLAP": "forbid",
            "QUEUE": "deepliif-ray", "NAMESPACE": "ns", "JOB_NAME": f"deepliif-reprocess-{MINUTES}",
            "KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(port),
            "SERVICE_ACCOUNT": str(account),
        }  # fmt: skip
        yield fake


def run(script, fake, **changed):
    return script.make(script.Settings.read(fake.environment | changed))


def code_of(script, fake, **changed):
    with pytest.raises(script.GiveUpError) as caught:
        run(script, fake, **changed)
    return caught.value.code


def created(fake):
    return sorted(set(fake.jobs) - {"deepliif-ray-template"})


def posts(fake):
    return [path for method, path in fake.requests if method == "POST"]


def test_a_running_copy_of_the_template_is_made_under_the_scheduled_time(script, fake):
    assert run(script, fake) == f"RayJob {NAME} created"
    job = fake.jobs[NAME]
    assert job["spec"] == TEMPLATE | {"suspend": False}
    assert job["metadata"]["labels"] == {
        "app.kubernetes.io/part-of": "deepliif-ray", LABEL: "deepliif-reprocess",
        "kueue.x-k8s.io/queue-name": "deepliif-ray",
    }  # fmt: skip
    assert job["metadata"]["annotations"] == {"deepliif-ray.io/scheduled-time": "2026-06-14T00:00:00Z"}


def test_no_queue_no_label(script, fake):
    run(script, fake, QUEUE="")
    assert "kueue.x-k8s.io/queue-name" not in fake.jobs[NAME]["metadata"]["labels"]


def test_a_job_made_by_hand_gives_its_own_name(script, fake):
    run(script, fake, JOB_NAME="after-new-model")
    assert created(fake) == ["after-new-model"]
    assert "annotations" not in fake.jobs["after-new-model"]["metadata"]


@pytest.mark.parametrize("name", ["2-late", "a.b", "x" * 48, "Upper"])
def test_a_name_that_kuberay_refuses_is_refused_before_anything_is_asked(script, fake, name):
    assert code_of(script, fake, JOB_NAME=name) == script.WRONG_SETTINGS
    assert fake.requests == []


def test_the_same_time_again_makes_nothing(script, fake):
    run(script, fake)
    assert run(script, fake) == f"RayJob {NAME} exists already"
    assert len(posts(fake)) == 1


def test_a_conflict_of_two_that_create_at_once_is_success(script, fake):
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda _: run(script, fake), range(8)))
    assert said.count(f"RayJob {NAME} created") == 1
    assert set(said) == {f"RayJob {NAME} created", f"RayJob {NAME} exists already"}
    assert created(fake) == [NAME]


def test_a_name_taken_by_something_else_is_an_error(script, fake):
    fake.add(NAME, {LABEL: "another"})
    assert code_of(script, fake) == script.WRONG_SETTINGS


@pytest.mark.parametrize("state", [None, "Initializing", "Running", "Suspended", "Retrying", "Waiting"])
def test_an_unfinished_run_is_not_overlapped(script, fake, state):
    fake.add("deepliif-reprocess-20260613-0000", {LABEL: "deepliif-reprocess"}, state=state)
    assert run(script, fake).startswith("left out: deepliif-reprocess-20260613-0000")
    assert posts(fake) == []


@pytest.mark.parametrize("state", ["Complete", "Failed", "ValidationFailed"])
def test_a_finished_run_is_no_obstacle(script, fake, state):
    fake.add("deepliif-reprocess-20260613-0000", {LABEL: "deepliif-reprocess"}, state=state)
    run(script, fake)
    assert NAME in created(fake)


def test_runs_of_others_are_no_obstacle(script, fake):
    fake.add("cohort-17", state="Running")
    fake.add("other-20260613-0000", {LABEL: "other"}, state="Running")
    run(script, fake)
    assert NAME in created(fake)


def test_overlap_may_be_allowed(script, fake):
    fake.add("deepliif-reprocess-20260613-0000", {LABEL: "deepliif-reprocess"}, state="Running")
    assert run(script, fake, OVERLAP="allow") == f"RayJob {NAME} created"


@pytest.mark.parametrize(
    "trouble",
    [
        (429, {"Retry-After": "1"}, status(429, "too many requests")),
        (500, {}, status(500, "etcdserver: request timed out")),
        (503, {}, b"<html>no healthy upstream</html>"),
        (200, {}, b"<html>a proxy's login page</html>"),
        "cut",
        "slow",
    ],
    ids=["429", "500", "503 page", "200 page", "cut", "slow"],
)
@pytest.mark.parametrize("request_number", [0, 1, 2])
def test_passing_trouble_is_tried_again(script, fake, monkeypatch, trouble, request_number):
    monkeypatch.setattr(script, "TIMEOUT_S", 1.0)
    fake.troubles = [None] * request_number + [trouble]
    assert run(script, fake).startswith(f"RayJob {NAME} ")
    assert created(fake) == [NAME]
    assert len(fake.slept) == 1


def test_an_answer_that_was_lost_makes_nothing_twice(script, fake):
    fake.troubles = [None, None, "lost"]
    assert run(script, fake) == f"RayJob {NAME} exists already"
    assert created(fake) == [NAME]
    assert len(posts(fake)) == 2


def test_waits_grow_keep_to_what_the_server_asks_and_are_bounded(script, fake):
    fake.troubles = [(429, {"Retry-After": "7"}, status(429, "x"))] + [(500, {}, status(500, "x"))] * 99
    assert code_of(script, fake) == script.TRY_AGAIN
    assert len(fake.requests) == script.ATTEMPTS
    assert fake.slept[0] == 7
    assert 1 <= fake.slept[1] < fake.slept[2] < fake.slept[3] <= script.LONGEST_WAIT_S
    fake.troubles = [(429, {"Retry-After": "86400"}, status(429, "x"))]
    run(script, fake)
    assert fake.slept[-1] == script.LONGEST_WAIT_S


def test_a_server_that_is_not_there_is_worth_another_try_later(script, fake):
    assert code_of(script, fake, KUBERNETES_SERVICE_PORT="1") == script.TRY_AGAIN


def test_an_expired_token_is_read_again(script, fake, account, monkeypatch):
    fake.token = "renewed"
    monkeypatch.setattr(script.time, "sleep", lambda _: (account / "token").write_text("renewed"))
    assert run(script, fake) == f"RayJob {NAME} created"


def test_a_token_that_stays_expired_is_not_tried_for_long(script, fake):
    fake.token = "renewed"
    assert code_of(script, fake) == script.NOT_ALLOWED
    assert len(fake.requests) == script.TOKEN_ATTEMPTS


@pytest.mark.parametrize("missing", ["create", "get", "list"])
def test_a_missing_right_is_not_tried_again(script, fake, missing):
    fake.rights.discard(missing)
    assert code_of(script, fake) == script.NOT_ALLOWED
    assert fake.slept == []


def test_a_template_that_is_not_there_is_wrong_settings(script, fake):
    assert code_of(script, fake, TEMPLATE="gone") == script.WRONG_SETTINGS


def test_a_spec_that_the_server_refuses_is_wrong_settings(script, fake):
    del fake.jobs["deepliif-ray-template"]["spec"]["entrypoint"]
    assert code_of(script, fake) == script.WRONG_SETTINGS


def test_a_server_with_another_certificate_is_not_trusted(script, fake, tmp_path):
    certificate(tmp_path)
    (tmp_path / "token").write_text("good")
    assert code_of(script, fake, SERVICE_ACCOUNT=str(tmp_path)) == script.TRY_AGAIN
    assert fake.requests == []


@pytest.mark.parametrize(
    "changed",
    [{"OVERLAP": "maybe"}, {"KUBERNETES_SERVICE_PORT": "tcp://10.0.0.1:443"}, {"SERVICE_ACCOUNT": "/no"}],
)
def test_settings_that_make_no_sense(script, fake, changed):
    assert code_of(script, fake, **changed) == script.WRONG_SETTINGS


def test_as_a_process_it_needs_the_standard_library_alone_and_exits_with_the_code(fake):
    def process(**changed):
        environment = {"PATH": os.environ["PATH"]} | fake.environment | changed
        done = subprocess.run(
            [sys.executable, "-S", "-I", str(SCRIPT)],  # no site-packages
            env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        return done.returncode, done.stderr.strip()

    assert process() == (0, f"RayJob {NAME} created")
    assert process() == (0, f"RayJob {NAME} exists already")
    assert process(TEMPLATE="gone", JOB_NAME="by-hand", OVERLAP="allow")[0] == 2
    fake.rights.clear()
    assert process()[0] == 3
    code, said = process(NAMESPACE="")
    assert code == 2 and "404" in said
