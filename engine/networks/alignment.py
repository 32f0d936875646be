"""Whether a transform shows a network the whole image, upright: tried on images with known edges.

An image that is black on one side of column k and white on the other comes back with its step at some column e. If the
whole image was resized, e/w = k/W for every k. A crop, a pad or a flip gives another line, and from that line follows
how much of the image is lost. A ramp of grey values would do less: a step is seen under any normalisation, also under
one by the image's own mean and deviation.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndissect.store.errors import NDError

Applied = Callable[[Tensor], Tensor]
_PARTS = 8


def check_alignment(apply: Applied, size: tuple[int, int], hint: str) -> None:
    """Raises NDError unless ``apply`` (uint8 (N, 3, H, W) -> float (N, C, h, w)) keeps images of ``size`` whole.

    Steps may lie up to 1 % of the image plus half an output pixel from where a plain resize puts them.
    """
    if min(size) < 2 * _PARTS:
        return
    try:
        rows = find_cut(apply, size, dim=0)
        cols = find_cut(apply, size, dim=1)
    except Exception as error:
        raise NDError(
            f"the transform fails on an image of {size[0]} x {size[1]} pixels: {type(error).__name__}: {error}", hint
        ) from error
    faults = [
        text
        for names, cut in ((("top", "bottom"), rows), (("left", "right"), cols))
        for text in describe_cut(cut, names)
    ]
    if faults:
        raise NDError(
            f"the transform does not show the network the whole {size[0]} x {size[1]} image, so label maps would not "
            f"lie on what it sees: {', '.join(faults)}",
            hint,
        )


def find_cut(apply: Applied, size: tuple[int, int], dim: int) -> tuple[float, float] | None:
    """What ``apply`` cuts off at the low and the high end of axis ``dim`` (0 rows, 1 columns), as fractions of it.

    (0, 0) where the image is whole within tolerance, negative for a padded end, (1, 1) for a flip, None where the
    steps come back in no order at all.
    """
    length = size[dim]
    steps = np.array([length * i // _PARTS for i in range(1, _PARTS)])
    lines = np.stack([_profile(apply, size, dim, k) for k in (0, *steps, length)])
    out_length = lines.shape[1]
    places = np.array([_step_position(line) for line in lines[1:-1]])
    allowed = 0.01 * length + 0.5 * max(length / out_length, 1.0)
    if np.all(np.abs(places * length / out_length - steps) <= allowed):
        return (0.0, 0.0)
    kept = np.isfinite(places) & (places > 1.5) & (places < out_length - 1.5)
    if kept.sum() < 2:
        return _padding(lines)
    slope, start = np.polyfit(steps[kept], places[kept], 1)
    if slope < 0:
        return (1.0, 1.0)
    if slope == 0 or np.abs(np.polyval((slope, start), steps[kept]) - places[kept]).max() > 0.02 * out_length + 1:
        return None
    low, high = -start / slope, (out_length - start) / slope
    return (float(low / length), float(1 - high / length))


def describe_cut(cut: tuple[float, float] | None, names: tuple[str, str]) -> list[str]:
    """The faults in words, e.g. ["6.2 % cut off at the left", "6.2 % cut off at the right"]; [] for a whole image."""
    if cut is None:
        return [f"{names[0]} and {names[1]} cannot be told apart in what comes out"]
    if cut == (1.0, 1.0):
        return [f"{names[0]} and {names[1]} are swapped"]
    if cut == (0.0, 0.0):
        return []
    faults = [
        f"{abs(part):.1%} {'cut off' if part > 0 else 'added'} at the {name}".replace("%", " %")
        for part, name in zip(cut, names, strict=True)
        if abs(part) > 0.005
    ]
    return faults or [f"the image is warped between {names[0]} and {names[1]}"]


def _profile(apply: Applied, size: tuple[int, int], dim: int, k: int) -> npt.NDArray[np.float64]:
    """What becomes of a step at ``k`` along ``dim``: (length of the output,), of the channel that shows it best."""
    image = torch.zeros((1, 3, *size), dtype=torch.uint8)
    image.narrow(2 + dim, int(k), size[dim] - int(k)).fill_(255)
    profile: npt.NDArray[np.float64] = apply(image)[0].double().mean(dim=2 - dim).cpu().numpy()
    return np.asarray(profile[int(np.argmax(profile.max(axis=1) - profile.min(axis=1)))])


def _step_position(line: npt.NDArray[np.float64]) -> float:
    """Where the one step of ``line`` lies, in pixel edges; nan without a step or with several."""
    span = line.max() - line.min()
    if not np.isfinite(span) or span <= 1e-6:
        return float("nan")
    level = (line - line.min()) / span - 0.5
    crossings = np.flatnonzero(np.signbit(level[:-1]) != np.signbit(level[1:]))
    if len(crossings) != 1:
        return float("nan")
    j = int(crossings[0])
    return float(j + 0.5 + level[j] / (level[j] - level[j + 1]))


def _padding(lines: npt.NDArray[np.float64]) -> tuple[float, float] | None:
    """The ends at which nothing changes between black and white images, as negative fractions of the image."""
    shown = np.flatnonzero(np.ptp(lines, axis=0) > 0.01 * np.ptp(lines))
    if len(shown) in (0, lines.shape[1]):
        return None
    covered = int(shown[-1] - shown[0] + 1)
    return (-float(shown[0]) / covered, -float(lines.shape[1] - 1 - shown[-1]) / covered)
