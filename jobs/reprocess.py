"""Score what is new or outdated: ``python jobs/reprocess.py JOB.yaml``, for example jobs/reprocess.yaml."""

from deepliif_ray.cli.jobs import run_script

if __name__ == "__main__":
    run_script("reprocess")
