"""p and q: what is expected of chance, over many made-up layers of planted units among noise with unlike masks."""

import functools
from typing import NamedTuple

import numpy as np
import pytest

from ndissect.store.counts import ConceptCounts, LayerCounts
from ndissect.store.evidence import SIGNIFICANT, chance, false_discovery_rate, null_best
from ndissect.store.scores import best_per_category, iou

IMAGES, SIDE, CONCEPTS, CATEGORIES, SOURCES = 100, 8, 24, 3, 2
SEEDS = 50


class Made(NamedTuple):
    """``label`` (U,), ``observed`` (U,) and ``null`` (P, U) of a layer, and the concept (U,) that each unit follows."""

    label: np.ndarray
    observed: np.ndarray
    null: np.ndarray
    planted: np.ndarray

    def q(self, pairings: int) -> np.ndarray:
        live = np.ones(len(self.label), bool)
        return false_discovery_rate(chance(self.observed, self.null[:pairings], live))


def blobs(rng: np.random.Generator, n: int, cells: int) -> np.ndarray:
    """(n, 8, 8) normal noise, constant over squares: ``cells`` x ``cells`` of them."""
    coarse = rng.normal(size=(n, cells, cells))
    return coarse.repeat(SIDE // cells, 1).repeat(SIDE // cells, 2)


def concepts(rng: np.random.Generator) -> np.ndarray:
    """(N, C, 8, 8) bool: of every fourth one an image holds all or nothing; some in 3 images, some in half of them."""
    held = np.zeros((IMAGES, CONCEPTS, SIDE, SIDE), bool)
    for c in range(CONCEPTS):
        there = rng.permutation(IMAGES)[: int(rng.integers(3, IMAGES // 2))]
        held[there, c] = True if c % 4 == 0 else blobs(rng, len(there), 4) > rng.uniform(-0.5, 1.5)
    return held


def noise(rng: np.random.Generator, share: float) -> np.ndarray:
    """(N, 8, 8) bool: masks of one unit, spots or blobs; spread over all images, mostly in some, or in three alone."""
    maps = blobs(rng, IMAGES, int(rng.choice([2, 4, 8])))
    maps += rng.choice([0, 1, 3]) * rng.normal(size=(IMAGES, 1, 1))
    if rng.random() < 0.2:
        maps[rng.permutation(IMAGES)[:3]] += 20
    return np.asarray(maps > np.quantile(maps, 1 - share))


def layer(seed: int, *, planted: int, units: int = 40, pairings: int = 4, share: float = 0.02) -> Made:
    rng = np.random.default_rng(seed)
    held = concepts(rng)
    images, size = held.any((2, 3)).sum(0), held.mean((0, 2, 3)) / share
    clear = np.flatnonzero((images > 5) & (0.3 < size) & (size < 4))  # a mask can be much like these
    follows = np.full(units, -1)
    masks = np.stack([noise(rng, share) for _ in range(units)])
    for u in range(planted):
        c = follows[u] = rng.choice(clear)
        maps = blobs(rng, IMAGES, 8) + 6 * held[:, c]
        masks[u] = maps > np.quantile(maps, 1 - share)
    labels = held.swapaxes(0, 1).reshape(CONCEPTS, IMAGES, -1).astype(np.float32)
    pixels = masks.reshape(units, IMAGES, -1).astype(np.float32)
    observed = best(pixels, labels)
    null = [best(pixels, labels[:, wrong_images(rng)])[1] for _ in range(pairings)]
    return Made(*observed, np.array(null), follows)


def wrong_images(rng: np.random.Generator) -> np.ndarray:
    """(N,): for each image another of its source."""
    found = np.arange(IMAGES)
    for source in range(SOURCES):
        images = rng.permutation(np.arange(source, IMAGES, SOURCES))
        found[images] = np.roll(images, 1)
    return found


def best(masks: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label and IoU (U,) of masks (U, N, 64) with the labels (C, N, 64), counted densely."""
    category = np.arange(CONCEPTS, dtype=np.int32) % CATEGORIES
    there, area = held.any(2), masks.sum(2).astype(np.int64)
    in_category = np.stack([there[category == k].any(0) for k in range(CATEGORIES)], 1).astype(np.int64)
    both = (masks.reshape(len(masks), -1) @ held.reshape(CONCEPTS, -1).T).astype(np.int64)
    counts = LayerCounts(both[None], area.sum(1)[None], (area @ in_category)[None])
    of_concepts = ConceptCounts(held.sum((1, 2)).astype(np.int64)[None], there.sum(1)[None])
    dead = np.zeros(len(masks), bool)
    found = best_per_category(counts, of_concepts, category, CATEGORIES, "within-category", dead=dead)
    label, both, its_area, concept_area = null_best(found, of_concepts.area[0])
    return label, iou(both, its_area, concept_area)


@functools.cache
def layers(planted: int) -> list[Made]:
    return [layer(seed, planted=planted) for seed in range(SEEDS)]


def tolerated(rate: float, trials: int) -> float:
    """Three standard deviations above ``rate``."""
    return rate + 3 * np.sqrt(rate * (1 - rate) / trials)


# --- over many layers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pairings", [1, 2, 4])
@pytest.mark.parametrize("planted", [3, 20])
def test_of_what_counts_at_q_005_one_in_twenty_is_chance(planted: int, pairings: int) -> None:
    false = []
    for made in layers(planted):
        found = made.q(pairings) < SIGNIFICANT
        false.append((found & (made.planted < 0)).sum() / max(found.sum(), 1))
    assert np.mean(false) <= tolerated(0.05, SEEDS)


@pytest.mark.parametrize(("planted", "pairings", "least"), [(3, 2, 0.85), (3, 4, 0.92), (20, 2, 0.99), (20, 4, 0.99)])
def test_planted_units_are_found_be_they_many_or_few(planted: int, pairings: int, least: float) -> None:
    found = [(made.q(pairings) < SIGNIFICANT)[made.planted >= 0] for made in layers(planted)]
    assert np.mean(found) > least


@pytest.mark.parametrize("pairings", [1, 2, 4])
def test_in_a_layer_of_noise_nothing_counts_but_for_one_layer_in_twenty(pairings: int) -> None:
    anything = [(made.q(pairings) < SIGNIFICANT).any() for made in layers(0)]
    assert np.mean(anything) <= tolerated(0.05, SEEDS)
    assert np.mean([(made.observed > 0.04).mean() for made in layers(0)]) > 0.5  # though they are detectors by IoU


@pytest.mark.parametrize("pairings", [1, 2, 4])
def test_p_of_noise_is_as_rarely_small_as_it_says(pairings: int) -> None:
    live = np.ones(40, bool)
    p = np.concatenate([chance(made.observed, made.null[:pairings], live) for made in layers(0)])
    for cut in (0.05, 0.1, 0.2):
        assert 0.4 * cut < (p <= cut).mean() <= tolerated(cut, SEEDS * 8)  # units of a layer are not independent
    assert (p <= 0.001).mean() < 0.004


# --- by hand --------------------------------------------------------------------------------------------------------


def test_with_one_pairing_p_is_the_share_of_the_null_that_reaches_the_iou() -> None:
    null = np.array([[0.01, 0.02, 0.03, 0.04]])
    found = chance(np.array([0.05, 0.03, 0.025, 0.0]), null, np.ones(4, bool))
    assert found.tolist() == [1 / 5, 3 / 5, 3 / 5, 5 / 5]


def test_an_iou_is_weighed_against_what_is_usual_for_its_unit() -> None:
    """0.3 is nothing to a unit that reaches it with any labels; 0.06 is much for one that reaches 0.01."""
    rng = np.random.default_rng(0)
    null = 0.01 * rng.uniform(0.7, 1.4, (4, 50))
    null[:, 0] *= 30
    observed = 0.01 * np.append(30, rng.uniform(0.7, 1.4, 49))
    observed[1] = 0.06
    p = chance(observed, null, np.ones(50, bool))
    assert p[0] > 0.05
    assert p[1] < 0.001
    assert false_discovery_rate(p)[1] < SIGNIFICANT < false_discovery_rate(p)[2:].min()


def test_units_that_are_dead_are_neither_weighed_nor_in_the_null() -> None:
    observed, null = np.array([0.2, 0.0, 0.1]), np.array([[0.1, 0.0, 0.1], [0.05, 0.0, 0.1]])
    with_dead = chance(observed, null, np.array([True, False, True]))
    without = chance(observed[[0, 2]], null[:, [0, 2]], np.ones(2, bool))
    assert with_dead[[0, 2]].tolist() == without.tolist()
    assert np.isnan(with_dead[1])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("null", [np.zeros((0, 3)), np.zeros((1, 3)), np.zeros((4, 3)), np.zeros((40, 3))])
def test_a_null_of_nothing(null: np.ndarray) -> None:
    found = chance(np.array([0.1, 0.0, 0.2]), null, np.ones(3, bool))
    assert np.array_equal(found, [1 / (1 + null.size), 1, 1 / (1 + null.size)] if len(null) else [np.nan] * 3, True)
    assert np.isnan(chance(np.zeros(3), null, np.zeros(3, bool))).all()
    assert len(chance(np.zeros(0), null[:, :0], np.zeros(0, bool))) == 0


@pytest.mark.filterwarnings("error")
def test_p_falls_as_the_iou_rises_and_lies_between_0_and_1() -> None:
    rng = np.random.default_rng(0)
    for null in (rng.gamma(2, 0.01, (4, 60)), np.full((4, 60), 0.01), rng.integers(0, 2, (4, 60)) / 100):
        scaled = np.tile(null[:1], (4, 1))  # the same null for all: only the IoU differs
        p = chance(np.linspace(0, 1, 60), np.sort(scaled, 1)[:, :1].repeat(60, 1) + null.mean(), np.ones(60, bool))
        assert ((0 <= p) & (p <= 1)).all()
        assert (np.diff(p) <= 0).all()


def test_beyond_the_null_p_goes_on_falling_as_the_nulls_tail_does() -> None:
    """Of a null that is a power law with P(x > t) = t^-3, p is that power, a little more to be safe."""
    null = (np.arange(1, 2001) / 2001)[None] ** (-1 / 3) / 1000
    ious = np.array([3.0, 5.0, 20.0]) / 1000
    p = chance(np.append(ious, np.zeros(1997)), null, np.ones(2000, bool))[:3]
    exact = (ious * 1000) ** -3.0
    assert (p > exact).all()
    assert (np.log(p) / np.log(exact) > 0.9).all()
