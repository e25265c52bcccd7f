"""Training: panels in, networks out, on any number of workers (Ray Train)."""
