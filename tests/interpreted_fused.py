"""The fused kernels on the CPU, in Triton's interpreter: run by test_fused.py in a process of its own, with
TRITON_INTERPRET=1 from its start. Tally then takes the kernels for whatever it counts, active_cells for what it finds.
"""

from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import oracle
import pytest
import torch
from test_tally import Placement, activations, assert_equal, batch, dense, place, random_labels, thresholds
from triton.runtime import interpreter

from ndissect.engine.measures import cell_search, cell_search_kernel, cells, fused, fused_kernel, map_kernel
from ndissect.engine.measures.cells import active_cells
from ndissect.engine.measures.label_grid import Placement as Tables
from ndissect.engine.measures.label_grid import enlarge
from ndissect.engine.measures.map_work import MapWork
from ndissect.engine.measures.tally import ConceptTally, Tally, compare_at
from ndissect.engine.passes.labels import Labelling, label_batch
from ndissect.store.upsampling import UPSAMPLINGS, Field

# What is not finite, and what overflows, numpy tells the interpreter of.
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning")
in_every_upsampling = pytest.mark.parametrize("kind", UPSAMPLINGS)
# Whole maps, whose active cells are looked for and counted in one launch, or cells.
by_maps_and_by_cells = pytest.mark.parametrize("by", ["maps", "cells"])
KERNELS = {"maps": map_kernel, "cells": fused_kernel}


@pytest.fixture(autouse=True)
def one_element_is_an_integer(monkeypatch):
    """Triton's interpreter before 3.8 calls int() of an array of shape (1,), which numpy refuses from 2.4 on."""
    patched = interpreter._patch_lang_tensor

    def patch(tensor, scope):
        patched(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patch)


@pytest.fixture(autouse=True)
def the_language_is_patched_once_a_launch(monkeypatch):
    """Triton's interpreter does it for every call of a function, which takes a third of its time."""
    if not hasattr(interpreter, "_LangPatchScope"):
        return
    whole, patched = interpreter._patch_lang, set()

    def patch(function):
        if id(function.__globals__) in patched:
            return None
        scope, first = whole(function), not patched
        patched.add(id(function.__globals__))
        if first:
            restore = scope.restore

            def restore_all():
                patched.clear()
                restore()

            scope.restore = restore_all
        return scope

    monkeypatch.setattr(interpreter, "_patch_lang", patch)


@pytest.fixture(autouse=True)
def launches(monkeypatch):
    """How often each kernel was launched. None has failed yet; forms that were tried stay tried."""
    for state in (fused._State, cell_search._State):
        monkeypatch.setattr(state, "why_not", None)
    monkeypatch.delenv("ND_FUSED", raising=False)
    count = Counter()

    def counting(name, launch):
        def counted(*given):
            count[name] += 1
            return launch(*given)

        return counted

    for name, kernel in KERNELS.items():
        monkeypatch.setattr(kernel, "launch", counting(name, kernel.launch))
    monkeypatch.setattr(cell_search_kernel, "search", counting("search", cell_search_kernel.search))
    return count


@pytest.fixture
def nothing_tried(monkeypatch):
    for state in (fused._State, cell_search._State):
        monkeypatch.setattr(state, "tried", set())


def counted(by, maps, limits, placement, labels, groups=1):
    """The product's counts of the images, given as maps or as cells."""
    layer = Tally(maps.shape[1], len(labels.category), labels.categories, slots=groups)
    concepts = ConceptTally(len(labels.category), slots=groups)
    some, threshold = batch(labels), torch.from_numpy(np.asarray(limits)).double()
    if by == "maps":
        layer.add(maps, threshold, *placement.axes, placement.kind, some)
    else:
        layer.add_cells(active_cells(maps, compare_at(threshold), placement.kind), threshold, *placement.axes, some)
    concepts.add(some)
    return layer.counts(), concepts.counts()


def check(launches, maps, limits, placement, labels, groups=1):
    """The fused counts equal the dense oracle's, and it was the fused kernels that counted."""
    expected = dense(maps, limits, placement, labels, groups)
    for by in KERNELS:
        assert_equal(counted(by, maps, limits, placement, labels, groups), expected)
        assert fused.why_not() is cell_search.why_not() is None
        assert launches[by] or not expected.area.any()
    return expected


# --- equality with the oracle ---------------------------------------------------------------------------------------


@in_every_upsampling
@pytest.mark.parametrize(
    ("shape", "grid"),
    [
        pytest.param((7, 7), (112, 112), id="layer4"),
        pytest.param((14, 14), (112, 112), id="layer3"),
        pytest.param((28, 28), (112, 112), id="layer2"),
        pytest.param((56, 56), (112, 112), id="layer1"),
        pytest.param((13, 13), (113, 113), id="13 to 113"),
        pytest.param((1, 1), (40, 31), id="one sample, in several blocks of pixels"),
        pytest.param((5, 4), (1, 1), id="one pixel"),
        pytest.param((9, 30), (31, 7), id="enlarged and shrunk"),
        pytest.param((16, 16), (8, 8), id="shrunk: cells without a pixel"),
        pytest.param((1, 6), (10, 10), id="one row"),
    ],
)
def test_counts_equal_the_oracle_at_every_scale(launches, kind, shape, grid):
    rng = np.random.default_rng(shape[0] * grid[0])
    labels = random_labels(rng, 2, grid, groups=2, most_maps=4)
    maps = activations(rng, (2, 2, *shape))
    # Few cells of large maps, for the interpreter takes milliseconds for each: of some rows, or of all.
    maps[:, :, 5:] -= 4 if shape[0] >= 28 else 0
    share = 0.95 if np.prod(grid) > 5000 else 0.8 if np.prod(shape) > 200 else 0.5
    limits = np.quantile(maps[:, :, :5].numpy(), share, axis=(0, 2, 3))
    assert check(launches, maps, limits, place(kind, shape, grid), labels, groups=2).area.any()


@in_every_upsampling
@pytest.mark.parametrize("limit", [0.5, -0.5, -1e30])
def test_pixels_that_touch_nan_or_infinity_are_in_no_mask(launches, kind, limit):
    rng = np.random.default_rng(17)
    labels = random_labels(rng, 2, (9, 8))
    maps = activations(rng, (2, 4, 6, 5))
    spots = rng.random(maps.shape)
    for k, value in enumerate((torch.nan, torch.inf, -torch.inf)):
        maps[torch.from_numpy((spots > k / 20) & (spots < (k + 1) / 20))] = value
    maps[:, 1] = torch.inf
    maps[0, 0] = torch.nan
    expected = check(launches, maps, np.full(4, limit), place(kind, (6, 5), (9, 8)), labels)
    assert expected.area[0, 0] > 0
    assert expected.area[0, 1] == 0


@pytest.mark.parametrize("limit", [-1e9, -0.0, 0.0, 2.0, np.inf, -np.inf, np.nan], ids=str)
def test_thresholds_below_everything_negative_zero_and_above_everything(launches, limit):
    rng = np.random.default_rng(13)
    maps = activations(rng, (2, 3, 4, 4), "ties")
    placement = place("half-pixel-zero", (4, 4), (10, 10))
    check(launches, maps, np.array([limit, 1.0, limit]), placement, random_labels(rng, 2, (10, 10)))


@pytest.mark.parametrize("maps_of_labels", range(6))
@pytest.mark.parametrize("many", [False, True], ids=["int16", "int32"])
def test_none_to_five_label_maps_of_either_size_and_image_level_labels(launches, maps_of_labels, many):
    rng = np.random.default_rng(maps_of_labels)
    concepts = [3, 7, 40_000, 65_000] if many else [3, 7, 300, 32_000]
    C = 70_000 if many else 32_767 - 1
    coarse = rng.choice([0, *concepts], (2, maps_of_labels, 4, 4))
    fine = list(coarse.repeat(4, axis=2).repeat(4, axis=3).astype(np.int32))
    some = label_batch(fine, [[concepts[2]], []], np.zeros(C, np.int32), 1)
    assert some.pixels.dtype == (torch.int32 if many else torch.int16)
    maps = activations(rng, (2, 2, 4, 4))
    placement = place("half-pixel", (4, 4), (16, 16))
    layer = Tally(2, C, 1)
    layer.add(maps, torch.tensor([0.5, 0.9], dtype=torch.float64), *placement.axes, "half-pixel", some)
    assert fused.why_not() is None
    assert launches["maps"]
    counts = layer.counts()
    # The oracle, for the concepts that there are.
    row = {0: 0} | {c: i + 1 for i, c in enumerate(concepts)}
    renamed = [np.vectorize(row.__getitem__, otypes=[np.int32])(m) if m.size else m for m in fine]
    labels = oracle.Labels(renamed, [[3], []], np.zeros(4, int), 1, [0, 0])
    expected = dense(maps, np.array([0.5, 0.9]), placement, labels)
    at = np.array(concepts) - 1
    np.testing.assert_array_equal(counts.intersection[:, :, at], expected.intersection)
    assert counts.intersection.sum() == expected.intersection.sum() > 0
    np.testing.assert_array_equal(counts.area, expected.area)
    np.testing.assert_array_equal(counts.area_in_category, expected.area_in_category)


def test_more_labels_in_a_cell_than_are_counted_together(launches):
    """Every pixel of a cell of 16 x 16 with a label of its own: what the rounds leave is counted pixel by pixel."""
    rng = np.random.default_rng(5)
    own = (np.arange(32 * 32) % 500 + 1).reshape(1, 32, 32)
    labels = oracle.Labels([own, np.zeros((0, 32, 32), int)], [[], []], np.zeros(500, int), 1, [0, 0])
    maps = activations(rng, (2, 2, 2, 2))
    expected = check(launches, maps, np.array([0.2, 0.0]), place("half-pixel", (2, 2), (32, 32)), labels)
    assert (expected.intersection > 0).sum() > 10 * fused_kernel.ROUNDS


def test_repeated_concepts_count_once_a_map_where_that_is_asked_for(launches):
    rng = np.random.default_rng(6)
    labels = replace(random_labels(rng, 3, (9, 9), concepts=2), once=False)
    maps = activations(rng, (3, 2, 3, 3))
    check(launches, maps, np.zeros(2), place("half-pixel", (3, 3), (9, 9)), labels)


@pytest.mark.parametrize(("bins", "kernel"), [(1 << 23, True), (0, False)])
def test_bins_too_many_for_an_array_are_counted_too(monkeypatch, launches, bins, kernel):
    monkeypatch.setattr("ndissect.engine.measures.hits._TABLE_BINS", {"cpu": bins})
    rng = np.random.default_rng(8)
    labels = random_labels(rng, 2, (12, 12))
    maps = activations(rng, (2, 2, 4, 4))
    limits, placement = thresholds(rng, maps), place("half-pixel", (4, 4), (12, 12))
    for by in KERNELS:
        assert_equal(counted(by, maps, limits, placement, labels), dense(maps, limits, placement, labels))
        assert bool(launches[by]) == kernel


def test_a_pixel_on_a_sample_that_is_the_threshold_is_in_no_mask(launches):
    """Cells of one pixel or none, a map of one row: the cells beside the pixel's have a corner above the limit."""
    maps = torch.tensor([[[[1.3040, 0.94708097, -0.7037]], [[0.5, 0.04132598, 0.02]]]])
    labels = oracle.Labels([np.ones((1, 1, 1), np.int32)], [[]], np.array([0]), 1, [0])
    limits = maps[0, :, 0, 1].numpy().astype(np.float64)
    for offset in range(-9, 3):
        placement = Placement("receptive-field", (1, 3), (1, 1), Field(offset, 3, 3), 1)
        check(launches, maps, limits, placement, labels)


# --- many ways of labelling -----------------------------------------------------------------------------------------


def plainly(work, slots):
    """(area, hits) of ``work``, hits of ``slots`` parts of the tally, one cell and way after the other."""
    N, U, rows, cols = work.cells.shape
    labels = work.labelling.labels.pixels
    area = torch.zeros(N * U, dtype=torch.int64)
    hits = torch.zeros((slots, U, work.columns), dtype=torch.int64)
    for m, flat in enumerate(work.cells.index.tolist()):
        image, place_of = flat // (rows * cols), flat % (rows * cols)
        n, u = image // U, image % U
        wy, wx = work.at.wy[[place_of // cols]], work.at.wx[[place_of % cols]]
        hit = (enlarge(work.cells.corners[:, [m]], wy, wx) > work.limit[u]).flatten()
        area[image + work.first * U] += hit.sum()
        for row, slot in zip(work.labelling.row[:, n], work.labelling.slot[:, n], strict=True):
            seen = labels[row, work.at.pixel[place_of][hit]].flatten().long()
            hits[slot, u] += torch.bincount(seen[seen > 0], minlength=work.columns)
    return area, hits.flatten()


def some_work(rng, shape=(7, 7), grid=(30, 30), units=6, ways=1, kind="half-pixel"):
    """Maps of three images whose labels are of five, in some ways and 2 slots each, and the same work in cells."""
    labels = random_labels(rng, 5, grid)
    maps, limit = activations(rng, (3, units, *shape)), torch.full((units,), 0.8)
    slot = torch.from_numpy(rng.integers(0, 2, (ways, 3))) + 2 * torch.arange(ways)[:, None]
    row = torch.from_numpy(np.stack([rng.permutation(5)[:3] for _ in range(ways)]))
    at = Tables(*place(kind, shape, grid).axes)
    work = MapWork(maps, limit, kind, Labelling(batch(labels), row, slot), at, len(labels.category) + 1)
    return work, work.cells()


def run(work, slots, kernel=fused_kernel):
    """(area, hits) of a kernel."""
    units = len(work.limit)
    area, hits = torch.zeros(3 * units, dtype=torch.int64), torch.zeros(slots * units * work.columns, dtype=torch.int64)
    kernel.launch(work, area, hits)
    return area, hits


def assert_same(got, expected):
    for mine, wanted in zip(got, expected, strict=True):
        assert torch.equal(mine, wanted)
        assert wanted.any()


@pytest.mark.parametrize("ways", [1, 4])
@pytest.mark.parametrize(("shape", "grid"), [((4, 3), (24, 24)), ((5, 5), (19, 19)), ((6, 7), (12, 13))], ids=str)
def test_all_ways_of_labelling_are_counted_in_one_launch(launches, shape, grid, ways):
    whole, work = some_work(np.random.default_rng(ways), shape, grid, 3, ways)
    expected = plainly(work, 2 * ways)
    launches.clear()
    assert_same(run(work, 2 * ways), expected)
    assert_same(run(whole, 2 * ways, map_kernel), expected)
    assert launches == {"cells": 1, "maps": 1}


def test_images_after_the_first_of_a_batch_are_counted_where_they_belong():
    _, work = some_work(np.random.default_rng(9), (4, 4), (12, 12))
    some = work.cells.index < 2 * 6 * 25
    few = cells.Cells((2, 6, 5, 5), work.cells.index[some], work.cells.corners[:, some])
    later = replace(work, cells=few, labelling=work.labelling[:2], first=1)
    area, hits = run(later, 2)
    early_area, early_hits = run(replace(later, first=0), 2)
    assert torch.equal(area[6:], early_area[:-6])
    assert area.any()
    assert not area[:6].any()
    assert torch.equal(hits, early_hits)


def test_cells_of_many_images_numbered_in_int64(monkeypatch):
    """Flat places beyond 2^31 come as int64; here small ones do. So do all other numbers, where some are that large."""
    _, work = some_work(np.random.default_rng(9), (4, 4), (12, 12))
    expected = plainly(work, 2)
    long = replace(work, cells=replace(work.cells, index=work.cells.index.long()))
    assert_same(run(long, 2), expected)
    narrow = fused_kernel.constants
    monkeypatch.setattr(fused_kernel, "constants", lambda *form: narrow(*form[:4], wide=True))
    assert_same(run(long, 2), expected)


# --- the search for active cells ------------------------------------------------------------------------------------


@in_every_upsampling
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((7, 7), torch.float32),
        ((14, 14), torch.float16),
        ((40, 28), torch.bfloat16),
        ((1, 3), torch.float32),
        ((1, 520), torch.float32),
    ],
    ids=str,
)
def test_the_cells_found_are_those_of_plain_operations(launches, nothing_tried, kind, dtype, shape):
    rng = np.random.default_rng(shape[0])
    maps = activations(rng, (2, 3, *shape), dtype=dtype)
    for value in (torch.nan, torch.inf, -torch.inf):
        maps[torch.from_numpy(rng.random(maps.shape) < 0.03)] = value
    for limit in ([0.9, -0.2, 5.0], [torch.nan, torch.inf, -torch.inf], [9.0, 9.0, torch.inf]):
        bound = torch.tensor(limit)
        given = active_cells(maps, bound, kind)
        index, corners = cells._search(maps, bound, kind)
        assert given.index.dtype == torch.int32
        assert given.corners.dtype == torch.float32
        assert torch.equal(given.index.long(), index)
        np.testing.assert_array_equal(given.corners.numpy(), corners.numpy())
    assert launches["search"] == 5  # two of them tries
    assert cell_search.why_not() is None


def test_maps_in_any_memory_layout_are_looked_through(launches):
    maps = activations(np.random.default_rng(1), (2, 3, 5, 4)).to(memory_format=torch.channels_last)
    given = active_cells(maps, torch.zeros(3), "half-pixel")
    assert torch.equal(given.index.long(), cells._search(maps, torch.zeros(3), "half-pixel")[0])
    assert launches["search"]


@pytest.mark.parametrize("room", [0, 5, 100_000])
def test_a_search_into_a_given_room_gives_the_first_cells_and_how_many_there_are(room):
    maps = activations(np.random.default_rng(4), (2, 3, 5, 4))
    index, corners = cells._search(maps, torch.zeros(3), "half-pixel")
    plainly = partial(cells._search, upsampling="half-pixel")
    given, given_corners, count = cell_search.active(maps, torch.zeros(3), "half-pixel", plainly, room)
    assert int(count) == len(index) > 5
    assert len(given) == given_corners.shape[1] == room
    some = min(room, len(index))
    assert torch.equal(given[:some].long(), index[:some])
    assert torch.equal(given_corners[:, :some], corners[:, :some])


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_a_search_that_does_not_wait_is_given_its_cells_by_the_kernel(monkeypatch, launches, nothing_tried, upsampling):
    limits, guess = cells.Limits(torch.tensor([2.5, 3.0, 3.5])), cells.CellGuess()
    for seed, scale in ((5, 1), (6, 1), (7, 100), (8, 1)):  # the third has more cells than there is room for
        maps = activations(np.random.default_rng(seed), (2, 3, 12, 11)) * scale
        search = cells.CellSearch(maps, maps.amax((2, 3)), limits, upsampling, guess)
        assert len(search.counts) == (seed > 5), "nothing can be guessed at first, then no map is counted"
        found = search.end([int(count) for count in search.counts])
        monkeypatch.setenv("ND_FUSED", "0")
        expected = active_cells(maps, limits.limit, upsampling)
        monkeypatch.delenv("ND_FUSED")
        assert found.index.dtype == expected.index.dtype
        assert torch.equal(found.index, expected.index)
        assert torch.equal(found.corners, expected.corners)
        assert found.corners.untyped_storage().nbytes() == found.corners.nbytes, (
            "what was guessed too much is let go of"
        )
    assert launches["search"] == 2 + 4 + 1  # two tries, and one for each but for the third, which takes another
    assert cell_search.why_not() is None


def test_a_search_that_gives_other_cells_is_found_out_and_never_used(monkeypatch, launches, nothing_tried):
    maps, limit = activations(np.random.default_rng(2), (2, 3, 5, 4)), torch.zeros(3)
    index, corners = cells._search(maps, limit, "half-pixel")
    whole = cell_search_kernel.search
    monkeypatch.setattr(cell_search_kernel, "search", lambda *given: tuple(x.flip(-1) for x in whole(*given)[:2]))
    for _ in range(2):
        given = active_cells(maps, limit, "half-pixel")
        assert torch.equal(given.index.long(), index)
        assert torch.equal(given.corners, corners)
    assert launches["search"] == 1
    assert cell_search.why_not() == "the kernel finds other cells than plain operations do on this device"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (RuntimeError("Failed to find C compiler.\nMore."), "RuntimeError: Failed to find C compiler."),
        (torch.OutOfMemoryError("CUDA out of memory"), None),
    ],
    ids=["for good", "for now"],
)
def test_where_the_search_fails_plain_operations_give_the_cells(monkeypatch, error, why):
    maps, limit = activations(np.random.default_rng(3), (2, 3, 5, 4)), torch.zeros(3)

    def failing(*_):
        raise error

    monkeypatch.setattr(cell_search_kernel, "search", failing)
    given = active_cells(maps, limit, "half-pixel")
    assert torch.equal(given.index.long(), cells._search(maps, limit, "half-pixel")[0])
    assert cell_search.why_not() == why


# --- arithmetic -----------------------------------------------------------------------------------------------------


def contracted(corners, wy, wx):
    """:func:`enlarge` as it is with fused multiply-add, w * (b - a) + a in one rounding.

    In float64, where the product of two float32 is exact; the sum is rounded there first, which changes it rarely.
    """

    def fma(a, b, w):
        return (w.double() * (b - a).double() + a.double()).float()

    a, b, c, d = corners[:, :, None]
    left, right = fma(a, c, wy), fma(b, d, wy)
    return fma(left[:, :, None], right[:, :, None], wx[:, None, :])


def counting_contracted(work, area, hits):
    """A launch of a kernel whose compiler joined multiplications and additions."""
    work = work.cells() if isinstance(work, MapWork) else work
    _, U, rows, cols = work.cells.shape
    index = work.cells.index.long()
    which, place_of = index // (rows * cols), index % (rows * cols)
    value = contracted(work.cells.corners, work.at.wy[place_of // cols], work.at.wx[place_of % cols])
    area.index_add_(0, which, (value > work.limit[which % U][:, None, None]).sum((1, 2)))


@by_maps_and_by_cells
def test_ties_are_kept_to_the_bit_where_a_fused_multiply_add_would_break_them(by):
    whole, work = some_work(np.random.default_rng(10))
    limit = fused.limits_on_pixels(work)
    work = replace(work, limit=limit)
    expected = plainly(work, 2)
    assert_same(run(replace(whole, limit=limit) if by == "maps" else work, 2, KERNELS[by]), expected)
    # The same cells with joined arithmetic: so the equality above would not hold.
    joined = torch.zeros_like(expected[0])
    counting_contracted(work, joined, None)
    assert not torch.equal(joined, expected[0])


def units_whose_limit_is(work, values):
    """The units with a value (M, ...) of one of their cells at their limit."""
    _, U, rows, cols = work.cells.shape
    unit = work.cells.index.long() // (rows * cols) % U
    return set(unit[(values == work.limit[unit].view(-1, 1)).any(1)].tolist())


def test_the_limits_of_the_trial_lie_on_pixels_and_on_and_beside_corners():
    _, work = some_work(np.random.default_rng(11))
    _, U, rows, cols = work.cells.shape
    place_of = work.cells.index.long() % (rows * cols)
    value = enlarge(work.cells.corners, work.at.wy[place_of // cols], work.at.wx[place_of % cols]).flatten(1)
    on_pixels, on_corners = fused.trial_works(work)
    assert units_whose_limit_is(on_pixels, value) == set(range(U))
    corners = work.cells.corners.T
    assert units_whose_limit_is(on_corners, corners) == {0, 3}
    for units, towards in (({1, 4}, torch.inf), ({2, 5}, -torch.inf)):
        moved = replace(on_corners, limit=torch.nextafter(on_corners.limit, torch.tensor(towards)))
        assert units_whose_limit_is(moved, corners) == units
    for trial in (on_pixels, on_corners):
        assert (trial.limit >= work.limit).all()


@by_maps_and_by_cells
def test_differences_that_overflow_are_counted_as_the_plain_tally_does(monkeypatch, launches, by):
    rng = np.random.default_rng(12)
    maps = torch.from_numpy(rng.choice(np.float32([-3e38, 3e38, 1, 0, 1e-45, -1e-45]), (2, 3, 4, 4)))
    labels = random_labels(rng, 2, (11, 11))
    placement = place("half-pixel", (4, 4), (11, 11))
    limits = np.array([0.5, 0.0, -1e30])
    kernel, _ = counted(by, maps, limits, placement, labels)
    assert launches[by]
    assert fused.why_not() is None
    monkeypatch.setenv("ND_FUSED", "0")
    plain, _ = counted(by, maps, limits, placement, labels)
    assert plain.area.any()
    for name in ("intersection", "area", "area_in_category"):
        np.testing.assert_array_equal(getattr(kernel, name), getattr(plain, name))


# --- where it goes wrong --------------------------------------------------------------------------------------------


def case(seed):
    rng = np.random.default_rng(seed)
    labels = random_labels(rng, 3, (12, 12))
    maps = activations(rng, (3, 4, 4, 4))
    return maps, np.full(4, 0.3), place("half-pixel", (4, 4), (12, 12)), labels


@by_maps_and_by_cells
def test_a_kernel_that_rounds_otherwise_is_found_out_and_never_used(monkeypatch, nothing_tried, by):
    """At the limits themselves both kernels count the same here, so only the trial can tell; there are no labels."""
    rng = np.random.default_rng(13)
    labels = oracle.Labels([np.zeros((1, 112, 112), int)] * 2, [[]] * 2, np.zeros(3, int), 1, [0, 0])
    maps = activations(rng, (2, 64, 7, 7), "relu")
    limits = np.quantile(maps.numpy(), 0.99, axis=(0, 2, 3))
    placement = Placement("half-pixel", (7, 7), (112, 112))
    other = "cells" if by == "maps" else "maps"
    monkeypatch.setattr(KERNELS[by], "launch", counting_contracted)
    monkeypatch.setattr(KERNELS[other], "launch", lambda *_: pytest.fail("it has failed for both"))
    assert_equal(counted(by, maps, limits, placement, labels), dense(maps, limits, placement, labels))
    assert fused.why_not() == "the fused kernel counts otherwise than the plain tally on this device"
    assert not fused.wanted(torch.device("cuda"))

    # Without its trial it would be believed.
    monkeypatch.setattr(fused._State, "why_not", None)
    monkeypatch.setattr(fused, "trial_works", lambda work: ())
    assert_equal(counted(by, maps, limits, placement, labels), dense(maps, limits, placement, labels))
    assert fused.why_not() is None


@by_maps_and_by_cells
@pytest.mark.parametrize("after", [0, 3], ids=["in its trial", "later"])
def test_whatever_it_raises_the_plain_tally_counts_on(monkeypatch, nothing_tried, by, after):
    maps, limits, placement, labels = case(14)
    whole, calls = KERNELS[by].launch, []

    def failing(*given):
        calls.append(given)
        if len(calls) > after:
            raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")
        whole(*given)

    monkeypatch.setattr(KERNELS[by], "launch", failing)
    expected = dense(maps, limits, placement, labels)
    for _ in range(2):
        assert_equal(counted(by, maps, limits, placement, labels), expected)
    assert fused.why_not() == "RuntimeError: Failed to find C compiler."
    assert len(calls) == after + 1


@by_maps_and_by_cells
@pytest.mark.parametrize("after", [0, 3], ids=["in its trial", "later"])
def test_without_memory_for_it_the_plain_tally_counts_until_there_is_some(monkeypatch, nothing_tried, by, after):
    maps, limits, placement, labels = case(15)

    def failing(kernel, name, calls):
        whole = kernel.launch

        def launch(*given):
            calls.append(given)
            if name != by or len(calls) == after + 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            whole(*given)

        monkeypatch.setattr(kernel, "launch", launch)
        return calls

    calls = {name: failing(kernel, name, []) for name, kernel in KERNELS.items()}[by]
    expected = dense(maps, limits, placement, labels)
    assert_equal(counted(by, maps, limits, placement, labels), expected)
    assert len(calls) == after + 1
    assert_equal(counted(by, maps, limits, placement, labels), expected)
    assert len(calls) == after + 1 + (1 if after else 4)  # the count, and what was to be tried before it
    assert fused.why_not() is None


def test_running_out_of_memory_half_way_adds_nothing(monkeypatch, launches):
    """After the kernel has counted some of the images, looking for the cells of the others fails."""
    maps, limits, placement, labels = case(18)
    monkeypatch.setattr("ndissect.engine.measures.tally._CELLS_AT_ONCE", 1)
    layer = Tally(4, len(labels.category), labels.categories)
    given = (maps, torch.from_numpy(limits), *placement.axes, "half-pixel", batch(labels))
    looked = []

    def failing(*cells_of):
        looked.append(cells_of)
        if len(looked) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return active_cells(*cells_of)

    monkeypatch.setattr(fused, "add_maps", lambda *_: False)  # there is not enough for whole maps
    with monkeypatch.context() as patch:
        patch.setattr("ndissect.engine.measures.tally.active_cells", failing)
        with pytest.raises(torch.OutOfMemoryError):
            layer.add(*given)
    assert launches["cells"]
    assert not any(t.any() for t in layer.state().values())
    layer.add(*given)
    expected = dense(maps, limits, placement, labels)
    np.testing.assert_array_equal(layer.counts().intersection, expected.intersection)
    np.testing.assert_array_equal(layer.counts().area, expected.area)


@by_maps_and_by_cells
def test_nd_fused_0_turns_all_off(monkeypatch, launches, by):
    maps, limits, placement, labels = case(16)
    monkeypatch.setenv("ND_FUSED", "0")
    assert_equal(counted(by, maps, limits, placement, labels), dense(maps, limits, placement, labels))
    assert not launches


def test_each_form_of_a_kernel_is_tried_before_it_counts(launches, nothing_tried):
    rng = np.random.default_rng(17)
    for grid in ((8, 8), (12, 12)):
        labels = random_labels(rng, 1, grid)
        maps = activations(rng, (1, 2, 4, 4))
        for _ in range(2):
            check(launches, maps, np.full(2, 0.5), Placement("half-pixel", (4, 4), grid), labels)
    assert len(fused._State.tried) == 4
    assert launches["maps"] == launches["cells"] == 2 * (3 + 2)
