"""Arguments of `score` from options given flat, for tests that pass them on."""

from deepliif_ray import Execution, ScoreConfig


def sorted_out(**flat):
    """Return ``flat`` with the fields of `ScoreConfig` and `Execution` put into these."""
    objects = {}
    for name, kind in {"config": ScoreConfig, "execution": Execution}.items():
        given = {key: flat.pop(key) for key in kind.model_fields if key in flat}
        if given:
            objects[name] = kind(**given)
    return flat | objects
