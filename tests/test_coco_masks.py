"""Polygons and run lengths to pixels: ndissect.engine.data.coco_masks against COCO's own rule, written out plainly."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndissect.engine.data.coco_masks import BadMask, layered, mask_of

MINI = Path(__file__).resolve().parents[2] / "shared" / "data" / "captions" / "coco_mini" / "annotations"


def outline(corners: list[tuple[float, float]]) -> list[tuple[int, int]]:
    """Every point of the outline on a grid five times as fine, line by line, as rleFrPoly of pycocotools draws it."""
    fine = [(int(5 * x + 0.5), int(5 * y + 0.5)) for x, y in corners]
    points = []
    for start, end in zip(fine, [*fine[1:], fine[0]], strict=True):
        (xs, ys), (xe, ye) = start, end
        dx, dy = abs(xe - xs), abs(ye - ys)
        flip = (dx >= dy and xs > xe) or (dx < dy and ys > ye)
        if flip:
            xs, ys, xe, ye = xe, ye, xs, ys
        for d in range(max(dx, dy) + 1):
            t = max(dx, dy) - d if flip else d
            if dx >= dy:
                points.append((xs + t, int(ys + (ye - ys) / max(dx, 1) * t + 0.5)))
            else:
                points.append((int(xs + (xe - xs) / dy * t + 0.5), ys + t))
    return points


def filled(polygon: list[float], height: int, width: int) -> np.ndarray:
    """(H, W) bool: the pixels of one polygon; down the columns each crossing changes between outside and inside."""
    corners = list(zip(polygon[::2], polygon[1::2], strict=True))
    changes = [0] * (height * width + 1)
    for (u, v), (u2, v2) in itertools.pairwise(outline(corners)):
        x, y = (min(u, u2) + 0.5) / 5 - 0.5, (min(v, v2) + 0.5) / 5 - 0.5
        if u != u2 and x == math.floor(x) and 0 <= x <= width - 1:
            changes[int(x) * height + math.ceil(min(max(y, 0), height))] += 1
    inside = [total % 2 == 1 for total in itertools.accumulate(changes)]
    return np.array(inside[:-1]).reshape(width, height).T


def packed(counts: list[int]) -> str:
    """Run lengths as COCO's files have them: ``rleToString`` of pycocotools."""
    text = ""
    for i, count in enumerate(counts):
        x = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits = x & 31
            x >>= 5
            more = x != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
    return text


coordinate = st.one_of(st.integers(-20, 120).map(lambda n: n / 2), st.integers(-500, 3500).map(lambda n: n / 100))


@given(st.lists(coordinate, min_size=6, max_size=20), st.integers(1, 30), st.integers(1, 30))
def test_polygons_are_filled_as_coco_fills_them(numbers: list[float], height: int, width: int) -> None:
    polygon = numbers[: len(numbers) // 2 * 2]
    assert (mask_of([polygon], (height, width)) == filled(polygon, height, width)).all()


@given(st.data(), st.integers(1, 12), st.integers(1, 12))
def test_run_lengths_give_back_the_mask(data: st.DataObject, height: int, width: int) -> None:
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width)))
    counts, value = [], False
    for inside, run in itertools.groupby(mask.tolist()):
        if inside != value and not counts:
            counts.append(0)
        counts.append(len(list(run)))
    for runs in (counts, packed(counts)):
        got = mask_of({"size": [height, width], "counts": runs}, (height, width))
        assert (got == mask.reshape(width, height).T).all()


def test_a_rectangle_covers_its_pixels() -> None:
    mask = mask_of([[2, 1, 6, 1, 6, 4, 2, 4]], (6, 8))
    assert mask.sum() == 12
    assert mask[1:4, 2:6].all()
    both = mask_of([[2, 1, 6, 1, 6, 4, 2, 4], [0, 0, 1, 0, 1, 6, 0, 6]], (6, 8))
    assert both.sum() == 18


@pytest.mark.skipif(not MINI.is_dir(), reason="the real data of shared/data/captions are not here")
def test_real_polygons_are_filled_as_coco_fills_them() -> None:
    data = json.loads((MINI / "instances_val2017.json").read_text())
    size = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    for annotation in data["annotations"][:60]:
        height, width = size[annotation["image_id"]]
        expected = np.logical_or.reduce([filled(p, height, width) for p in annotation["segmentation"]])
        assert (mask_of(annotation["segmentation"], (height, width)) == expected).all()


@pytest.mark.parametrize(
    ("segmentation", "what"),
    [
        ([[1, 2]], "2 numbers"),
        ([[1, 2, 3, 4, 5]], "5 numbers"),
        ([["a"] * 6], "no list of numbers"),
        ([[math.nan] * 6], "far outside"),
        ([[1e300] * 6], "far outside"),
        ([[10**400] * 6], "no list of numbers"),
        ([[1, 2, 3, 4, 5, [6]]], "no list of numbers"),
        ([{}], "no list of numbers"),
        ([[0, 0, 60000, 60000, 0, 60000] * 500], "more than 4,194,304 points"),
        ("text", "neither polygons nor run lengths"),
        ({"size": [9, 8], "counts": [72]}, "the image is 8 x 8"),
        ({"size": [8, 8]}, "no list of whole numbers"),
        ({"size": [8, 8], "counts": [10, -1, 55]}, "do not add up"),
        ({"size": [8, 8], "counts": [63]}, "do not add up"),
        ({"size": [8, 8], "counts": [10**30]}, "no number of pixels"),
        ({"size": [8, 8], "counts": [True] * 64}, "no list of whole numbers"),
        ({"size": [8, 8], "counts": ""}, "do not add up"),
        ({"size": [8, 8], "counts": "\xff"}, "no meaning"),
        ({"size": [8, 8], "counts": "P"}, "no meaning"),
        ({"size": [8, 8], "counts": "o" * 390 + "0"}, "longer than any image"),
        ({"size": [8, 8], "counts": "0" * 1000}, "more run lengths"),
    ],
)
def test_what_is_no_mask_is_told(segmentation: Any, what: str) -> None:
    with pytest.raises(BadMask, match=what):
        mask_of(segmentation, (8, 8))


def test_masks_that_overlap_take_as_many_maps_as_a_pixel_has_concepts() -> None:
    square = np.zeros((4, 4), bool)
    square[:2, :2] = True
    maps = layered([(7, square), (3, square.T | np.eye(4, dtype=bool)), (7, np.eye(4, dtype=bool)[::-1])], (4, 4))
    assert maps.shape == (2, 4, 4)
    assert sorted(maps[:, 0, 0].tolist()) == [3, 7]
    assert sorted(maps[:, 0, 3].tolist()) == [0, 7]
    assert sorted(maps[:, 3, 3].tolist()) == [0, 3]
    for number, pixels in ((7, square | np.eye(4, dtype=bool)[::-1]), (3, square | np.eye(4, dtype=bool))):
        assert ((maps == number).sum(0) == pixels).all()
    assert layered([], (4, 4)).shape == (0, 4, 4)
