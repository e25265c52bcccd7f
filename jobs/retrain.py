"""Train a model: ``python jobs/retrain.py JOB.yaml``, for example jobs/retrain.yaml."""

from deepliif_ray.cli.jobs import run_script

if __name__ == "__main__":
    run_script("retrain")
