"""Training on Ray Train: any number of workers, each running the same loop; or that loop in this process.

Our own checkpoints (`deepliif_ray.training.run.checkpoints`) are what runs go on from: exact, and at any URL.
Ray Train starts the workers, joins them with gloo (CPUs) or NCCL (GPUs), and starts them again when one dies.
"""

from collections.abc import Callable
from typing import Any

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from deepliif_ray import storage
from deepliif_ray.cluster import cpus
from deepliif_ray.errors import DeepliifRayError, ModelError
from deepliif_ray.training.run.board import start_board, watched
from deepliif_ray.training.run.loop import fit
from deepliif_ray.training.run.outcome import TrainProgress, TrainSummary

_RAY_FOLDER = "_ray"


def _work(job: dict[str, Any]) -> TrainSummary:
    """Train on one worker."""
    board = job.pop("board")
    return fit(
        **job,
        device=get_device(),
        watch=board.put.remote,
        report=lambda step, metrics: ray.train.report({"step": step, **metrics}),
    )


def train_on_ray(
    job: dict[str, Any],
    *,
    workers: int,
    gpus: bool,
    max_failures: int,
    watch: Callable[[TrainProgress], None],
) -> TrainSummary:
    """Run `fit` with the arguments ``job`` on workers of the connected cluster.

    Raises
    ------
    ConfigError, ModelError, StorageError
        As `fit`, whose error ended the run every time it was tried.
    """
    board = start_board()
    # Less than all CPUs: what else the run needs must find room beside the workers.
    each = {"CPU": min(1.0, 0.75 * cpus() / workers)}
    filesystem, path = storage.arrow_filesystem(job["output"])
    trainer = TorchTrainer(
        _work,
        train_loop_config=job | {"board": board},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus, resources_per_worker=each),
        run_config=RunConfig(
            name=_RAY_FOLDER,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=max_failures),
        ),
    )
    try:
        with watched(board, watch):
            result = trainer.fit()
    except TrainingFailedError as error:
        raise _cause(error) from error
    storage.remove(storage.join(job["output"], _RAY_FOLDER))
    summary: TrainSummary = result.return_value
    return summary


def _cause(error: TrainingFailedError) -> DeepliifRayError:
    """Return our own error that ended the run, or one that tells Ray's."""
    failures = error.worker_failures.values() if isinstance(error, WorkerGroupError) else ()
    # Ray hands what a worker raised on inside a wrapper that keeps its traceback.
    causes = (getattr(failure, "_base_exc", failure) for failure in failures)
    ours = [cause for cause in causes if isinstance(cause, DeepliifRayError)]
    return ours[0] if ours else ModelError(f"training failed: {error}")
