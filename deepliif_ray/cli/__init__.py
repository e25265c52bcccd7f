"""The command line. Importing a module of commands adds them to the application."""

from deepliif_ray.cli import (  # noqa: F401
    agreement,
    corrections,
    cutoffs,
    evaluation,
    export,
    export_formats,
    forgetting,
    indices,
    infer,
    jobs,
    manifest,
    neg_to_pos,
    panels,
    picture,
    places,
    regions,
    report,
    results,
    scoring,
    training,
    view,
)
from deepliif_ray.cli.common import main

__all__ = ["main"]
