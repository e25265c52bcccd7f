"""Manifests as a cluster would get them, and what KubeRay's and Kubernetes' schemas say of them."""

import copy
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "infra" / "kubernetes"
TARGETS = ("overlays/local", "overlays/aws", "overlays/gcp", "cohort")
RAY_KINDS = ("RayJob", "RayCluster", "RayCronJob")
OPERATOR_KINDS = ("PodMonitor", "PrometheusRule")


def render(folder):
    """Return the objects that ``kubectl kustomize`` makes of a folder."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def clusters(thing):
    """Yield (where, RayCluster spec) of a Ray kind."""
    if thing["kind"] == "RayCluster":
        yield "spec", thing["spec"]
    elif thing["kind"] == "RayJob":
        yield "spec.rayClusterSpec", thing["spec"]["rayClusterSpec"]
    elif thing["kind"] == "RayCronJob":
        yield "spec.jobTemplate.rayClusterSpec", thing["spec"]["jobTemplate"]["rayClusterSpec"]


def templates(thing):
    """Yield (name, pod template) of everything in ``thing`` that becomes a pod."""
    name = f"{thing['kind']} {thing['metadata']['name']}"
    kind = thing["kind"]
    if kind == "CronJob":
        yield name, thing["spec"]["jobTemplate"]["spec"]["template"]
    elif kind in ("Deployment", "Job"):
        yield name, thing["spec"]["template"]
    elif kind in RAY_KINDS:
        for _, cluster in clusters(thing):
            yield f"{name} head", _with_autoscaler(cluster)
            for group in cluster["workerGroupSpecs"]:
                yield f"{name} {group['groupName']}", group["template"]
        job = thing["spec"].get("jobTemplate", thing["spec"])
        if kind != "RayCluster":
            yield f"{name} submitter", job["submitterPodTemplate"]


def _with_autoscaler(cluster):
    """Return the head's template as KubeRay makes it: the autoscaler is a container beside Ray's."""
    template = copy.deepcopy(cluster["headGroupSpec"]["template"])
    if cluster.get("enableInTreeAutoscaling"):
        options = cluster["autoscalerOptions"]
        container = {k: options[k] for k in ("securityContext", "resources", "volumeMounts") if k in options}
        image = template["spec"]["containers"][0]["image"]
        template["spec"]["containers"].append({"name": "autoscaler", "image": image, **container})
    return template


def strict(schema):
    """Return JSON Schema that says what a custom resource's does, and that unknown fields are errors."""
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    made = {k: v for k, v in schema.items() if not k.startswith("x-kubernetes") and k != "format"}
    for key in ("properties", "patternProperties"):
        if key in made:
            made[key] = {name: strict(part) for name, part in made[key].items()}
    for key in ("items", "additionalProperties"):
        if key in made:
            made[key] = strict(made[key])
    for key in ("anyOf", "oneOf", "allOf"):
        if key in made:
            made[key] = [strict(part) for part in made[key]]
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in made
    if "properties" in made and not open_ended:
        made["additionalProperties"] = False
    return made


def with_defaults(schema, value):
    """Return ``value`` with the schema's defaults filled in, as the API server does before it validates."""
    if isinstance(value, dict):
        filled = dict(value)
        for name, part in schema.get("properties", {}).items():
            if name not in filled and "default" in part:
                filled[name] = copy.deepcopy(part["default"])
        rest = schema.get("additionalProperties")
        for name, inner in filled.items():
            part = schema.get("properties", {}).get(name, rest)
            if isinstance(part, dict):
                filled[name] = with_defaults(part, inner)
        return filled
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return [with_defaults(schema["items"], inner) for inner in value]
    return value
