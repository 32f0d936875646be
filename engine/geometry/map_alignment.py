"""Whether a layer's maps lie where the labels are: what its operations say, tried on changed images.

Half-pixel placing assumes that a map shows the whole image, upright. Where the network pads or crops inside of its
forward pass, the extent that was followed through it (ndissect.engine.geometry.extents) says which part a map shows,
and the map is placed there. Changes of the image must come back at the same places
(ndissect.engine.geometry.responses).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from ndissect.engine.geometry.extents import Extent, Extents, by_windows
from ndissect.engine.geometry.responses import Response, band_middles
from ndissect.store.upsampling import WHOLE, Part

_ENDS = (("top", "bottom"), ("left", "right"))
#: Along each axis of the image, the response along the map's rows and along its columns.
Responses = tuple[tuple[Response, Response], tuple[Response, Response]]


@dataclass(frozen=True)
class MapAlignment:
    """How a layer's maps lie on the image: which parts of it their rows and columns show.

    ``parts``: these parts; ``kept``: the rows and columns of the maps that lie on the image, None for all; ``note``:
    what the user should know, "" for nothing; ``fault``: why the maps cannot be placed, "" where they can.
    """

    parts: tuple[Part, Part] = (WHOLE, WHOLE)
    kept: tuple[slice, slice] | None = None
    note: str = ""
    fault: str = ""


def align_map(
    extents: Extents | str, responses: Responses, map_size: tuple[int, int], size: tuple[int, int]
) -> MapAlignment:
    """How maps of ``map_size`` lie on an input of ``size``, by their extents (or why there are none) and responses."""
    if isinstance(extents, str):
        fault = _fault_of_responses(responses, [[_image_shares()]] * 2)
        return MapAlignment(fault=f"{fault} ({extents})" if fault else "")
    fault = _turned(extents) or _fault_of_responses(
        responses, [_expected(e, n) for e, n in zip(extents, map_size, strict=True)]
    )
    if fault:
        return MapAlignment(fault=fault)
    if all(e.whole for e in extents):
        return MapAlignment()
    kept = [_on_image(e, n) for e, n in zip(extents, map_size, strict=True)]
    if any(k.start >= k.stop for k in kept):
        return MapAlignment(fault="its maps show nothing of the image but what was padded")
    parts = [(e.low / e.size, e.high / e.size) for e in extents]
    shown = (kept[0].stop - kept[0].start, kept[1].stop - kept[1].start)
    return MapAlignment((parts[0], parts[1]), (kept[0], kept[1]), _note(extents, map_size, shown))


def _turned(extents: Extents) -> str:
    """What is turned round in the map, in words."""
    if extents[0].axis == 1:
        return "rows and columns are swapped in them"
    ends = [" and ".join(_ENDS[e.axis]) for e in extents if e.step < 0]
    return f"{' and '.join(ends)} are swapped in them" if ends else ""


def _image_shares() -> npt.NDArray[np.float64]:
    return band_middles()


def _expected(e: Extent, n: int) -> list[npt.NDArray[np.float64]]:
    """Where the bands may come back, as shares of the map: by its extent, or by where its windows lie exactly."""
    pixels = band_middles() * e.size
    return [
        (pixels - float(at.low)) / float(at.high - at.low) for at in (e, by_windows(e, n)) if at.high > at.low
    ]  # fmt: skip


def _fault_of_responses(responses: Responses, expected: Sequence[Sequence[npt.NDArray[np.float64]]]) -> str:
    """What comes back at another place than it should; "" where nothing does, or where that cannot be told."""
    for axis in (0, 1):
        own, other = responses[axis][axis], responses[axis][1 - axis]
        if not own.clear and other.clear and other.fits(band_middles()) and _follows(other):
            return "rows and columns are swapped in them"
        if any(own.fits(where) for where in expected[axis]):
            continue
        if np.corrcoef(own.place[1:-1], band_middles()[1:-1])[0, 1] < -_SURE:
            return f"{' and '.join(_ENDS[axis])} are swapped in them"
        shown = [f"{band_middles()[k]:.0%}".replace("%", " %") for k in (1, 3, 6)]
        returned = [f"{own.place[k]:.0%}".replace("%", " %") for k in (1, 3, 6)]
        where = "height" if axis == 0 else "width"
        return f"what is at {', '.join(shown)} of the image's {where} comes back at {', '.join(returned)} of theirs"
    return ""


# From which correlation on places follow the bands, or run against them.
_SURE = 0.9


def _follows(response: Response) -> bool:
    return bool(np.corrcoef(response.place[1:-1], band_middles()[1:-1])[0, 1] > _SURE)


def _on_image(e: Extent, n: int) -> slice:
    """The samples, of n, whose centres lie on the image."""
    cell = e.cell(n)
    first = max(0, math.ceil(-e.low / cell - Fraction(1, 2)))
    last = min(n - 1, math.floor((e.size - e.low) / cell - Fraction(1, 2)))
    return slice(first, last + 1)


def _note(extents: Extents, map_size: tuple[int, int], shown: tuple[int, int]) -> str:
    said = []
    for e in extents:
        for name, pixels in zip(_ENDS[e.axis], (e.low, e.size - e.high), strict=True):
            if pixels:
                said.append(f"{abs(float(pixels)):.3g} pixels {'cut off' if pixels > 0 else 'added'} at the {name}")
    used = f"; {shown[0]} x {shown[1]} of its {map_size[0]} x {map_size[1]} samples lie on it and count"
    return f"the network pads or crops the image on the way ({', '.join(said)}): its maps are placed accordingly" + (
        used if shown != map_size else ""
    )
