"""What a faster arithmetic of the forward pass changes, measured on some of the images before it is used for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.data.subset import spread
from ndissect.engine.machine.progress import Progress
from ndissect.engine.networks.layers import LayerInfo
from ndissect.engine.networks.resolve import Network
from ndissect.engine.run.dissect import dissect
from ndissect.engine.run.settings import Settings
from ndissect.store.model import Dissection
from ndissect.store.protocol import Protocol
from ndissect.store.scores import label_units, unit_ious

#: Images that are dissected both ways.
SAMPLE = 128


@dataclass(frozen=True)
class Drift:
    """``precision`` against float32 over ``images``, for one layer.

    ``threshold``: the largest change of a unit's threshold, as a share of the range of its activations; ``labels``: of
    ``units`` alive so many change their label; ``iou``: the largest change of the IoU of any unit and concept.
    """

    layer: str
    precision: str
    images: int
    units: int
    threshold: float
    labels: int
    iou: float

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        moved = f"thresholds move by up to {100 * self.threshold:.2g} % of a unit's range"
        changed = f"{self.labels} of {self.units} labels change, IoUs by up to {self.iou:.2g}"
        return f"{self.layer}: {self.precision} against fp32 on {self.images} images: {moved}, {changed}"


def measure_drift(
    network: Network, dataset: ConceptDataset, layers: Sequence[LayerInfo], protocol: Protocol, settings: Settings
) -> list[Drift]:
    """Dissect some images in float32 and in ``settings.precision``; what differs, layer by layer."""
    some = spread(dataset, SAMPLE)
    plain = replace(settings, evidence=False, null=0)
    exact, fast = (
        dissect(network, some, layers, protocol, replace(plain, precision=p), Progress()).dissection
        for p in ("fp32", settings.precision)
    )
    assert exact is not None
    assert fast is not None
    return [_drift(exact, fast, i, settings.precision, len(some)) for i in range(len(layers))]


def _drift(exact: Dissection, fast: Dissection, i: int, precision: str, images: int) -> Drift:
    a, b = exact.layers[i], fast.layers[i]
    alive = ~(a.statistics.dead | b.statistics.dead)
    span = a.statistics.maximum.astype(np.float64) - a.statistics.minimum
    moved = np.abs(a.statistics.threshold - b.statistics.threshold)[alive] / span[alive]
    changed = label_units(a.best)[0][alive] != label_units(b.best)[0][alive]
    ious = np.abs(_ious(exact, i) - _ious(fast, i))[alive]
    return Drift(
        a.name,
        precision,
        images,
        int(alive.sum()),
        float(moved.max(initial=0.0)),
        int(changed.sum()),
        float(ious.max(initial=0.0)),
    )


def _ious(d: Dissection, i: int) -> np.ndarray:
    counts = d.layers[i].counts
    assert counts is not None
    return unit_ious(
        counts.intersection.sum(0),
        counts.area.sum(0),
        counts.area_in_category.sum(0),
        d.concept_counts.area.sum(0),
        d.concepts.category,
        d.protocol.union,
    )
