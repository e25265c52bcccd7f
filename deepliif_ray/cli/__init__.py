"""The command line. Importing a module of commands adds them to the application."""

from deepliif_ray.cli import evaluation, neg_to_pos, panels, results, scoring, training  # noqa: F401
from deepliif_ray.cli.common import main

__all__ = ["main"]
