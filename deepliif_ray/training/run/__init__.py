"""A training run: its configuration, its loop on one process or many, its checkpoints and its search."""
