"""Top images: by peak, then by mean activation, then by place in the data set; never by how the work was cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ndissect.engine.measures.top import TopTracker


def expected(maps: np.ndarray, unit: int, count: int) -> list[int]:
    finite = np.where(np.isfinite(maps[:, unit]), maps[:, unit], -np.inf)
    peaks = finite.max((1, 2))
    means = np.clip(finite, np.finfo(np.float32).min, None).mean((1, 2), dtype=np.float64)
    order = sorted(range(len(maps)), key=lambda i: (-peaks[i], -means[i], i))
    return [i for i in order if np.isfinite(peaks[i])][:count]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 6), st.lists(st.integers(1, 7), min_size=1, max_size=5), st.integers(1, 4))
def test_any_cut_and_order_gives_the_same_images(seed: int, count: int, cuts: list[int], units: int) -> None:
    rng = np.random.default_rng(seed)
    images = sum(cuts)
    # Few values, so that equal peaks and equal means are common; sixteenths add up exactly.
    maps = (rng.integers(0, 4, (images, units, 2, 2)) / 16).astype(np.float32)
    numbers = rng.permutation(images)
    tracker = TopTracker(units, count, (2, 2))
    for part in np.split(numbers, np.cumsum(cuts)[:-1]):
        tracker.update(torch.from_numpy(maps[part]), part.tolist())
    found = tracker.result()
    image, peak, kept = found.image, found.peak, found.maps
    for u in range(units):
        want = expected(maps, u, count)
        assert image[u].tolist() == want + [-1] * (count - len(want))
        np.testing.assert_array_equal(peak[u, : len(want)], maps[want, u].max((1, 2)))
        np.testing.assert_array_equal(kept[u, : len(want)], maps[want, u])


def test_a_saturated_unit_shows_the_images_in_which_most_of_it_saturates() -> None:
    maps = torch.zeros(3, 1, 2, 2)
    maps[0, 0, 0, 0], maps[1, 0], maps[2, 0, 0] = 6.0, 6.0, 6.0
    tracker = TopTracker(1, 3, (2, 2))
    tracker.update(maps, range(3))
    assert tracker.result().image.tolist() == [[1, 2, 0]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_activations_are_passed_over(bad: float) -> None:
    maps = torch.tensor([[bad, 1.0], [bad, bad], [0.5, 0.25]])[:, None, None, :]
    tracker = TopTracker(1, 3, (1, 2))
    tracker.update(maps, range(3))
    found = tracker.result()
    image, peak = found.image, found.peak
    assert image.tolist() == [[0, 2, -1]]
    assert peak[0, :2].tolist() == [1.0, 0.5]
    assert np.isnan(peak[0, 2])
