"""Receptive fields: the published ones, and the true ones found by changing single pixels."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ndissect.engine.geometry.receptive import trace_fields
from ndissect.engine.networks.resolve import load_network
from ndissect.store.upsampling import Field


def field_of(module: nn.Module, name: str, size: tuple[int, int] = (64, 64)) -> object:
    return trace_fields(module.eval(), torch.randn(1, 3, *size), [name])[name]


def test_gold_alexnet_conv5():
    alexnet = nn.Sequential(
        nn.Conv2d(3, 8, 11, 4), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(8, 8, 5, padding=2, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
    )  # fmt: skip
    gold = Field(-64, 163, 16)
    assert field_of(alexnet, "10", (227, 227)) == (gold, gold)
    assert field_of(alexnet, "11", (227, 227)) == (gold, gold)


def test_gold_vgg16_conv5_3():
    module = load_network("torchvision:vgg16@none").module
    assert field_of(module, "features.28", (64, 64)) == (Field(-90, 196, 16), Field(-90, 196, 16))


def touched(module: nn.Module, size: tuple[int, int], unit: tuple[int, int]) -> tuple[range, range]:
    """Which input rows and columns move the output at ``unit``: by the gradient there."""
    x = torch.randn(1, 3, *size, requires_grad=True)
    module(x)[0, :, unit[0], unit[1]].sum().backward()
    moved = x.grad[0].abs().sum(0) > 0
    rows, cols = moved.any(1).nonzero().flatten(), moved.any(0).nonzero().flatten()
    return range(int(rows[0]), int(rows[-1]) + 1), range(int(cols[0]), int(cols[-1]) + 1)


def span(field: Field, i: int) -> range:
    return range(field.offset + i * field.step, field.offset + i * field.step + field.size)


window = st.tuples(
    st.sampled_from(["conv", "same", "avg", "pad"]),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.integers(1, 2),
    st.integers(0, 1),
    st.integers(1, 2),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(window, min_size=1, max_size=3))
def test_a_traced_field_is_the_one_that_changing_pixels_reveals(windows):
    steps: list[nn.Module] = []
    for kind, k, stride, pad, dilation in windows:
        if kind == "conv":
            steps.append(nn.Conv2d(3, 3, k, stride, pad, dilation))
        elif kind == "same":
            steps.append(nn.Conv2d(3, 3, k, padding="same", dilation=dilation))
        elif kind == "avg":
            steps.append(nn.AvgPool2d((k[0] + 1, k[1] + 1), stride, pad))
        else:
            steps.append(nn.ZeroPad2d((pad, 1, stride, 2)))
    module = nn.Sequential(*steps).double()
    for p in module.parameters():
        nn.init.uniform_(p, 0.5, 1.0)  # positive: no two paths cancel
    rows, cols = trace_fields(module, torch.randn(1, 3, 60, 66).double(), [str(len(steps) - 1)])[str(len(steps) - 1)]
    shape = module(torch.zeros(1, 3, 60, 66).double()).shape[-2:]
    unit = (shape[0] // 2, shape[1] // 2)
    torch.set_default_dtype(torch.float64)
    try:
        assert touched(module, (60, 66), unit) == (span(rows, unit[0]), span(cols, unit[1]))
    finally:
        torch.set_default_dtype(torch.float32)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 4, 3, 2, 1)
        self.narrow = nn.Conv2d(3, 4, 1, 2)
        self.gate = nn.Conv2d(4, 4, 1)
        self.out = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.wide(x)
        y += self.narrow(x)
        y = y * self.gate(F.adaptive_avg_pool2d(y, 1)).sigmoid()
        return self.out(torch.cat([F.relu(y, inplace=True), y], 1))


def test_branches_span_all_of_theirs_and_a_gate_does_not_widen_them():
    assert field_of(Residual(), "out") == (Field(-1, 3, 2), Field(-1, 3, 2))


def test_channel_shuffles_slices_and_padded_shortcuts_are_followed():
    class Shuffle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.max_pool2d(x.repeat_interleave(1, 1) if False else x, 2)
            n, c, h, w = x.shape
            x = x.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w)
            a, b = x[:, :1], x[:, 1:]
            x = torch.cat([b, a], 1)
            return self.out(F.pad(x[:, :, 1::2, ::2], (0, 0, 0, 0, 1, 1)))

    assert field_of(Shuffle(), "out") == (Field(2, 2, 4), Field(0, 2, 4))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("resnet50", "layer4"), ("densenet121", "features"), ("googlenet", "inception5b"), ("shufflenet_v2_x1_0", "conv5"),
     ("efficientnet_b0", "features"), ("mobilenet_v3_small", "features"), ("regnet_y_400mf", "trunk_output")],
)  # fmt: skip
def test_common_networks_can_be_traced(name, kind):
    rows, cols = field_of(load_network(f"torchvision:{name}@none").module, kind)
    assert rows == cols and rows.step == 32


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (nn.Upsample(scale_factor=2), "resize"),
        (nn.ConvTranspose2d(3, 3, 2, 2), "transposed convolution"),
        (nn.AdaptiveAvgPool2d(7), "several sizes"),
        (nn.PixelShuffle(1), "pixel shuffle"),
    ],
)
def test_what_cannot_be_traced_says_why(layer, why):
    module = nn.Sequential(nn.Conv2d(3, 3, 1), layer, nn.ReLU())
    assert why in str(field_of(module, "2"))
    assert field_of(module, "0") == (Field(0, 1, 1), Field(0, 1, 1))


def test_flips_and_branches_of_different_steps_are_not_guessed():
    class Flip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out, self.unused = nn.ReLU(), nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(x.flip(-1))

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(x[..., ::2, ::2] + x[..., :32, :32])

    assert "flip" in str(field_of(Flip(), "out"))
    assert "not called" in str(field_of(Flip(), "unused"))
    assert "different steps" in str(field_of(Steps(), "out"))
