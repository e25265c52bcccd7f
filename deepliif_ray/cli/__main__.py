"""``python -m deepliif_ray.cli``."""

from deepliif_ray.cli import main

main()
