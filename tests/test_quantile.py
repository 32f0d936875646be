"""Exact streaming thresholds: the Hazen quantile of every unit, whatever the batches, the order and the memory."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ndissect.engine.measures.quantile import Quantile

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
ONE_PASS, SMALL = {}, {"budget": 1}

on_devices = pytest.mark.parametrize("device", DEVICES)
in_every_precision = pytest.mark.parametrize("dtype", DTYPES, ids=str)
in_one_pass_and_in_several = pytest.mark.parametrize("memory", [ONE_PASS, SMALL], ids=["one pass", "small budget"])


def stream(values, q, *, device="cpu", memory=ONE_PASS, cuts=(), total=None):
    """The statistics of values (U, n), given in batches cut at these places as often as the product asks."""
    units, n = values.shape
    quantile = Quantile(units, n if total is None else total, q, device=device, **memory)
    edges = [0, *sorted(set(cuts)), n]
    passes = 0
    while True:
        for start, end in pairwise(edges):
            quantile.update(values[:, start:end].to(device))
        passes += 1
        assert passes <= quantile.passes
        if not quantile.end_pass():
            break
    return quantile.result()


def assert_is_the_oracle_s(statistics, values, q):
    rows = values.float().numpy()
    expected = np.array([oracle.hazen(row, q) for row in rows])
    assert statistics.threshold.dtype == np.float64
    assert statistics.minimum.dtype == statistics.maximum.dtype == np.float32
    assert statistics.nan.dtype == statistics.inf.dtype == np.int64
    assert statistics.dead.dtype == bool
    np.testing.assert_array_equal(statistics.threshold, expected)
    np.testing.assert_array_equal(statistics.nan, np.isnan(rows).sum(1))
    np.testing.assert_array_equal(statistics.inf, np.isinf(rows).sum(1))
    for u, row in enumerate(rows):
        finite = row[np.isfinite(row)]
        if len(finite):
            assert statistics.minimum[u] == finite.min()
            assert statistics.maximum[u] == finite.max()
        assert statistics.dead[u] == (len(finite) == 0 or finite.min() == finite.max() or finite.max() <= 0)


# --- known values ---------------------------------------------------------------------------------------------------


@on_devices
@in_one_pass_and_in_several
def test_the_published_value_at_the_readout_of_the_2017_code(device, memory):
    values = torch.arange(1000, dtype=torch.float32)[None]
    threshold = stream(values, Fraction(5, 999), device=device, memory=memory).threshold[0]
    assert threshold == pytest.approx(994.494995, abs=5e-7)
    assert threshold == 994 + float(Fraction(994, 999) * 1000 - Fraction(1, 2) - 994)


@on_devices
@in_one_pass_and_in_several
@pytest.mark.parametrize(
    ("values", "q", "threshold"),
    [
        pytest.param([1, 2, 3, 4], Fraction(1, 2), 2.5, id="median of an even number"),
        pytest.param([5, 1, 3], Fraction(1, 2), 3.0, id="median of an odd number"),
        pytest.param([0, 10, 20, 30, 40, 50, 60, 70, 80, 90], Fraction(1, 5), 75.0, id="between two values"),
        pytest.param([0, 10, 20, 30, 40, 50, 60, 70, 80, 90], Fraction(1, 4), 70.0, id="on a value"),
        pytest.param([3, 9], Fraction(1, 200), 9.0, id="fewer than 1/q values: the largest"),
        pytest.param([3, 9], Fraction(199, 200), 3.0, id="nearly all above: the smallest"),
        pytest.param([7], Fraction(1, 200), 7.0, id="a single value"),
        pytest.param([-4, -1, -2, -3], Fraction(1, 2), -2.5, id="negative"),
        pytest.param([-1, 1], Fraction(1, 2), 0.0, id="across zero"),
        pytest.param([math.nan, 1, math.inf, 2, -math.inf, 3], Fraction(1, 2), 2.0, id="what is finite"),
        pytest.param([math.nan, math.inf], Fraction(1, 2), math.nan, id="nothing finite"),
    ],
)
def test_hazen_by_hand(device, memory, values, q, threshold):
    got = stream(torch.tensor([values], dtype=torch.float32), q, device=device, memory=memory)
    np.testing.assert_array_equal(got.threshold, [threshold])


@on_devices
@in_one_pass_and_in_several
@in_every_precision
def test_what_makes_a_unit_dead(device, memory, dtype):
    nan, inf = math.nan, math.inf
    cases = [
        ([0, 0, 0, 0], True),
        ([2, 2, 2, 2], True),
        ([-1, -2, -3, 0], True),
        ([-1, -2, -3, -0.0], True),
        ([-0.0, 0.0, -0.0, 0.0], True),
        ([nan, nan, inf, -inf], True),
        ([2, 2, nan, inf], True),
        ([-1, -2, inf, -3], True),
        ([0, 0, 0, 1e-7], False),
        ([-1, -1, -1, 1], False),
        ([2, 2, 2, 3], False),
        ([1, 2, nan, -inf], False),
    ]
    values = torch.tensor([row for row, _ in cases], dtype=torch.float32).to(dtype)
    got = stream(values, Fraction(1, 4), device=device, memory=memory)
    assert got.dead.tolist() == [dead for _, dead in cases]
    assert got.nan.tolist() == [0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 1]
    assert got.inf.tolist() == [0, 0, 0, 0, 0, 2, 1, 1, 0, 0, 0, 1]
    assert_is_the_oracle_s(got, values, Fraction(1, 4))


# --- equality with the oracle ---------------------------------------------------------------------------------------


def difficult(dtype, n=4000):
    """One unit of each kind of data that has broken a quantile before."""
    rng = np.random.default_rng(1)
    normal = rng.normal(size=n)
    smallest = torch.finfo(dtype).smallest_normal
    largest = float(torch.finfo(dtype).max)
    rows = [
        normal,
        np.maximum(normal, 0),
        np.where(normal > 2.7, normal, 0),
        -np.abs(normal),
        np.full(n, 0.75),
        np.full(n, -0.75),
        rng.integers(-3, 4, n),
        rng.integers(0, 2, n) * -0.0,
        np.where(rng.random(n) < 0.5, -0.0, 0.0),
        rng.integers(-50, 50, n) * smallest / 64,
        rng.choice([-largest, largest, 0, smallest], n),
        np.exp(rng.normal(0, 6, n)).clip(max=largest),
        np.sort(normal),
        np.sort(normal)[::-1],
        1 + rng.integers(0, 9, n) * float(torch.finfo(dtype).eps),
        np.where(rng.random(n) < 0.1, np.nan, normal),
        np.where(rng.random(n) < 0.3, np.inf, normal),
        np.where(rng.random(n) < 0.3, -np.inf, normal),
        np.where(rng.random(n) < 0.99, np.nan, np.where(normal > 0, np.inf, normal)),
        np.full(n, np.nan),
        np.full(n, np.inf),
        np.where(np.arange(n) == n // 2, 0.5, np.nan),
    ]
    return torch.from_numpy(np.stack(rows)).to(dtype)


@on_devices
@in_one_pass_and_in_several
@in_every_precision
@pytest.mark.parametrize(
    "q", [Fraction(1, 200), Fraction(5, 999), Fraction(1, 100), Fraction(1, 2), Fraction(9, 10), Fraction(1, 10**6)]
)
def test_thresholds_equal_the_oracle_bit_for_bit(device, memory, dtype, q):
    values = difficult(dtype)
    got = stream(values, q, device=device, memory=memory, cuts=[1, 77, 78, 2000, 3999])
    assert_is_the_oracle_s(got, values, q)


@on_devices
@in_every_precision
def test_thresholds_agree_with_numpy_s_hazen(device, dtype):
    values = torch.from_numpy(np.random.default_rng(2).normal(size=(6, 3001))).to(dtype)
    for q in (Fraction(1, 200), Fraction(5, 999), Fraction(1, 2)):
        expected = np.quantile(values.double().numpy(), float(1 - q), axis=1, method="hazen")
        np.testing.assert_allclose(stream(values, q, device=device).threshold, expected, rtol=1e-9, atol=1e-12)


@on_devices
@in_one_pass_and_in_several
def test_the_threshold_leaves_the_stated_share_above_it(device, memory):
    values = torch.from_numpy(np.random.default_rng(3).permutation(20000).reshape(2, 10000)).float()
    threshold = stream(values, Fraction(1, 200), device=device, memory=memory).threshold
    assert (values.numpy() > threshold[:, None]).sum(1).tolist() == [50, 50]


def assert_same(one, other):
    for name in ("threshold", "nan", "inf", "minimum", "maximum", "dead"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


NUMBERS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, math.nan, math.inf, -math.inf, 6e-8, -6e-8, 1e-45, -1e-45]),
    st.integers(0, 2**16 - 1).map(lambda bits: float(np.uint16(bits).view(np.float16))),
    st.integers(0, 2**32 - 1).map(lambda bits: float(np.uint32(bits).view(np.float32))),
)


@st.composite
def streams(draw):
    """Values (U, n) of any floats, with many ties, a share, where to cut the batches and another order."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pool = np.array(draw(st.lists(NUMBERS, min_size=1, max_size=12)), np.float64)
    units, n = draw(st.integers(1, 3)), draw(st.integers(1, 60))
    values = torch.from_numpy(rng.choice(pool, (units, n))).float().to(draw(st.sampled_from(DTYPES)))
    q = Fraction(draw(st.integers(1, 60)), draw(st.integers(61, 400)))
    return values, q, draw(st.lists(st.integers(0, n), max_size=4)), rng.permutation(n)


@on_devices
@settings(deadline=None, derandomize=True, max_examples=300)
@given(streams())
def test_any_values_any_cut_any_order_and_any_memory_give_the_oracle_s_thresholds(device, case):
    values, q, cuts, order = case
    one = stream(values, q, device=device, cuts=cuts)
    assert_is_the_oracle_s(one, values, q)
    assert_same(one, stream(values[:, order], q, device=device, cuts=cuts, memory=SMALL))


# --- passes and memory ----------------------------------------------------------------------------------------------


def test_a_small_budget_costs_three_passes_and_a_large_one_a_single_pass():
    assert Quantile(4, 10**6, Fraction(1, 200), budget=1).passes == 3
    assert Quantile(4, 1000, Fraction(1, 200)).passes == 1
    assert Quantile(4, 1000, Fraction(1, 200), budget=2**40).passes == 1


def test_one_pass_ends_after_one_pass():
    quantile = Quantile(2, 10, Fraction(1, 2))
    quantile.update(torch.arange(20.0).reshape(2, 10))
    assert quantile.end_pass() is False


@on_devices
@in_one_pass_and_in_several
@in_every_precision
def test_fewer_values_than_announced_are_enough(device, memory, dtype):
    values = difficult(dtype, 500)
    for q in (Fraction(1, 200), Fraction(1, 2)):
        got = stream(values, q, device=device, memory=memory, total=5000, cuts=[100])
        assert_is_the_oracle_s(got, values, q)


@on_devices
@in_one_pass_and_in_several
@pytest.mark.parametrize("batch", [1, 7, 64, 200])
def test_every_batch_size_gives_the_same_result(device, memory, batch):
    values = difficult(torch.float32, 200)
    got = stream(values, Fraction(1, 50), device=device, memory=memory, cuts=range(batch, 200, batch))
    assert_same(got, stream(values, Fraction(1, 50)))


@on_devices
@in_one_pass_and_in_several
def test_views_are_read_as_they_are_and_not_changed(device, memory):
    """Activations arrive as (N, U, h, w), units second, and may be turned into (U, n) without a copy."""
    maps = torch.from_numpy(np.random.default_rng(5).normal(size=(6, 4, 5, 3)).astype(np.float32)).to(device)
    before = maps.clone()
    turned = maps[:, :, 0, 0].T
    assert not turned.is_contiguous()
    got = stream(turned, Fraction(1, 3), device=device, memory=memory)
    assert_is_the_oracle_s(got, turned.cpu(), Fraction(1, 3))
    assert torch.equal(maps, before)


@on_devices
@in_one_pass_and_in_several
def test_batches_may_be_empty(device, memory):
    values = torch.arange(30.0).reshape(3, 10)
    quantile = Quantile(3, 10, Fraction(1, 5), device=device, **memory)
    while True:
        for some in (values[:, :0], values[:, :4], values[:, 4:4], values[:, 4:]):
            quantile.update(some.to(device))
        if not quantile.end_pass():
            break
    assert_is_the_oracle_s(quantile.result(), values, Fraction(1, 5))


@on_devices
def test_one_pass_keeps_the_tail_of_many_values(device):
    """Larger than a batch, larger than what is kept: the tail must be merged as the values come, in any order."""
    rng = np.random.default_rng(6)
    values = torch.from_numpy(np.stack([rng.permutation(60000), np.arange(60000), np.arange(60000)[::-1]])).float()
    for q in (Fraction(1, 200), Fraction(1, 3)):
        got = stream(values, q, device=device, cuts=range(997, 60000, 997))
        assert_is_the_oracle_s(got, values, q)
        assert_same(got, stream(values, q, device=device, cuts=range(20011, 60000, 20011), memory=SMALL))
