import re
import shlex

import pytest

from tests.infra.manifests import ROOT, templates

IMAGE = ROOT / "infra" / "image"


def instructions(text):
    """Return the (word, rest) pairs of a Dockerfile, continued lines joined and comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def problems(text):
    """Return which rules a Dockerfile breaks."""
    parts = instructions(text)
    defaults = dict(rest.split("=", 1) for word, rest in parts if word == "ARG" and "=" in rest)
    bases = [re.sub(r"\$\{(\w+)\}", lambda m: defaults[m[1]], rest) for word, rest in parts if word == "FROM"]
    stages = {base.split()[-1] for base in bases if " AS " in base}
    last = max(i for i, (word, _) in enumerate(parts) if word == "FROM")
    final = parts[last + 1 :]
    found = []
    for base in bases:
        image = base.split()[0]
        if image not in stages and not re.search(
            r":(?!latest)[\w.-]*\d+\.\d+\.\d+[\w.-]*(@sha256:\w{64})?$", image
        ):
            found.append("base not pinned")
    users = [rest for word, rest in final if word == "USER"]
    if not users or not re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]):
        found.append("user")
    if len(bases) < 2 or any(word == "RUN" and re.search(r"\bpip\b|apt-get", rest) for word, rest in final):
        found.append("build tools in the final stage")
    for word, rest in parts:
        if word == "ADD" or (word == "RUN" and re.search(r"\bcurl\b|\bwget\b|\bsudo\b", rest)):
            found.append("fetched from outside")
        if word in ("ENV", "ARG") and re.search(r"(?i)(password|secret|token)\w*=\S", rest):
            found.append("secret")
        if word == "RUN" and "pip install" in rest and not re.search(r"requirements\.lock|bill\.lock", rest):
            found.append("not pinned")
    if not any(word == "COPY" and "bill.cdx.json" in rest for word, rest in final):
        found.append("no bill of materials")
    return found


DOCKERFILE = (IMAGE / "Dockerfile").read_text()


def test_the_dockerfile_keeps_to_the_rules():
    assert problems(DOCKERFILE) == []


@pytest.mark.parametrize(
    ("problem", "old", "new"),
    [
        ("base not pinned", "python:3.11.14-slim-bookworm\n", "python:latest\n"),
        ("base not pinned", "python:3.11.14-slim-bookworm\n", "python:3\n"),
        ("user", "USER 10001:10001", "USER deepliif"),
        ("user", "USER 10001:10001", "USER 0:0"),
        (
            "build tools in the final stage",
            "RUN groupadd",
            "RUN pip install -r requirements.lock && groupadd",
        ),
        ("fetched from outside", "COPY schemas schemas", "ADD https://example.org/schemas schemas"),
        ("secret", "ENV PATH=", "ENV AWS_TOKEN=abc PATH="),
        ("not pinned", "PIP_CONSTRAINT=requirements.lock ", ""),
        ("no bill of materials", "COPY --from=bill", "# COPY --from=bill"),
    ],
)
def test_a_dockerfile_that_breaks_a_rule_is_found(problem, old, new):
    assert old in DOCKERFILE
    assert problem in problems(DOCKERFILE.replace(old, new))


def test_the_builder_is_sent_everything_that_is_copied_and_nothing_private():
    allowed = [
        line[1:] for line in (IMAGE / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"
    ]
    sources = [
        source
        for word, rest in instructions(DOCKERFILE)
        if word == "COPY" and "--from" not in rest
        for source in shlex.split(rest)[:-1]
    ]
    assert set(sources) == set(allowed)
    for source in sources:
        assert (ROOT / source).exists(), source


def test_pods_run_as_the_image_s_user(rendered):
    (user,) = {rest for word, rest in instructions(DOCKERFILE) if word == "USER"}
    for objects in rendered.values():
        for thing in objects:
            for name, template in templates(thing):
                context = template["spec"]["securityContext"]
                if "redis" not in name:
                    assert f"{context['runAsUser']}:{context['runAsGroup']}" == user, name


def test_what_makes_the_bill_is_pinned_exactly():
    lines = [line for line in (IMAGE / "bill.lock").read_text().splitlines() if line[:1] != "#"]
    assert any(line.startswith("cyclonedx-bom==") for line in lines)
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
