"""The fused kernel in the tally's service: used on a GPU where it counts as the plain tally does, and else not at all.

Each form in which the kernel is compiled is tried first, on the first cells that it is meant for. Where it differs, or
anything goes wrong (no Triton, no compiler, a GPU too old for it), :func:`why_not` keeps the reason and the plain tally
goes on. The environment variable ND_FUSED=0 turns it off.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ndissect.engine.measures.cell_work import CellWork
from ndissect.engine.measures.label_grid import enlarge

# Cells of which a pixel's value becomes a limit for the trial.
_TRIAL_CELLS = 1 << 12


class _State:
    """What this process has learnt: the reason not to use the kernel, and the forms of it that were tried."""

    why_not: str | None = None
    tried: set[tuple[object, ...]] = set()  # noqa: RUF012 - one state for the process


def why_not() -> str | None:
    """Why the kernel is out of use since it was last wanted, in a line; None while it is in use or was never wanted."""
    return _State.why_not


def wanted(device: torch.device) -> bool:
    """Whether to try the kernel: on a GPU, or in Triton's interpreter, unless it is turned off or has failed."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    off = os.environ.get("ND_FUSED") == "0"
    return (device.type == "cuda" or interpreted) and not off and _State.why_not is None


def add(
    work: CellWork,
    area: Tensor,
    table: Callable[[], Tensor | None],
    plainly: Callable[[CellWork], tuple[Tensor, Tensor]],
) -> bool:
    """Add the mask pixels of ``work`` to ``area`` (N U,), and those of each label to ``table()`` (bins,), both int64.

    What has no label, the first column of the bins, is left out. ``table`` gives None where it would be too large;
    ``plainly`` the same counts by themselves, made without the kernel, to compare with.

    False where the kernel does not work here, or there is not enough memory for it now: nothing was added. Nothing is
    raised.
    """
    if not len(work.cells):
        return True
    try:
        from ndissect.engine.measures import fused_kernel  # noqa: PLC0415 - there is no Triton on every system

        hits = table()
        if hits is None:
            return False
        with torch.cuda.device_of(work.cells.corners):  # type: ignore[no-untyped-call]
            form = _form(work)
            if form not in _State.tried:
                trial = replace(work, limit=limits_on_pixels(work))
                trial_area, trial_hits = torch.zeros_like(area), torch.zeros_like(hits)
                fused_kernel.launch(trial, trial_area, trial_hits)
                if not _same((trial_area, trial_hits), plainly(trial), work.columns):
                    _State.why_not = "the fused kernel counts otherwise than the plain tally on this device"
                    return False
                _State.tried.add(form)
            # The last that can fail: it starts as a whole or not at all.
            fused_kernel.launch(work, area, hits)
    except torch.OutOfMemoryError:
        return False  # the plain tally takes little, and says itself where that is not to be had
    except Exception as e:  # whatever it is, the plain tally counts the same
        _State.why_not = f"{type(e).__name__}: {(str(e).strip().splitlines() or [''])[0][:160]}"
        return False
    return True


def _same(counted: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], columns: int) -> bool:
    """Whether area and hits are the same, but for the first column of the hits."""
    labelled, expected_labelled = (hits.view(-1, columns)[:, 1:] for _, hits in (counted, expected))
    return torch.equal(counted[0], expected[0]) and torch.equal(labelled, expected_labelled)


def _form(work: CellWork) -> tuple[object, ...]:
    """What the kernel is compiled for."""
    cells, labels, at = work.cells, work.labelling.labels, work.at
    kinds = cells.index.dtype, labels.words().dtype, labels.pixels.dtype
    return at.wy.shape[1], at.wx.shape[1], *kinds, cells.index.device


def limits_on_pixels(work: CellWork) -> Tensor:
    """``work.limit`` with values that pixels of its cells take, to the bit: where other arithmetic gives more.

    At the limits of real work hardly any pixel is that close, so that a kernel which multiplies and adds in one
    rounding would go unnoticed for long; at these it counts more.
    """
    step = -(-len(work.cells) // _TRIAL_CELLS)
    _, U, rows, cols = work.cells.shape
    index = work.cells.index[::step].long()
    unit, place = index // (rows * cols) % U, index % (rows * cols)
    corners, wy, wx = work.cells.corners[:, ::step], work.at.wy[place // cols], work.at.wx[place % cols]
    value = enlarge(corners, wy, wx).flatten(1)
    gain = (_enlarge_in_one_rounding(corners, wy, wx).flatten(1) - value).nan_to_num(0, 0, 0)
    most, pixel = gain.max(1, keepdim=True)
    gains = most[:, 0] > 0
    return work.limit.index_put((unit[gains],), value.gather(1, pixel)[gains, 0])


def _enlarge_in_one_rounding(corners: Tensor, wy: Tensor, wx: Tensor) -> Tensor:
    """What :func:`enlarge` would be with fused multiply-add: products are exact in float64, sums nearly."""

    def lerp(a: Tensor, b: Tensor, w: Tensor) -> Tensor:
        return (w.double() * (b - a).double() + a.double()).float()

    a, b, c, d = corners[:, :, None]
    left, right = lerp(a, c, wy), lerp(b, d, wy)
    return lerp(left[:, :, None], right[:, :, None], wx[:, None, :])
