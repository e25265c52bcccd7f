"""Evaluate models on images with known truth."""

import json
from collections.abc import Sequence
from dataclasses import replace

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError
from deepliif_ray.evaluation.detection import REACH_UM, detect
from deepliif_ray.evaluation.fields import Cells, FieldMaps, Rules, check_mpp, find_cells, infer_field
from deepliif_ray.evaluation.outcomes import picture
from deepliif_ray.evaluation.published_statistics import SSIM_RANGE, published_scores
from deepliif_ray.evaluation.results import Evaluation, FieldScale, ModelScores
from deepliif_ray.evaluation.scores import Scores, index_scores, mask_scores, modality_scores, point_scores
from deepliif_ray.evaluation.truth import Truth, canonical, read_truths
from deepliif_ray.models import Model, load_model
from deepliif_ray.published import SEG_THRESH

PROTOCOLS = ("formulas", "published")
"""How masks are compared: by the paper's formulas, or as the statistics published with it compute them."""


def evaluate(
    model: str | Model | Sequence[str | Model],
    truth: str,
    output: str | None = None,
    *,
    kind: str = "auto",
    resolution: str = "40x",
    mpp: float | None = None,
    device: str | None = None,
    precision: str | None = None,
    modalities: Sequence[str] = (),
    seg_thresh: int = SEG_THRESH,
    size_thresh: int | None = None,
    marker_thresh: int | str | None = None,
    reach_px: float | None = None,
    reach_um: float | None = None,
    protocol: str = "formulas",
) -> Evaluation:
    """Evaluate one model, or two against each other, on images with known truth.

    Parameters
    ----------
    model : str, Model, or two of them
        What `deepliif_ray.models.load_model` takes, or a model at hand.
    truth : str
        URL of the folder of images; see `deepliif_ray.evaluation.truth.read_truths` for its layouts.
    output : str, optional
        URL of a folder to write ``evaluation.json`` and ``pictures/MODEL/IMAGE.png`` to.
    kind : {'auto', 'points', 'truth', 'seg'}
        Which truth: centroids, the panel ``truth`` or the panel ``seg``; ``auto`` takes what there is.
    resolution : {'40x', '20x', '10x'}
        Of images whose pixel size is not known.
    mpp : float, optional
        µm per pixel of the images that no ``mpp.csv`` in the folder lists. Where it is known, models see
        tissue at the scale that the engine shows them (`infer_field`), and sizes that decide are areas.
    device, precision : str, optional
        For models given by name; see `load_model`.
    modalities : sequence of str
        Modality images to compare beside those the model makes anyway, by the model's own names.
    seg_thresh, size_thresh, marker_thresh
        See `deepliif_ray.evaluation.fields.Rules`; the same hold for the model's maps and for true masks.
    reach_px, reach_um : float, optional
        How far a hit may lie from a true centroid, in pixels or in µm; 2.5 µm when neither is given, which is
        10 px at 40x.
    protocol : {'formulas', 'published'}
        How masks and modality images are compared. ``published``: as the statistics published with DeepLIIF
        do, so that their tables can be met; `deepliif_ray.evaluation.published_statistics` lists the
        differences.

    Raises
    ------
    ConfigError
        An option or the truth cannot be used.
    ModelError
        A model cannot be loaded or run.
    StorageError
        A file cannot be read or written.
    """
    rules = Rules(resolution, seg_thresh, size_thresh, marker_thresh)
    if mpp is not None:
        check_mpp(mpp, "mpp")
    for name, value, unit in (("reach_px", reach_px, "px"), ("reach_um", reach_um, "µm")):
        if value is not None and not value >= 0:
            raise ConfigError(f"{name} is {value}; give a distance of at least 0 {unit}")
    if reach_px is not None and reach_um is not None:
        raise ConfigError(f"reach_px is {reach_px:g} and reach_um {reach_um:g}; give one of them")
    if protocol not in PROTOCOLS:
        raise ConfigError(f"protocol {protocol!r} is not known; use one of {', '.join(PROTOCOLS)}")
    given = list(model) if isinstance(model, Sequence) and not isinstance(model, str) else [model]
    if not 1 <= len(given) <= 2:
        raise ConfigError(f"{len(given)} models were given; evaluate one, or compare two")
    truths = read_truths(truth, kind, mpp)
    loaded = [
        load_model(item, device, precision, modalities) if isinstance(item, str) else item for item in given
    ]
    names = [item.name for item in loaded]
    results = tuple(
        ModelScores(name if names.count(name) == 1 else f"{name} ({i + 1})", item.digest, item.precision)
        for i, (name, item) in enumerate(zip(names, loaded, strict=True))
    )
    scales: dict[str, FieldScale] = {}
    for image in truths:
        its = replace(rules, mpp=image.mpp)
        reach = reach_px if reach_px is not None else _pixels(reach_um, its.pixel_um)
        scales[image.name] = FieldScale(its.pixel_um, reach)
        for item, result in zip(loaded, results, strict=True):
            maps = infer_field(
                item, image.rgb, resolution=resolution, mpp=image.mpp, modalities=item.modality_names
            )
            cells = find_cells(maps.seg, maps.marker, its.of(item))
            result.images[image.name] = image_scores(maps, cells, image, its, reach, protocol)
            if output is not None:
                drawn = picture(cells, image, its, reach, result.name, result.images[image.name])
                storage.write_bytes(storage.join(output, "pictures", result.name, f"{image.name}.png"), drawn)
    evaluation = Evaluation(truth, kind, rules, protocol, results, scales)
    if output is not None:
        text = json.dumps(evaluation.as_json(), indent=1, ensure_ascii=False) + "\n"
        storage.write_bytes(storage.join(output, "evaluation.json"), text.encode())
    return evaluation


def _pixels(reach_um: float | None, mpp: float) -> float:
    return round((REACH_UM if reach_um is None else reach_um) / mpp, 9)


def image_scores(
    maps: FieldMaps, cells: Cells, truth: Truth, rules: Rules, reach: float, protocol: str = "formulas"
) -> Scores:
    """Return all figures that the truth of an image allows.

    Where there are centroids and a mask, the indices are those of the centroids, unless the protocol is
    ``published``, which knows no centroids.

    Raises
    ------
    ConfigError
        The protocol is ``published`` and the image has no mask.
    """
    scores: Scores = {}
    published = protocol == "published"
    if published and truth.mask is None:
        raise ConfigError(
            f"{truth.name}: the published protocol compares masks, and there is none; add truth.png or "
            "seg.png, or leave --protocol out"
        )
    if truth.points is not None:
        points = truth.points
        scores |= point_scores(detect(cells.xy, cells.positive, points.xy, points.positive, reach))
        scores |= index_scores(cells.positive, points.positive)
    if truth.mask is not None and published:
        scores |= published_scores(maps.seg, truth.mask, rules)
    elif truth.mask is not None:
        true_cells = find_cells(truth.mask, rules=rules)
        scores = mask_scores(cells, true_cells) | index_scores(cells.positive, true_cells.positive) | scores
    modalities = {canonical(name): image for name, image in maps.modalities.items()}
    value_range = SSIM_RANGE if published else 1.0
    return scores | modality_scores(modalities, truth.modalities, value_range)
