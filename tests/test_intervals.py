"""The interval of an IoU and of a difference: the jackknife over blocks, and how often it holds the truth."""

import functools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndissect.store.intervals import difference_interval, iou_interval, left_out, margin, student

BLOCKS = 32


# --- its parts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("freedom", "point"),  # as the tables of any book have them
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (10, 2.228), (20, 2.086), (31, 2.040), (1e9, 1.960)],
)
def test_students_t(freedom: float, point: float) -> None:
    assert student(freedom) == pytest.approx(point, rel=0.003)


counts_by_block = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=2, max_size=6)


@given(counts_by_block)
def test_what_leaving_a_block_out_changes(blocks: list[tuple[int, int]]) -> None:
    both, rest = np.array(blocks).T
    union = both + rest
    value, change = left_out(both, union)
    for b in range(len(blocks)):
        left = int(union.sum() - union[b])
        if not left:
            assert not np.isfinite(value) or not np.isfinite(change[b])
            continue
        without = Fraction(int(both.sum() - both[b]), left)
        whole = Fraction(int(both.sum()), int(union.sum()))
        assert change[b] == pytest.approx(float(without - whole), abs=1e-14)


def test_equal_changes_have_a_degree_of_freedom_each_and_a_single_one_hardly_any() -> None:
    alike = np.array([0.01, -0.01] * 16)
    assert margin(alike) == pytest.approx(2.040 * 0.01 * np.sqrt(31), rel=0.003)
    single = np.array([0.01] + [0.0] * 31)
    assert margin(single) == pytest.approx(student(2 * 32 / 31) * 0.01 * np.sqrt(31 / 32))
    assert margin(np.zeros(32)) == 0


# --- the interval ---------------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(counts_by_block, st.integers(0, 3))
def test_it_lies_between_0_and_1_and_holds_the_iou(blocks: list[tuple[int, int]], empty: int) -> None:
    both, rest = np.array(blocks + [(0, 0)] * empty).T
    low, high = iou_interval(both, both + rest)
    if not (both + rest).any():
        assert np.isnan([low, high]).all()
        return
    value = both.sum() / (both + rest).sum()
    assert 0 <= low <= value * (1 + 1e-12)
    assert value * (1 - 1e-12) <= high <= 1


@pytest.mark.parametrize(
    ("both", "union", "expected"),
    [
        ([5, 5, 5, 5], [10, 10, 10, 10], (0.5, 0.5)),  # every block says the same
        ([7, 3, 5, 9], [7, 3, 5, 9], (1, 1)),
        ([0, 0, 0, 0], [5, 6, 7, 8], (0, 0)),
        ([3, 0, 0, 0], [9, 0, 0, 0], (0, 1)),  # one block is all there is: it says nothing of others
        ([9, 0, 0, 0], [9, 0, 0, 0], (0, 1)),
        ([0, 0, 0, 0], [0, 0, 0, 0], (np.nan, np.nan)),
        ([3], [9], (np.nan, np.nan)),
        ([], [], (np.nan, np.nan)),
    ],
)
def test_the_ends_of_what_can_be(both: list[int], union: list[int], expected: tuple[float, float]) -> None:
    assert np.allclose(iou_interval(both, union), expected, equal_nan=True)


def test_units_do_not_touch_each_other_and_pixels_have_no_size() -> None:
    both, union = (
        np.array([[1, 2, 3, 9], [0, 0, 0, 0], [4, 4, 0, 1]]),
        np.array([[9, 9, 9, 9], [0, 0, 0, 0], [9, 4, 0, 3]]),
    )
    together = np.array(iou_interval(both, union))
    for u in range(3):
        assert np.array_equal(together[:, u], iou_interval(both[u], union[u]), equal_nan=True)
    assert np.allclose(together, iou_interval(both * 2**40, union * 2**40), equal_nan=True)


def test_four_times_the_images_halve_it() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for n in (300, 1200, 4800):
        low, high = iou_interval(*counted(rng, n, 60, COMMON))
        widths.append((high - low).mean())
    assert 1.7 < widths[0] / widths[1] < 2.6
    assert 1.7 < widths[1] / widths[2] < 2.4


# --- coverage -------------------------------------------------------------------------------------------------------

# presence of the concept, log of its median share of an image; how often the unit fires there and elsewhere; overlap
COMMON = (0.3, -3.0, 0.5, 0.05, 0.7)
SHARP = (0.05, -2.5, 0.95, 0.001, 0.95)
RARE = (0.02, -3.0, 0.5, 0.03, 0.6)


def images(rng: np.random.Generator, n: int, *kinds: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """I and the union (units, n) of a concept and a unit of each kind in n images: heavy-tailed, most of them 0.

    Presence and size of the concept are those of the first kind.
    """
    present, size, *_ = kinds[0]
    shape = rng.normal(size=n)
    held = np.where(rng.random(n) < present, np.minimum(np.exp(size + shape), 1), 0)
    both, union = np.zeros((len(kinds), n)), np.zeros((len(kinds), n))
    for u, (_, _, fires, elsewhere, overlap) in enumerate(kinds):
        on = rng.random(n) < np.where(held > 0, fires, elsewhere)
        mask = np.where(on, np.minimum(np.exp(-3 + 0.5 * shape + 0.9 * rng.normal(size=n)), 1), 0)
        both[u] = np.minimum(held, mask) * rng.beta(4 * overlap, 4 - 4 * overlap, n)
        union[u] = held + mask - both[u]
    return both, union


def counted(rng: np.random.Generator, n: int, times: int, *kinds: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """I and the union by block in ``times`` data sets of n images: (units, times, 32) each."""
    block = rng.integers(0, BLOCKS, n * times) + BLOCKS * np.repeat(np.arange(times), n)
    both, union = (
        np.stack([np.bincount(block, x, times * BLOCKS) for x in of_units]).reshape(-1, times, BLOCKS)
        for of_units in images(rng, n * times, *kinds)
    )
    return both, union


@functools.cache
def true_iou(*kinds: tuple[float, ...]) -> np.ndarray:
    """(units,), from more images than any test draws."""
    both, union = images(np.random.default_rng(0), 1_000_000, *kinds)
    return np.asarray(both.sum(1) / union.sum(1))


@pytest.mark.parametrize(
    ("kind", "n"), [(COMMON, 300), (COMMON, 2000), (SHARP, 400), (SHARP, 2000), (RARE, 400), (RARE, 2000)]
)
def test_it_holds_the_true_iou_in_95_of_100_data_sets(kind: tuple[float, ...], n: int) -> None:
    times = 800
    both, union = counted(np.random.default_rng(n), n, times, kind)
    low, high = iou_interval(both, union)
    truth = true_iou(kind)
    covered = ((low <= truth) & (truth <= high)).mean()
    assert abs(covered - 0.95) <= 3 * np.sqrt(0.95 * 0.05 / times)


# --- differences ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", [(COMMON, (0.3, -3.0, 0.4, 0.03, 0.7)), (RARE, SHARP), (COMMON, RARE)])
def test_the_interval_of_a_difference_holds_it_in_95_of_100_data_sets(kinds: tuple[tuple[float, ...], ...]) -> None:
    times = 500
    both, union = counted(np.random.default_rng(5), 1000, times, *kinds)
    low, high = difference_interval((both[0], union[0]), (both[1], union[1]))
    first, second = true_iou(*kinds)
    covered = ((low <= second - first) & (second - first <= high)).mean()
    assert abs(covered - 0.95) <= 3 * np.sqrt(0.95 * 0.05 / times)


def test_what_two_units_share_cancels_out_of_their_difference() -> None:
    both, union = counted(np.random.default_rng(5), 1000, 100, COMMON)
    one = np.subtract(*iou_interval(both[0], union[0]))
    difference = np.subtract(*difference_interval((both[0], union[0]), (0.9 * both[0], union[0])))
    assert abs(difference.mean()) < 0.2 * abs(one.mean())


def test_the_difference_of_a_unit_to_itself_is_none_and_turns_with_the_order() -> None:
    first, second = ([1, 2, 3, 9], [9, 9, 9, 12]), ([4, 4, 0, 1], [9, 4, 0, 3])
    assert difference_interval(first, first) == (0, 0)
    low, high = difference_interval(first, second)
    assert difference_interval(second, first) == (-high, -low)
    assert -1 <= low < 9 / 16 - 15 / 39 < high <= 1


def test_a_difference_of_which_little_is_known() -> None:
    some, single, none = ([1, 2], [3, 9]), ([3, 0], [9, 0]), ([0, 0], [0, 0])
    assert difference_interval(some, single) == (-1, 1)
    assert np.isnan(difference_interval(some, none)).all()
    assert np.isnan(difference_interval(([1], [2]), ([1], [3]))).all()
