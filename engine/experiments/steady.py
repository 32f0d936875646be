"""What one more batch of a dissection asks of torch: operations, and waits for results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from ndissect.engine.machine.operations import OperationCount
from ndissect.engine.machine.progress import Progress

#: Phases of a run that are the network's own, which a dissection only calls.
NETWORK = ("check", "forward")


@dataclass(frozen=True)
class BatchOperations:
    """Operations and waits of a batch of ``batch`` images, by phase of the run, the network's phases left out.

    ``operations``, ``waits``: of the usual batch in the steady state, the median in the later half of each loop over
    the images. Now and then a batch takes more, when what was gathered is put in order.
    ``operations_in_all``, ``waits_in_all``: of the whole run, also what it does once, divided by its ``batches``. The
    phase ``""`` is what is done outside of any.
    """

    batch: int
    batches: int
    operations: dict[str, float]
    waits: dict[str, float]
    operations_in_all: dict[str, float]
    waits_in_all: dict[str, float]


def count_batch(dissect: Callable[[Progress], object], batch: int, batches: int) -> BatchOperations:
    """Count what ``dissect`` does, which must tell its progress: ``batches`` batches of ``batch`` images."""
    count = OperationCount()
    loops = _Loops(count)
    with count:
        dissect(loops)
    phases = sorted(set(count.operations) - set(NETWORK))
    return BatchOperations(
        batch,
        batches,
        operations=_typical([[(at.images, at.operations) for at in loop] for loop in loops.told], batch, phases),
        waits=_typical([[(at.images, at.waits) for at in loop] for loop in loops.told], batch, phases),
        operations_in_all={phase: count.operations[phase] / batches for phase in phases},
        waits_in_all={phase: count.waits[phase] / batches for phase in phases},
    )


def _typical(
    loops: Sequence[Sequence[tuple[int, Counter[str]]]], batch: int, phases: Sequence[str]
) -> dict[str, float]:
    """By phase, what ``batch`` images usually add in the later halves of ``loops``, given as (images, count so far)."""
    added = dict.fromkeys(phases, 0.0)
    for loop in loops:
        steps = list(pairwise(loop))
        later = [step for step in steps if 2 * step[0][0] >= loop[-1][0]] or steps[-1:]
        for phase in phases if later else ():
            added[phase] += median((end[phase] - begun[phase]) * batch / (n - m) for (m, begun), (n, end) in later)
    return added


@dataclass(frozen=True)
class _SoFar:
    images: int
    operations: Counter[str]
    waits: Counter[str]


class _Loops(Progress):
    """What was counted at the start of each loop over images, and after each of its batches."""

    def __init__(self, count: OperationCount) -> None:
        self._count = count
        self.told: list[list[_SoFar]] = []

    def start(self, phase: str, total: int, done: int = 0) -> None:
        self.told.append([self._so_far(0)])

    def advance(self, images: int) -> None:
        self.told[-1].append(self._so_far(self.told[-1][-1].images + images))

    def _so_far(self, images: int) -> _SoFar:
        return _SoFar(images, self._count.operations.copy(), self._count.waits.copy())
