"""What one more batch of a dissection asks of torch: operations, and waits for results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ndissect.engine.machine.operations import OperationCount, count_operations

#: Phases of a run that are the network's own, which a dissection only calls.
NETWORK = ("check", "forward")


@dataclass(frozen=True)
class BatchOperations:
    """Operations and waits of a batch of ``batch`` images, by phase of the run, the network's phases left out.

    ``operations``, ``waits``: of each further batch, as between runs of ``batches`` batches and of half as many;
    ``operations_in_all``, ``waits_in_all``: of the longer run, divided by its batches. The phase ``""`` is what is
    done outside of any.
    """

    batch: int
    batches: int
    operations: dict[str, float]
    waits: dict[str, float]
    operations_in_all: dict[str, float]
    waits_in_all: dict[str, float]


def count_batch(dissect: Callable[[int], object], batch: int, batches: int) -> BatchOperations:
    """Count ``dissect(images)``, run over half of ``batches`` batches and over all of them, in batches of ``batch``."""
    half = count_operations(lambda: dissect(batch * (batches // 2)))
    whole = count_operations(lambda: dissect(batch * batches))
    more = batches - batches // 2
    phases = sorted(set(whole.operations) - set(NETWORK))

    def further(of: Callable[[OperationCount], dict[str, int]]) -> dict[str, float]:
        return {p: (of(whole).get(p, 0) - of(half).get(p, 0)) / more for p in phases}

    return BatchOperations(
        batch,
        batches,
        further(lambda count: count.operations),
        further(lambda count: count.waits),
        {p: whole.operations[p] / batches for p in phases},
        {p: whole.waits[p] / batches for p in phases},
    )
