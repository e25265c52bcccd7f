"""The command line. Importing a module of commands adds them to the application."""

from deepliif_ray.cli import (  # noqa: F401
    evaluation,
    indices,
    jobs,
    manifest,
    neg_to_pos,
    panels,
    places,
    results,
    scoring,
    training,
)
from deepliif_ray.cli.common import main

__all__ = ["main"]
