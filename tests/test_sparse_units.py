"""Layers of which few units fire at a place, most of whose values are 0: counted as any other, to the last count."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from dissecting import layer, oracle_labels, run, write_data
from networks_factory import EXACT, write_network

from ndissect.engine.data.formats import open_dataset
from ndissect.engine.measures import tally as tallying
from ndissect.engine.measures.cells import active_cells
from ndissect.engine.measures.quantile import Quantile
from ndissect.engine.measures.tally import Tally
from ndissect.engine.measures.top import TopTracker
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.passes.labels import label_batch
from ndissect.store.counts import ConceptCounts, LayerCounts
from ndissect.store.scores import best_per_category
from ndissect.store.upsampling import make_axis

UNITS = 40

# An encoder of the second layer: whole numbers, of which a bias leaves few above 0.
SPARSE = f"""{EXACT}

def sparse():
    net, transform = network()
    g = torch.Generator().manual_seed(6)
    conv = nn.Conv2d(5, {UNITS}, 1)
    conv.weight.data = torch.randint(-3, 4, conv.weight.shape, generator=g).float()
    conv.bias.data = -torch.linspace(0, 60_000, {UNITS}).round()
    net.add_module("encoder", nn.Sequential(conv, nn.ReLU()))
    return net, transform
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"{write_network(tmp_path_factory.mktemp('net'), SPARSE)}:sparse"


@pytest.mark.parametrize("batch", [5, 64])
@pytest.mark.parametrize("q", ["1/20", "1/3"])
def test_counts_thresholds_and_dead_units_equal_the_dense_oracle(net: str, data: Path, batch: int, q: str) -> None:
    outcome = run(net, data, ["encoder"], q=q, batch=batch, null=0)
    found = layer(outcome, "encoder")
    network, dataset = load_network(net), open_dataset(data)
    images = [torch.from_numpy(dataset.read(i).image.copy()).permute(2, 0, 1).float() for i in range(len(dataset))]
    with torch.no_grad():
        maps = np.concatenate([network.module(x[None]).numpy() for x in images])
    fires = (maps > 0).mean((0, 2, 3))
    assert (fires == 0).any(), "some units never fire"
    assert ((fires > 0) & (fires < Fraction(q))).any(), "of some units the threshold is 0"
    threshold = np.array([oracle.hazen(maps[:, u].ravel(), Fraction(q)) for u in range(UNITS)])
    np.testing.assert_array_equal(found.statistics.threshold, threshold)
    np.testing.assert_array_equal(found.statistics.dead, fires == 0)
    expected = oracle.count(maps, threshold, "half-pixel", oracle_labels(data, once=True), groups=2)
    assert found.counts is not None
    np.testing.assert_array_equal(found.counts.intersection, expected.intersection)
    np.testing.assert_array_equal(found.counts.area, expected.area)
    assert found.top is not None
    peaks, means = maps.max((2, 3)), maps.mean((2, 3), dtype=np.float64).astype(np.float32)
    for u in range(UNITS):
        order = sorted(range(len(maps)), key=lambda n: (-peaks[n, u], -means[n, u], n))[:4]
        shown = [int(outcome.dissection.images.index[row]) for row in found.top.image[u]]
        assert shown == order


def test_the_largest_of_rows_that_are_mostly_one_value_are_those_of_sorting() -> None:
    rng = np.random.default_rng(1)
    fires = rng.random((60, 400)) < np.linspace(0, 0.05, 60)[:, None]
    values = np.where(fires, rng.integers(1, 9, fires.shape), 0).astype(np.float32)
    values[:10] -= 3
    for q in (Fraction(1, 100), Fraction(1, 7)):
        quantile = Quantile(60, 400, q)
        quantile._select = quantile.tail.with_values(torch.from_numpy(values))
        quantile._values += 400
        quantile._start()
        expected = [oracle.hazen(row, q) for row in values]
        np.testing.assert_array_equal(quantile.result().threshold, expected)


def test_the_first_of_images_that_are_zero_throughout_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ndissect.engine.measures.top._MANY_UNITS", 1)
    maps = torch.zeros(6, 2, 2, 2)
    maps[4, 0, 0, 0] = 1
    tracker = TopTracker(2, 3, (2, 2))
    search = tracker.search(maps, maps.amax((2, 3)), maps.amin((2, 3)), [3, 5, 7, 8, 9, 11])
    rivals = search.end([])
    assert rivals.count <= 2 * 3 + 1
    tracker.take(rivals, [3, 5, 7, 8, 9, 11])
    assert tracker.result().image.tolist() == [[9, 3, 5], [3, 5, 7]]


def test_cells_that_are_counted_in_parts_give_the_same_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    maps = torch.from_numpy(np.maximum(rng.normal(0, 1, (7, 9, 3, 4)), 0).astype(np.float32))
    labels = label_batch(rng.integers(0, 4, (7, 2, 8, 8)), [[1], *[[]] * 6], np.array([0, 0, 1], np.int32), 2)
    axes, threshold = (make_axis("half-pixel", 3, 8), make_axis("half-pixel", 4, 8)), torch.full((9,), 0.5).double()

    def counted() -> LayerCounts:
        tally = Tally(9, 3, 2)
        tally.add_cells(active_cells(maps, threshold.float(), "half-pixel"), threshold, *axes, labels)
        return tally.counts()

    whole = counted()
    monkeypatch.setattr(tallying, "_PIXELS_AT_ONCE", 200)
    monkeypatch.setattr("ndissect.engine.measures.hits._TABLE_BINS", {"cpu": 0})
    for name, value in vars(counted()).items():
        np.testing.assert_array_equal(value, getattr(whole, name), err_msg=name)
    assert whole.intersection.sum() > 500


@pytest.mark.parametrize("union", ["within-category", "all-images"])
def test_the_best_concepts_of_sparse_counts_are_those_of_looking_at_all(union: str) -> None:
    rng = np.random.default_rng(3)
    U, C, K, G = 300, 30, 3, 2
    category = rng.integers(0, K, C).astype(np.int32)
    intersection = np.where(rng.random((G, U, C)) < 0.1, rng.integers(1, 4, (G, U, C)), 0)
    area = intersection.sum(2) + 3
    counts = LayerCounts(intersection, area, np.repeat(area[:, :, None], K, 2))
    held = ConceptCounts(np.full((G, C), 20), rng.integers(0, 9, (G, C)))
    dead = rng.random(U) < 0.1
    best = best_per_category(counts, held, category, K, union, dead=dead, min_images=5)
    allowed = held.images.sum(0) >= 5
    total = counts.area_in_category.sum(0)
    concept, iou = oracle.best(intersection.sum(0), total, held.area.sum(0), category, K, allowed, dead)
    np.testing.assert_array_equal(best.concept, concept)
    np.testing.assert_array_equal(best.iou, iou.astype(float))
