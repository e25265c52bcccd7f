"""Reports: a cohort, or a slide, as one HTML file that needs nothing else."""
