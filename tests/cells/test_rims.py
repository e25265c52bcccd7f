"""Stain around nuclei: as a whole-image reference says, and the same however the image is cut."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from deepliif_ray.cells import extract_cells
from deepliif_ray.cells.densities import STAINS
from deepliif_ray.cells.extract import cells_table
from deepliif_ray.cells.fragments import blank_core, measure_core
from deepliif_ray.cells.measures import M
from deepliif_ray.cells.nearest import RIM_NUMBERS
from deepliif_ray.cells.nodes import SlideCells
from deepliif_ray.cells.rims import RimReach, from_frame, to_frame
from deepliif_ray.cells.seams import SeamJoiner, join_rows
from deepliif_ray.errors import ConfigError
from tests.cells import maps

COLUMNS = ["rim_px", "rim_dab_od_mean", "rim_stained_percent", "cytoplasm_px", "cytoplasm_dab_od_mean"]
EVERYTHING = {"noise_thresh": 0, "large_noise_thresh": None}


def reference(seg, rgb, mpp):
    """Return the columns of every nucleus in row order of first pixels, pixel by pixel on the whole image."""
    known = (seg[..., 0].astype(int) + seg[..., 2] > 120) & (seg[..., 1] <= 80)
    regions, _ = ndimage.label(~known)
    border = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    nucleus = known | ~np.isin(regions, border[border > 0])
    labels, count = ndimage.label(nucleus, structure=np.ones((3, 3)))
    parts = [STAINS[channel, 1][rgb[..., channel]] for channel in range(3)]
    dab = np.floor((np.maximum(0, sum(parts)) + 500) / 1000).astype(int)
    pixels = np.argwhere(
        nucleus
    )  # in row order, so that the first of several nearest ones is the least of them
    owned = {index: [] for index in range(1, count + 1)}
    for y, x in np.argwhere(~nucleus) if count else ():
        squared = ((pixels - (y, x)) ** 2).sum(axis=1)
        nearest = int(squared.argmin())
        owned[labels[tuple(pixels[nearest])]].append((int(squared[nearest]), int(dab[y, x])))
    rows = []
    for index in sorted(owned, key=lambda index: int(np.flatnonzero(labels.ravel() == index)[0])):
        rim, cytoplasm = (
            [od for squared, od in owned[index] if squared <= (um / mpp) ** 2] for um in (2.0, 4.0)
        )
        rows.append(
            {
                "rim_px": len(rim),
                "rim_dab_od_mean": sum(rim) / (1000 * len(rim)) if rim else None,
                "rim_stained_percent": sum(100 for od in rim if od >= 200) / len(rim) if rim else None,
                "cytoplasm_px": len(cytoplasm),
                "cytoplasm_dab_od_mean": sum(cytoplasm) / (1000 * len(cytoplasm)) if cytoplasm else None,
            }
        )
    return rows


def picture(classes, seed=0):
    rng = np.random.default_rng(seed)
    return maps.colour(classes), rng.integers(0, 256, (*classes.shape, 3), np.uint8)


def measured(classes, mpp, core=None, **options):
    seg, rgb = picture(classes)
    return extract_cells(seg, rgb=rgb, mpp=mpp, core=core, **EVERYTHING | options).table


@st.composite
def _classes(draw):
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["sparse", "noise", "blobs", "rings", "broken", "spiral", "full", "empty"]))
    if kind in ("sparse", "noise"):
        return maps.noise(rng, height, width, 0.02 if kind == "sparse" else 0.4)
    if kind == "blobs":
        return maps.blobs(rng, height, width, 6)
    if kind in ("rings", "broken"):
        return maps.rings(height, width, 4, broken=kind == "broken")
    return (
        maps.spiral(height, width, 4) if kind == "spiral" else np.full((height, width), kind == "full", int)
    )


_MPP = st.sampled_from([0.2, 0.3, 0.5, 0.8, 1.0, 2.5, 5.0])  # from 20 pixels to none


@settings(max_examples=300, deadline=None)
@given(_classes(), _MPP, st.integers(1, 41))
@example(np.eye(24, dtype=int)[::-1], 0.5, 1)
def test_every_cut_gives_what_the_whole_image_gives(classes, mpp, core):
    expected = reference(*picture(classes), mpp)
    whole = measured(classes, mpp)
    assert whole.select(COLUMNS).to_pylist() == expected
    assert measured(classes, mpp, core).equals(whole)


@st.composite
def _edges(draw, length):
    cuts = draw(st.lists(st.integers(1, max(1, length - 1)), max_size=6, unique=True))
    return np.array([0, *sorted(cut for cut in cuts if cut < length), length], dtype=np.int64)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.data(), _classes(), _MPP)
def test_cores_of_any_size_give_the_same(data, classes, mpp):
    """Rows and columns of any height and width beside one another: a reach that spans many, and wide ones."""
    height, width = classes.shape
    rows, columns = data.draw(_edges(height)), data.draw(_edges(width))
    seg, rgb = picture(classes)
    reach = RimReach.at(mpp)

    def joined(rows, columns):
        cores = (
            measure_core(
                seg[y0:y1, x0:x1], None, rgb[y0:y1, x0:x1], core=(x0, y0, x1, y1), slide=(width, height),
                seg_thresh=120, large_noise_thresh=None, reach=reach,
            )
            for y0, y1 in pairwise(rows.tolist())
            for x0, x1 in pairwise(columns.tolist())
        )  # fmt: skip
        cells = SlideCells.merge(list(join_rows(cores, columns, rows, **EVERYTHING, reach=reach)))
        return cells_table(cells, has_marker=False, has_rgb=True, has_rim=True)

    assert joined(rows, columns).equals(joined(np.array([0, height]), np.array([0, width])))


def rim_of(classes, mpp=1.0, **options):
    """Return rim_px and cytoplasm_px of every nucleus; at 1 µm per pixel rims are 2 pixels wide."""
    rows = measured(np.asarray(classes), mpp, **options).to_pylist()
    return [(row["rim_px"], row["cytoplasm_px"]) for row in rows]


def test_a_single_pixel_has_the_disc_around_it():
    classes = np.zeros((11, 11), int)
    classes[5, 5] = 1
    # 1, 4, 4, 4 ... lattice points: 13 within 2, 49 within 4, the pixel itself left out
    assert rim_of(classes) == [(12, 48)]


def test_a_nucleus_in_the_corner_has_what_is_on_the_slide():
    classes = np.zeros((11, 11), int)
    classes[0, 0] = 1
    assert rim_of(classes) == [(5, 16)]


def test_the_middle_between_two_goes_to_the_upper_then_to_the_left_one():
    beside = np.zeros((1, 7), int)
    beside[0, [1, 5]] = 1
    assert rim_of(beside) == [(3, 3), (2, 2)]
    one_below_the_other = beside.T
    assert rim_of(one_below_the_other) == [(3, 3), (2, 2)]
    crossed = np.zeros((3, 3), int)
    crossed[2, 0] = crossed[0, 2] = 1  # the left one is lower, so all of the diagonal is the right one's
    assert rim_of(crossed) == [(5, 5), (2, 2)]


def test_nuclei_side_by_side_share_the_pixels_between_them():
    classes = np.zeros((9, 40), int)
    classes[2:7, 4:9] = 1
    classes[2:7, 10:15] = 2  # one column lies between them
    left, right = rim_of(classes)
    assert left[1] + right[1] == sum(row["cytoplasm_px"] for row in reference(*picture(classes), 1.0))
    alone = np.where(classes == 1, 1, 0)
    assert left < rim_of(alone)[0]


def test_a_nucleus_without_room_has_no_rim():
    table = measured(np.ones((6, 6), int), 0.5).to_pylist()
    assert [[row[name] for name in COLUMNS] for row in table] == [[0, None, None, 0, None]]


def test_what_lies_in_a_hole_is_nucleus_and_no_rim():
    classes = np.zeros((20, 20), int)
    classes[4:16, 4:16] = 1
    classes[5:15, 5:15] = 0
    classes[9:11, 9:11] = 2  # another nucleus, enclosed: the two are one, and nothing inside is rim
    filled = np.where(classes > 0, classes, 0)
    filled[4:16, 4:16] = 1
    for core in (None, 7, 10, 3):
        assert rim_of(classes, core=core) == rim_of(filled)
    classes[4, 9] = 0  # it opens: now there are two nuclei, and what lies between them is theirs
    opened = rim_of(classes)
    assert len(opened) == 2
    for core in (7, 10, 3, 1):
        assert rim_of(classes, core=core) == opened


def test_noise_and_artefacts_own_pixels_but_are_no_cells():
    classes = np.zeros((12, 20), int)
    classes[4:8, 4:8] = 1
    classes[5, 10] = 1
    speck_counts = rim_of(classes)
    assert rim_of(classes, noise_thresh=64) == speck_counts[:1]
    assert rim_of(classes, large_noise_thresh=160) == speck_counts[1:]


def test_stain_of_the_rim_alone_is_measured():
    """A brown ring, 2 px wide, around a nucleus without brown, in white."""
    classes = np.zeros((31, 31), int)
    classes[12:19, 12:19] = 2
    distance = ndimage.distance_transform_edt(classes == 0)
    brown = np.rint(255 * 10 ** (-0.8 * np.array([0.268, 0.570, 0.776]))).astype(np.uint8)
    rgb = np.full((31, 31, 3), 255, np.uint8)
    rgb[(distance > 0) & (distance <= 2)] = brown
    (cell,) = extract_cells(maps.colour(classes), rgb=rgb, mpp=1.0, core=16).table.to_pylist()
    assert cell["dab_od_mean"] == 0
    assert cell["rim_dab_od_mean"] == pytest.approx(0.8, abs=0.01)
    assert cell["rim_stained_percent"] == 100
    share = cell["rim_px"] / cell["cytoplasm_px"]
    assert cell["cytoplasm_dab_od_mean"] == pytest.approx(0.8 * share, abs=0.01)


def test_radii_follow_the_scale():
    assert RimReach.at(0.25) == RimReach(64, 256)
    assert RimReach.at(0.5).pixels == 8
    assert RimReach.at(0.3) == RimReach(44, 177)  # 6.67² and 13.33²
    assert RimReach.at(0.1).pixels == 40


@pytest.mark.parametrize("mpp", [0, -1, math.nan, 1e-6, 1000])
def test_an_impossible_scale_is_refused(mpp):
    with pytest.raises(ConfigError, match="mpp is"):
        measured(np.ones((3, 3), int), mpp)


def test_a_core_that_nobody_looked_at_is_glass():
    """Beside one of white pixels, a blank core gives the neighbour's nuclei the same."""
    classes = np.zeros((40, 80), int)
    classes[10:20, 30:40] = 1
    seg, rgb = picture(classes)
    rgb[:, 40:] = 255
    reach, slide = RimReach.at(0.5), (80, 40)
    options = {"seg_thresh": 120, "large_noise_thresh": None, "reach": reach}
    left, right = (
        measure_core(
            seg[:, x : x + 40], None, rgb[:, x : x + 40], core=(x, 0, x + 40, 40), slide=slide, **options
        )
        for x in (0, 40)
    )
    blank = blank_core(core=(40, 0, 80, 40), slide=slide, background_marker=None, reach=reach)
    edges = np.array([0, 40, 80]), np.array([0, 40])
    found = [
        SlideCells.merge(list(join_rows([left, other], *edges, **EVERYTHING, reach=reach))).measures
        for other in (right, blank)
    ]
    assert np.array_equal(*found)
    assert found[0][0, M["cytoplasm"]] > found[0][0, M["rim"]] > 0


@given(
    st.integers(1, 9), st.integers(1, 9), st.lists(st.booleans(), min_size=4, max_size=4), st.integers(0, 6)
)
def test_frames_hold_what_lies_near_shared_sides(height, width, sides, depth):
    image = np.arange(1, height * width + 1, dtype=np.int32).reshape(height, width)
    shared = np.array(sides)
    y, x = np.mgrid[:height, :width]
    distances = np.stack([x, y, width - 1 - x, height - 1 - y])
    near = (distances[shared] < depth).any(axis=0)
    back = from_frame(to_frame(image, shared, depth), image.shape, shared, depth)
    assert np.array_equal(back, np.where(near, image, 0))


def test_cells_far_from_a_side_are_final_at_once():
    """Only those whose rim may go beyond the lower side wait for the next row of cores."""
    classes = np.zeros((96, 32), int)
    classes[10:14, 10:14] = classes[40:44, 10:14] = 1  # the second ends 5 rows above the seam
    seg, rgb = picture(classes)
    rows, columns, reach = np.array([0, 48, 96]), np.array([0, 32]), RimReach.at(0.8)
    cores = [
        measure_core(
            seg[y : y + 48], None, rgb[y : y + 48], core=(0, y, 32, y + 48), slide=(32, 96), seg_thresh=120,
            large_noise_thresh=None, reach=reach,
        )
        for y in (0, 48)
    ]  # fmt: skip
    assert reach.pixels == 5
    assert [len(cells) for cells in join_rows(cores, columns, rows, **EVERYTHING, reach=reach)] == [1, 1]


def test_what_waits_does_not_grow_with_the_height():
    """A piece of tissue repeated downwards: every row of cores leaves as much for the next one."""
    rng = np.random.default_rng(4)
    seg, rgb = picture(maps.noise(rng, 32, 96, 0.05))
    reach, rows = RimReach.at(0.5), 12
    joiner = SeamJoiner(np.arange(0, 97, 32), noise_thresh=0, large_noise_thresh=None, reach=reach)
    waiting = []
    for row in range(rows):
        cores = [
            measure_core(
                seg[:, x : x + 32], None, rgb[:, x : x + 32], core=(x, 32 * row, x + 32, 32 * row + 32),
                slide=(96, 32 * rows), seg_thresh=120, large_noise_thresh=None, reach=reach,
            )
            for x in (0, 32, 64)
        ]  # fmt: skip
        joiner.add(cores, 32, last=row == rows - 1)
        waiting.append((joiner.carried, len(joiner._rims), joiner._rim_seams.waiting.shape))
    assert len(set(waiting[1:-1])) == 1
    assert waiting[1][0] > 10 and waiting[1][2] == (2 * reach.pixels, 96)
    assert waiting[-1] == (0, 0, (0, 96))


def test_numbers_are_columns():
    assert set(RIM_NUMBERS) <= set(M)
