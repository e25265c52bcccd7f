"""The engine: what a job does, with Ray or without."""
