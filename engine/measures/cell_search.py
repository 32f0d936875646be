"""The kernels that look for active cells, used on a GPU where they give what plain operations give, else not at all.

They serve :func:`ndissect.engine.measures.cells.active_cells`, which waits to know how many there are, and
:class:`ndissect.engine.measures.cells.CellSearch`, which does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ndissect.engine.measures.kernel_trials import KernelTrials
from ndissect.store.upsampling import Upsampling

#: Index and corners of the active cells of maps at a limit.
Search = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

_State = KernelTrials()


def why_not() -> str | None:
    """Why the kernels are out of use since they were last wanted, in a line; None while they are in use."""
    return _State.why_not


def active(
    maps: Tensor, limit: Tensor, upsampling: Upsampling, plainly: Search, room: int | None = None
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Index and corners of the active cells, as ``plainly`` gives them, found by the kernels, and their count, ().

    With ``room`` there is place for so many, and the host does not wait to know how many there are, once the form of
    the maps was tried: what is beyond the count means nothing, and what is beyond the room is left out.

    None where they do not work here, or there is not enough memory for it now. Nothing is raised.
    """
    if not maps.numel() or not _State.wanted(maps.device):
        return None
    try:
        from ndissect.engine.measures import cell_search_kernel  # noqa: PLC0415 - there is no Triton on every system

        with torch.cuda.device_of(maps):  # type: ignore[no-untyped-call]
            form = maps.shape[2:], maps.dtype, upsampling, maps.device
            if form not in _State.tried:
                for some, at in _trials(maps, limit):
                    if not _same(cell_search_kernel.search(some, at, upsampling)[:2], plainly(some, at)):
                        _State.why_not = "the kernel finds other cells than plain operations do on this device"
                        return None
                _State.tried.add(form)
            return cell_search_kernel.search(maps, limit, upsampling, room)
    except torch.OutOfMemoryError:
        return None
    except Exception as e:  # whatever it is, plain operations give the same
        _State.failed(e)
        return None


def _trials(maps: Tensor, limit: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Maps and limits to try: the real ones, and of one image limits that some of its samples take."""
    yield maps, limit
    _, _, h, w = maps.shape
    yield maps[:1], maps[0, :, h // 2, w // 2].to(torch.float32)


def _same(given: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> bool:
    """Whether index and corners are the same, NaN being NaN."""
    (index, corners), (expected_index, expected_corners) = given, expected
    same = torch.equal(index, expected_index.to(index.dtype))
    return same and torch.allclose(corners, expected_corners, rtol=0, atol=0, equal_nan=True)
