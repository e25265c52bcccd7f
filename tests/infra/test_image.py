import re
import shlex
import tomllib

import pytest

from tests.infra.manifests import ROOT, templates

IMAGE = ROOT / "infra" / "image"


def instructions(text):
    """Return the (word, rest) pairs of a Dockerfile, continued lines joined and comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


PINNED = r"--require-hashes .*\.lock|--requirement requirements-torch\.lock|--no-deps --no-build-isolation \."
"""How the image's packages are installed: by digest; PyTorch by version; this package with what is there."""


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
        if word == "RUN" and "pip install" in rest and not re.search(PINNED, rest):
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
        ("not pinned", "--no-deps --no-build-isolation .", "."),
        ("not pinned", "--require-hashes --no-deps --requirement requirements.lock", "--requirement x"),
        ("not pinned", "install --require-hashes --requirement bill.lock", "install --requirement bill.lock"),
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
    assert "cyclonedx-bom" in pinned("infra/image/bill.lock")


def pinned(lock):
    """Return the packages of a lock, each of which has a version and a digest of every file."""
    lines = [line for line in (ROOT / lock).read_text().splitlines() if line[:1] != "#"]
    entries = re.split(r"(?m)^(?=\S)", "\n".join(lines))[1:]
    for entry in entries:
        assert re.fullmatch(r"[\w.-]+==[\w.]+( \\\n    --hash=sha256:[0-9a-f]{64})+\n?", entry), entry
    return {re.match(r"[\w.-]+", entry)[0].lower() for entry in entries}


def test_everything_but_pytorch_is_pinned_by_digest():
    runs, develops = pinned("requirements.lock"), pinned("requirements-dev.lock")
    assert not runs & develops
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for wanted, locked in (
        (project["dependencies"] + project["optional-dependencies"]["czi"], runs),
        (project["optional-dependencies"]["dev"], runs | develops),
    ):
        names = {re.match(r"[\w.-]+", each)[0].lower() for each in wanted}
        assert names - {"torch"} <= locked
    torch = (ROOT / "requirements-torch.lock").read_text()
    assert re.search(r"(?m)^torch==[\d.]+$", torch)
    for lock in ("requirements.lock", "requirements-dev.lock", "infra/image/bill.lock"):
        assert "://" not in (ROOT / lock).read_text()
