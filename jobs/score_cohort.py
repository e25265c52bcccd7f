"""Score a cohort: ``python jobs/score_cohort.py JOB.yaml``, for example jobs/score_cohort.yaml."""

from deepliif_ray.cli.jobs import run_script

if __name__ == "__main__":
    run_script("score_cohort")
