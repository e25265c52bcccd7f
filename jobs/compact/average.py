"""Average two models of the same layers: ``python average.py ONE OTHER OUTPUT``.

Half of the way between weights before and after fine-tuning on few tiles is often better on tissue that
neither has seen than both ends (Wortsman et al. 2022, WiSE-FT). What OTHER's bundle says of itself is kept.
"""

import sys

from deepliif_ray.models.bundle import read_bundle, write_bundle


def main() -> None:
    """Write the mean of two bundles' weights."""
    one, other, output = sys.argv[1:]
    before, after = read_bundle(one), read_bundle(other)
    if before.spec != after.spec:
        sys.exit(f"{one} and {other} have other layers")
    mean = {key: (before.weights[key].float() + value.float()) / 2 for key, value in after.weights.items()}
    write_bundle(output, after.name, after.spec, mean, {**after.metadata, "averaged_with": one})


if __name__ == "__main__":
    main()
