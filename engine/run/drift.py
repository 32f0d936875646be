"""What departs from the exact run, measured on some of the images before it is used for all.

Exact is a forward pass in float32 of images that the CPU decodes. A faster arithmetic departs from that, and so does
another decoder of JPEGs, which rounds otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ndissect.engine.data.dataset import ConceptDataset, JpegFiles
from ndissect.engine.data.made_labels import own_labels
from ndissect.engine.data.subset import spread
from ndissect.engine.machine.progress import Progress
from ndissect.engine.networks.layers import LayerInfo
from ndissect.engine.networks.resolve import Network
from ndissect.engine.run.dissect import dissect
from ndissect.engine.run.forward_pass import open_pass
from ndissect.engine.run.settings import THREADS, Settings
from ndissect.store.model import Dissection
from ndissect.store.protocol import Protocol
from ndissect.store.scores import label_units, unit_ious

#: Images that are dissected each way.
SAMPLE = 128
#: What departs is exact enough where no label of the sample changes and no threshold moves by more than this share of
#: its unit's range.
THRESHOLDS_MAY_MOVE = 0.01


@dataclass(frozen=True)
class Drift:
    """``precision`` against float32, or the ``decoder`` of JPEGs against the CPU's, over ``images``, for one layer.

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
    decoder: str = THREADS

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        decoder = f"JPEGs decoded on {self.decoder} against the CPU's"
        what = f"{self.precision} against fp32" if self.decoder == THREADS else decoder
        moved = f"thresholds move by up to {100 * self.threshold:.2g} % of a unit's range"
        changed = f"{self.labels} of {self.units} labels change, IoUs by up to {self.iou:.2g}"
        return f"{self.layer}: {what} on {self.images} images: {moved}, {changed}"


def departures(settings: Settings, dataset: ConceptDataset) -> list[Settings]:
    """``settings`` with each of their departures from the exact run alone; none where they are exact."""
    alone = [replace(settings, jpeg_on=None)] if settings.precision != "fp32" else []
    if settings.jpeg_on is not None and isinstance(own_labels(dataset), JpegFiles):  # what is packed is decoded already
        alone.append(replace(settings, precision="fp32"))
    return alone


def exact_enough(drift: Iterable[Drift]) -> bool:
    """Whether all layers are as in the exact run, as far as a sample tells."""
    return all(d.labels == 0 and d.threshold <= THRESHOLDS_MAY_MOVE for d in drift)


def measure_drift(
    network: Network,
    dataset: ConceptDataset,
    layers: Sequence[LayerInfo],
    protocol: Protocol,
    departing: Sequence[Settings],
) -> list[Drift]:
    """Dissect some images exactly, and with each of ``departing``; what differs, layer by layer."""
    if not departing:
        return []
    some = spread(dataset, SAMPLE)
    exactly = replace(departing[0], precision="fp32", jpeg_on=None)
    with open_pass(network, some, layers, protocol, exactly, Progress()) as p:
        examination = p.examination

    def dissected(settings: Settings) -> Dissection:
        plain = replace(settings, evidence=False, null=0)
        outcome = dissect(network, some, layers, protocol, plain, Progress(), examination=examination)
        assert outcome.dissection is not None
        return outcome.dissection

    exact = dissected(exactly)
    return [
        _drift(exact, other, i, settings, len(some))
        for settings in departing
        for other in [dissected(settings)]
        for i in range(len(layers))
    ]


def _drift(exact: Dissection, other: Dissection, i: int, settings: Settings, images: int) -> Drift:
    a, b = exact.layers[i], other.layers[i]
    alive = ~(a.statistics.dead | b.statistics.dead)
    span = a.statistics.maximum.astype(np.float64) - a.statistics.minimum
    moved = np.abs(a.statistics.threshold - b.statistics.threshold)[alive] / span[alive]
    changed = label_units(a.best)[0][alive] != label_units(b.best)[0][alive]
    ious = np.abs(_ious(exact, i) - _ious(other, i))[alive]
    return Drift(
        layer=a.name,
        precision=settings.precision,
        images=images,
        units=int(alive.sum()),
        threshold=float(moved.max(initial=0.0)),
        labels=int(changed.sum()),
        iou=float(ious.max(initial=0.0)),
        decoder=str(settings.jpeg_on or THREADS),
    )


def _ious(d: Dissection, i: int) -> np.ndarray:
    counts = d.layers[i].counts
    assert counts is not None
    return unit_ious(
        counts.intersection.sum(0),
        counts.area.sum(0),
        counts.area_in_category.sum(0),
        d.concept_counts.judged_on(d.layers[i].judged_on).area.sum(0),
        d.concepts.category,
        d.protocol.union,
    )
