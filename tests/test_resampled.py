"""Intervals of unique detectors and of IoU differences: against images drawn anew one by one, and by simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from blocks_factory import CATEGORIES, Images, blocks, concept_table, images, layer

from ndissect.store.bootstrap import count_interval, label_differences, resampled_unique, resamples
from ndissect.store.counts import BLOCKS
from ndissect.store.scores import label_units

R = 1000


def drawn_anew(made: Images) -> list[np.ndarray]:
    """The images of each resample, as FORMAT.md defines it: blocks that hold images, drawn as often as there are."""
    there = np.unique(made.block)
    times = np.random.default_rng(0).multinomial(len(there), np.full(len(there), 1 / len(there)), size=R)
    of_block = [np.flatnonzero(made.block == b) for b in there]
    return [np.concatenate([np.tile(one, n) for one, n in zip(of_block, row, strict=True)]) for row in times]


def ious(made: Images, chosen: np.ndarray) -> np.ndarray:
    """(U, C): the IoUs over some images, each as often as it is named."""
    category = np.arange(made.concept_area.shape[1]) // (made.concept_area.shape[1] // len(CATEGORIES))
    both = made.intersection[chosen].sum(0)
    concept = made.concept_area[chosen].sum(0)
    union = made.area[chosen].sum(0)[:, category] + concept - both
    return np.where(concept > 0, both / np.maximum(union, 1), 0.0)


def counted(value: np.ndarray, dead: tuple[int, ...]) -> tuple[list[int], int]:
    """Unique detectors of each category, and by best label, by loops."""
    U, C = value.shape
    per = C // len(CATEGORIES)
    unique = [set() for _ in CATEGORIES]
    best = set()
    for u in range(U):
        if u in dead:
            continue
        for k in range(len(CATEGORIES)):
            mine = value[u, k * per : (k + 1) * per]
            if mine.max() > 0.04:
                unique[k].add(int(mine.argmax()))
        if value[u].max() >= 0.04:
            best.add(int(value[u].argmax()))
    return [len(found) for found in unique], len(best)


@pytest.mark.parametrize(("units", "seed", "dead"), [(6, 0, ()), (5, 1, (2,)), (130, 2, ()), (4, 3, (0, 1, 2, 3))])
def test_resampling_blocks_is_counting_drawn_images_anew(units: int, seed: int, dead: tuple[int, ...]) -> None:
    made = images(units, seed, skill=0.1 if units > 10 else 0.3)
    found = layer("x", made, concept_table(), dead=dead)
    assert found.leading is not None
    resampled = resampled_unique(found.leading, blocks(made))
    assert resampled is not None
    unique, best = resampled.per_category, resampled.best_label
    assert (unique.shape, best.shape) == ((R, len(CATEGORIES)), (R,))
    for r, chosen in enumerate(drawn_anew(made)[: 40 if units > 10 else R]):
        assert (unique[r].tolist(), best[r]) == counted(ious(made, chosen), dead)
    assert (unique.std(0).sum() > 0) == (len(dead) < units)


def test_equals_are_told_apart_by_the_lower_number_as_in_the_scores() -> None:
    made = images(1, 0)
    same = np.zeros_like(made.intersection)
    same[:, :, :2], same[:, :, 3] = 10, 10  # two objects and a part that cannot be told apart
    area, concept = np.full_like(made.area, 30), np.zeros_like(made.concept_area)
    concept[:, [0, 1, 3]] = 50
    made = replace(made, intersection=same, area=area, concept_area=concept)
    found = layer("x", made, concept_table())
    assert found.leading is not None
    resampled = resampled_unique(found.leading, blocks(made))
    assert resampled is not None
    assert label_units(found.best)[0].tolist() == [0]
    assert (resampled.per_category == [1, 1, 0]).all()
    assert (resampled.best_label == 1).all()


@pytest.mark.parametrize("there", [0, 1, 2])
def test_fewer_than_two_blocks_tell_nothing(there: int) -> None:
    made = images(3, count=20)
    made = replace(made, block=np.arange(20) % max(there, 1) + 5)
    if not there:
        made = Images(*(part[:0] for part in (made.intersection, made.area, made.concept_area, made.block)))
    found = layer("x", made, concept_table())
    assert found.leading is not None
    resampled = resampled_unique(found.leading, blocks(made))
    assert (resampled is None) == (there < 2)
    assert resampled is None or resampled.blocks == there


def test_what_images_do_to_both_layers_is_no_difference() -> None:
    """A unit and its twin in another layer differ by nothing; of others the interval is of paired images."""
    made, other, table = images(6, 1, count=600), images(6, 9, count=600), concept_table()
    twin = replace(
        made,
        intersection=np.concatenate([made.intersection[:, :3], other.intersection[:, :3]], 1),
        area=np.concatenate([made.area[:, :3], other.area[:, :3]], 1),
    )
    layers = [layer("x", of, table, dead=dead) for of, dead in ((made, ()), (twin, (5,)))]
    labels = [label_units(one.best)[0] for one in layers]
    assert layers[0].leading is not None and layers[1].leading is not None
    low, high = label_differences(
        (layers[0].leading, blocks(made), labels[0]), (layers[1].leading, blocks(twin), labels[1])
    )
    assert (low[:3] == 0).all() and (high[:3] == 0).all()
    drawn = drawn_anew(made)
    for u in (3, 4, 5):
        mine = [0.0 if label[u] < 0 else 1.0 for label in labels]
        pairs = [
            mine[1] * ious(twin, c)[u, labels[1][u]] - mine[0] * ious(made, c)[u, labels[0][u]] for c in drawn[:400]
        ]
        assert (high[u] - low[u]) == pytest.approx(2 * 2.04 * np.std(pairs), rel=0.2), u
        assert low[u] < np.mean(pairs) < high[u]
    assert labels[1][5] == -1 and high[5] < 0  # nothing is certain to be less than something


def test_a_label_without_counts_by_block_has_no_interval() -> None:
    made, table = images(3), concept_table()
    found = layer("x", made, table)
    assert found.leading is not None
    label = label_units(found.best)[0]
    concept = np.where(found.leading.concept == label[1], -1, found.leading.concept)
    one = (found.leading, blocks(made), label)
    low, high = label_differences(one, (replace(found.leading, concept=concept), blocks(made), label))
    assert np.isnan(low[1]) and np.isnan(high[1])
    assert (low[label != label[1]] == 0).all()


def test_the_interval_of_a_count_is_about_the_count_whatever_the_bias_of_resamples() -> None:
    random = np.random.default_rng(0)
    plain = random.binomial(100, 0.4, R)
    for bias in (-9, 0, 9):
        low, high = count_interval(40, plain + bias, BLOCKS)
        assert (low, high) == count_interval(40, plain, BLOCKS)
        assert low <= 40 - 9 and 40 + 9 <= high
    skewed = np.where(random.random(R) < 0.1, 60, 40)
    low, high = count_interval(40, skewed, BLOCKS)
    assert high - 40 > 40 - low
    assert count_interval(7, np.full(R, 7), BLOCKS) == (7, 7)
    assert count_interval(-3, np.full(R, 2), BLOCKS) == (-3, -3)


def test_the_intervals_cover_what_as_many_images_give_on_average() -> None:
    """Of 95 % intervals from 120 sets of 150 images, all but a few hold the mean over such sets.

    Outwards to whole numbers they are wider than nominal, so how wide they are is tested too; the seed is fixed.
    """
    population = images(14, 5, count=4000, skill=0.22)
    random, table = np.random.default_rng(1), concept_table()
    observed, intervals = [], []
    for _ in range(120):
        chosen = random.integers(0, 4000, 150)
        block = random.integers(0, BLOCKS, 150)
        some = Images(population.intersection[chosen], population.area[chosen], population.concept_area[chosen], block)
        found = layer("x", some, table)
        assert found.leading is not None
        resampled = resampled_unique(found.leading, blocks(some))
        assert resampled is not None
        unique, best = counted(ious(some, np.arange(150)), ())
        observed.append([sum(unique), best])
        counts = (resampled.per_category.sum(1), resampled.best_label)
        intervals.append([count_interval(n, of, BLOCKS) for n, of in zip(observed[-1], counts, strict=True)])
    mean = np.mean(observed, 0)
    assert np.std(observed, 0).min() > 0.5  # there is something to be uncertain of
    low, high = np.moveaxis(np.array(intervals), 2, 0)
    covered = ((low <= mean) & (mean <= high)).mean(0)
    assert (covered >= 0.93).all(), covered
    width = (high - low).mean(0)
    assert (width < 6 * np.std(observed, 0) + 2).all(), width  # and not by being as wide as one likes


def test_resamples_draw_each_block_as_often_as_there_are() -> None:
    held = np.array([3, 0, 5, 1])
    weights = resamples(held)
    assert (weights[:, 1] == 0).all()
    assert (weights.sum(1) == 3).all()
