"""Layers of one value an image are judged on images: what they are high in, against what the images hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cli
import h5py
import numpy as np
import oracle
import pytest
import torch
from dissecting import GRID, IMAGES, layer, oracle_labels, run, write_data
from faults import numbers
from networks_factory import EXACT, write_network

from ndissect.engine.data.formats import open_dataset
from ndissect.engine.machine.console import Console
from ndissect.engine.machine.memory import Budget
from ndissect.engine.measures.pairing import null_images
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.passes.labels import label_batch
from ndissect.engine.run.merged_store import merge_to_store
from ndissect.engine.run.options import Options
from ndissect.engine.run.to_store import dissect_to_store
from ndissect.store.bootstrap import block_of
from ndissect.store.counts import BLOCKS
from ndissect.store.reader import Store
from ndissect.store.writer import write_store
from ndissect.tui.app.session import Session
from ndissect.tui.app.unit import unit_listing
from ndissect.tui.cli.compare_tables import long
from ndissect.tui.pictures.sheets import unit_panels
from ndissect.tui.reports.report import unit_data
from ndissect.tui.tables.compared_stores import compare_stores
from ndissect.tui.tables.remarks import layer_notes
from ndissect.tui.tables.unit_table import unit_arrays
from ndissect.tui.tables.views import best_json, ranked_concepts

PAIRINGS, Q = 3, "1/4"

# After the convolutions an average of 16 places and a convolution of that: whole sixteenths, exact in float32.
POOLED = f"""{EXACT}

def pooled():
    net, transform = network()
    net.add_module("pool", nn.AdaptiveAvgPool2d(1))
    net.add_module("head", nn.Conv2d(5, 7, 1))
    g = torch.Generator().manual_seed(5)
    net.head.weight.data = torch.randint(-3, 4, net.head.weight.shape, generator=g).float()
    net.head.bias.data = torch.arange(7).float()
    net.head.weight.data[6] = 0
    return net, transform
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"{write_network(tmp_path_factory.mktemp('net'), POOLED)}:pooled"


@pytest.fixture(scope="module")
def values(net: str, data: Path) -> np.ndarray:
    """(N, U, 1, 1): the head's value of each image, computed image by image without hooks."""
    network, dataset = load_network(net), open_dataset(data)
    images = [torch.from_numpy(dataset.read(i).image.copy()).permute(2, 0, 1).float() for i in range(len(dataset))]
    with torch.no_grad():
        return np.concatenate([network.module(x[None]).numpy() for x in images])


def best_of(counts: oracle.Counts, labels: oracle.Labels, union: str, dead: np.ndarray) -> np.ndarray:
    K = labels.categories
    area = counts.area_in_category.sum(0) if union == "within-category" else counts.area.sum(0)[:, None].repeat(K, 1)
    return oracle.best(
        counts.intersection.sum(0),
        area,
        counts.concept_area.sum(0),
        labels.category,
        K,
        np.ones(len(labels.category), bool),
        dead,
    )


# Counted


@pytest.mark.parametrize("protocol", ["netdissect", "cvpr2017", "lite", "pnas2020"])
@pytest.mark.parametrize("memory", [Budget(1 << 30, 1 << 30), Budget(2000, 2000)], ids=["one pass", "second pass"])
def test_every_count_equals_the_dense_oracle_on_a_grid_of_one_cell_an_image(
    net: str, data: Path, values: np.ndarray, protocol: str, memory: Budget
) -> None:
    outcome = run(net, data, ["second", "head"], protocol, q=Q, batch=5, memory=memory, null=0)
    found, d = layer(outcome, "head"), outcome.dissection
    assert (found.judged_on, found.map_size) == ("images", (1, 1))
    threshold = np.array([oracle.hazen(values[:, u].ravel(), d.protocol.q) for u in range(7)])
    np.testing.assert_array_equal(found.statistics.threshold, threshold)
    labels = oracle_labels(data, once=d.protocol.maps == "once", grid=d.protocol.grid or (GRID, GRID))
    on_images = labels.of_images()
    expected = oracle.count(values, threshold, "half-pixel", on_images, groups=2)
    assert found.counts is not None
    for name in ("intersection", "area", "area_in_category"):
        np.testing.assert_array_equal(getattr(found.counts, name), getattr(expected, name), err_msg=name)
    np.testing.assert_array_equal(d.concept_counts.judged_on("images").area, expected.concept_area)
    assert expected.intersection.sum() > 50, "the case is not trivial"
    winners, ious = best_of(expected, on_images, d.protocol.union, found.statistics.dead)
    np.testing.assert_array_equal(found.best.concept, winners)
    np.testing.assert_array_equal(found.best.iou, ious.astype(float))

    pixels = layer(outcome, "second")
    alone = layer(run(net, data, ["second"], protocol, q=Q, batch=5, null=0), "second")
    assert pixels.judged_on == "pixels"
    np.testing.assert_array_equal(pixels.counts.intersection, alone.counts.intersection)
    np.testing.assert_array_equal(pixels.best.iou, alone.best.iou)


def test_a_concept_counts_once_for_an_image_that_holds_it_by_a_pixel_or_by_its_label() -> None:
    maps = [np.array([[[2, 2], [0, 2]], [[2, 1], [0, 0]]]), np.zeros((0, 2, 2), int), np.array([[[3, 0], [0, 0]]])]
    given = label_batch(maps, [[3], [], []], np.array([0, 0, 1], np.int32), 2, once=False)
    held = given.of_images()
    assert held.pixels.shape[:2] == (3, 1)
    assert [sorted(set(row) - {0}) for row in held.pixels[:, 0].tolist()] == [[1, 2, 3], [], [3]]
    assert held.area.tolist() == [[0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert held.present.tolist() == given.present.tolist() == [[True, True], [False, False], [False, True]]
    assert held.image_level.shape == (3, 0)
    assert given.of_images(torch.tensor([2, 0])).area.tolist() == [[0, 0, 0, 1], [0, 1, 1, 1]]


def test_the_null_and_the_blocks_are_counted_on_images(net: str, data: Path, values: np.ndarray) -> None:
    outcome = run(net, data, ["second", "head"], q=Q, batch=5, null=PAIRINGS)
    found, d = layer(outcome, "head"), outcome.dissection
    labels = replace(oracle_labels(data, once=True).of_images(), group=[0] * IMAGES)
    assert found.null is not None
    for i, images in enumerate(null_images(open_dataset(data).names, PAIRINGS)):
        paired = labels.take(list(range(IMAGES)), [int(x) for x in images])
        counts = oracle.count(values, found.statistics.threshold, "half-pixel", paired)
        _, iou = best_of(counts, labels, d.protocol.union, found.statistics.dead)
        np.testing.assert_array_equal(found.null.iou[i], [float(max(row)) for row in iou])

    in_block = [block_of(name) for name in open_dataset(data).names]
    counts = oracle.count(
        values, found.statistics.threshold, "half-pixel", replace(labels, group=in_block), groups=BLOCKS
    )
    assert found.leading is not None
    assert d.blocks is not None
    np.testing.assert_array_equal(d.blocks.concept_images, counts.concept_area)
    for u, k, n in np.argwhere(found.leading.concept >= 0):
        row = found.leading.concept[u, k, n]
        np.testing.assert_array_equal(found.leading.intersection[u, :, k, n], counts.intersection[:, u, row])
        np.testing.assert_array_equal(found.leading.area[u, :, k], counts.area_in_category[:, u, k])
    known = found.best.iou.max(1) > 0
    assert found.evidence is not None
    assert not np.isnan(found.evidence.iou_low[known]).any()
    assert (found.evidence.iou_high[known] >= found.best.iou.max(1)[known]).all()


# However the work is cut


def options(net: str, data: Path) -> Options:
    return Options(
        network=net, data=str(data), layers=("second", "head"), quantile=Q, batch_size=4, workers=1, null=2, top=4,
        device="cpu",
    )  # fmt: skip


class StopsAfter(Console):
    """Ends the run when it has been asked so many times."""

    def __init__(self, times: int) -> None:
        self._left = times

    def stop(self) -> BaseException | None:
        self._left -= 1
        return None if self._left >= 0 else SystemExit("stopped")


@pytest.fixture(scope="module")
def store(net: str, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "whole.nd.h5"
    dissect_to_store(options(net, data), Console(), output=path)
    return path


def test_shards_merge_to_the_same_counts(net: str, data: Path, store: Path, tmp_path: Path) -> None:
    path = tmp_path / "merged.nd.h5"
    for shard in ("1/2", "2/2"):
        dissect_to_store(options(net, data), Console(), output=path, shard=shard)
    merge_to_store([path.with_name(f"{path.name}.shard-{i}-of-2") for i in (1, 2)], path, options(net, data), Console())
    assert numbers(path) == numbers(store)


@pytest.mark.parametrize("moment", [2, 9], ids=["gathering", "counting"])
def test_a_run_that_was_stopped_goes_on_to_the_same_counts(
    net: str, data: Path, store: Path, tmp_path: Path, moment: int
) -> None:
    path = tmp_path / "stopped.nd.h5"
    with pytest.raises(SystemExit):
        dissect_to_store(options(net, data), StopsAfter(moment), output=path)
    dissect_to_store(options(net, data), Console(), output=path)
    assert numbers(path) == numbers(store)


# Stored and shown


def test_the_store_keeps_what_is_judged_on_images_and_older_programs_refuse_it(store: Path) -> None:
    with h5py.File(store) as f:
        kinds = {name: f["layers"][name].attrs["encoding-type"].decode() for name in ("second", "head")}
    assert kinds == {"second": "ndissect-layer", "head": "ndissect-image-layer"}
    with Store(store) as opened:
        view, pixels = opened.layer("head"), opened.layer("second")
        assert (view.judged_on, view.grid, pixels.judged_on, pixels.grid) == ("images", (1, 1), "pixels", (GRID, GRID))
        held = opened.concept_counts.images.sum(0)
        for unit in range(view.units):
            value, both, area = view.unit_ious(unit)
            assert (both <= np.minimum(area, held)).all()
            expected = np.divide(both, area + held - both, out=np.zeros(len(held)), where=held > 0)
            np.testing.assert_array_equal(value, 0 if view.statistics.dead[unit] else expected)
            for row in range(len(held)):
                assert view.concept_ious(row)[unit] == value[row]
        assert not np.isnan(view.known("iou_low")).all()


def test_a_store_of_pixels_alone_is_written_as_before(net: str, data: Path, tmp_path: Path) -> None:
    d = run(net, data, ["second"], q=Q, batch=5, null=0).dissection
    assert d.blocks is not None
    assert d.blocks.concept_images is None
    write_store(tmp_path / "a.nd.h5", d)
    with h5py.File(tmp_path / "a.nd.h5") as f:
        assert "block_images" not in f


def test_masks_are_the_whole_image_or_nothing_and_so_is_the_truth(store: Path) -> None:
    with Store(store) as opened:
        view = opened.layer("head")
        unit = int(np.argmax(view.labels[1]))
        row = int(view.labels[0][unit])
        number = int(opened.concepts.number[row])
        panels = unit_panels(view, unit, concept=row)
        top = view.top(unit)
        for panel, peak, image in zip(panels, top.peak, top.image, strict=True):
            assert panel.mask.shape == (1, 1)
            assert panel.mask[0, 0] == (peak > view.statistics.threshold[unit])
            stored = opened.images.read(int(image))
            assert panel.truth is not None
            assert panel.truth[0, 0] == (number in stored.labels or bool((stored.label_maps == number).any()))


def test_every_view_counts_images_and_says_so(store: Path) -> None:
    with Store(store) as opened:
        view, pixels = opened.layer("head"), opened.layer("second")
        assert layer_notes([pixels]) == []
        assert layer_notes([view, pixels]) == layer_notes([view])
        assert "head: judged on images" in layer_notes([view])[0]
        held = opened.concept_counts.images.sum(0)
        unit = int(np.argmax(view.labels[1]))
        row, category = int(view.labels[0][unit]), opened.concepts.category_of(int(view.labels[0][unit]))
        assert best_json(view, unit)[category]["concept_area"] == held[row]
        assert ranked_concepts(view, unit)[0]["concept_area"] == held[row]
        arrays = unit_arrays([pixels, view])
        at = pixels.units + unit
        assert arrays["concept_area"][at] == arrays[f"{category}-concept_area"][at] == held[row]
        area = opened.concept_counts.area.sum(0)
        first = int(np.argmax(pixels.labels[1]))
        assert arrays["concept_area"][first] == area[pixels.labels[0][first]]
        page = unit_data(opened, [pixels, view])
        assert (page["on_images"], page["concept_images"]) == ([False, True], held.tolist())
        json.dumps(page)


def test_the_columns_of_a_unit_say_what_they_count(store: Path, tmp_path: Path) -> None:
    for name, counted in (("head", "images"), ("second", "px")):
        printed = cli.nd("inspect", f"{name}:0", "-s", str(store), folder=tmp_path).stdout
        assert printed.splitlines()[0].split("\t")[-3:] == [f"{of} {counted}" for of in ("both", "unit", "concept")]


def test_the_browser_shows_images_counted_and_says_so(store: Path) -> None:
    with Store(store) as opened:
        session = Session(store)
        unit = int(np.argmax(opened.layer("head").labels[1]))
        listing = unit_listing(session, "head", unit)
        assert any("judged on images" in note for note in listing.notes)
        first = listing.plain(0)
        assert first["concept_area"] <= IMAGES
        images = [listing.plain(i) for i in range(listing.count) if "peak" in listing.plain(i)]
        assert {image["area"] for image in images} <= {0, 1}


def test_compared_with_pixels_they_are_different_measures(store: Path) -> None:
    found = compare_stores([f"{store}:second", f"{store}:head"])
    assert any("different measures" in note for note in found.result["notes"])
    assert [side["judged_on"] for side in found.result["layers"]] == ["pixels", "images"]
    assert found.result["pairs"][0]["difference"]["unique_best_label"]["low"] is None
    assert {row[-1] for row in long(found.result, None).rows} == {"no"}, "comparable"
