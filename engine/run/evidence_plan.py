"""Which evidence a run gathers beside its counts: as much as it has the memory, and for the null the time, for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.geometry.layer_geometry import LayerGeometry
from ndissect.engine.machine.memory import Budget
from ndissect.engine.measures.pairing import PAIRINGS
from ndissect.engine.measures.peaks import Peaks
from ndissect.engine.passes.grouping import group_images
from ndissect.store.counts import BLOCKS
from ndissect.store.files import human_bytes

# Evidence may use this share of the memory, or 64 MiB if that is more.
_SHARE = 0.25
_LITTLE = 64 << 20
#: A null that was not asked for is counted if it takes less than this share of the time that the run has taken so far,
#: or less than so many seconds.
CHEAP_SHARE, CHEAP_SECONDS = 0.1, 5.0


@dataclass(frozen=True)
class Plan:
    """Which evidence is gathered.

    ``by_block``: count by image block, for intervals; ``peaks``: keep every image's peaks, for the AUPRC;
    ``pairings``: of the null, at most; ``budget``: the memory that is left for everything else; ``notes``: what is left
    out, and why.
    """

    by_block: bool
    peaks: bool
    pairings: int
    budget: Budget
    notes: tuple[str, ...] = ()

    @property
    def choices(self) -> dict[str, Any]:
        """The same as JSON values, for a run that goes on."""
        return {
            "intervals": self.by_block,
            "the null": self.pairings > 0,
            "AUPRC": self.peaks,
            "notes": list(self.notes),
        }


def plan(
    geometries: Sequence[LayerGeometry],
    dataset: ConceptDataset,
    null: int | None,
    budget: Budget,
    device: torch.device,
    chosen: Mapping[str, Any] | None = None,
) -> Plan:
    """The evidence that ``budget`` has room for; ``null``: pairings asked for, None for as many as usual.

    ``device``: where masks are counted; ``chosen``: the choices that the run made when it began, which stay whatever
    memory there is now.
    """
    units, columns = sum(p.units for p in geometries), len(dataset.concepts) + 1
    wanted = PAIRINGS if null is None else null
    groups = group_images(dataset, by_block=False).count * BLOCKS
    # On the device that counts, what it needs; peaks are kept on the host.
    needs = {"intervals": 8 * units * columns * groups, "the null": 8 * units * columns * wanted}
    left = {"device": max(int(_SHARE * budget.on(device)), _LITTLE), "host": max(int(_SHARE * budget.host), _LITTLE)}
    taken = {"device": 0, "host": 0}
    notes = []

    def fits(what: str, need: int, where: str) -> bool:
        if chosen is not None and not chosen[what]:
            return False
        if chosen is None and need > left[where]:
            room = f"{human_bytes(left[where])} of --memory {budget} are left for it"
            notes.append(f"{what} left out: {human_bytes(need)} of memory, {room}")
            return False
        left[where] -= need
        taken[where] += need
        return True

    by_block = fits("intervals", needs["intervals"], "device")
    pairings = wanted if wanted and fits("the null", needs["the null"], "device") else 0
    peaks = fits("AUPRC", Peaks.nbytes(geometries, len(dataset.concepts), len(dataset)), "host")
    on_host, on_gpu = taken["host"], taken["device"]
    if device.type == "cpu":
        on_host, on_gpu = on_host + on_gpu, 0
    rest = Budget(host=_left(budget.host, on_host), gpu=_left(budget.gpu, on_gpu))
    return Plan(by_block, peaks, pairings, rest, tuple(notes if chosen is None else chosen["notes"]))


def _left(whole: int, taken: int) -> int:
    """What evidence leaves of so many bytes; 64 MiB are not counted, as they may be used in any case."""
    return max(whole - max(taken - _LITTLE, 0), 0)
