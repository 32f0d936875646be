"""The fused kernels in the tally's service: used on a GPU where they count as the plain tally does, else not at all.

Each form in which a kernel is compiled is tried first, on the first work that it is meant for. Where it differs, or
anything goes wrong (no Triton, no compiler, a GPU too old for it), :func:`why_not` keeps the reason and the plain tally
goes on. The environment variable ND_FUSED=0 turns it off.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from ndissect.engine.measures.cell_work import CellWork
from ndissect.engine.measures.cells import Cells
from ndissect.engine.measures.kernel_trials import KernelTrials
from ndissect.engine.measures.label_grid import enlarge
from ndissect.engine.measures.map_work import MapWork

# Cells of which a pixel's value, or a corner's, becomes a limit for the trial.
_TRIAL_CELLS = 1 << 12
# Images whose maps are tried: some.
_TRIAL_IMAGES = 8

_State = KernelTrials()


def why_not() -> str | None:
    """Why the kernels are out of use since they were last wanted, in a line; None while they are in use."""
    return _State.why_not


def wanted(device: torch.device) -> bool:
    """Whether to try the kernels: on a GPU, or in Triton's interpreter, unless they are turned off or have failed."""
    return _State.wanted(device)


_Work = TypeVar("_Work", CellWork, MapWork)
#: The same work counted without a kernel: area, and all bins.
Plainly = Callable[[CellWork], tuple[Tensor, Tensor]]


def add(work: CellWork, area: Tensor, table: Callable[[], Tensor | None], plainly: Plainly) -> bool:
    """Add the mask pixels of ``work`` to ``area`` (N U,), and those of each label to ``table()`` (bins,), both int64.

    What has no label, the first column of the bins, is left out. ``table`` gives None where it would be too large;
    ``plainly`` the same counts by themselves, made without the kernel, to compare with.

    False where the kernel does not work here, or there is not enough memory for it now: nothing was added. Nothing is
    raised.
    """
    if not len(work.cells):
        return True

    def trials() -> Iterator[tuple[CellWork, CellWork]]:
        return ((trial, trial) for trial in (work, *trial_works(work)))

    def launch(work: CellWork, area: Tensor, hits: Tensor) -> None:
        from ndissect.engine.measures import fused_kernel  # noqa: PLC0415 - there is no Triton on every system

        fused_kernel.launch(work, area, hits)

    return _add(launch, work, _form(work), trials, area, table, plainly)


def add_maps(work: MapWork, area: Tensor, table: Callable[[], Tensor | None], plainly: Plainly) -> bool:
    """The same of whole maps, whose active cells are looked for and counted at once, in one launch."""
    if not work.maps.numel():
        return True

    def trials() -> Iterator[tuple[MapWork, CellWork]]:
        some = work.first_images(_TRIAL_IMAGES)
        cells = some.cells()
        for trial in (cells, *(trial_works(cells) if len(cells.cells) else ())):
            maps = replace(some, limit=trial.limit)
            yield maps, maps.cells()

    def launch(work: MapWork, area: Tensor, hits: Tensor) -> None:
        from ndissect.engine.measures import map_kernel  # noqa: PLC0415 - there is no Triton on every system

        map_kernel.launch(work, area, hits)

    return _add(launch, work, _form_of_maps(work), trials, area, table, plainly)


def _add(
    launch: Callable[[_Work, Tensor, Tensor], None],
    work: _Work,
    form: Hashable,
    trials: Callable[[], Iterator[tuple[_Work, CellWork]]],
    area: Tensor,
    table: Callable[[], Tensor | None],
    plainly: Plainly,
) -> bool:
    """Launch for ``work``, if it is a form that counts, in ``trials``, as the same work in cells does plainly."""
    try:
        hits = table()
        if hits is None:
            return False
        with torch.cuda.device_of(area):  # type: ignore[no-untyped-call]
            if form not in _State.tried:
                for trial, cells in trials():
                    trial_area, trial_hits = torch.zeros_like(area), torch.zeros_like(hits)
                    launch(trial, trial_area, trial_hits)
                    if not _same((trial_area, trial_hits), plainly(cells), work.columns):
                        _State.why_not = "the fused kernel counts otherwise than the plain tally on this device"
                        return False
                _State.tried.add(form)
            # The last that can fail: it starts as a whole or not at all.
            launch(work, area, hits)
    except torch.OutOfMemoryError:
        return False  # the plain tally takes little, and says itself where that is not to be had
    except Exception as e:  # whatever it is, the plain tally counts the same
        _State.failed(e)
        return False
    return True


def _same(counted: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], columns: int) -> bool:
    """Whether area and hits are the same, but for the first column of the hits."""
    labelled, expected_labelled = (hits.view(-1, columns)[:, 1:] for _, hits in (counted, expected))
    return torch.equal(counted[0], expected[0]) and torch.equal(labelled, expected_labelled)


def _form(work: CellWork) -> Hashable:
    """What the kernel for cells is compiled for."""
    return "cells", *_counting_form(work), work.cells.index.dtype


def _form_of_maps(work: MapWork) -> Hashable:
    """What the kernel for maps is compiled for."""
    return "maps", *_counting_form(work), work.maps.shape[2:], work.maps.dtype, work.upsampling


def _counting_form(work: CellWork | MapWork) -> tuple[Hashable, ...]:
    labels, at = work.labelling.labels, work.at
    return at.wy.shape[1], at.wx.shape[1], labels.words().dtype, labels.pixels.dtype, work.limit.device


def trial_works(work: CellWork) -> Iterator[CellWork]:
    """Some cells of ``work`` with higher limits, which tell wrong arithmetic from right: values of pixels and corners.

    At the limits of real work hardly any pixel is that close, so that an error of one rounding would go unnoticed for
    long.
    """
    step = -(-len(work.cells) // _TRIAL_CELLS)
    cells = Cells(work.cells.shape, work.cells.index[::step], work.cells.corners[:, ::step])
    some = replace(work, cells=cells)
    yield replace(some, limit=limits_on_pixels(some))
    yield replace(some, limit=limits_on_corners(some))


def limits_on_corners(work: CellWork) -> Tensor:
    """``work.limit`` with values that corners of its cells take, in every third unit one float32 less, or more.

    Where a pixel lies on a sample it has that value, and is no mask pixel at that limit.
    """
    unit, _ = _units_and_places(work)
    value = work.limit.index_put((unit,), work.cells.corners.amax(0))
    infinity = torch.full_like(value, torch.inf)
    beside = torch.stack([value, torch.nextafter(value, -infinity), torch.nextafter(value, infinity)])
    units = torch.arange(len(value), device=value.device)
    return torch.maximum(beside[units % 3, units], work.limit)


def limits_on_pixels(work: CellWork) -> Tensor:
    """``work.limit`` with values that mask pixels of its cells take, to the bit: where other arithmetic gives more.

    A kernel which multiplies and adds in one rounding counts more at these.
    """
    unit, place = _units_and_places(work)
    cols = work.cells.shape[3]
    corners, wy, wx = work.cells.corners, work.at.wy[place // cols], work.at.wx[place % cols]
    value = enlarge(corners, wy, wx).flatten(1)
    gain = (_enlarge_in_one_rounding(corners, wy, wx).flatten(1) - value).nan_to_num(0, 0, 0)
    most, pixel = torch.where(value > work.limit[unit, None], gain, 0).max(1, keepdim=True)
    gains = most[:, 0] > 0
    return work.limit.index_put((unit[gains],), value.gather(1, pixel)[gains, 0])


def _units_and_places(work: CellWork) -> tuple[Tensor, Tensor]:
    """(M,) int64 each: of every cell its unit, and its place in the map."""
    _, U, rows, cols = work.cells.shape
    index = work.cells.index.long()
    return index // (rows * cols) % U, index % (rows * cols)


def _enlarge_in_one_rounding(corners: Tensor, wy: Tensor, wx: Tensor) -> Tensor:
    """What :func:`enlarge` would be with fused multiply-add: products are exact in float64, sums nearly."""

    def lerp(a: Tensor, b: Tensor, w: Tensor) -> Tensor:
        return (w.double() * (b - a).double() + a.double()).float()

    a, b, c, d = corners[:, :, None]
    left, right = lerp(a, c, wy), lerp(b, d, wy)
    return lerp(left[:, :, None], right[:, :, None], wx[:, None, :])
