"""The command line. Importing a module of commands adds them to the application."""

from deepliif_ray.cli import evaluation, jobs, manifest, neg_to_pos, panels, scoring, training  # noqa: F401
from deepliif_ray.cli.common import main

__all__ = ["main"]
