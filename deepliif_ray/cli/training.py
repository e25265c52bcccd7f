"""Commands that train models and search for how to."""

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from deepliif_ray.cli.common import app, command_name, stoppable
from deepliif_ray.console import Format, errors, show

if TYPE_CHECKING:
    from deepliif_ray.training.run.outcome import TrainProgress

_BAR = 24

ConfigArgument = Annotated[str, typer.Argument(help="URL of the configuration, a YAML file.")]
AddressOption = Annotated[
    str | None,
    typer.Option(help="Address of a Ray cluster; by default $RAY_ADDRESS, or this machine alone."),
]
StepsOption = Annotated[int | None, typer.Option(help="Updates, in place of the configuration's.")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu or cuda; by default GPUs if there are any.")]


def describe_training(progress: "TrainProgress") -> str:
    """Return one line on how far a training run is."""
    full = round(_BAR * progress.step / progress.steps)
    trial = f"trial {progress.trial} " if progress.trial else ""
    parts = [f"{trial}{'━' * full}{'╌' * (_BAR - full)} step {progress.step:,}/{progress.steps:,}"]
    parts += [f"{name} {value:.3g}" for name, value in progress.losses.items()]
    shown = ("l1_seg", "l1_ihc", "dice")
    parts += [f"validation {name} {value:.4f}" for name, value in progress.metrics.items() if name in shown]
    parts.append(f"{progress.samples_per_second:.1f} samples/s")
    if progress.seconds_left is not None:
        parts.append(f"{int(progress.seconds_left) // 60}:{int(progress.seconds_left) % 60:02d} left")
    return " · ".join(parts)


@app.command()
def train(
    config: ConfigArgument,
    output: Annotated[str, typer.Argument(help="URL of the folder for checkpoints, records and the model.")],
    workers: Annotated[int, typer.Option(help="Processes that share every batch.")] = 1,
    engine: Annotated[str, typer.Option(help="ray, or local: this process alone.")] = "ray",
    address: AddressOption = None,
    device: DeviceOption = None,
    steps: StepsOption = None,
    max_failures: Annotated[int, typer.Option(help="How often a worker may die.")] = 3,
    restart: Annotated[bool, typer.Option("--restart", help="Remove what is there and start over.")] = False,
) -> None:
    """Train a model and export it; run it again to go on after a stop."""
    from deepliif_ray.training.run.config import load_config
    from deepliif_ray.training.run.train import train as run

    with stoppable(describe_training) as progress:
        summary = run(
            load_config(config, steps=steps),
            output,
            workers=workers,
            engine=engine,
            address=address,
            device=device,
            resume=not restart,
            max_failures=max_failures,
            watch=progress,
        )
    found = ", ".join(f"{name} {value:.4f}" for name, value in summary.metrics.items())
    errors.print(
        f"{summary.step:,} steps{' (stopped early)' if summary.stopped_early else ''}; "
        f"exported step {summary.exported_step:,}{': ' if found else ''}{found}"
    )
    errors.print(
        f"next: {command_name()} score MANIFEST RESULTS --model {shlex.quote(summary.model)}", markup=False
    )


@app.command()
def tune(
    config: ConfigArgument,
    output: Annotated[str, typer.Argument(help="URL of the folder for trials and the best configuration.")],
    trials: Annotated[int, typer.Option(help="Configurations to try.")] = 20,
    space: Annotated[
        str | None, typer.Option(help="URL of a YAML file of the search space; by default the paper's.")
    ] = None,
    concurrent: Annotated[int, typer.Option(help="Trials side by side.")] = 1,
    address: AddressOption = None,
    device: DeviceOption = None,
    steps: StepsOption = None,
    form: Annotated[Format, typer.Option("--format", help="How to write the table.")] = Format.TABLE,
) -> None:
    """Search for the configuration with the smallest validation error of the segmentation."""
    from deepliif_ray.training.run.config import load_config
    from deepliif_ray.training.run.tune import tune as run

    with stoppable(describe_training) as progress:
        summary = run(
            load_config(config, steps=steps),
            output,
            trials=trials,
            space=space,
            concurrent=concurrent,
            address=address,
            device=device,
            watch=progress,
        )
    show(summary.table, form)
    errors.print(f"next: {command_name()} train {shlex.quote(summary.best)} OUTPUT", markup=False)
