"""One run on a cluster, in a process of its own, with faults switched on in it and in its workers.

``python -m tests.integration.driver ADDRESS MANIFEST RESULTS '{"score": {…}, "faults": {…}}'`` ends with the
exit code of the command line.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from deepliif_ray import Execution, cli, score
from deepliif_ray.errors import DeepliifRayError

ROOT = Path(__file__).parents[2]
FAULTS = "DEEPLIIF_RAY_TEST_FAULTS"


def switch_on() -> None:
    """Switch on the faults that the environment names, in this process."""
    from deepliif_ray.engine import steps
    from deepliif_ray.engine.ray import graph, rounds
    from deepliif_ray.engine.run import lease
    from deepliif_ray.engine.work import load_work
    from deepliif_ray.models.stain import Stain

    faults = json.loads(os.environ[FAULTS])
    graph.BLOCK_TILES = steps.BLOCK_TILES = faults.get("block", 4)
    graph.NO_PROGRESS_TIMEOUT_S = faults.get("no_progress_s", 240.0)
    lease.BEAT_S, lease.STALE_S = faults.get("beat_s", 5.0), faults.get("stale_s", 60.0)
    rounds._PAUSE_S = 1.0
    infer, read, finalize = Stain.infer, steps.SlideReader.read, rounds.finalize

    def slow(self, tiles, modalities=()):
        time.sleep(faults.get("tile_s", 0.0) * len(tiles))
        return infer(self, tiles, modalities)

    def deadly(self, tasks):
        tasks = list(tasks)
        for task in tasks:
            if load_work(task.staging, self.context.run_id).entry.slide_id == faults.get("deadly"):
                os.kill(os.getpid(), signal.SIGKILL)
        return read(self, tasks)

    def deadly_end(context, folder):
        if load_work(folder, context.run_id).entry.slide_id == faults.get("deadly_end"):
            os.kill(os.getpid(), signal.SIGKILL)
        return finalize(context, folder)

    Stain.infer, steps.SlideReader.read, rounds.finalize = slow, deadly, deadly_end


def main() -> None:
    address, manifest, results, options = sys.argv[1:]
    given = json.loads(options)
    os.environ[FAULTS] = json.dumps(given.get("faults", {}))
    signal.signal(signal.SIGTERM, cli.common._terminate)
    switch_on()
    from deepliif_ray import cluster, logs

    logs.start(logs.log_config())

    init = cluster.ray.init

    def with_faults(where, **more):
        variables = {FAULTS: os.environ[FAULTS], "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment = {
            "env_vars": variables,
            "worker_process_setup_hook": "tests.integration.driver.switch_on",
        }
        return init(where, runtime_env=environment, **more)

    cluster.ray.init = with_faults
    separate = given.get("separate")
    if separate is not None:
        from functools import partial

        from deepliif_ray.engine.ray import graph

        graph.run = partial(graph.run, separate=separate)
    try:
        summary = score(
            manifest,
            results,
            model="stain",
            **given.get("score", {}),
            execution=Execution(engine="ray", address=address),
        )
    except DeepliifRayError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(cli.common.ERROR)
    except KeyboardInterrupt:
        sys.exit(cli.common.ERROR)
    print(summary)
    sys.exit(cli.common.SOME_FAILED if summary.failed else cli.common.OK)


if __name__ == "__main__":
    main()
