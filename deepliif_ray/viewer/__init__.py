"""A local web application that shows results: cohort, slides, their cells at any cut-off, and corrections."""
