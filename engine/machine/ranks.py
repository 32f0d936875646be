"""Several processes that share one dissection: each takes a part of the images, and what they count is added up.

What torchrun tells its processes in the environment is read here alone. Torch is imported when they are joined.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ndissect.engine.machine.torchrun import processes
from ndissect.store.errors import NDError, first_line

if TYPE_CHECKING:
    from torch import Tensor


class Ranks:
    """One process alone; :func:`join` gives the processes of a ``torchrun``."""

    rank = 0
    size = 1

    def sum(self, values: Tensor) -> Tensor:
        """``values`` added up over all processes, in place."""
        return values

    def least(self, values: Tensor) -> Tensor:
        """The smallest of all processes, element by element, in place."""
        return values

    def most(self, values: Tensor) -> Tensor:
        """The largest of all processes, element by element, in place."""
        return values

    def gather(self, value: Any) -> list[Any]:
        """Every process's ``value``, in the order of ranks, for all of them."""
        return [value]

    def part(self, images: int) -> range:
        """The images of this process."""
        return range(images * self.rank // self.size, images * (self.rank + 1) // self.size)


ALONE = Ranks()


class _DistributedRanks(Ranks):
    def __init__(self, dist: Any) -> None:
        self._dist, self.rank, self.size = dist, dist.get_rank(), dist.get_world_size()

    def _reduce(self, values: Tensor, how: Any) -> Tensor:
        # gloo adds what lies on the CPU. What is added is small beside what it was counted from.
        whole = values.detach().to("cpu").contiguous()
        with _speaking():
            self._dist.all_reduce(whole, how)
        return values.copy_(whole)

    def sum(self, values: Tensor) -> Tensor:
        return self._reduce(values, self._dist.ReduceOp.SUM)

    def least(self, values: Tensor) -> Tensor:
        return self._reduce(values, self._dist.ReduceOp.MIN)

    def most(self, values: Tensor) -> Tensor:
        return self._reduce(values, self._dist.ReduceOp.MAX)

    def gather(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.size
        with _speaking():
            self._dist.all_gather_object(values, value)
        return values


@contextlib.contextmanager
def _speaking() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as e:  # DistBackendError, DistNetworkError and timeouts are RuntimeErrors
        raise NDError(
            f"another process of this run ended before its time: {first_line(e)[:160]}",
            "its own message says why; the same command goes on from what was saved",
        ) from e


@contextlib.contextmanager
def join(timeout: float = 1800.0) -> Iterator[Ranks]:
    """All the processes of this run for the block; one alone without ``torchrun``.

    ``timeout``: seconds to wait for the slowest at each meeting. NDError where another process ended.
    """
    if processes() == 1:
        yield ALONE
        return
    import torch.distributed as dist  # noqa: PLC0415 - whether a process is the first is asked before torch is imported

    with _speaking():
        dist.init_process_group("gloo", timeout=timedelta(seconds=timeout))
    try:
        yield _DistributedRanks(dist)
    finally:
        with contextlib.suppress(Exception):  # after a failure there may be nobody left to say goodbye to
            dist.destroy_process_group()
