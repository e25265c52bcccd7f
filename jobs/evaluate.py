"""Evaluate a model: ``python jobs/evaluate.py JOB.yaml``, for example jobs/evaluate.yaml."""

from deepliif_ray.cli.jobs import run_script

if __name__ == "__main__":
    run_script("evaluate")
