"""Evaluation: how good a model is, by the definitions of the field."""
