"""How a dissection is run, and how it went."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ndissect.engine.machine.device import Precision
from ndissect.engine.machine.memory import Budget
from ndissect.engine.passes.loader import DecodeIn
from ndissect.engine.run.data_survey import DataSummary
from ndissect.store.marks import Mark
from ndissect.store.model import Dissection

#: Where JPEGs are decoded unless ``jpeg_on`` says otherwise.
THREADS = "cpu threads"


def _never() -> BaseException | None:
    return None


@dataclass(frozen=True)
class Settings:
    """How a dissection is run; none of it but ``precision`` and ``jpeg_on`` changes a count. 0 means: choose.

    ``batch``: images a forward pass; ``workers``: threads or processes that decode; ``top``: top images kept for each
    unit; ``skip_bad``: go on without unreadable images; ``memory``: for thresholds and what may fire; ``precision``: of
    the forward pass; ``jpeg_on``: decode JPEGs there, a batch at a time; ``decode_in``: who decodes the others;
    ``publish_every``: seconds between results so far, more where making them takes long; ``save_every``: seconds
    between two savings of what was counted; ``stop``: asked after every batch, gives what to raise once that is saved;
    ``evidence``: also count by image block and keep peaks, for intervals and AUPRC; ``null``: pairings of masks with
    other images' labels to count, None: as many as usual where that costs little (ndissect.engine.run.evidence_plan);
    ``anyway``: mark what ndissect.engine.examination.examine would refuse.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    batch: int = 0
    workers: int = 0
    top: int = 10
    skip_bad: bool = False
    memory: Budget = field(default_factory=lambda: Budget(4 << 30, 4 << 30))
    precision: Precision = "fp32"
    jpeg_on: torch.device | None = None
    decode_in: DecodeIn = "auto"
    publish_every: float = 5.0
    save_every: float = 30.0
    stop: Callable[[], BaseException | None] = _never
    evidence: bool = True
    null: int | None = 0
    anyway: bool = False


@dataclass(frozen=True)
class Outcome:
    """A dissection, of rank 0 alone, and how it went.

    ``survey``: of the data; ``seconds``: by what was done, in all that the run took, however often it was stopped;
    ``passes``: forward passes over the data, of which the last may be of a part of it; ``batch``: images a forward pass
    in the end; ``before``: seconds that the run had taken when it was last stopped; ``notes``, ``marks``: of the
    network, from its examination.
    """

    dissection: Dissection | None
    survey: DataSummary
    seconds: dict[str, float]
    passes: float
    batch: int
    before: float = 0.0
    notes: tuple[str, ...] = ()
    marks: tuple[Mark, ...] = ()
