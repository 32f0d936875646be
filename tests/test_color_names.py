"""Colours are named as people name them: pure ones, and those of photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ndissect.engine.data.color_names import LEVELS, color_numbers, color_table, memberships
from ndissect.engine.data.colors import COLORS
from ndissect.engine.data.formats import open_dataset
from ndissect.engine.data.subset import spread

MINI = Path(__file__).resolve().parents[2] / "shared" / "data" / "broden_mini"

PATCHES = {
    "black": [(0, 0, 0), (20, 20, 24)],
    "blue": [(0, 0, 255), (135, 206, 235), (30, 80, 180)],
    "brown": [(139, 69, 19), (101, 67, 33), (150, 75, 0)],
    "grey": [(128, 128, 128), (100, 104, 108)],
    "green": [(0, 128, 0), (0, 255, 0), (90, 110, 50)],
    "orange": [(255, 165, 0), (255, 128, 0)],
    "pink": [(255, 192, 203), (255, 105, 180)],
    "purple": [(128, 0, 128), (110, 60, 150)],
    "red": [(255, 0, 0), (200, 20, 40)],
    "white": [(255, 255, 255), (245, 245, 240)],
    "yellow": [(255, 255, 0), (230, 210, 40)],
}


@pytest.mark.parametrize("name", COLORS)
def test_patches_have_their_names(name: str) -> None:
    patches = np.array(PATCHES[name], np.uint8)
    assert [COLORS[n - 1] for n in color_numbers(patches)] == [name] * len(patches)


def test_every_colour_has_a_name_and_every_name_a_colour() -> None:
    assert color_table().shape == (LEVELS,) * 3
    assert np.unique(color_table()).tolist() == list(range(1, len(COLORS) + 1))


def test_colours_without_a_hue_are_black_then_grey_then_white() -> None:
    grey = np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1)
    names = [COLORS[n - 1] for n in color_numbers(grey)]
    assert list(dict.fromkeys(names)) == ["black", "grey", "white"]


def test_memberships_are_shares_of_one() -> None:
    """But where the sigmoids of hues that meet do not add up to 1, by a little (the third condition of the paper)."""
    rng = np.random.default_rng(0)
    shares = memberships(rng.integers(0, 256, (2000, 3)))
    assert shares.min() >= 0
    assert 0.95 < shares.sum(1).min()
    assert shares.sum(1).max() < 1.1


@pytest.mark.skipif(not MINI.is_dir(), reason="the real data of shared/data/broden_mini are not here")
def test_photographs_have_about_the_colours_that_others_named() -> None:
    """Those were named by other rules, and the borders between names are nobody's: most pixels agree."""
    dataset = open_dataset(MINI)
    row = {int(n): dataset.concepts.label(i) for i, n in enumerate(dataset.concepts.number)}
    number = np.zeros(1 << 16, np.uint8)
    for n, name in row.items():
        if name in COLORS:
            number[n] = COLORS.index(name) + 1
    equal = of = 0
    some = spread(dataset, 40)
    for i in range(len(some)):
        sample = some.read(i)
        cells = sample.image.reshape(112, 2, 112, 2, 3).mean((1, 3)).astype(np.uint8)
        theirs = number[sample.maps].max(0)
        equal += int((color_numbers(cells) == theirs)[theirs > 0].sum())
        of += int((theirs > 0).sum())
    assert of > 100_000
    assert equal / of > 0.65
