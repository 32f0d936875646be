"""Page-locked memory: where a GPU copies from while it computes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch

_FOR_ALL_DEVICES = 1  # cudaHostRegisterPortable


def lock_pages(address: int, size: int) -> Callable[[], None]:
    """Lock the memory of ``size`` bytes at ``address``; the result unlocks it, before it is unmapped.

    Where a limit forbids it the memory stays as it is: copies from it are right, but wait.
    """
    if int(torch.cuda.cudart().cudaHostRegister(address, size, _FOR_ALL_DEVICES)) != 0:  # type: ignore[no-untyped-call]
        _forget_error()
        return _nothing
    return lambda: _unlock(address)


def _unlock(address: int) -> None:
    torch.cuda.synchronize()  # the last batch may still be copied from there
    torch.cuda.cudart().cudaHostUnregister(address)  # type: ignore[no-untyped-call]


def _forget_error() -> None:
    """A failed call leaves an error behind, which the next kernel would report as its own: here it may."""
    with contextlib.suppress(RuntimeError):
        torch.zeros(1, device="cuda").add_(1)


def _nothing() -> None:
    pass
