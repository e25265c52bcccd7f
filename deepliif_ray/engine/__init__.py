"""The engine: a slide's way from a manifest's row to a committed record, with Ray or without.

A slide passes through `score` (a whole run), `work` and `steps` (plan, read, infer, fragments), `staging`,
`finalize` and `spill` (cells, record). `ray` spreads the steps over a cluster; `run` is what surrounds them.
"""
