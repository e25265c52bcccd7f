#!/usr/bin/env bash
# Run the container's own command lines without a container runtime: the packages of requirements.lock in a new
# environment; a user without rights or home; a root file system that is read-only but for /tmp; no network but the
# pod's own. As in the cluster, `ray start` begins a head with token authentication and `ray job submit` sends it the
# entrypoint of the RayJob, which finds its job file in /etc/deepliif-ray.
#
# Needs root, for namespaces, and Linux; most of its time goes into installing:  infra/check_container.sh [python3.11]
set -euo pipefail
source=$(cd "$(dirname "$0")/.." && pwd)
python=$("${1:-python3.11}" -c 'import os, sys; print(os.path.realpath(sys.executable))')
work=$(mktemp --directory --tmpdir=/var/tmp check-container.XXXXXX)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
cd "$work"

echo "== installing what requirements.lock pins"
"$python" -m venv --copies venv
mkdir source etc etc-work tmp
cp -r "$source"/{pyproject.toml,README.md,LICENSE,schemas,deepliif_ray} source
export PIP_DISABLE_PIP_VERSION_CHECK=1
venv/bin/pip install --quiet --require-hashes --no-deps --requirement "$source/requirements.lock"
venv/bin/pip install --quiet --requirement "$source/requirements-torch.lock"
venv/bin/pip install --quiet --no-deps --no-build-isolation ./source
venv/bin/pip check
rm -r source
venv/bin/python - "$source"/requirements{,-torch}.lock <<'CHECK'
import re, sys
from importlib.metadata import distributions
from pathlib import Path

def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()

lines = [line for path in sys.argv[1:] for line in Path(path).read_text().splitlines()]
pins = {plain(n): v.split()[0] for n, _, v in (line.partition("==") for line in lines) if v}
found = {plain(d.name): d.version.partition("+")[0] for d in distributions()}
loose = {n: v for n, v in found.items() if pins.get(n) != v and n not in ("pip", "setuptools", "deepliif-ray")}
sys.exit(f"not pinned: {loose}" if loose else 0)
CHECK

entrypoint=$(sed -n 's/^  entrypoint: //p' "$source/infra/kubernetes/rayjob/rayjob.yaml")
mkdir etc/deepliif-ray
cat > etc/deepliif-ray/job.yaml <<'JOB'
kind: reprocess
manifest: /tmp/cohort/manifest.csv
results: /tmp/results
model: stain
JOB
chmod 1777 tmp

cat > pod.sh <<'POD'
set -euo pipefail
cd /tmp
for place in /var/tmp/x /etc/x "$HOME/x" "$VIRTUAL/x"; do
  ! touch "$place" 2> /dev/null || { echo "$place can be written" >&2; exit 1; }
done
echo "== user $(id --user), only /tmp can be written"
python -c 'from pathlib import Path; from deepliif_ray.synthetic import write_cohort
write_cohort(Path("cohort"), patients=1, side=768)'
head() { ray start --head --node-ip-address=127.0.0.1 --num-cpus=2 --object-store-memory=200000000 \
  --dashboard-host=0.0.0.0 --dashboard-agent-listen-port=52365 --metrics-export-port=8080; }
head > ray-start.log 2>&1 || { cat ray-start.log >&2; exit 1; }
for probe in 52365/api/healthz 8265/api/gcs_healthz; do  # the kubelet's and KubeRay's, without a token
  curl --silent --show-error --fail --retry 30 --retry-all-errors --retry-delay 1 "http://127.0.0.1:$probe" > /dev/null
done
if RAY_AUTH_TOKEN=wrong ray job list --address http://127.0.0.1:8265 > denied.log 2>&1; then
  echo "the job port takes any token" >&2; exit 1
fi
grep --quiet --extended-regexp '401|403|nauthor|uthenticat' denied.log || { cat denied.log >&2; exit 1; }
export RAY_ADDRESS=127.0.0.1:6379
for time in first second; do
  echo "== $time submission: $ENTRYPOINT"
  ray job submit --address http://127.0.0.1:8265 -- $ENTRYPOINT
done
curl --silent --show-error --fail http://127.0.0.1:8080/metrics | grep --count '^ray_' | sed 's/$/ metric samples/'
deepliif-ray sql /tmp/results 'SELECT count(*) AS slides, sum(n_cells) AS cells FROM slides'
ray stop --force > /dev/null 2>&1
POD

cat > namespaces.sh <<'SPACES'
set -euo pipefail
ip link set lo up
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$work/etc,workdir=$work/etc-work" /etc
mount --bind "$work/tmp" /tmp
mount -t proc proc /proc
mount -o remount,ro,bind /
mount -o remount,ro /etc
exec env --ignore-environment bash -c 'exec "$@"' - setpriv --reuid 10001 --regid 10001 --clear-groups \
  --no-new-privs --inh-caps=-all --bounding-set=-all \
  env PATH="$work/venv/bin:/usr/bin:/bin" VIRTUAL="$work/venv" HOME=/nonexistent LANG=C.UTF-8 TMPDIR=/tmp \
  PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 XDG_CACHE_HOME=/tmp/cache NUMBA_CACHE_DIR=/tmp/numba \
  RAY_USAGE_STATS_ENABLED=0 DEEPLIIF_RAY_CACHE=/tmp/slides DEEPLIIF_RAY_CACHE_GIB=1 \
  RAY_AUTH_MODE=token RAY_AUTH_TOKEN=0123456789abcdef0123456789abcdef ENTRYPOINT="$entrypoint" \
  bash "$work/pod.sh"
SPACES
work=$work entrypoint=$entrypoint unshare --mount --net --pid --fork --kill-child bash namespaces.sh
echo "== passed"
