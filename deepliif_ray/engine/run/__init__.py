"""What surrounds the slides of a run: lease, what there is to do, progress, what was done."""
