"""The pixels in [0, 1] behind a network's input: what its images are once they are resized, before normalisation.

What a transform does after resizing is found by trying it on black, white and coloured images, so that it may be
anybody's own, and need have no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ndissect.engine.networks.preprocess import Preprocess

# How far pixels that are computed from an input may be off: a rounding to 8 bits before or after a resize.
_CLOSE = 2 / 255
_COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
# Images of one colour on which an input that is linear in the pixels shows itself.
_TRIED = ((51, 51, 51), (153, 153, 153), (204, 102, 0), (25, 75, 225))


@dataclass(frozen=True)
class PixelBox:
    """input = ``low`` + pixels * (``high`` - ``low``), for pixels (n, C, h, w) float32 in [0, 1].

    ``low``, ``high`` (C, h, w) or (C, 1, 1). ``colours``: which of red, green and blue each channel is; (0,) of a
    network that takes the luminance alone. () where the pixels are not known (``reason`` says why): then each channel
    of the input has its own range, which counts as [0, 1].
    """

    low: Tensor
    high: Tensor
    colours: tuple[int, ...]
    reason: str = ""

    def inputs(self, pixels: Tensor) -> Tensor:
        """The network's input for ``pixels`` (n, C, h, w)."""
        return self.low + pixels * (self.high - self.low)

    def pixels(self, inputs: Tensor) -> Tensor:
        """The pixels (n, C, h, w) behind a network's input, in [0, 1]."""
        return self._unclamped(inputs).clamp(0, 1)

    def picture(self, pixels: Tensor) -> Tensor:
        """(n, 3, h, w): ``pixels`` in red, green and blue; of an input without colours what can be shown of it."""
        if len(self.colours) == 3:
            return pixels[:, [self.colours.index(colour) for colour in range(3)]]
        return pixels[:, :1].expand(-1, 3, -1, -1) if pixels.shape[1] < 3 else pixels[:, :3]

    def _unclamped(self, inputs: Tensor) -> Tensor:
        return (inputs - self.low) / (self.high - self.low)


def find_pixel_box(preprocess: Preprocess, images: Tensor, inputs: Tensor, least: Tensor, most: Tensor) -> PixelBox:
    """The box of pixels behind what ``preprocess`` makes of images.

    ``images`` (n, 3, H, W) uint8: some of those that are attacked; ``inputs`` (n, C, h, w) float32: the network's input
    for them, on its device. ``least``, ``most`` (C,): the range of each channel of the input over all images. Where the
    pixels are not known it is taken for the box, with what black and white become.
    """
    reason = "its transform does more than resize and normalise"
    size = images.shape[-2:]

    def of(colour: tuple[int, int, int]) -> Tensor:
        flat = torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(3, *size).contiguous()
        return preprocess.apply(flat[None])[0].to(inputs.device)

    low, high = of((0, 0, 0)), of((255, 255, 255))
    span = high - low
    if low.shape == inputs.shape[1:] and bool(torch.isfinite(span).all()) and bool((span.abs() > 1e-6).all()):
        box = PixelBox(low, high, ())
        weights = torch.stack([box._unclamped(of(colour)).mean((1, 2)) for colour in _COLOURS], 1)  # (C, 3)
        linear = all(
            _close(box._unclamped(of(colour)), (weights @ (torch.tensor(colour, device=low.device) / 255.0)))
            for colour in _TRIED
        )
        inverted = preprocess.apply(255 - images).to(inputs.device)
        if linear and _close(box._unclamped(inverted), 1 - box._unclamped(inputs)):
            colours = _colours(weights)
            if colours:
                return PixelBox(low, high, colours)
            reason = "its transform mixes colours"
    if low.shape[0] == len(least):
        flat = torch.stack([low.flatten(1), high.flatten(1)])
        flat = torch.where(torch.isfinite(flat), flat, least[:, None])
        least, most = torch.minimum(least, flat.amin((0, 2))), torch.maximum(most, flat.amax((0, 2)))
    most = torch.where(most > least, most, least + 1)
    return PixelBox(least[:, None, None], most[:, None, None], (), reason)


def _colours(weights: Tensor) -> tuple[int, ...]:
    """The colour that each channel is of, by the share (C, 3) that each colour has in it; () where they are mixed."""
    if len(weights) == 1:
        return (0,)
    largest = weights.argmax(1)
    alone = torch.nn.functional.one_hot(largest, 3).to(weights)
    if len(weights) == 3 and _close(weights, alone) and len(set(largest.tolist())) == 3:
        return tuple(largest.tolist())
    return ()


def _close(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same but for rounding; a vector (C,) stands for an image of one colour."""
    b = b[:, None, None] if b.ndim == 1 and a.ndim == 3 else b
    return bool(((a - b).abs() <= _CLOSE).all())
