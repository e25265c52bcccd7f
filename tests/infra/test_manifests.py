import copy
import json
import re
from functools import cache

import jsonschema
import kubernetes_validate
import pytest
import yaml

from deepliif_ray.jobs.config import read_job
from tests.few import few
from tests.infra.manifests import (
    KUBERNETES,
    OPERATOR_KINDS,
    RAY_KINDS,
    ROOT,
    TARGETS,
    clusters,
    templates,
    with_defaults,
)

ALL = (*TARGETS, "raycronjob")
STRING_MAP = {"type": "object", "additionalProperties": {"type": "string"}}
COUNT = {"type": "integer", "minimum": 0}
POD = {"type": "object", "required": ["spec"]}  # checked by Kubernetes' own schema
CLUSTER = {
    "type": "object",
    "additionalProperties": False,
    "required": ["rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"],
    "properties": {
        "rayVersion": {"type": "string"},
        "enableInTreeAutoscaling": {"type": "boolean"},
        "authOptions": {
            "type": "object",
            "additionalProperties": False,
            "required": ["mode", "secretName"],
            "properties": {"mode": {"const": "token"}, "secretName": {"type": "string"}},
        },
        "autoscalerOptions": {
            "type": "object",
            "additionalProperties": False,
            "required": ["version", "securityContext", "resources"],
            "properties": {
                "version": {"enum": ["v1", "v2"]},
                "idleTimeoutSeconds": COUNT,
                "securityContext": {"type": "object"},
                "resources": {"type": "object"},
                "volumeMounts": {"type": "array"},
            },
        },
        "gcsFaultToleranceOptions": {
            "type": "object",
            "additionalProperties": False,
            "required": ["redisAddress", "redisPassword"],
            "properties": {
                "redisAddress": {"type": "string"},
                "redisPassword": {
                    "type": "object",
                    "required": ["valueFrom"],
                    "additionalProperties": False,
                    "properties": {"valueFrom": {"type": "object", "required": ["secretKeyRef"]}},
                },
            },
        },
        "headGroupSpec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["rayStartParams", "template"],
            "properties": {
                "serviceType": {"const": "ClusterIP"},
                "rayStartParams": STRING_MAP,
                "template": POD,
            },
        },
        "workerGroupSpecs": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["groupName", "replicas", "minReplicas", "maxReplicas", "template"],
                "properties": {
                    "groupName": {"type": "string"},
                    "replicas": COUNT,
                    "minReplicas": COUNT,
                    "maxReplicas": COUNT,
                    "rayStartParams": STRING_MAP,
                    "template": POD,
                },
            },
        },
    },
}
JOB = {
    "type": "object",
    "additionalProperties": False,
    "required": ["entrypoint", "rayClusterSpec", "submitterPodTemplate"],
    "properties": {
        "entrypoint": {"type": "string"},
        "submissionMode": {"const": "K8sJobMode"},
        "shutdownAfterJobFinishes": {"const": True},
        "ttlSecondsAfterFinished": COUNT,
        "backoffLimit": COUNT,
        "activeDeadlineSeconds": {"type": "integer", "minimum": 1},
        "preRunningDeadlineSeconds": {"type": "integer", "minimum": 1},
        "suspend": {"type": "boolean"},
        "submitterPodTemplate": POD,
        "rayClusterSpec": CLUSTER,
    },
}
SPECS = {
    "RayCluster": CLUSTER,
    "RayJob": JOB,
    "RayCronJob": {
        "type": "object",
        "additionalProperties": False,
        "required": ["schedule", "timeZone", "jobTemplate"],
        "properties": {
            "schedule": {"type": "string"},
            "timeZone": {"type": "string"},
            "jobTemplate": JOB,
        },
    },
}


def of_kinds(objects, kinds):
    return [thing for thing in objects if thing["kind"] in kinds]


@cache
def _check_text(text):
    kubernetes_validate.validate(json.loads(text), kubernetes_validate.latest_version(), strict=True)


def check_core(thing):
    _check_text(json.dumps(thing, sort_keys=True))  # overlays share most objects, and the schemas load slowly


def check_published(schemas, thing):
    schema, only_known_fields = schemas[thing["kind"]]
    validator = jsonschema.Draft202012Validator(only_known_fields)
    for error in validator.iter_errors(with_defaults(schema, thing)):
        raise error


@pytest.mark.parametrize("target", few(ALL, 2))
def test_core_kinds_are_valid_and_have_no_unknown_field(rendered, target):
    core = [t for t in rendered[target] if t["kind"] not in (*RAY_KINDS, *OPERATOR_KINDS)]
    for thing in core:
        check_core(thing)
    assert core


@pytest.mark.parametrize("target", ALL)
def test_pods_of_ray_kinds_are_valid_pods(rendered, target):
    found = [pod for thing in of_kinds(rendered[target], RAY_KINDS) for pod in templates(thing)]
    for name, template in found:
        metadata = {"name": "pod", **template.get("metadata", {})}
        check_core({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
        assert template["spec"]["containers"], name
    assert len(found) >= 4


@pytest.mark.parametrize("target", ALL)
def test_ray_kinds_have_the_fields_we_know_of_and_no_others(rendered, target):
    for thing in of_kinds(rendered[target], RAY_KINDS):
        assert thing["apiVersion"] == "ray.io/v1"
        jsonschema.validate(thing["spec"], SPECS[thing["kind"]])


@pytest.mark.parametrize("target", few(ALL, 2))
def test_ray_kinds_fit_the_schemas_that_kuberay_publishes(rendered, target, kuberay_schemas):
    things = of_kinds(rendered[target], RAY_KINDS)
    for thing in things:
        check_published(kuberay_schemas, thing)
    assert things


def broken(thing, change):
    made = copy.deepcopy(thing)
    change(made["spec"])
    return made


CHANGES = {
    "unknown field": lambda spec: spec.update(shutdownAfterJobFinish=True),
    "deep unknown field": lambda spec: spec["rayClusterSpec"]["headGroupSpec"].update(rayStartParam={}),
    "unknown field of a pod": lambda spec: spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"].update(
        tolerations=[{"keys": "x"}]
    ),
    "wrong type": lambda spec: spec["rayClusterSpec"]["workerGroupSpecs"][0].update(replicas="2"),
    "not one of": lambda spec: spec["rayClusterSpec"]["authOptions"].update(mode="tokens"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_published_schemas_refuse(rendered, kuberay_schemas, change):
    thing = broken(of_kinds(rendered["cohort"], ["RayJob"])[0], CHANGES[change])
    with pytest.raises(jsonschema.ValidationError):
        check_published(kuberay_schemas, thing)


@pytest.mark.parametrize("change", [c for c in CHANGES if "pod" not in c])
def test_our_own_schema_refuses(rendered, change):
    thing = broken(of_kinds(rendered["cohort"], ["RayJob"])[0], CHANGES[change])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(thing["spec"], JOB)


def test_core_schemas_refuse_unknown_fields(rendered):
    cron = copy.deepcopy(of_kinds(rendered["overlays/local"], ["CronJob"])[0])
    cron["spec"]["timezone"] = "Etc/UTC"
    with pytest.raises(kubernetes_validate.ValidationError):
        check_core(cron)


def test_defaults_come_before_validation():
    schema = {
        "properties": {
            "a": {"type": "integer", "default": 1},
            "b": {"items": {"properties": {"c": {"default": 2}}}},
        },
        "required": ["a"],
    }
    assert with_defaults(schema, {"b": [{}]}) == {"a": 1, "b": [{"c": 2}]}


def problems_of(thing):
    """Return what KubeRay's operator would refuse, and a schema cannot say."""
    found = []
    spec, name = thing["spec"], thing["metadata"]["name"]
    longest = {"RayCluster": 53, "RayJob": 47, "RayCronJob": 36}[thing["kind"]]
    if len(name) > longest or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        found.append("name")
    job = spec.get("jobTemplate", spec)
    if (job.get("suspend") or job.get("ttlSecondsAfterFinished")) and not job.get("shutdownAfterJobFinishes"):
        found.append("needs shutdownAfterJobFinishes")
    for _, cluster in clusters(thing):
        head = cluster["headGroupSpec"]
        env = {e["name"] for e in head["template"]["spec"]["containers"][0].get("env", [])}
        if cluster.get("gcsFaultToleranceOptions") and (
            "redis-password" in head["rayStartParams"] or env & {"REDIS_PASSWORD", "RAY_REDIS_ADDRESS"}
        ):
            found.append("Redis in two places")
        for group in cluster["workerGroupSpecs"]:
            if not group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
                found.append("replicas")
            if group["template"]["spec"].get("restartPolicy", "Never") != "Never":
                found.append("restartPolicy")
    return found


@pytest.mark.parametrize("target", ALL)
def test_the_operator_would_take_ray_kinds(rendered, target):
    for thing in of_kinds(rendered[target], RAY_KINDS):
        assert problems_of(thing) == []


@pytest.mark.parametrize(
    ("problem", "change"),
    [
        ("name", lambda t: t["metadata"].update(name="x" * 48)),
        ("name", lambda t: t["metadata"].update(name="2024-cohort")),
        ("needs shutdownAfterJobFinishes", lambda t: t["spec"].update(shutdownAfterJobFinishes=False)),
        ("replicas", lambda t: t["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].update(replicas=999)),
    ],
)
def test_what_the_operator_would_refuse_is_found(rendered, problem, change):
    thing = copy.deepcopy(of_kinds(rendered["cohort"], ["RayJob"])[0])
    change(thing)
    assert problem in problems_of(thing)


def test_ray_is_the_version_that_is_pinned(rendered):
    pins = (ROOT / "requirements.lock").read_text()
    for target in ALL:
        for thing in of_kinds(rendered[target], RAY_KINDS):
            for _, cluster in clusters(thing):
                assert f"\nray=={cluster['rayVersion']} \\\n" in pins


@pytest.mark.parametrize("target", ALL)
def test_config_maps_that_pods_mount_exist_under_their_generated_names(rendered, target):
    objects = rendered[target]
    there = {t["metadata"]["name"] for t in objects if t["kind"] == "ConfigMap"} | {"kube-root-ca.crt"}
    for thing in objects:
        for name, template in templates(thing):
            for volume in template["spec"].get("volumes", []):
                wanted = [volume["configMap"]["name"]] if "configMap" in volume else []
                sources = volume.get("projected", {}).get("sources", [])
                wanted += [s["configMap"]["name"] for s in sources if "configMap" in s]
                assert set(wanted) <= there, name


@pytest.mark.parametrize("target", [t for t in ALL if t != "cohort"])
def test_every_object_is_in_the_namespace(rendered, target):
    for thing in rendered[target]:
        if thing["kind"] != "Namespace":
            assert thing["metadata"]["namespace"] == "deepliif-ray", thing["metadata"]["name"]


def job_files():
    return sorted(KUBERNETES.rglob("job.yaml"))


def test_the_schedule_is_that_of_the_job_file(rendered):
    for target in ALL:
        for cron in of_kinds(rendered[target], ["CronJob", "RayCronJob"]):
            maps = [t for t in rendered[target] if "job.yaml" in t.get("data", {})]
            schedule = yaml.safe_load(maps[0]["data"]["job.yaml"])["schedule"]
            asked = {"cron": cron["spec"]["schedule"], "time_zone": cron["spec"]["timeZone"]}
            assert schedule == asked, target


@pytest.mark.parametrize("path", job_files(), ids=lambda p: str(p.parent.relative_to(KUBERNETES)))
def test_job_files_can_be_used(path):
    job, _ = read_job(str(path))
    assert job.kind in ("reprocess", "score_cohort")


def test_the_template_never_runs_and_is_what_the_schedule_copies(rendered):
    for target in TARGETS:
        for cron in of_kinds(rendered[target], ["CronJob"]):
            container = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
            settings = {e["name"]: e.get("value") for e in container["env"]}
            jobs = {t["metadata"]["name"]: t for t in of_kinds(rendered[target], ["RayJob"])}
            template = jobs[settings["TEMPLATE"]]
            assert template["spec"]["suspend"] is True
            assert "kueue.x-k8s.io/queue-name" not in template["metadata"]["labels"]
            assert settings["SCHEDULE"] == cron["metadata"]["name"]


def test_what_runs_in_a_queue_gives_its_cluster_back(rendered):
    (job,) = of_kinds(rendered["cohort"], ["RayJob"])
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "deepliif-ray"
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert "enableInTreeAutoscaling" not in job["spec"]["rayClusterSpec"]  # Kueue counts fixed pods


def test_alerts_and_dashboard_name_metrics_that_are_exported(rendered):
    ours = {
        "tiles_total", "failures_total", "slides_done", "slides_left", "stage_seconds_bucket",
        "actor_busy_seconds_total", "read_wait_seconds_total",
    }  # fmt: skip
    (rules,) = of_kinds(rendered["overlays/aws"], ["PrometheusRule"])
    dashboard = json.loads((KUBERNETES / "components/monitoring/dashboard.json").read_text())
    asked = [rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"]]
    asked += [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
    named = set(re.findall(r"\bray_deepliif_(\w+)", " ".join(asked)))
    assert named == ours
