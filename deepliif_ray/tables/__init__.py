"""Committed results: schemas, commit records, and what a results location holds."""
