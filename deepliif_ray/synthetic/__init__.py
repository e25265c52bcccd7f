"""Synthetic tissue with known truth: slides for tests and demonstrations, panels to train on."""

from deepliif_ray.synthetic.cohort import write_cohort, write_demo_cohort
from deepliif_ray.synthetic.tissue import SyntheticTissue

__all__ = ["SyntheticTissue", "write_cohort", "write_demo_cohort"]
