"""Counting masks against labels: every integer equals the dense oracle's, however the work was cut."""

from dataclasses import dataclass, replace
from itertools import pairwise
from unittest import mock

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ndissect.engine.measures.plain_count import count_plainly
from ndissect.engine.measures.tally import ConceptTally, Tally
from ndissect.engine.passes.labels import Labelling, label_batch, run_lengths
from ndissect.store.upsampling import UPSAMPLINGS, Field, make_axis

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]

on_devices = pytest.mark.parametrize("device", DEVICES)
in_every_upsampling = pytest.mark.parametrize("kind", UPSAMPLINGS)


ONE_TO_ONE = Field(0, 1, 1)


@dataclass(frozen=True)
class Placement:
    """How maps of h x w samples lie on a grid: the upsampling, and the receptive fields where it needs them."""

    kind: str
    shape: tuple[int, int]
    grid: tuple[int, int]
    field: Field = ONE_TO_ONE
    reduction: int = 1

    @property
    def axes(self):
        return tuple(
            make_axis(self.kind, n, size, self.field, size * self.reduction)
            for n, size in zip(self.shape, self.grid, strict=True)
        )

    @property
    def receptive(self):
        f = self.field
        return tuple(oracle.Receptive(f.offset, f.size, f.step, size * self.reduction) for size in self.grid)


def place(kind, shape, grid):
    """Receptive fields that cover the grid evenly, as a layer's do, with a first centre that is not on the edge."""
    step = max(1, 2 * grid[0] // shape[0])
    return Placement(kind, shape, grid, Field(-2, step + 4, step), 2)


def batch(labels, device="cpu"):
    return label_batch(
        labels.maps,
        labels.image_level,
        labels.category,
        labels.categories,
        once=labels.once,
        group=labels.group,
        device=device,
    )


def tally(maps, threshold, placement, labels, *, groups=1, device="cpu", cuts=(), order=None):
    """The product's counts of the images, added in this order and cut into batches at these places."""
    order = list(range(len(maps))) if order is None else order
    layer = Tally(maps.shape[1], len(labels.category), labels.categories, groups, device)
    concepts = ConceptTally(len(labels.category), groups, device)
    rows, cols = placement.axes
    edges = [0, *sorted(set(cuts)), len(order)]
    for start, end in pairwise(edges):
        images = order[start:end]
        if images:
            some = batch(labels.take(images), device)
            values, limits = maps[images].to(device), torch.from_numpy(np.asarray(threshold)).to(device)
            layer.add(values, limits, rows, cols, placement.kind, some)
            concepts.add(some)
    return layer.counts(), concepts.counts()


def dense(maps, threshold, placement, labels, groups=1):
    return oracle.count(maps.float().numpy(), threshold, placement.kind, labels, groups, placement.receptive)


def assert_equal(got, expected):
    layer, concepts = got
    for name in ("intersection", "area", "area_in_category"):
        counted = getattr(layer, name)
        assert isinstance(counted, np.ndarray)
        assert counted.dtype == np.int64
        np.testing.assert_array_equal(counted, getattr(expected, name), err_msg=name)
    for name, wanted in (("area", expected.concept_area), ("images", expected.images)):
        counted = getattr(concepts, name)
        assert isinstance(counted, np.ndarray)
        assert counted.dtype == np.int64
        np.testing.assert_array_equal(counted, wanted, err_msg=f"concept {name}")


def random_labels(rng, images, grid, *, concepts=6, categories=3, once=True, groups=1, most_maps=3):
    """Blocky label maps with holes, none to ``most_maps`` an image, and image-level labels on about half of them."""
    maps, image_level = [], []
    for _ in range(images):
        coarse = rng.integers(0, concepts + 1, (rng.integers(0, most_maps + 1), *(-(-s // 3) for s in grid)))
        fine = coarse.repeat(3, axis=1).repeat(3, axis=2)[:, : grid[0], : grid[1]]
        maps.append((fine * (rng.random(fine.shape) < 0.9)).astype(np.int32))
        image_level.append(rng.choice(concepts, rng.integers(0, 3), replace=False).astype(int) + 1)
    return oracle.Labels(
        maps,
        [row.tolist() for row in image_level],
        rng.integers(0, categories, concepts),
        categories,
        rng.integers(0, groups, images).tolist(),
        once,
    )


def activations(rng, shape, data="normal", dtype=torch.float32):
    if data == "ties":
        values = rng.integers(-2, 4, shape)
    elif data == "relu":
        values = np.maximum(rng.normal(-1, 1, shape), 0)
    else:
        values = rng.normal(size=shape)
    return torch.from_numpy(values.astype(np.float32)).to(dtype)


def thresholds(rng, maps):
    """For each unit a value that it takes, or one a hair's breadth beside it, so that pixels lie on the threshold."""
    flat = maps.float().numpy().swapaxes(0, 1).reshape(maps.shape[1], -1)
    taken = np.array([rng.choice(np.sort(row)[len(row) // 2 :]) for row in flat], np.float64)
    return taken * rng.choice([1, 1 - 1e-12, 1 + 1e-12], len(taken))


# --- equality with the oracle ---------------------------------------------------------------------------------------

SCALES = [
    pytest.param((13, 13), (113, 113), id="13 to 113"),
    pytest.param((7, 7), (112, 112), id="7 to 112"),
    pytest.param((56, 56), (56, 56), id="56 to 56"),
    pytest.param((112, 112), (56, 56), id="112 to 56"),
    pytest.param((13, 8), (40, 61), id="not square"),
    pytest.param((9, 30), (31, 7), id="enlarged and shrunk"),
    pytest.param((1, 1), (12, 9), id="one sample"),
    pytest.param((1, 6), (10, 10), id="one row"),
    pytest.param((5, 4), (1, 1), id="one pixel"),
]


@on_devices
@in_every_upsampling
@pytest.mark.parametrize(("shape", "grid"), SCALES)
def test_counts_equal_the_oracle_at_every_scale(device, kind, shape, grid):
    rng = np.random.default_rng(shape[0] * grid[0])
    labels = random_labels(rng, 3, grid, groups=2)
    maps = activations(rng, (3, 4, *shape))
    limits = thresholds(rng, maps)
    placement = place(kind, shape, grid)
    expected = dense(maps, limits, placement, labels, groups=2)
    assert_equal(tally(maps, limits, placement, labels, groups=2, device=device, cuts=[2]), expected)


@on_devices
@in_every_upsampling
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("data", ["normal", "relu", "ties"])
def test_counts_equal_the_oracle_in_every_precision(device, kind, dtype, data):
    rng = np.random.default_rng(7)
    labels = random_labels(rng, 4, (23, 17))
    maps = activations(rng, (4, 8, 6, 5), data, dtype)
    limits = thresholds(rng, maps)
    placement = place(kind, (6, 5), (23, 17))
    expected = dense(maps, limits, placement, labels)
    assert expected.area.any()
    assert_equal(tally(maps, limits, placement, labels, device=device, cuts=[1]), expected)


@on_devices
@in_every_upsampling
def test_the_published_placement_of_alexnet_conv5(device, kind):
    rng = np.random.default_rng(11)
    labels = random_labels(rng, 2, (113, 113))
    maps = activations(rng, (2, 5, 13, 13), "relu")
    limits = np.quantile(maps.numpy(), 0.95, axis=(0, 2, 3))
    placement = Placement(kind, (13, 13), (113, 113), Field(-64, 163, 16), 2)
    assert_equal(tally(maps, limits, placement, labels, device=device), dense(maps, limits, placement, labels))


@on_devices
@in_every_upsampling
@pytest.mark.parametrize("limit", [-1e9, -0.5, -0.0, 0.0, 2.0, 1e9, np.inf, np.nan], ids=str)
def test_thresholds_below_everything_negative_zero_and_above_everything(device, kind, limit):
    """With zero outside the map, a negative threshold is exceeded there too."""
    rng = np.random.default_rng(13)
    labels = random_labels(rng, 3, (14, 14))
    maps = activations(rng, (3, 3, 4, 4), "ties")
    limits = np.array([limit, 1.0, limit])
    placement = place(kind, (4, 4), (14, 14))
    expected = dense(maps, limits, placement, labels)
    assert_equal(tally(maps, limits, placement, labels, device=device), expected)
    if limit == -1e9:
        assert (expected.area[0, [0, 2]] == 3 * 14 * 14).all()


@on_devices
@in_every_upsampling
def test_a_threshold_between_two_float32_values_is_compared_in_float64(device, kind):
    """0.1 in float64 lies below 0.1 in float32, and the float64 halfway to the next float32 lies above it."""
    value = np.float32(0.1)
    maps = torch.full((1, 3, 4, 4), float(value))
    halfway = (float(value) + float(np.nextafter(value, np.float32(1)))) / 2
    limits = np.array([0.1, float(value), halfway])
    assert limits[0] < limits[1] < limits[2]
    labels = oracle.Labels([np.ones((1, 4, 4), np.int32)], [[]], np.array([0]), 1, [0])
    layer, _ = tally(maps, limits, Placement(kind, (4, 4), (4, 4)), labels, device=device)
    assert layer.area.tolist() == [[16, 0, 0]]


@on_devices
@in_every_upsampling
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("limit", [0.5, -0.5, -1e30])
def test_pixels_that_touch_nan_or_infinity_are_in_no_mask(device, kind, dtype, limit):
    rng = np.random.default_rng(17)
    labels = random_labels(rng, 4, (19, 15))
    maps = activations(rng, (4, 5, 6, 5), "normal", dtype)
    spots = rng.random(maps.shape)
    maps[torch.from_numpy(spots < 0.04)] = torch.nan
    maps[torch.from_numpy((spots > 0.04) & (spots < 0.08))] = torch.inf
    maps[torch.from_numpy((spots > 0.08) & (spots < 0.12))] = -torch.inf
    maps[0, 0] = torch.nan
    maps[:, 1] = torch.inf
    limits = np.full(5, limit)
    placement = place(kind, (6, 5), (19, 15))
    expected = dense(maps, limits, placement, labels)
    assert expected.area[0, 1] == 0
    assert_equal(tally(maps, limits, placement, labels, device=device), expected)


def test_one_infinite_sample_spoils_exactly_the_pixels_it_takes_part_in():
    maps = torch.ones(1, 1, 5, 5)
    maps[0, 0, 2, 2] = torch.inf
    labels = oracle.Labels([np.ones((1, 10, 10), np.int32)], [[]], np.array([0]), 1, [0])
    layer, _ = tally(maps, np.zeros(1), Placement("half-pixel", (5, 5), (10, 10)), labels)
    # Sample 2 lies at pixel 4.5: pixels 3 to 6 of each axis lie between it and a neighbour.
    assert layer.area.tolist() == [[100 - 4 * 4]]


@on_devices
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=str)
def test_the_layout_of_the_maps_in_memory_does_not_matter_and_nothing_is_changed(device, memory):
    rng = np.random.default_rng(19)
    labels = random_labels(rng, 3, (20, 20))
    maps = activations(rng, (3, 6, 7, 7))
    limits = thresholds(rng, maps)
    placement = place("half-pixel", (7, 7), (20, 20))
    laid = maps.clone().to(memory_format=memory)
    some, rows_cols = batch(labels, device), placement.axes
    before = some.pixels.clone(), some.image_level.clone(), some.present.clone()
    layer = Tally(6, len(labels.category), labels.categories, device=device)
    on_device = laid.to(device)
    limit = torch.from_numpy(limits).to(device)
    layer.add(on_device, limit, *rows_cols, "half-pixel", some)
    np.testing.assert_array_equal(layer.counts().intersection, dense(maps, limits, placement, labels).intersection)
    assert torch.equal(on_device.cpu(), maps)
    assert torch.equal(limit.cpu(), torch.from_numpy(limits))
    for kept, now in zip(before, (some.pixels, some.image_level, some.present), strict=True):
        assert torch.equal(kept, now)


@on_devices
def test_many_units_few_of_which_fire(device):
    """The shape of real work: half a percent of the samples above the threshold, most units silent in an image."""
    rng = np.random.default_rng(23)
    labels = random_labels(rng, 2, (28, 28), concepts=12, categories=4, most_maps=4)
    maps = activations(rng, (2, 150, 7, 7), "relu")
    limits = np.quantile(maps.numpy(), 0.995, axis=(0, 2, 3))
    placement = place("half-pixel", (7, 7), (28, 28))
    expected = dense(maps, limits, placement, labels)
    assert (expected.area < 28 * 28).all()
    assert_equal(tally(maps, limits, placement, labels, device=device), expected)


def test_a_tally_to_which_nothing_was_added_is_zero():
    layer, concepts = Tally(3, 5, 2, slots=2).counts(), ConceptTally(5, slots=2).counts()
    assert layer.intersection.shape == (2, 3, 5)
    assert layer.area.shape == (2, 3)
    assert layer.area_in_category.shape == (2, 3, 2)
    assert concepts.area.shape == concepts.images.shape == (2, 5)
    for counted in (layer.intersection, layer.area, layer.area_in_category, concepts.area, concepts.images):
        assert not counted.any()


# --- labels ---------------------------------------------------------------------------------------------------------


@on_devices
@in_every_upsampling
@pytest.mark.parametrize("once", [True, False])
def test_repeated_concepts_count_once_a_pixel_or_once_a_map(device, kind, once):
    """Concept 0 in both maps of an image, at overlapping places, and concept 1 also as an image-level label."""
    two = np.zeros((2, 6, 6), np.int32)
    two[0, :4] = 1
    two[1, 2:] = 1
    two[1, 0] = 2
    labels = oracle.Labels([two, two[:1]], [[2], []], np.array([0, 1]), 2, [0, 0], once)
    maps = torch.ones(2, 1, 6, 6)
    placement = Placement(kind, (6, 6), (6, 6))
    layer, concepts = tally(maps, np.zeros(1), placement, labels, device=device)
    in_first = [36, 36] if once else [36 + 12, 36 + 6]
    assert layer.intersection.tolist() == [[[in_first[0] + 24, in_first[1]]]]
    assert concepts.area.tolist() == [[in_first[0] + 24, in_first[1]]]
    assert concepts.images.tolist() == [[2, 1]]
    assert layer.area.tolist() == [[72]]
    assert layer.area_in_category.tolist() == [[[72, 36]]]
    assert_equal((layer, concepts), dense(maps, np.zeros(1), placement, labels))


@on_devices
def test_images_without_any_label_count_only_in_the_area_of_all_images(device):
    labels = oracle.Labels(
        [np.zeros((0, 5, 5), np.int32), np.zeros((2, 5, 5), np.int32), np.full((1, 5, 5), 2, np.int32)],
        [[], [], []],
        np.array([0, 1, 2]),
        3,
        [0, 0, 0],
    )
    layer, concepts = tally(
        torch.ones(3, 2, 5, 5), np.zeros(2), Placement("half-pixel", (5, 5), (5, 5)), labels, device=device
    )
    assert layer.area.tolist() == [[75, 75]]
    assert layer.area_in_category.tolist() == [[[0, 25, 0]] * 2]
    assert concepts.images.tolist() == [[0, 1, 0]]
    assert concepts.area.tolist() == [[0, 25, 0]]


@on_devices
def test_a_batch_without_maps_and_one_without_any_label(device):
    placement = Placement("half-pixel", (2, 2), (4, 4))
    none = [np.zeros((0, 4, 4), np.int32)] * 2
    category = np.array([1, 0])
    for image_level, concept_area in (([[1], [2, 1]], [[32, 16]]), ([[], []], [[0, 0]])):
        labels = oracle.Labels(none, image_level, category, 2, [0, 0])
        layer, concepts = tally(torch.ones(2, 1, 2, 2), np.zeros(1), placement, labels, device=device)
        assert concepts.area.tolist() == concept_area
        assert layer.intersection.tolist() == [concept_area]
        assert layer.area.tolist() == [[32]]


@on_devices
def test_a_label_batch_holds_what_its_description_says(device):
    rng = np.random.default_rng(29)
    labels = random_labels(rng, 5, (6, 7), groups=3)
    some = batch(labels, device)
    assert some.pixels.shape[:2] == (5, 6 * 7)
    assert (some.pixels.dtype, some.image_level.dtype) == (torch.int16, torch.int32)
    assert some.image_level.shape[0] == 5
    assert some.present.dtype == torch.bool
    assert some.group.dtype == torch.int64
    assert some.group.tolist() == labels.group
    assert {t.device.type for t in (some.pixels, some.image_level, some.present, some.group)} == {device}
    expected = oracle.count(np.zeros((5, 1, 1, 1), np.float32), np.zeros(1), "half-pixel", labels, 3)
    np.testing.assert_array_equal(some.present.cpu().numpy(), expected.present)
    held = (some.area[:, 1:] > 0).cpu().numpy()
    by_group = [held[np.array(labels.group) == g].sum(0) for g in range(3)]
    np.testing.assert_array_equal(by_group, expected.images)
    assert label_batch(labels.maps, labels.image_level, labels.category, 3).group.tolist() == [0] * 5


def test_label_maps_of_any_integer_type_are_read():
    for dtype in (np.uint8, np.uint16, np.int32, np.int64):
        some = label_batch([np.full((1, 2, 2), 3, dtype)], [[1]], np.array([0, 0, 1]), 2)
        tally_of_concepts = ConceptTally(3)
        tally_of_concepts.add(some)
        assert tally_of_concepts.counts().area.tolist() == [[4, 0, 4]]


# --- the same counts however the work was cut -----------------------------------------------------------------------


@st.composite
def work(draw):
    """Some images with labels in some groups, their maps, thresholds, a placement, and a way to cut it all."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    images, units = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    grid = draw(st.tuples(st.integers(1, 14), st.integers(1, 14)))
    groups = draw(st.integers(1, 3))
    labels = random_labels(
        rng,
        images,
        grid,
        concepts=draw(st.integers(2, 7)),
        categories=draw(st.integers(1, 3)),
        once=draw(st.booleans()),
        groups=groups,
    )
    maps = activations(
        rng,
        (images, units, *shape),
        draw(st.sampled_from(["normal", "relu", "ties"])),
        draw(st.sampled_from(DTYPES)),
    )
    if draw(st.booleans()):
        maps[torch.from_numpy(rng.random(maps.shape) < 0.05)] = draw(
            st.sampled_from([torch.nan, torch.inf, -torch.inf])
        )
    limits = np.nan_to_num(thresholds(rng, maps), nan=0.0, posinf=1.0, neginf=-1.0)
    kind = draw(st.sampled_from(UPSAMPLINGS))
    field = Field(draw(st.integers(-9, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 5)))
    placement = Placement(kind, shape, grid, field, draw(st.integers(1, 3)))
    order = draw(st.permutations(range(images)))
    cuts = draw(st.lists(st.integers(0, images), max_size=3))
    return maps, limits, placement, labels, groups, order, cuts


@on_devices
@settings(deadline=None, derandomize=True, max_examples=300)
@given(work())
def test_any_batch_cut_and_image_order_gives_the_oracle_s_counts(device, case):
    maps, limits, placement, labels, groups, order, cuts = case
    expected = dense(maps, limits, placement, labels, groups)
    assert_equal(tally(maps, limits, placement, labels, groups=groups, device=device, cuts=cuts, order=order), expected)


def test_groups_add_up_to_the_count_without_groups():
    rng = np.random.default_rng(31)
    labels = replace(random_labels(rng, 8, (12, 12)), group=[2, 0, 1, 1, 0, 2, 2, 1])
    maps = activations(rng, (8, 5, 4, 4))
    limits = thresholds(rng, maps)
    placement = place("half-pixel", (4, 4), (12, 12))
    apart, concepts_apart = tally(maps, limits, placement, labels, groups=3)
    whole, concepts_whole = tally(maps, limits, placement, replace(labels, group=[0] * 8))
    for name in ("intersection", "area", "area_in_category"):
        np.testing.assert_array_equal(getattr(apart, name).sum(0), getattr(whole, name)[0])
    for name in ("area", "images"):
        np.testing.assert_array_equal(getattr(concepts_apart, name).sum(0), getattr(concepts_whole, name)[0])


def test_units_do_not_influence_each_other():
    rng = np.random.default_rng(37)
    labels = random_labels(rng, 3, (12, 12))
    maps = activations(rng, (3, 6, 4, 4))
    limits = thresholds(rng, maps)
    placement = place("half-pixel-zero", (4, 4), (12, 12))
    together, _ = tally(maps, limits, placement, labels)
    for u in range(6):
        alone, _ = tally(maps[:, [u]], limits[[u]], placement, labels)
        np.testing.assert_array_equal(alone.intersection[:, 0], together.intersection[:, u])


def test_labels_of_other_images_give_a_null_through_the_same_tally():
    """The masks stay where they are; only what they are compared with moves."""
    rng = np.random.default_rng(41)
    labels = random_labels(rng, 5, (12, 12))
    wrong = labels.take(list(range(5)), labels_of=[1, 2, 3, 4, 0])
    maps = activations(rng, (5, 4, 4, 4))
    limits = thresholds(rng, maps)
    placement = place("half-pixel", (4, 4), (12, 12))
    right_layer, right_concepts = tally(maps, limits, placement, labels)
    null_layer, null_concepts = tally(maps, limits, placement, wrong)
    assert_equal((null_layer, null_concepts), dense(maps, limits, placement, wrong))
    np.testing.assert_array_equal(null_layer.area, right_layer.area)
    np.testing.assert_array_equal(null_concepts.area, right_concepts.area)
    assert (null_layer.intersection != right_layer.intersection).any()


def in_ways(labels, rows, slots):
    """Images under the labels of ``rows`` (P, N) for ``slots`` (P, N)."""
    return Labelling(batch(labels), torch.tensor(rows), torch.tensor(slots))


@pytest.mark.parametrize("plain", [False, True], ids=["as on a host", "as on a GPU without the kernel"])
@pytest.mark.parametrize("bins", [1 << 20, 0], ids=["a table", "too many bins for one"])
def test_several_ways_of_labelling_are_counted_at_once_each_for_its_slots(monkeypatch, plain, bins):
    """The images' own labels in two groups, and two pairings, one of which names a row twice and another never."""
    monkeypatch.setattr("ndissect.engine.measures.hits._TABLE_BINS", {"cpu": bins})
    monkeypatch.setattr("ndissect.engine.measures.hits._HITS_AT_ONCE", 50)
    if plain:
        monkeypatch.setattr("ndissect.engine.measures.tally.count_on_host", count_plainly)
    rng = np.random.default_rng(43)
    labels = random_labels(rng, 5, (12, 9), concepts=9, categories=3, groups=2, most_maps=6)
    maps = activations(rng, (5, 4, 4, 3))
    limits = thresholds(rng, maps)
    placement = place("half-pixel", (4, 3), (12, 9))
    rows = [[0, 1, 2, 3, 4], [1, 0, 3, 4, 2], [2, 2, 0, 1, 3]]
    ways = in_ways(labels, rows, [labels.group, [2] * 5, [3] * 5])
    layer, concepts = Tally(4, 9, 3, 4), ConceptTally(9, 4)
    for images in (slice(0, 2), slice(2, 5)):
        layer.add(maps[images], torch.from_numpy(limits), *placement.axes, "half-pixel", ways[images])
        concepts.add(ways[images])
    own = tally(maps, limits, placement, labels, groups=2)
    assert_equal((layer.counts(slice(2)), concepts.counts(slice(2))), dense(maps, limits, placement, labels, groups=2))
    for way, slot in ((1, 2), (2, 3)):
        wrong = replace(labels.take(list(range(5)), labels_of=rows[way]), group=[0] * 5)
        there = slice(slot, slot + 1)
        assert_equal((layer.counts(there), concepts.counts(there)), dense(maps, limits, placement, wrong))
    np.testing.assert_array_equal(layer.counts(slice(2)).intersection, own[0].intersection)
    assert concepts.images(slice(2)).tolist() == [labels.group.count(0), labels.group.count(1)]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(work())
def test_the_plain_tally_of_a_gpu_counts_as_the_host_does(case):
    maps, limits, placement, labels, groups, _, _ = case
    with mock.patch("ndissect.engine.measures.tally.count_on_host", count_plainly):
        counted = tally(maps, limits, placement, labels, groups=groups)
    assert_equal(counted, dense(maps, limits, placement, labels, groups))


@pytest.mark.parametrize("width", [1, 7, 300])
def test_runs_tell_how_far_a_pixel_s_labels_go(width):
    """Of one label and of several maps, none longer than what a byte holds."""
    rng = np.random.default_rng(47)
    labels = random_labels(rng, 3, (4, width), most_maps=2)
    labels.maps[1] = np.full((1, 4, width), 3, np.int32)
    some = batch(labels)
    runs = run_lengths(some)
    assert (runs.dtype, runs.shape) == (torch.uint8, some.pixels.shape[:2])
    flat = some.pixels.reshape(-1, some.pixels.shape[2])
    for at, run in enumerate(runs.view(-1).tolist()):
        same = (flat[at:] == flat[at]).all(1).tolist()
        assert run == min(same.index(False) if False in same else len(same), 255)


# --- planted units --------------------------------------------------------------------------------------------------


def planted_scene(rng, images=12, side=24, concepts=5):
    """Rectangles of 4 x 6 pixels, one of each concept an image, never over each other; unit k is mask k."""
    maps = np.zeros((images, 1, side, side), np.int32)
    for n in range(images):
        for c, slot in enumerate(rng.permutation(9)[:concepts]):
            y, x = 8 * (slot // 3) + 2, 8 * (slot % 3) + 1
            maps[n, 0, y : y + 4, x : x + 6] = c + 1
    labels = oracle.Labels(list(maps), [[]] * images, np.array([0, 1, 0, 1, 2][:concepts]), 3, [0] * images)
    units = np.stack([maps[:, 0] == c + 1 for c in range(concepts)], axis=1)
    return labels, units


def iou_table(layer, concepts):
    I = layer.intersection[0].astype(float)  # noqa: E741
    return I / (layer.area[0][:, None] + concepts.area[0] - I)


@on_devices
@in_every_upsampling
def test_a_unit_that_is_a_concept_s_mask_has_iou_one_with_it_and_zero_with_all_others(device, kind):
    labels, units = planted_scene(np.random.default_rng(43))
    maps = torch.from_numpy(units.astype(np.float32) * 3)
    layer, concepts = tally(maps, np.ones(5), Placement(kind, (24, 24), (24, 24)), labels, device=device)
    assert np.array_equal(iou_table(layer, concepts), np.eye(5))


@on_devices
@pytest.mark.parametrize("device_dtype", [torch.float32, torch.float16], ids=str)
def test_planted_units_are_labelled_from_end_to_end(device, device_dtype):
    """Thresholds by the product's quantile, labels and IoU by its scores: unit k is concept k, exactly."""
    from fractions import Fraction

    from ndissect.engine.measures.quantile import Quantile
    from ndissect.store.scores import best_per_category, label_units

    labels, units = planted_scene(np.random.default_rng(47))
    maps = torch.from_numpy(units.astype(np.float32) * 3).to(device_dtype)
    # A concept covers 24 of 576 pixels: a share above the threshold a little larger leaves the threshold at zero.
    quantile = Quantile(5, 12 * 576, Fraction(1, 20), device=device)
    quantile.update(maps.transpose(0, 1).flatten(1).to(device))
    while quantile.end_pass():
        quantile.update(maps.transpose(0, 1).flatten(1).to(device))
    statistics = quantile.result()
    assert not statistics.dead.any()
    layer, concepts = tally(
        maps, statistics.threshold, Placement("half-pixel", (24, 24), (24, 24)), labels, device=device
    )
    for union in ("within-category", "all-images"):
        best = best_per_category(layer, concepts, labels.category, 3, union, dead=statistics.dead)
        concept, iou = label_units(best)
        assert concept.tolist() == [0, 1, 2, 3, 4]
        assert iou.tolist() == [1.0] * 5


@on_devices
def test_shifted_and_dilated_copies_have_the_iou_that_arithmetic_predicts(device):
    labels, units = planted_scene(np.random.default_rng(53))
    first = units[:, 0]
    shifted = np.stack([np.roll(first, d, axis=2) for d in (1, 2)], axis=1)
    grown = first.copy()
    for axis in (1, 2):
        grown |= np.roll(grown, 1, axis) | np.roll(grown, -1, axis)
    half = first & (np.arange(24) % 2 == 0)
    copies = np.concatenate([shifted, grown[:, None], half[:, None]], axis=1)
    layer, concepts = tally(
        torch.from_numpy(copies.astype(np.float32)),
        np.full(4, 0.5),
        Placement("half-pixel", (24, 24), (24, 24)),
        labels,
        device=device,
    )
    predicted = [20 / 28, 16 / 32, 24 / (6 * 8), 12 / 24]
    assert iou_table(layer, concepts)[:, 0].tolist() == predicted


@on_devices
def test_a_unit_that_fires_on_random_pixels_has_the_iou_that_arithmetic_predicts(device):
    rng = np.random.default_rng(59)
    labels, units = planted_scene(rng)
    noise = rng.random((12, 1, 24, 24)) < 0.3
    maps = torch.from_numpy(noise.astype(np.float32))
    layer, concepts = tally(maps, np.full(1, 0.5), Placement("half-pixel", (24, 24), (24, 24)), labels, device=device)
    both = [(noise[:, 0] & units[:, c]).sum() for c in range(5)]
    either = [(noise[:, 0] | units[:, c]).sum() for c in range(5)]
    assert iou_table(layer, concepts)[0].tolist() == [b / e for b, e in zip(both, either, strict=True)]
