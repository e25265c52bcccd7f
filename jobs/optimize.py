"""Make few objects of many: ``python jobs/optimize.py JOB.yaml``, for example jobs/optimize.yaml."""

from deepliif_ray.cli.jobs import run_script

if __name__ == "__main__":
    run_script("optimize")
