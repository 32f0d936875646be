"""From counts to labels: IoU, each category's best concept, a unit's label, detectors, unique detectors."""

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndissect.store.counts import ConceptCounts, LayerCounts
from ndissect.store.scores import best_per_category, detectors, iou, label_units, unique_best_label, unique_per_category

UNIONS = ("within-category", "all-images")


def layer_counts(intersection, area, area_in_category):
    """Of one group, unless the arrays have three, two and three axes already."""
    arrays = [np.asarray(a, np.int64) for a in (intersection, area, area_in_category)]
    if arrays[1].ndim == 1:
        arrays = [a[None] for a in arrays]
    return LayerCounts(*arrays)


def concept_counts(area, images=None):
    area = np.atleast_2d(np.asarray(area, np.int64))
    return ConceptCounts(
        area, np.full_like(area, 100) if images is None else np.atleast_2d(np.asarray(images, np.int64))
    )


def living(units):
    return np.zeros(units, bool)


# --- IoU ------------------------------------------------------------------------------------------------------------


def test_iou_is_intersection_over_union():
    assert iou(np.array([3]), np.array([5]), np.array([10])).tolist() == [3 / 12]
    assert iou(np.array([7]), np.array([7]), np.array([7])).tolist() == [1.0]
    assert iou(np.array([0]), np.array([5]), np.array([10])).tolist() == [0.0]


@pytest.mark.filterwarnings("error")
def test_iou_of_an_absent_concept_and_of_an_empty_union_is_zero():
    assert iou(np.array([0, 0, 0]), np.array([5, 0, 0]), np.array([0, 0, 9])).tolist() == [0.0, 0.0, 0.0]


def test_iou_broadcasts_units_against_concepts():
    got = iou(np.array([[1, 2], [3, 4]]), np.array([[10], [20]]), np.array([[5, 6]]))
    assert got.dtype == np.float64
    assert got.tolist() == [[1 / 14, 2 / 14], [3 / 22, 4 / 22]]


def test_iou_of_counts_beyond_int32():
    assert iou(np.array([2**40]), np.array([2**41]), np.array([2**40])).tolist() == [0.5]


# --- the best concept of each category ------------------------------------------------------------------------------

CATEGORY = np.array([0, 0, 1, 1])


def by_hand():
    """Three units, four concepts of two categories, and a third category that has none.

    Unit 0: 10/30, 20/40 | 0, 5/25.  Unit 1: a tie of 4/20 | 6/24.  Unit 2 is never with anything.
    """
    layer = layer_counts(
        [[10, 20, 0, 5], [4, 4, 6, 0], [0, 0, 0, 0]],
        [60, 50, 9],
        [[20, 10, 0], [4, 10, 0], [9, 0, 0]],
    )
    return layer, concept_counts([20, 20, 20, 20], [50, 9, 10, 0])


def test_the_best_of_each_category_by_hand():
    layer, concepts = by_hand()
    best = best_per_category(layer, concepts, CATEGORY, 3, "within-category", dead=living(3))
    # Unit 0: concept 0 is 10/(20+20-10) = 1/3, concept 1 is 20/(20+20-20) = 1, concept 3 is 5/(10+20-5) = 1/5.
    # Unit 1: concepts 0 and 1 are 4/(4+20-4) = 1/5 both, concept 2 is 6/(10+20-6) = 1/4.
    assert best.concept.tolist() == [[1, 3, -1], [0, 2, -1], [-1, -1, -1]]
    assert best.iou.tolist() == [[1, 1 / 5, 0], [1 / 5, 1 / 4, 0], [0, 0, 0]]
    assert best.concept.dtype == np.int32
    assert best.iou.dtype == np.float64
    assert best.intersection.dtype == best.area.dtype == np.int64
    known = best.concept >= 0
    assert best.intersection[known].tolist() == [20, 5, 4, 6]
    assert best.area[known].tolist() == [20, 10, 4, 10]


def test_the_union_over_all_images_uses_the_whole_area():
    layer, concepts = by_hand()
    best = best_per_category(layer, concepts, CATEGORY, 3, "all-images", dead=living(3))
    assert best.concept.tolist() == [[1, 3, -1], [0, 2, -1], [-1, -1, -1]]
    assert best.iou.tolist() == [[20 / 60, 5 / 75, 0], [4 / 66, 6 / 64, 0], [0, 0, 0]]
    assert best.area[best.concept >= 0].tolist() == [60, 60, 50, 50]


def test_the_union_can_change_the_winner_between_categories():
    layer = layer_counts([[10, 10]], [1000], [[10, 1000]])
    concepts = concept_counts([40, 10])
    category = np.array([0, 1])
    within = best_per_category(layer, concepts, category, 2, "within-category", dead=living(1))
    everywhere = best_per_category(layer, concepts, category, 2, "all-images", dead=living(1))
    assert label_units(within)[0].tolist() == [0]
    assert label_units(everywhere)[0].tolist() == [1]


@pytest.mark.parametrize("union", UNIONS)
def test_dead_units_have_no_label_and_detect_nothing(union):
    layer, concepts = by_hand()
    best = best_per_category(layer, concepts, CATEGORY, 3, union, dead=np.array([True, False, False]))
    assert best.concept[0].tolist() == [-1, -1, -1]
    assert label_units(best)[0].tolist() == [-1, 2, -1]
    assert label_units(best)[1][0] == 0
    assert detectors(best).tolist() == [False, True, False]


def test_concepts_held_by_fewer_images_are_left_out():
    layer, concepts = by_hand()

    def winners(min_images):
        return best_per_category(
            layer, concepts, CATEGORY, 3, "within-category", dead=living(3), min_images=min_images
        ).concept.tolist()

    assert winners(0) == [[1, 3, -1], [0, 2, -1], [-1, -1, -1]]
    assert winners(1) == [[1, -1, -1], [0, 2, -1], [-1, -1, -1]]
    assert winners(9) == [[1, -1, -1], [0, 2, -1], [-1, -1, -1]]
    assert winners(10) == [[0, -1, -1], [0, 2, -1], [-1, -1, -1]]
    assert winners(51) == [[-1, -1, -1]] * 3


def test_groups_are_added_before_dividing_and_can_be_taken_alone():
    layer = layer_counts([[[10, 0]], [[0, 30]]], [[10], [30]], [[[10]], [[30]]])
    concepts = concept_counts([[10, 10], [30, 30]], [[3, 3], [4, 4]])
    category = np.array([0, 0])

    def found(**only):
        best = best_per_category(layer, concepts, category, 1, "within-category", dead=living(1), **only)
        return best.concept.tolist(), best.iou.tolist()

    assert found() == ([[1]], [[30 / 50]])
    assert found(group=0) == ([[0]], [[1.0]])
    assert found(group=1) == ([[1]], [[1.0]])
    assert found(min_images=7) == found()
    assert found(min_images=8) == ([[-1]], [[0.0]])


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.integers(0, 2**32 - 1), st.sampled_from(UNIONS), st.integers(0, 3), st.booleans())
def test_the_best_of_each_category_is_the_one_that_exact_fractions_find(seed, union, min_images, one_group):
    """Small counts, so that ties are common: they go to the lower concept row."""
    rng = np.random.default_rng(seed)
    G, U, C, K = rng.integers([1, 1, 3, 1], [4, 4, 6, 4])
    intersection = rng.integers(0, 3, (G, U, C))
    room = rng.integers(0, 3, (G, U, K))
    area_in_category = intersection.max(2, keepdims=True) + room
    area = area_in_category.max(2) + rng.integers(0, 3, (G, U))
    concept_area = intersection.max(1) + rng.integers(0, 3, (G, C))
    images = rng.integers(0, 4, (G, C))
    category = rng.integers(0, K, C)
    dead = rng.random(U) < 0.2
    group = int(rng.integers(0, G)) if one_group else None
    take = (lambda a: a[group]) if one_group else (lambda a: a.sum(0))
    union_area = take(area_in_category) if union == "within-category" else np.repeat(take(area)[:, None], K, axis=1)
    allowed = images.sum(0) >= min_images
    if one_group:
        min_images, allowed = 0, np.ones(C, bool)
    concept, value = oracle.best(take(intersection), union_area, take(concept_area), category, K, allowed, dead)
    best = best_per_category(
        layer_counts(intersection, area, area_in_category),
        concept_counts(concept_area, images),
        category,
        int(K),
        union,
        dead=dead,
        min_images=min_images,
        group=group,
    )
    np.testing.assert_array_equal(best.concept, concept)
    np.testing.assert_allclose(best.iou, value.astype(float), rtol=1e-15)
    for u, k in np.argwhere(concept >= 0):
        assert best.intersection[u, k] == take(intersection)[u, concept[u, k]]
        assert best.area[u, k] == union_area[u, k]
    label, label_iou = label_units(best)
    assert label.dtype == np.int32
    for u in range(U):
        ties = [c for c, v in zip(concept[u], value[u], strict=True) if v == value[u].max() and c >= 0]
        assert label[u] == (min(ties) if ties else -1)
        assert label_iou[u] == pytest.approx(float(value[u].max()), rel=1e-15)


# --- labels and the two counts of unique detectors ------------------------------------------------------------------


def best_of(ious, rows, category):
    """A Best in which unit u has these IoU, in per cent of a union of 100, with these concept rows, one a category."""
    category = np.asarray(category)
    U, K = np.shape(ious)
    intersection = np.zeros((U, len(category)), np.int64)
    for u in range(U):
        for k in range(K):
            intersection[u, rows[u][k]] = ious[u][k]
    # C = 60 for every concept, and A = 40 + I where the union is to be 100: of one category at a time.
    layer = layer_counts(intersection, np.full(U, 1000), 40 + np.asarray(ious))
    return best_per_category(
        layer, concept_counts(np.full(len(category), 60)), category, K, "within-category", dead=living(U)
    )


def test_the_two_counts_of_unique_detectors_by_hand():
    category = [0, 0, 1, 1]
    best = best_of(
        [[10, 20], [30, 5], [4, 4], [5, 3], [0, 4], [0, 0]],
        [[0, 2], [0, 2], [1, 3], [1, 3], [0, 3], [0, 2]],
        category,
    )
    assert best.iou.tolist() == [[0.1, 0.2], [0.3, 0.05], [0.04, 0.04], [0.05, 0.03], [0, 0.04], [0, 0]]
    concept, value = label_units(best)
    assert concept.tolist() == [2, 0, 1, 1, 3, -1]
    assert value.tolist() == [0.2, 0.3, 0.04, 0.05, 0.04, 0]
    # Above 0.04: concept 0 (twice) and concept 1 (by unit 3) of category 0; concept 2 (twice) of category 1.
    assert unique_per_category(best).tolist() == [2, 1]
    # Labels at 0.04 or more: 2, 0, 1, 1, 3.
    assert unique_best_label(best) == 4
    assert detectors(best).tolist() == [True, True, False, True, False, False]


def test_exactly_the_limit_is_a_best_label_but_not_a_detector():
    best = best_of([[4]], [[0]], [0])
    assert best.iou.tolist() == [[0.04]]
    assert detectors(best).tolist() == [False]
    assert unique_per_category(best).tolist() == [0]
    assert unique_best_label(best) == 1


def test_other_limits():
    best = best_of([[10, 20], [30, 5]], [[0, 1], [0, 1]], [0, 1])
    assert unique_per_category(best, above=0.1).tolist() == [1, 1]
    assert unique_per_category(best, above=0.2).tolist() == [1, 0]
    assert unique_best_label(best, at_least=0.3) == 1
    assert unique_best_label(best, at_least=0.31) == 0
    assert detectors(best, above=0.2).tolist() == [False, True]


def test_a_tie_between_categories_goes_to_the_lower_concept_row():
    """Whatever the order of the categories: concept 0 is in the second of them."""
    best = best_of([[20, 20]], [[1, 0]], [1, 0])
    assert best.concept.tolist() == [[1, 0]]
    concept, value = label_units(best)
    assert concept.tolist() == [0]
    assert value.tolist() == [0.2]


def test_no_label_at_all_counts_as_nothing():
    best = best_of([[0, 0], [0, 0]], [[0, 1], [0, 1]], [0, 1])
    assert best.concept.tolist() == [[-1, -1], [-1, -1]]
    assert label_units(best)[0].tolist() == [-1, -1]
    assert unique_per_category(best).tolist() == [0, 0]
    assert unique_best_label(best) == 0
    assert unique_best_label(best, at_least=0) == 0
    assert not detectors(best).any()
