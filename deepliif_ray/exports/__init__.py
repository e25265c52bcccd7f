"""Cells of committed results in files that other programs open."""
