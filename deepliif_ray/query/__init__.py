"""Committed results as SQL views; the only place that imports DuckDB."""

from deepliif_ray.query.ask import ask, ask_all, asking, scored
from deepliif_ray.query.sandbox import Limits
from deepliif_ray.query.session import Session
from deepliif_ray.query.views import connect

__all__ = ["Limits", "Session", "ask", "ask_all", "asking", "connect", "scored"]
