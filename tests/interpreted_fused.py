"""The fused kernel on the CPU, in Triton's interpreter: run by test_fused.py in a process of its own, with
TRITON_INTERPRET=1 from its start. Tally then takes the kernel for whatever it counts.
"""

from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch
from test_tally import Placement, activations, assert_equal, batch, dense, place, random_labels, tally, thresholds
from triton.runtime import interpreter

from ndissect.engine.measures import fused, fused_kernel
from ndissect.engine.measures.cell_work import CellWork
from ndissect.engine.measures.cells import active_cells
from ndissect.engine.measures.label_grid import Placement as Tables
from ndissect.engine.measures.label_grid import enlarge
from ndissect.engine.measures.tally import Tally, _Count
from ndissect.engine.passes.labels import Labelling, label_batch
from ndissect.store.upsampling import UPSAMPLINGS

# What is not finite, and what overflows, numpy tells the interpreter of.
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning")
in_every_upsampling = pytest.mark.parametrize("kind", UPSAMPLINGS)


@pytest.fixture(autouse=True)
def one_element_is_an_integer(monkeypatch):
    """Triton's interpreter before 3.8 calls int() of an array of shape (1,), which numpy refuses from 2.4 on."""
    patched = interpreter._patch_lang_tensor

    def patch(tensor, scope):
        patched(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patch)


@pytest.fixture(autouse=True)
def nothing_learnt_yet(monkeypatch):
    monkeypatch.setattr(fused._State, "why_not", None)
    monkeypatch.setattr(fused._State, "tried", set())
    monkeypatch.delenv("ND_FUSED", raising=False)


def check(maps, limits, placement, labels, groups=1):
    """The fused counts equal the dense oracle's, and it was the fused kernel that counted."""
    expected = dense(maps, limits, placement, labels, groups)
    assert_equal(tally(maps, limits, placement, labels, groups=groups), expected)
    assert fused.why_not() is None
    if expected.area.any():
        assert fused._State.tried
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
def test_counts_equal_the_oracle_at_every_scale(kind, shape, grid):
    rng = np.random.default_rng(shape[0] * grid[0])
    labels = random_labels(rng, 2, grid, groups=2, most_maps=4)
    maps = activations(rng, (2, 3, *shape))
    # Few cells of large maps, for the interpreter takes milliseconds for each.
    limits = np.quantile(maps.numpy(), 0.97 if np.prod(grid) > 5000 else 0.5, axis=(0, 2, 3))
    assert check(maps, limits, place(kind, shape, grid), labels, groups=2).area.any()


@in_every_upsampling
@pytest.mark.parametrize("limit", [0.5, -0.5, -1e30])
def test_pixels_that_touch_nan_or_infinity_are_in_no_mask(kind, limit):
    rng = np.random.default_rng(17)
    labels = random_labels(rng, 2, (9, 8))
    maps = activations(rng, (2, 4, 6, 5))
    spots = rng.random(maps.shape)
    for k, value in enumerate((torch.nan, torch.inf, -torch.inf)):
        maps[torch.from_numpy((spots > k / 20) & (spots < (k + 1) / 20))] = value
    maps[:, 1] = torch.inf
    maps[0, 0] = torch.nan
    expected = check(maps, np.full(4, limit), place(kind, (6, 5), (9, 8)), labels)
    assert expected.area[0, 0] > 0
    assert expected.area[0, 1] == 0


@pytest.mark.parametrize("limit", [-1e9, -0.0, 0.0, 2.0, np.inf, -np.inf, np.nan], ids=str)
def test_thresholds_below_everything_negative_zero_and_above_everything(limit):
    rng = np.random.default_rng(13)
    maps = activations(rng, (2, 3, 4, 4), "ties")
    placement = place("half-pixel-zero", (4, 4), (10, 10))
    check(maps, np.array([limit, 1.0, limit]), placement, random_labels(rng, 2, (10, 10)))


@pytest.mark.parametrize("maps_of_labels", range(6))
@pytest.mark.parametrize("many", [False, True], ids=["int16", "int32"])
def test_none_to_five_label_maps_of_either_size_and_image_level_labels(maps_of_labels, many):
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
    assert fused._State.tried
    counted = layer.counts()
    # The oracle, for the concepts that there are.
    row = {0: 0} | {c: i + 1 for i, c in enumerate(concepts)}
    renamed = [np.vectorize(row.__getitem__, otypes=[np.int32])(m) if m.size else m for m in fine]
    labels = oracle.Labels(renamed, [[3], []], np.zeros(4, int), 1, [0, 0])
    expected = dense(maps, np.array([0.5, 0.9]), placement, labels)
    at = np.array(concepts) - 1
    np.testing.assert_array_equal(counted.intersection[:, :, at], expected.intersection)
    assert counted.intersection.sum() == expected.intersection.sum() > 0
    np.testing.assert_array_equal(counted.area, expected.area)
    np.testing.assert_array_equal(counted.area_in_category, expected.area_in_category)


def test_more_labels_in_a_cell_than_are_counted_together():
    """Every pixel of a cell of 16 x 16 with a label of its own: what the rounds leave is counted pixel by pixel."""
    rng = np.random.default_rng(5)
    own = (np.arange(32 * 32) % 500 + 1).reshape(1, 32, 32)
    labels = oracle.Labels([own, np.zeros((0, 32, 32), int)], [[], []], np.zeros(500, int), 1, [0, 0])
    maps = activations(rng, (2, 2, 2, 2))
    expected = check(maps, np.array([0.2, 0.0]), place("half-pixel", (2, 2), (32, 32)), labels)
    assert (expected.intersection > 0).sum() > 10 * fused_kernel.ROUNDS


def test_repeated_concepts_count_once_a_map_where_that_is_asked_for():
    rng = np.random.default_rng(6)
    labels = replace(random_labels(rng, 3, (9, 9), concepts=2), once=False)
    maps = activations(rng, (3, 2, 3, 3))
    check(maps, np.zeros(2), place("half-pixel", (3, 3), (9, 9)), labels)


@pytest.mark.parametrize("at_once", [1, 1 << 24], ids=["an image at a time", "all images"])
def test_counts_do_not_depend_on_how_images_are_cut(monkeypatch, at_once):
    monkeypatch.setattr("ndissect.engine.measures.tally._CELLS_AT_ONCE", at_once)
    rng = np.random.default_rng(7)
    labels = random_labels(rng, 4, (12, 12), groups=3)
    maps = activations(rng, (4, 2, 4, 4))
    check(maps, thresholds(rng, maps), place("half-pixel", (4, 4), (12, 12)), labels, groups=3)


@pytest.mark.parametrize(("bins", "kernel"), [(1 << 23, True), (0, False)])
def test_bins_too_many_for_an_array_are_counted_too(monkeypatch, bins, kernel):
    monkeypatch.setattr("ndissect.engine.measures.hits._TABLE_BINS", {"cpu": bins})
    rng = np.random.default_rng(8)
    labels = random_labels(rng, 2, (12, 12))
    maps = activations(rng, (2, 2, 4, 4))
    limits, placement = thresholds(rng, maps), place("half-pixel", (4, 4), (12, 12))
    assert_equal(tally(maps, limits, placement, labels), dense(maps, limits, placement, labels))
    assert bool(fused._State.tried) == kernel


def test_cells_of_many_images_numbered_in_int64():
    """Flat places beyond 2^31 come as int64; here small ones do."""
    work, count = some_work(np.random.default_rng(9))
    wide = replace(work, cells=replace(work.cells, index=work.cells.index.long()))
    found = run(count, wide)
    for got, expected in zip(found, count.apart(work), strict=True):
        assert torch.equal(got, expected)


# --- arithmetic -----------------------------------------------------------------------------------------------------


def some_work(rng, shape=(7, 7), grid=(30, 30), units=6):
    """Cells with limits that pixels meet to the bit, and the tally's own way to count them."""
    labels = random_labels(rng, 2, grid)
    maps = activations(rng, (2, units, *shape))
    rows, cols = place("half-pixel", shape, grid).axes
    limit = torch.full((units,), 0.8)
    intersection = torch.zeros((1, units, len(labels.category) + 1), dtype=torch.int64)
    tables = Tables(rows, cols)
    cells = active_cells(maps, limit, "half-pixel")
    work = CellWork(cells, limit, Labelling.own(batch(labels)), tables, 0, intersection.shape[2])
    return replace(work, limit=fused.limits_on_pixels(work)), _Count(2, intersection, tables)


def run(count, work, launch=fused_kernel.launch):
    """(area, hits) of the kernel, with its unlabelled column, which it leaves out, from the plain tally."""
    area, hits = torch.zeros_like(count.area), torch.zeros_like(count._into).view(-1)
    launch(work, area, hits)
    columns = count._into.shape[2]
    assert not hits[::columns].any()
    hits[::columns] = count.apart(work)[1][::columns]
    return area, hits


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
    _, U, rows, cols = work.cells.shape
    index = work.cells.index.long()
    which, place_of = index // (rows * cols), index % (rows * cols)
    value = contracted(work.cells.corners, work.at.wy[place_of // cols], work.at.wx[place_of % cols])
    area.index_add_(0, which, (value > work.limit[which % U][:, None, None]).sum((1, 2)))


def test_ties_are_kept_to_the_bit_where_a_fused_multiply_add_would_break_them():
    work, count = some_work(np.random.default_rng(10))
    expected = count.apart(work)
    for got, wanted in zip(run(count, work), expected, strict=True):
        assert torch.equal(got, wanted)
    # The same cells with joined arithmetic: so the equality above would not hold.
    joined = torch.zeros_like(expected[0])
    counting_contracted(work, joined, None)
    assert not torch.equal(joined, expected[0])


def test_the_limits_of_the_trial_lie_on_pixels():
    work, _ = some_work(np.random.default_rng(11))
    _, U, rows, cols = work.cells.shape
    index = work.cells.index.long()
    unit, place_of = index // (rows * cols) % U, index % (rows * cols)
    value = enlarge(work.cells.corners, work.at.wy[place_of // cols], work.at.wx[place_of % cols])
    met = (value == work.limit[unit][:, None, None]).flatten(1).any(1)
    assert set(unit[met].tolist()) == set(range(U))


def test_differences_that_overflow_are_counted_as_the_plain_tally_does(monkeypatch):
    rng = np.random.default_rng(12)
    maps = torch.from_numpy(rng.choice(np.float32([-3e38, 3e38, 1, 0, 1e-45, -1e-45]), (2, 3, 4, 4)))
    labels = random_labels(rng, 2, (11, 11))
    placement = place("half-pixel", (4, 4), (11, 11))
    limits = np.array([0.5, 0.0, -1e30])
    kernel, _ = tally(maps, limits, placement, labels)
    assert fused._State.tried
    monkeypatch.setenv("ND_FUSED", "0")
    plain, _ = tally(maps, limits, placement, labels)
    assert plain.area.any()
    for name in ("intersection", "area", "area_in_category"):
        np.testing.assert_array_equal(getattr(kernel, name), getattr(plain, name))


# --- where it goes wrong --------------------------------------------------------------------------------------------


def case(seed):
    rng = np.random.default_rng(seed)
    labels = random_labels(rng, 3, (12, 12))
    maps = activations(rng, (3, 4, 4, 4))
    return maps, np.full(4, 0.3), place("half-pixel", (4, 4), (12, 12)), labels


def test_a_kernel_that_rounds_otherwise_is_found_out_and_never_used(monkeypatch):
    """At the limits themselves both kernels count the same here, so only the trial can tell; there are no labels."""
    rng = np.random.default_rng(13)
    labels = oracle.Labels([np.zeros((1, 112, 112), int)] * 2, [[]] * 2, np.zeros(3, int), 1, [0, 0])
    maps = activations(rng, (2, 64, 7, 7), "relu")
    limits = np.quantile(maps.numpy(), 0.99, axis=(0, 2, 3))
    placement = Placement("half-pixel", (7, 7), (112, 112))
    monkeypatch.setattr(fused_kernel, "launch", counting_contracted)
    assert_equal(tally(maps, limits, placement, labels), dense(maps, limits, placement, labels))
    assert fused.why_not() == "the fused kernel counts otherwise than the plain tally on this device"
    assert not fused.wanted(torch.device("cuda"))

    # Without its trial it would be believed.
    monkeypatch.setattr(fused._State, "why_not", None)
    monkeypatch.setattr(fused, "limits_on_pixels", lambda work: work.limit)
    assert_equal(tally(maps, limits, placement, labels), dense(maps, limits, placement, labels))
    assert fused.why_not() is None


@pytest.mark.parametrize("after", [0, 1], ids=["in its trial", "later"])
def test_whatever_it_raises_the_plain_tally_counts_on(monkeypatch, after):
    maps, limits, placement, labels = case(14)
    whole, calls = fused_kernel.launch, []

    def failing(*given):
        calls.append(given)
        if len(calls) > after:
            raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")
        whole(*given)

    monkeypatch.setattr(fused_kernel, "launch", failing)
    expected = dense(maps, limits, placement, labels)
    for _ in range(2):
        assert_equal(tally(maps, limits, placement, labels), expected)
    assert fused.why_not() == "RuntimeError: Failed to find C compiler."
    assert len(calls) == after + 1


@pytest.mark.parametrize("after", [0, 1], ids=["in its trial", "later"])
def test_without_memory_for_it_the_plain_tally_counts_until_there_is_some(monkeypatch, after):
    maps, limits, placement, labels = case(15)
    whole, calls = fused_kernel.launch, []

    def failing(*given):
        calls.append(given)
        if len(calls) == after + 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        whole(*given)

    monkeypatch.setattr(fused_kernel, "launch", failing)
    expected = dense(maps, limits, placement, labels)
    assert_equal(tally(maps, limits, placement, labels), expected)
    assert len(calls) == after + 1
    assert_equal(tally(maps, limits, placement, labels), expected)
    assert len(calls) == 3  # one that failed, a trial and a count
    assert fused.why_not() is None


def test_running_out_of_memory_half_way_adds_nothing(monkeypatch):
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

    with monkeypatch.context() as patch:
        patch.setattr("ndissect.engine.measures.tally.active_cells", failing)
        with pytest.raises(torch.OutOfMemoryError):
            layer.add(*given)
    assert fused._State.tried
    assert not any(t.any() for t in layer.state().values())
    layer.add(*given)
    expected = dense(maps, limits, placement, labels)
    np.testing.assert_array_equal(layer.counts().intersection, expected.intersection)
    np.testing.assert_array_equal(layer.counts().area, expected.area)


def test_nd_fused_0_turns_it_off(monkeypatch):
    maps, limits, placement, labels = case(16)
    monkeypatch.setenv("ND_FUSED", "0")
    assert_equal(tally(maps, limits, placement, labels), dense(maps, limits, placement, labels))
    assert not fused._State.tried


def test_each_form_of_the_kernel_is_tried_before_it_counts():
    rng = np.random.default_rng(17)
    for grid in ((8, 8), (12, 12)):
        labels = random_labels(rng, 1, grid)
        maps = activations(rng, (1, 2, 4, 4))
        check(maps, np.full(2, 0.5), Placement("half-pixel", (4, 4), grid), labels)
    assert len(fused._State.tried) == 2
