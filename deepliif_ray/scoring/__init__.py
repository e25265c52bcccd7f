"""What a cohort's measurements mean: markers, calling rules, intervals. Pure functions, no files."""
