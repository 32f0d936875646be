"""Where in a layer's maps a change of the image comes back: one band of the image is changed after the other.

This is the check that transforms get (ndissect.engine.networks.alignment), made through the layer. In a band of rows,
or of columns, every pixel is moved by half of the range of a byte. What that changes in the maps lies around one place.
Deep layers see much of the image at once, so the place is the middle of the change, known to some tenths of its width.
It tells what is upside down, moved or far too small, whatever the operations between image and layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

#: Bands along each axis of the image. The outermost are not judged: beside them is an edge.
BANDS = 8
# A change is clear where it is no wider than this share of the map (its standard deviation; evenly spread: 0.29).
_NARROW = 0.18
# How far the bulk of a change may lie from where it should be: cells, and widths of the change.
_CELLS, _WIDTHS = 2.0, 1.0

Run = Callable[[Sequence[Tensor]], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Response:
    """Where the bands along one axis of the image come back along one axis of a map.

    ``place`` (BANDS,) float64: the middle of what changes, as a share of the map; ``width`` (BANDS,): its standard
    deviation; ``cells``: samples of the map along the axis.
    """

    place: npt.NDArray[np.float64]
    width: npt.NDArray[np.float64]
    cells: int

    @property
    def clear(self) -> bool:
        """Whether each change has one place. Where attention or an average mixes everything it has none."""
        inner = self.width[1:-1]
        return bool(self.cells >= 4 and np.isfinite(inner).all() and np.median(inner) <= _NARROW)

    def fits(self, expected: npt.NDArray[np.float64]) -> bool:
        """Whether the changes lie where ``expected`` (BANDS,) puts them, shares of the map; True where it is not clear.

        A band that the map does not show, by what is expected, is not asked about.
        """
        if not self.clear:
            return True
        far = np.abs(self.place - expected)[1:-1]
        allowed = _CELLS / self.cells + _WIDTHS * self.width[1:-1]
        shown = ((expected > 0) & (expected < 1))[1:-1]
        return bool(not shown.any() or np.median((far - allowed)[shown]) <= 0)


def respond(
    run: Run, image: Tensor, names: Sequence[str], *, together: bool = False
) -> dict[str, tuple[tuple[Response, Response], ...]]:
    """For each layer and each axis of the image (rows, columns): the response along the map's rows and its columns.

    ``run``: what maps (n, U, h, w) of ``names``, and perhaps of others, n images make; ``image`` uint8 (1, 3, H, W).
    ``together``: BANDS + 1 images are run at once, which is faster; without, one after the other, so that none can
    change another's maps.
    """
    lines: dict[str, list[list[tuple[Tensor, Tensor]]]] = {name: [[], []] for name in names}
    alone = {} if together else {name: maps[0].float() for name, maps in run([image]).items()}
    for axis in (0, 1):
        bands = [changed(image, axis, band) for band in range(BANDS)]
        # The image is run with its changed ones: passes of one shape are rounded alike.
        for some in [[image, *bands]] if together else [[one] for one in bands]:
            maps_of = run(some)
            for name in names:
                maps = maps_of[name]
                before, after = (maps[0].float(), maps[1:]) if together else (alone[name], maps)
                lines[name][axis] += [_change(before, one.float()) for one in after]
    return {
        name: tuple(
            (_response([rows for rows, _ in changes]), _response([cols for _, cols in changes])) for changes in axes
        )
        for name, axes in lines.items()
    }


def changed(image: Tensor, axis: int, band: int) -> Tensor:
    """``image`` with one of its bands along ``axis`` changed."""
    n = image.shape[2 + axis]
    start, end = n * band // BANDS, n * (band + 1) // BANDS
    out = image.clone()
    out.narrow(2 + axis, start, end - start).bitwise_xor_(128)
    return out


def band_middles() -> npt.NDArray[np.float64]:
    """(BANDS,) float64: where the bands lie, as shares of the image."""
    return (np.arange(BANDS) + 0.5) / BANDS


def _change(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """What changed along the rows (h,) and the columns (w,) of maps (U, h, w), each unit in shares of its spread."""
    spread = before.flatten(1).std(1, correction=min(1, before[0].numel() - 1))[:, None, None]
    moved = ((after - before).abs() / spread.clamp_min(1e-12)).nan_to_num(0.0, 0.0, 0.0)
    moved = moved[(spread.flatten() > 0) & spread.flatten().isfinite()]
    if not len(moved):
        return torch.zeros(before.shape[1]), torch.zeros(before.shape[2])
    return moved.mean((0, 2)).cpu(), moved.mean((0, 1)).cpu()


def _response(lines: Sequence[Tensor]) -> Response:
    """The response of BANDS lines (n,) of changes. What changes for every band is taken off first."""
    changes = torch.stack(list(lines)).double().numpy()
    changes = changes - changes.min(0, keepdims=True)
    weight = (changes / np.maximum(changes.max(1, keepdims=True), 1e-300)) ** 2  # the bulk counts, not its tails
    whole = weight.sum(1, keepdims=True)
    weight = np.divide(weight, whole, out=np.full_like(weight, np.nan), where=changes.max(1, keepdims=True) > 0)
    at = (np.arange(changes.shape[1]) + 0.5) / changes.shape[1]
    place = weight @ at
    width = np.sqrt(np.maximum((weight * (at - place[:, None]) ** 2).sum(1), 0))
    return Response(place, width, changes.shape[1])
