"""Average models of the same layers: ``python average.py OUTPUT BEFORE AFTER...``.

Half of the way between weights before and after fine-tuning on few tiles is often better on tissue that
neither has seen than both ends (Wortsman et al. 2022, WiSE-FT), and the mean of several fine-tunings of one
model is often better than each (Wortsman et al. 2022, model soups). The mean here is half BEFORE, half the
mean of all AFTER. What the first AFTER says of itself is kept.
"""

import sys

from deepliif_ray.models.bundle import read_bundle, write_bundle


def main() -> None:
    """Write the mean of the bundles' weights."""
    if len(sys.argv) < 4:
        sys.exit("usage: average.py OUTPUT BEFORE AFTER...")
    output, *uris = sys.argv[1:]
    before, *after = (read_bundle(uri) for uri in uris)
    for uri, bundle in zip(uris, (before, *after), strict=True):
        if bundle.spec != before.spec:
            sys.exit(f"{uris[0]} and {uri} have other layers")
    mean = {
        key: (value.float() + sum(bundle.weights[key].float() for bundle in after) / len(after)) / 2
        for key, value in before.weights.items()
    }
    first = after[0]
    write_bundle(output, first.name, first.spec, mean, {**first.metadata, "averaged": uris})


if __name__ == "__main__":
    main()
