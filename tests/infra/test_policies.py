import copy

import pytest

from tests.few import few
from tests.infra.manifests import TARGETS
from tests.infra.policies import network_problems, problems

ALL = (*TARGETS, "raycronjob")


@pytest.mark.parametrize("target", few(ALL, 2))
def test_manifests_keep_to_the_policies(rendered, target):
    assert problems(rendered[target]) == []


@pytest.mark.parametrize("target", [t for t in ALL if t != "cohort"])
def test_network_is_closed_but_for_what_ray_needs(rendered, target):
    assert list(network_problems(rendered[target])) == []


def find(objects, kind, name):
    return next(t for t in objects if t["kind"] == kind and t["metadata"]["name"] == name)


def head(objects):
    return find(objects, "RayCluster", "deepliif-ray")["spec"]["headGroupSpec"]["template"]["spec"]


def worker(objects):
    template = find(objects, "RayJob", "deepliif-ray-template")
    return template["spec"]["rayClusterSpec"]["workerGroupSpecs"][1]["template"]["spec"]


def submitter(objects):
    return find(objects, "RayJob", "deepliif-ray-template")["spec"]["submitterPodTemplate"]["spec"]


def scheduler(objects):
    cron = find(objects, "CronJob", "deepliif-reprocess")
    return cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def autoscaler(objects):
    return find(objects, "RayCluster", "deepliif-ray")["spec"]["autoscalerOptions"]


BREAKS = {
    "seccomp": lambda o: head(o)["securityContext"].pop("seccompProfile"),
    "non-root": lambda o: worker(o)["securityContext"].pop("runAsNonRoot"),
    "host namespaces": lambda o: worker(o).update(hostNetwork=True),
    "token": lambda o: head(o).pop("automountServiceAccountToken"),
    "host path": lambda o: worker(o)["volumes"].append({"name": "h", "hostPath": {"path": "/mnt"}}),
    "volume without limit": lambda o: worker(o)["volumes"][1].update(emptyDir={}),
    "read-only root": lambda o: autoscaler(o)["securityContext"].pop("readOnlyRootFilesystem"),
    "privileges": lambda o: submitter(o)["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
    "capabilities": lambda o: scheduler(o)["containers"][0]["securityContext"]["capabilities"].update(
        add=["NET_RAW"]
    ),
    "image tag": lambda o: submitter(o)["containers"][0].update(image="deepliif-ray:latest"),
    "requests": lambda o: scheduler(o)["containers"][0]["resources"]["requests"].pop("memory"),
    "limits": lambda o: autoscaler(o)["resources"].pop("limits"),
    "host port": lambda o: head(o)["containers"][0]["ports"][0].update(hostPort=6379),
    "secret by value": lambda o: head(o)["containers"][0]["env"].append(
        {"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}
    ),
    "rights": lambda o: find(o, "Role", "deepliif-ray-scheduler")["rules"][0]["verbs"].append("delete"),
    "exposed": lambda o: find(o, "Service", "redis")["spec"].update(type="LoadBalancer"),
}


@pytest.mark.parametrize("rule", BREAKS)
def test_a_manifest_that_breaks_a_policy_is_found(rendered, rule):
    objects = copy.deepcopy(rendered["overlays/local"])
    BREAKS[rule](objects)
    assert {found for _, found in problems(objects)} == {rule}


@pytest.mark.parametrize("image", ["redis", "redis:latest", "host:5000/redis", "redis@sha256:" + "0" * 64])
def test_an_image_needs_a_tag(rendered, image):
    objects = copy.deepcopy(rendered["overlays/local"])
    worker(objects)["containers"][0]["image"] = image
    assert {found for _, found in problems(objects)} == {"image tag"}


@pytest.mark.parametrize("image", ["host:5000/redis:7.4.0", "redis:7.4.0@sha256:" + "0" * 64])
def test_an_image_may_have_a_port_and_a_digest(rendered, image):
    objects = copy.deepcopy(rendered["overlays/local"])
    worker(objects)["containers"][0]["image"] = image
    assert problems(objects) == []


def policy(objects, name):
    return find(objects, "NetworkPolicy", name)["spec"]


NETWORK_BREAKS = {
    "no default deny": lambda o: policy(o, "default-deny").update(policyTypes=["Ingress"]),
    "ingress from everyone": lambda o: policy(o, "ray-nodes")["ingress"][0].pop("from"),
    "every port to another namespace": lambda o: policy(o, "ray-nodes")["ingress"][1].pop("ports"),
    "egress to everyone": lambda o: policy(o, "ray-nodes")["egress"][1].pop("ports"),
    "metadata address": lambda o: policy(o, "ray-nodes")["egress"][1]["to"][0]["ipBlock"].pop("except"),
    "private network": lambda o: policy(o, "ray-nodes")["egress"][1]["to"][0]["ipBlock"]["except"].pop(2),
    "more than HTTPS to outside": lambda o: policy(o, "ray-nodes")["egress"][1]["ports"].append({"port": 80}),
    "exception outside of its block": lambda o: policy(o, "ray-nodes")["egress"][1]["to"][0][
        "ipBlock"
    ].update(cidr="52.0.0.0/8"),
    "job port": lambda o: policy(o, "ray-jobs-port")["ingress"][0]["from"].append(
        {"namespaceSelector": {"matchLabels": {"team": "any"}}}
    ),
}


@pytest.mark.parametrize(
    ("target", "api", "redis", "store"),
    [
        ("overlays/aws", ("10.0.0.0/28", 443), ("10.0.1.0/24", 6379), ("192.0.2.1/32", 443)),
        ("overlays/gcp", ("10.128.0.2/32", 443), ("10.128.1.0/24", 6379), ("192.0.2.1/32", 443)),
        ("overlays/local", ("172.18.0.0/16", 6443), ("192.0.2.1/32", 6379), ("172.18.0.0/16", 9000)),
    ],
)
def test_addresses_and_ports_of_an_overlay_are_those_of_its_policies(rendered, target, api, redis, store):
    def leads_to(name, rule):
        egress = policy(rendered[target], name)["egress"][rule]
        (peer,), (port,) = egress["to"], egress["ports"]
        return peer["ipBlock"]["cidr"], port["port"]

    assert [leads_to("scheduler", 0), leads_to("cluster-head", 0)] == [api] * 2
    assert [leads_to("cluster-head", 1), leads_to("redis-cleanup", 0)] == [redis] * 2
    assert leads_to("storage", 0) == store
    assert api[0] in policy(rendered[target], "ray-nodes")["egress"][1]["to"][0]["ipBlock"]["except"]
    assert not [thing for thing in rendered[target] if "egress" in thing["metadata"]["name"]]


@pytest.mark.parametrize("rule", NETWORK_BREAKS)
def test_an_open_network_is_found(rendered, rule):
    objects = copy.deepcopy(rendered["overlays/local"])
    NETWORK_BREAKS[rule](objects)
    assert rule in set(network_problems(objects))


def test_the_autoscaler_alone_holds_the_token_of_the_head(rendered):
    for target in ("overlays/local", "overlays/aws", "overlays/gcp"):
        mounts = [m["name"] for c in head(rendered[target])["containers"] for m in c["volumeMounts"]]
        assert "kubernetes" not in mounts
        assert "kubernetes" in [m["name"] for m in autoscaler(rendered[target])["volumeMounts"]]


def test_cloud_accounts_are_roles_not_keys(rendered):
    wanted = {"overlays/aws": "eks.amazonaws.com/role-arn", "overlays/gcp": "iam.gke.io/gcp-service-account"}
    for target, annotation in wanted.items():
        for name in ("deepliif-ray", "deepliif-ray-head"):
            account = find(rendered[target], "ServiceAccount", name)
            assert annotation in account["metadata"]["annotations"]
        scheduler_account = find(rendered[target], "ServiceAccount", "deepliif-ray-scheduler")
        assert "annotations" not in scheduler_account["metadata"]  # it needs nothing of the cloud


def test_gpu_workers_are_on_spot_nodes_and_heads_are_not(rendered):
    for target, spot in (("overlays/aws", {"karpenter.sh/capacity-type": "spot"}),
                         ("overlays/gcp", {"cloud.google.com/gke-spot": "true"})):  # fmt: skip
        assert spot.items() <= worker(rendered[target])["nodeSelector"].items()
        keys = {t["key"] for t in worker(rendered[target])["tolerations"]}
        assert "nvidia.com/gpu" in keys
    assert head(rendered["overlays/aws"])["nodeSelector"] == {"karpenter.sh/capacity-type": "on-demand"}
    assert "DoesNotExist" in str(head(rendered["overlays/gcp"])["affinity"])
