"""JPEGs decoded a batch at a time, as a GPU does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def decode_together(images: Sequence[npt.NDArray[np.uint8]], device: torch.device) -> list[Tensor]:
    """(3, H, W) uint8 tensors on ``device`` of images that are encoded, (n,), or decoded, (H, W, 3).

    RuntimeError where one cannot be decoded. A GPU's decoder rounds in another way than a CPU's: pixels may differ by a
    few levels.
    """
    from torchvision.io import ImageReadMode, decode_jpeg  # noqa: PLC0415 - takes a while

    encoded = [i for i, image in enumerate(images) if image.ndim == 1]
    # decode_jpeg wants memory that it could write to, and the bytes of a file are not.
    sources = [torch.from_numpy(images[i].copy()) for i in encoded]
    decoded = decode_jpeg(sources, mode=ImageReadMode.RGB, device=device) if sources else []
    by_place = dict(zip(encoded, decoded, strict=True))
    return [
        by_place[i] if i in by_place else torch.from_numpy(image.copy()).permute(2, 0, 1).to(device)
        for i, image in enumerate(images)
    ]
