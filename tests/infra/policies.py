"""What every pod and every right in the manifests must keep to."""

import re
from ipaddress import ip_network

from tests.infra.manifests import templates

TOKEN_PODS = {
    "CronJob deepliif-reprocess"
}  # the scheduler; the autoscaler's is mounted into its container alone
INSIDE = {
    "169.254.169.254/32": "metadata address",
    "10.0.0.0/8": "private network",
    "172.16.0.0/12": "private network",
    "192.168.0.0/16": "private network",
    "100.64.0.0/10": "private network",
}
API_RIGHTS = {("ray.io", "rayjobs"): {"create", "get", "list"}}
SECRET_WORDS = re.compile(r"(?i)(password|secret|token|access_?key|credential)")


def problems(objects):
    """Return what breaks a rule, as (place, rule) pairs."""
    found = []
    for thing in objects:
        for name, template in templates(thing):
            found += [(name, rule) for rule in _of_pod(name, template["spec"])]
        found += [(f"{thing['kind']} {thing['metadata']['name']}", rule) for rule in _of_object(thing)]
    return found


def _of_pod(name, spec):
    pod = spec.get("securityContext", {})
    if pod.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "seccomp"
    if not pod.get("runAsNonRoot") or not pod.get("runAsUser"):
        yield "non-root"
    if spec.get("hostNetwork") or spec.get("hostPID") or spec.get("hostIPC"):
        yield "host namespaces"
    if spec.get("automountServiceAccountToken") is not (name in TOKEN_PODS):
        yield "token"
    for volume in spec.get("volumes", []):
        if "hostPath" in volume:
            yield "host path"
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield "volume without limit"
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        yield from _of_container(container)


def _of_container(container):
    context = container.get("securityContext", {})
    if context.get("readOnlyRootFilesystem") is not True:
        yield "read-only root"
    if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
        yield "privileges"
    if context.get("capabilities", {}) != {"drop": ["ALL"]}:
        yield "capabilities"
    if context.get("runAsUser") == 0 or context.get("runAsNonRoot") is False:
        yield "non-root"
    if not re.fullmatch(r"(\S+/)?[^:/@\s]+:(?!latest$)[^:/@\s]+(@sha256:[0-9a-f]{64})?", container["image"]):
        yield "image tag"
    resources = container.get("resources", {})
    for kind in ("requests", "limits"):
        if not {"cpu", "memory", "ephemeral-storage"} <= set(resources.get(kind, {})):
            yield kind
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "host port"
    for variable in container.get("env", []):
        if SECRET_WORDS.search(variable["name"]) and "value" in variable:
            yield "secret by value"


def _of_object(thing):
    kind = thing["kind"]
    if kind == "Secret":
        yield "secret by value"
    if kind in ("ClusterRole", "ClusterRoleBinding"):
        yield "rights"
    if kind == "Role":
        for rule in thing["rules"]:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    if not set(rule["verbs"]) <= API_RIGHTS.get((group, resource), set()):
                        yield "rights"
    if kind == "ServiceAccount" and thing.get("automountServiceAccountToken") is not False:
        yield "token"
    if kind == "Service" and thing["spec"].get("type", "ClusterIP") != "ClusterIP":
        yield "exposed"
    if kind == "Ingress":
        yield "exposed"


def _reached(block, ports):
    """Yield what a block of addresses reaches that nobody needs: metadata, and all of a private network."""
    cidr, excepted = (ip_network(block["cidr"]), [ip_network(one) for one in block.get("except", [])])
    if any(not one.subnet_of(cidr) for one in excepted):
        yield "exception outside of its block"
    for inside, name in INSIDE.items():
        network = ip_network(inside)
        if (
            network != cidr
            and network.subnet_of(cidr)
            and not any(network.subnet_of(one) for one in excepted)
        ):
            yield name
    if cidr.prefixlen == 0 and [port.get("port") for port in ports] != [443]:
        yield "more than HTTPS to outside"


def network_problems(objects):
    """Return what the network policies of a namespace leave open."""
    policies = [t["spec"] for t in objects if t["kind"] == "NetworkPolicy"]
    if not any(
        p["podSelector"] == {}
        and set(p["policyTypes"]) == {"Ingress", "Egress"}
        and not p.get("ingress")
        and not p.get("egress")
        for p in policies
    ):
        yield "no default deny"
    for policy in policies:
        for rule in policy.get("ingress", []):
            peers = rule.get("from", [])
            if not peers or any(_is_everyone(peer) for peer in peers):
                yield "ingress from everyone"
            from_outside = any("namespaceSelector" in peer for peer in peers)
            if from_outside and not rule.get("ports"):
                yield "every port to another namespace"
        for rule in policy.get("egress", []):
            for peer in rule.get("to", [{}]):
                if _is_everyone(peer) and not rule.get("ports"):
                    yield "egress to everyone"
                block = peer.get("ipBlock", {})
                if "cidr" in block:
                    yield from _reached(block, rule.get("ports", []))
    allowed = [
        peer
        for policy in policies
        for rule in policy.get("ingress", [])
        if any(port.get("port") == 8265 for port in rule.get("ports", []))
        for peer in rule["from"]
    ]
    labels = [
        {
            **peer.get("namespaceSelector", {}).get("matchLabels", {}),
            **peer.get("podSelector", {}).get("matchLabels", {}),
        }
        for peer in allowed
    ]
    if sorted(map(sorted, labels)) != [
        ["app.kubernetes.io/name", "kubernetes.io/metadata.name"],
        ["deepliif-ray.io/role"],
        ["deepliif-ray.io/submitter"],
    ]:
        yield "job port"


def _is_everyone(peer):
    if "ipBlock" in peer:
        return peer["ipBlock"]["cidr"] in ("0.0.0.0/0", "::/0")
    return not any(part for part in peer.values())
