"""Named sets of training options: what a file that says ``preset: NAME`` starts from."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from deepliif_ray.training.panels.augment import HORIZONTAL, Augment

_NESTED = ("augment", "objective_options")  # keys that are filled up key by key
_CONSTANT, _FALLING = 100, 101  # epochs at the full learning rate, and in which it falls

PRESETS: dict[str, dict[str, Any]] = {
    # What `deepliif train` does without options (nadeemlab/DeepLIIF @eab8bdd: cli.py, options/__init__.py,
    # data/aligned_dataset.py), but for its VGG term, which needs a file: ``objective_options.vgg_weights``.
    "published": {
        "objective": "deepliif",
        "objective_options": {
            "generator": "resnet_9blocks",
            "segmenter": "unet_512",
            "width": 64,
            "norm": "batch",
            "padding": "zero",
            "upsample": "convtranspose",
            "dropout": True,
            "discriminator": "n_layers",
            "discriminator_layers": 4,
            "discriminator_width": 64,
            "gan_loss": "vanilla",
            "seg_gan_loss": "lsgan",
            "l1_weight": 100.0,
            "init_gain": 0.02,
        },
        "crop": 512,
        "batch_size": 1,
        # Its loop counts from 0 to n_epochs + n_epochs_decay, both included.
        "epochs": _CONSTANT + _FALLING,
        "optimizer": "adam",
        "learning_rate": 2e-4,
        "betas": [0.5, 0.999],
        "weight_decay": 0.0,
        "schedule": "linear",
        "decay_start": _CONSTANT / (_CONSTANT + _FALLING),
        "warmup": 0,
        "gradient_clip": 0.0,
        "ema_decay": 0.0,
        "precision": "float32",
        "augment": asdict(replace(Augment.none(), flips=HORIZONTAL)),
    },
}


def with_preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys and values of a training file, filled up from the preset that it names.

    What the file says itself stays, also within ``augment`` and ``objective_options``. ``steps`` in the file
    stand in place of the preset's ``epochs``. A preset that is not known is left for validation to tell.
    """
    name = values.get("preset")
    preset = PRESETS.get(name) if isinstance(name, str) else None
    if preset is None:
        return dict(values)
    filled = {**preset, **values}
    for key in _NESTED:
        if isinstance(values.get(key), Mapping):
            filled[key] = {**preset[key], **values[key]}
    if values.get("steps") and "epochs" not in values:
        del filled["epochs"]
    return filled
