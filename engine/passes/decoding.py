"""JPEGs decoded a batch at a time, as a GPU does: by TorchCodec where it is installed and can, else by torchvision.

torchvision's decoders will go (they are deprecated from 0.29); TorchCodec's decode the same files from 0.16 on.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from ndissect.store.errors import NDError

#: Decodes files, (n,) uint8, on a device to RGB, (3, H, W) uint8 each; RuntimeError where one cannot be decoded.
Decoder = Callable[[Sequence[Tensor], torch.device], list[Tensor]]


def decode_together(images: Sequence[npt.NDArray[np.uint8]], device: torch.device) -> list[Tensor]:
    """(3, H, W) uint8 tensors on ``device`` of images that are encoded, (n,), or decoded, (H, W, 3).

    RuntimeError where one cannot be decoded; NDError where nothing that is installed decodes there. A GPU's decoder
    rounds in another way than a CPU's: pixels may differ by a few levels.
    """
    encoded = [i for i, image in enumerate(images) if image.ndim == 1]
    # Decoders want memory that they could write to, and the bytes of a file are not.
    sources = [torch.from_numpy(images[i].copy()) for i in encoded]
    decoded = decoder(device)(sources, device) if sources else []
    by_place = dict(zip(encoded, decoded, strict=True))
    return [
        by_place[i] if i in by_place else torch.from_numpy(image.copy()).permute(2, 0, 1).to(device)
        for i, image in enumerate(images)
    ]


@functools.cache
def decoder(device: torch.device) -> Decoder:
    """What decodes JPEGs on ``device``, tried out: one that was built without a GPU's decoder fails there."""
    trial = io.BytesIO()
    Image.new("RGB", (16, 16)).save(trial, "JPEG")
    source = torch.frombuffer(bytearray(trial.getvalue()), dtype=torch.uint8)
    for decode in (_by_torchcodec, _by_torchvision):
        try:
            decode([source], device)
        except (ImportError, RuntimeError, OSError):  # as where a library that it needs is missing
            continue
        return decode
    raise NDError(
        f"nothing that is installed decodes JPEGs on {device}", "leave out --decode gpu, or install torchcodec"
    )


def can_decode(device: torch.device) -> bool:
    """Whether something that is installed decodes JPEGs on ``device``."""
    try:
        decoder(device)
    except NDError:
        return False
    return True


def _by_torchcodec(sources: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    from torchcodec.decoders import decode_jpeg  # noqa: PLC0415 - rarely there

    return list(decode_jpeg(list(sources), mode="RGB", device=device))


def _by_torchvision(sources: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    from torchvision.io import ImageReadMode, decode_jpeg  # noqa: PLC0415 - takes a while

    return list(decode_jpeg(list(sources), mode=ImageReadMode.RGB, device=device))
