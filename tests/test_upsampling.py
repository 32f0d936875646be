"""Enlarging activation maps: the published arrays, torch, and the exact geometry."""

import math
from fractions import Fraction

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ndissect.store.upsampling import UPSAMPLINGS, Field, make_axis, resize_labels, upsample

NINE = np.arange(9, dtype=np.float32).reshape(3, 3)


def enlarge(maps, kind, grid, field=None, input_size=0):
    h, w = maps.shape[-2:]
    rows = make_axis(kind, h, grid[0], field, input_size)
    cols = make_axis(kind, w, grid[1], field, input_size)
    return upsample(maps, rows, cols, kind)


def test_there_are_three_upsamplings():
    assert set(UPSAMPLINGS) == {"half-pixel", "receptive-field", "half-pixel-zero"}


# --- the arrays computed with the authors' own code -----------------------------------------------------------------


def test_half_pixel_gives_the_published_array():
    out = enlarge(NINE, "half-pixel", (6, 6))
    assert out.dtype == np.float32
    assert out[0].tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2]
    assert out[1].tolist() == [0.75, 1, 1.5, 2, 2.5, 2.75]
    assert out[5].tolist() == [6, 6.25, 6.75, 7.25, 7.75, 8]


def test_receptive_field_gives_the_published_array():
    out = enlarge(NINE, "receptive-field", (6, 6), Field(0, 4, 4), 12)
    assert out[0].tolist() == [0, 0, 0.5, 1, 1.5, 2]
    assert out[2].tolist() == [1.5, 1.5, 2, 2.5, 3, 3.5]
    assert out[5].tolist() == [6, 6, 6.5, 7, 7.5, 8]


def test_half_pixel_zero_gives_the_published_array():
    out = enlarge(np.array([[1, 2], [3, 4]], np.float32), "half-pixel-zero", (4, 4))
    assert out.tolist() == [
        [0.5625, 0.9375, 1.3125, 1.125],
        [1.125, 1.75, 2.25, 1.875],
        [1.875, 2.75, 3.25, 2.625],
        [1.6875, 2.4375, 2.8125, 2.25],
    ]


@pytest.mark.parametrize(
    ("n", "size", "field", "input_size", "positions"),
    [
        pytest.param(13, 113, Field(-64, 163, 16), 227, range(8, 105, 8), id="AlexNet conv5"),
        pytest.param(14, 112, Field(-90, 196, 16), 224, range(4, 109, 8), id="VGG16 conv5_3"),
    ],
)
def test_receptive_fields_of_published_networks_lie_where_the_2017_code_puts_them(
    n, size, field, input_size, positions
):
    axis = make_axis("receptive-field", n, size, field, input_size)
    assert axis.positions.tolist() == list(positions)


def test_a_field_composes_over_the_layers_of_alexnet_and_vgg16():
    def through(layers):
        field = Field(0, 1, 1)
        for pad, kernel, stride in layers:
            field = field.then(Field(-pad, kernel, stride))
        return field

    conv1, pool, conv2, conv3 = (0, 11, 4), (0, 3, 2), (2, 5, 1), (1, 3, 1)
    assert through([conv1, pool, conv2, pool, conv3, conv3, conv3]) == Field(-64, 163, 16)
    conv, half = (1, 3, 1), (0, 2, 2)
    vgg16 = [conv] * 2 + [half] + [conv] * 2 + [half] + [conv] * 3 + [half] + [conv] * 3 + [half] + [conv] * 3
    assert through(vgg16) == Field(-90, 196, 16)


# --- torch ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [(6, 6), (7, 5), (112, 112), (113, 97), (3, 4), (2, 2), (1, 1)])
@pytest.mark.parametrize("shape", [(3, 4), (7, 7), (13, 9), (1, 1), (1, 5)])
def test_half_pixel_is_torch_interpolate(shape, grid):
    maps = np.random.default_rng(1).normal(size=(2, 3, *shape)).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(maps), size=grid, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(enlarge(maps, "half-pixel", grid), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 4), (7, 7), (13, 9)])
def test_half_pixel_zero_is_torch_grid_sample_with_zero_padding(shape):
    grid = (56, 40)
    maps = np.random.default_rng(2).normal(size=(2, 3, *shape)).astype(np.float32)
    theta = torch.eye(2, 3).expand(2, 2, 3)
    where = torch.nn.functional.affine_grid(theta, [2, 3, *grid], align_corners=False)
    expected = torch.nn.functional.grid_sample(
        torch.from_numpy(maps), where, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    np.testing.assert_allclose(enlarge(maps, "half-pixel-zero", grid), expected.numpy(), atol=1e-5)


# --- the exact geometry ---------------------------------------------------------------------------------------------

FIELDS = st.builds(Field, st.integers(-40, 40), st.integers(1, 80), st.integers(1, 16))


@settings(deadline=None, derandomize=True, max_examples=80)
@given(
    st.sampled_from(UPSAMPLINGS),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    FIELDS,
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
)
def test_every_value_is_the_oracle_s_to_the_last_bit(kind, shape, grid, field, r, seed):
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    receptive = tuple(oracle.Receptive(field.offset, field.size, field.step, size * r) for size in grid)
    expected, clean = oracle.upsample(values, kind, grid, receptive)
    assert clean.all()
    rows = make_axis(kind, shape[0], grid[0], field, grid[0] * r)
    cols = make_axis(kind, shape[1], grid[1], field, grid[1] * r)
    assert np.array_equal(upsample(values, rows, cols, kind), expected)


@settings(deadline=None, derandomize=True, max_examples=80)
@given(st.sampled_from(UPSAMPLINGS), st.integers(1, 130), st.integers(1, 130), FIELDS, st.integers(1, 4))
def test_a_cell_without_a_corner_above_the_threshold_holds_no_pixel_above_it(kind, n, size, field, r):
    """What lets the tally skip cells: no enlarged value exceeds the larger of its two neighbours, rounding included."""
    axis = make_axis(kind, n, size, field, size * r)
    assert axis.cell.shape == axis.weight.shape == (size,)
    assert axis.cell.min() >= 0
    assert axis.cell.max() <= n
    assert (np.diff(axis.cell) >= 0).all()
    assert (axis.weight >= 0).all()
    rng = np.random.default_rng(n * 1000 + size)
    values = (rng.normal(size=(1, n)) * 10.0 ** rng.integers(-3, 8, (1, n))).astype(np.float32)
    padded = np.pad(values[0], 1, mode="constant" if kind == "half-pixel-zero" else "edge")
    out = upsample(values, make_axis("half-pixel", 1, 1), axis, "half-pixel" if kind != "half-pixel-zero" else kind)[0]
    assert (out <= np.maximum(padded[axis.cell], padded[axis.cell + 1])).all()


@pytest.mark.parametrize("kind", ["half-pixel", "receptive-field"])
def test_a_constant_map_stays_constant_to_the_last_bit(kind):
    out = enlarge(np.full((13, 13), 0.1, np.float32), kind, (113, 113), Field(-64, 163, 16), 227)
    assert (out == np.float32(0.1)).all()


def test_a_map_of_the_grid_s_size_is_unchanged():
    values = np.random.default_rng(3).normal(size=(8, 8)).astype(np.float32)
    for kind in UPSAMPLINGS:
        assert np.array_equal(enlarge(values, kind, (8, 8), Field(0, 1, 1), 8), values)


def test_the_edge_continues_or_falls_to_zero():
    one = np.ones((1, 1), np.float32)
    assert enlarge(one, "half-pixel", (1, 4)).tolist() == [[1, 1, 1, 1]]
    assert enlarge(one, "half-pixel-zero", (1, 4)).tolist() == [[0.625, 0.875, 0.875, 0.625]]


@pytest.mark.parametrize(
    ("input_size", "size", "first", "step"),
    [(n, size, 8 * size / n, 16 * size / n) for n, size in ((224, 113), (227, 112), (299, 112), (320, 112))],
)
def test_receptive_fields_spread_over_the_grid_where_it_is_no_whole_fraction_of_the_input(
    input_size: int, size: int, first: float, step: float
) -> None:
    """conv5_3 of VGG16: the first unit looks at pixel 8 of the input, each next one 16 further on."""
    axis = make_axis("receptive-field", 14, size, Field(-90, 196, 16), input_size)
    np.testing.assert_allclose(axis.positions, first + step * np.arange(14))


def test_receptive_field_upsampling_needs_a_field():
    with pytest.raises(ValueError, match="receptive field"):
        make_axis("receptive-field", 3, 6)


# --- label maps on another grid -------------------------------------------------------------------------------------


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_labels_are_never_mixed_only_picked_under_the_centre_of_each_pixel(shape, grid):
    maps = np.arange(2 * shape[0] * shape[1], dtype=np.uint16).reshape(2, *shape)
    out = resize_labels(maps, grid)
    assert out.dtype == np.uint16
    assert out.shape == (2, *grid)
    for y in range(grid[0]):
        for x in range(grid[1]):
            at_y = (y + Fraction(1, 2)) * Fraction(shape[0], grid[0])
            at_x = (x + Fraction(1, 2)) * Fraction(shape[1], grid[1])
            # Between two pixels, the first.
            assert (out[:, y, x] == maps[:, math.ceil(at_y) - 1, math.ceil(at_x) - 1]).all()


@pytest.mark.parametrize("grid", [(56, 56), (28, 56)])
def test_a_grid_half_as_fine_takes_every_second_label_from_the_first_as_the_2020_code_does(grid):
    maps = np.arange(2 * 2 * grid[0] * 2 * grid[1], dtype=np.uint16).reshape(2, 2 * grid[0], 2 * grid[1])
    np.testing.assert_array_equal(resize_labels(maps, grid), maps[:, ::2, ::2])


def test_no_label_maps_stay_none():
    assert resize_labels(np.zeros((0, 112, 112), np.uint16), (56, 56)).shape == (0, 56, 56)
