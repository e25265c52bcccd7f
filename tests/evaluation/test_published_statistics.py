"""The published statistics: their algorithm written out by hand here, and masks small enough to count."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deepliif_ray.cells.refine import refine_mask
from deepliif_ray.evaluation.fields import Rules
from deepliif_ray.evaluation.published_statistics import (
    class_masks,
    counted_regions,
    one_to_one_jaccard,
    pixel_scores,
    published_scores,
    resized,
)
from deepliif_ray.evaluation.segmentation import aggregated_jaccard, region_score

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
masks = hnp.arrays(bool, (7, 7))


def paint(side, *rectangles):
    """An image with rectangles (x, y, width, height, colour)."""
    image = np.zeros((side, side, 3), np.uint8)
    for x, y, width, height, colour in rectangles:
        image[y : y + height, x : x + width] = colour
    return image


def regions_of(mask):
    """Sets of pixels connected over eight neighbours, by their first pixel in row order."""
    left = list(zip(*np.nonzero(mask), strict=True))
    regions = []
    seen = set()
    for start in left:
        if start in seen:
            continue
        region, waiting = {start}, [start]
        while waiting:
            y, x = waiting.pop()
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)}
            new = {
                (b, a) for b, a in near if 0 <= b < mask.shape[0] and 0 <= a < mask.shape[1] and mask[b, a]
            }
            waiting += new - region
            region |= new
        seen |= region
        regions.append(region)
    return regions


def test_pixels_and_clusters_by_hand():
    seg = paint(
        40,
        (0, 0, 7, 7, RED),  # 49 px: goes
        (10, 0, 10, 5, RED),  # 50 px: stays
        (0, 10, 10, 6, RED),  # 60 red and 50 blue px touch: all of it becomes red
        (10, 10, 10, 5, BLUE),
        (0, 20, 10, 5, RED),  # 50 against 60, at a corner: all blue
        (10, 25, 10, 6, BLUE),
        (25, 0, 10, 5, RED),  # 50 against 50: red
        (25, 5, 10, 5, BLUE),
        (25, 20, 10, 10, (100, 0, 100)),  # 100 is not enough
        (25, 30, 8, 10, (200, 0, 200)),  # as blue as red: red
    )
    seg[30:32, 25:33, 1] = 100  # a boundary
    seg[12, 2] = GREEN  # a hole stays
    positive, negative = class_masks(seg)
    assert positive.sum() == 50 + (60 - 1 + 50) + (50 + 50) + 8 * 8
    assert negative.sum() == 50 + 60
    assert not positive[12, 2]
    assert positive[11, 15] and negative[22, 5] and positive[7, 30]


def test_measures_of_pixels_by_hand():
    found, truth = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    found[0, :6] = truth[0, 2:10] = True  # 6 found, 8 true, 4 of both
    assert pixel_scores(found, truth) == pytest.approx(
        {
            "pixel_accuracy": 94 / 100,  # 2 and 4 px differ
            "pixel_precision": 4 / 6,
            "pixel_recall": 4 / 8,
            "dice": 8 / 14,
            "iou": 4 / 10,
        }
    )
    nothing = np.zeros((10, 10), bool)
    assert set(pixel_scores(nothing, nothing).values()) == {1}
    for pair in ((found, nothing), (nothing, truth), (found, np.roll(found, 3, axis=0))):
        assert set(pixel_scores(*pair).values()) == {0}  # pixel accuracy too
    assert region_score(found, nothing).pixel_accuracy == 0.94


def row(text):
    return np.array([[letter == "#" for letter in text]])


def test_aji_by_hand():
    nothing = np.zeros((3, 3), bool)
    assert one_to_one_jaccard(nothing, nothing) == 0  # by the formula it is 1
    assert aggregated_jaccard(nothing.astype(np.int32), nothing.astype(np.int32)) == 1
    # One found region over two true ones of 4 px: the first takes it, ∩ 4 of ∪ 9. The second is left out:
    # the formula would count its 4 px in the union.
    truth, found = row("####.####"), row("#########")
    assert one_to_one_jaccard(found, truth) == pytest.approx(4 / 9)
    # Two found ones in a true one of 9 px: the larger is its partner, the other one counts against it.
    assert one_to_one_jaccard(truth, found) == pytest.approx(4 / (9 + 4))
    # The first true region takes what shares most pixels with it, though the second has more of it: ∩ 2 of
    # ∪ 9; the second is left with the last one, ∩ 1 of ∪ 7.
    truth = row("####.######.")
    found = row("..#######.#.")
    assert one_to_one_jaccard(found, truth) == pytest.approx((2 + 1) / (9 + 6))


@given(masks, masks)
def test_aji_is_the_published_algorithm(found, truth):
    ours, theirs = regions_of(found), regions_of(truth)
    taken, shared, union = set(), 0, 0
    for true in theirs:
        best, most = None, 0
        for number, region in enumerate(ours):
            if number not in taken and len(true & region) > most:
                best, most = number, len(true & region)
        if best is not None:
            taken.add(best)
            shared += most
            union += len(true | ours[best])
    union += sum(len(region) for number, region in enumerate(ours) if number not in taken)
    assert one_to_one_jaccard(found, truth) == pytest.approx(shared / union if union else 0)


@given(hnp.arrays(np.uint8, (14, 14, 3), elements=st.sampled_from([0, 99, 100, 101, 255])))
def test_clusters_are_the_published_algorithm(seg):
    seg = np.where(seg[..., 1:2] >= 100, seg, seg * np.array([1, 0, 1], np.uint8))
    red, green, blue = (seg[..., channel].astype(int) for channel in range(3))
    positive = (red > 100) & (green < 100) & (blue <= red)
    negative = (blue > 100) & (green < 100) & (red < blue)
    expected = np.zeros((2, 14, 14), bool)
    for region in regions_of(positive | negative):
        reds, blues = (sum(bool(mask[pixel]) for pixel in region) for mask in (positive, negative))
        if len(region) >= 50:
            for pixel in region:
                expected[int(reds < blues)][pixel] = True
    assert np.array_equal(class_masks(seg), expected)


def test_index_counts_regions_of_equal_grey():
    mask = paint(
        30,
        (0, 0, 4, 4, RED),
        (4, 4, 4, 4, RED),  # touches at a corner: the same region
        (10, 0, 4, 4, (200, 0, 0)),
        (14, 0, 4, 4, (201, 0, 0)),  # touches, but another grey: a region of its own
        (20, 0, 4, 4, (9, 0, 9)),  # below 10: nothing
        (20, 10, 4, 4, (10, 0, 0)),
        (0, 20, 4, 4, BLUE),
    )
    assert counted_regions(mask) == (5, 80.0)
    assert counted_regions(np.zeros((4, 4, 3), np.uint8)) == (0, 0.0)
    assert counted_regions(paint(4, (0, 0, 4, 4, RED))) == (0, 0.0)  # without background one is taken off


def test_a_pair_of_masks_by_hand():
    truth = paint(512, (10, 10, 20, 20, RED), (100, 10, 20, 20, RED), (10, 100, 20, 20, BLUE))
    seg = paint(512, (15, 10, 20, 20, RED), (100, 100, 20, 20, RED), (10, 100, 20, 20, BLUE))
    scores = published_scores(seg, truth, Rules())
    # Red: 400 + 400 px found, 800 true, 15 × 20 = 300 of both. The second true one has no partner, the second
    # found one neither: ∩ 300, ∪ 500, and 400 that are found in vain.
    assert scores["dice_positive"] == pytest.approx(600 / 1600)
    assert scores["iou_positive"] == pytest.approx(300 / 1300)
    assert scores["pixel_precision_positive"] == scores["pixel_recall_positive"] == pytest.approx(300 / 800)
    assert scores["pixel_accuracy_positive"] == pytest.approx(1 - 1000 / 512**2)
    assert scores["aji_positive"] == pytest.approx(300 / (500 + 400))
    assert scores["dice_negative"] == scores["aji_negative"] == 1
    assert scores["dice_mean"] == pytest.approx((600 / 1600 + 1) / 2)
    assert (scores["cells"], scores["true_cells"], scores["index_error_percent"]) == (3, 3, 0)
    assert scores["index_percent"] == pytest.approx(200 / 3)
    # An empty mask: no pixel found truly; no region counted.
    nothing = published_scores(np.zeros_like(truth), truth, Rules())
    assert (nothing["pixel_accuracy_mean"], nothing["index_percent"], nothing["cells"]) == (0, 0, 0)


def test_the_index_is_of_the_refined_mask():
    # The blue side of a cell that is red by majority makes no region of its own.
    seg = paint(512, (50, 50, 20, 20, RED), (70, 50, 5, 20, BLUE), (200, 50, 20, 20, BLUE))
    scores = published_scores(seg, seg, Rules())
    assert counted_regions(refine_mask(seg)) == (2, 50.0)
    assert (scores["cells"], scores["index_percent"]) == (2, 50)
    assert (scores["true_cells"], scores["true_index_percent"]) == (3, pytest.approx(100 / 3))


def test_resizing_by_hand():
    image = paint(2, (1, 0, 1, 1, (200, 100, 0)))
    # New pixel centres lie at −¼, ¼, ¾ and 1¼ of the old ones: ends are repeated, weights are quarters.
    assert resized(image, 4)[..., 0].tolist() == [
        [0, 50, 150, 200], [0, 38, 113, 150], [0, 13, 38, 50], [0, 0, 0, 0],
    ]  # fmt: skip
    assert resized(image, 2) is image
    checks = np.indices((4, 4)).sum(axis=0)[..., None].repeat(3, axis=2) % 2 * np.uint8(255)
    assert (resized(checks.astype(np.uint8), 2) == 128).all()


@given(hnp.arrays(np.uint8, (9, 5, 3)), st.integers(2, 12))
def test_resized_is_bilinear(image, side):
    at = [np.clip((np.arange(side) + 0.5) * length / side - 0.5, 0, length - 1) for length in (9, 5)]
    low = [np.minimum(values.astype(int), length - 2) for values, length in zip(at, (9, 5), strict=True)]
    y, x = ((values - first)[:, None] for values, first in zip(at, low, strict=True))
    rows = image[low[0]] * (1 - y)[..., None] + image[low[0] + 1] * y[..., None]
    exact = rows[:, low[1]] * (1 - x) + rows[:, low[1] + 1] * x
    assert np.abs(resized(image, side) - exact).max() <= 1


def test_grey_rims_of_large_masks_belong_to_both_classes():
    # 1,024 px: two by two make one. The column of both colours is half red, half blue: true for both.
    truth = paint(1024, (100, 100, 21, 40, RED), (121, 100, 21, 40, BLUE))
    scores = published_scores(truth, truth, Rules())
    # Red 10½ px wide and 20 high: true are 11 columns of red > 0, of blue likewise; found are 10 and 10 that
    # exceed 100, and the shared column (128, 0, 128), a tie that is red. All touch, so all 420 px are red.
    assert scores["pixel_recall_positive"] == 1
    assert scores["pixel_precision_positive"] == pytest.approx(220 / 420)
    assert scores["dice_negative"] == 0
