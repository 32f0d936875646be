"""Small folders of images and label maps, written for tests.

write_folder(tmp_path / "data", {"a": {"": numbers}}, names="1,cat\n2,dog\n")
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write_folder(
    root: Path,
    maps: Mapping[str, Mapping[str, Any]],
    names: str | None = "number,name\n1,cat\n2,dog\n",
    size: tuple[int, int] = (32, 32),
    images: str = "images",
    masks: str = "masks",
) -> Path:
    """Noise as images, and of each its ``maps`` by part, arrays of numbers or colours; ``names``: labels.csv."""
    for at, (name, parts) in enumerate(maps.items()):
        image = root / images / f"{name}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(at).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(image, quality=95)
        (root / masks).mkdir(parents=True, exist_ok=True)
        for part, numbers in parts.items():
            path = root / masks / (f"{name}.{part}.png" if part else f"{name}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(numbers)).save(path)
    if names is not None:
        (root / "labels.csv").write_text(names, encoding="utf-8")
    return root


def halves(left: int, right: int, shape: tuple[int, int] = (16, 16)) -> np.ndarray:
    """(h, w) uint8, or uint16 for large numbers: ``left`` in the left half, ``right`` in the right one."""
    numbers = np.full(shape, left, np.uint8 if max(left, right) < 256 else np.uint16)
    numbers[:, shape[1] // 2 :] = right
    return numbers
