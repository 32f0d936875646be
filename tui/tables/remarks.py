"""What tables say in words beside their rows: what the numbers are, and what to beware of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ndissect.store.concepts import report_order
from ndissect.store.descriptions import NO_PROTOCOL
from ndissect.store.evidence import SIGNIFICANT, TRAIN, VAL
from ndissect.store.layer_view import LayerView
from ndissect.store.marks import MARKED, Mark
from ndissect.store.protocol import IOUS_ALONE, Protocol
from ndissect.store.reader import Store
from ndissect.store.scores import DETECTOR_IOU, FEW_IMAGES
from ndissect.tui.tables.origin import origin

UNITS_FROM_0 = "units count from 0"
#: What the two columns of unique detectors are; the papers' figures are the first.
UNIQUE = (
    "unique/cat: distinct winners of each category with IoU > 0.04, added up;"
    " unique/best: distinct labels with IoU >= 0.04"
)
#: Of layers whose units have one value an image.
JUDGED_ON_IMAGES = "judged on images: I, A and C count images, not pixels, so its IoUs are another measure"
#: Of layers of a table that told IoUs and nothing else.
IOUS_WITHOUT_COUNTS = "IoUs as a published table gives them, without the counts behind them: I, A and C are not known"
# Units, or layers, that a caution lists by name.
_NAMED = 8


#: What a store of descriptions says where others say what their labels are held against.
NO_COUNTS = "no counts: no IoU, no detectors, nothing held out"


def layer_notes(views: Sequence[LayerView]) -> list[str]:
    """What every view of these layers says before anything else that it notes: their marks, and what they count."""
    on_images = [view.name for view in views if view.judged_on == "images"]
    counted = [f"{_named(on_images)}: {JUDGED_ON_IMAGES}"] if on_images else []
    alone = [view.name for view in views if view.has_ious_alone]
    told = [f"{_named(alone)}: {IOUS_WITHOUT_COUNTS}"] if alone else []
    return marks(views) + counted + told


def few_image_labels(view: LayerView) -> int | None:
    """How many units' labels rest on fewer than FEW_IMAGES images; None where the images are not known."""
    images = view.store.concept_counts.images.sum(0)
    label, value = view.labels
    rows = label[(value > DETECTOR_IOU) & (label >= 0)]
    if (images < 0).any():
        return None
    return int((images[rows] < FEW_IMAGES).sum())


def summary_lines(view: LayerView) -> list[str]:
    """A layer's summary in words: detectors, both counts of unique detectors, and what to beware of."""
    if view.descriptions is not None:
        return [f"{view.units} units, {int((view.labels[0] >= 0).sum())} of them described", *cautions([view])]
    s = view.summary()
    by = ", ".join(f"{s['by_category'][c]} {c}" for c in report_order(view.store.concepts.categories))
    surviving = "" if s["detectors_q05"] is None else f", {s['detectors_q05']} of them with q < {SIGNIFICANT}"
    lines = [
        f"{s['units']} units, {s['detectors']} detectors (IoU > {DETECTOR_IOU}){surviving}",
        f"unique detectors: {s['unique_per_category']} per category ({by}); {s['unique_best_label']} by best label",
    ]
    return lines + cautions([view])


def cautions(views: Sequence[LayerView]) -> list[str]:
    """What to beware of in these layers of a store: marks, what they count, labels of few images, dead units, NaN."""
    lines = layer_notes(views)
    few = [few_image_labels(view) for view in views]
    if views and None not in few and not views[0].store.protocol.min_images:
        detectors = sum(int((view.labels[1] > DETECTOR_IOU).sum()) for view in views)
        count = sum(n for n in few if n)
        lines.append(
            f"labels that rest on fewer than {FEW_IMAGES} images: {count} of {detectors} detectors'"
            + ("; such labels win by chance, nd dissect --min-images leaves them out" if count else "")
        )
    dead = sum(int(view.statistics.dead.sum()) for view in views)
    if dead:
        lines.append(f"dead units (constant, or never above zero), which have no label: {dead}")
    full = 0
    for s in (view.statistics for view in views):
        full += int(((s.threshold >= s.maximum) & ~s.dead).sum())
    if full:
        lines.append(f"units whose threshold is their maximum (they saturate, so nothing exceeds it): {full}")
    broken = [
        f"{view.name}:{u} ({view.statistics.nan[u]} NaN, {view.statistics.inf[u]} infinite)"
        for view in views
        for u in np.flatnonzero(view.statistics.nan + view.statistics.inf)
    ]
    if broken:
        more = f" and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
        named = ", ".join(broken[:_NAMED])
        lines.append(f"NaN or infinite activations, left out: {named}{more}")
    return lines


def marks(views: Sequence[LayerView]) -> list[str]:
    """What marks the numbers of these layers: who made the labels, where nobody did by hand, and marks of their runs.

    Every view of the numbers shows these lines before anything else that it notes.
    """
    stores = {id(view.store): view.store for view in views}
    made = dict.fromkeys(labels for store in stores.values() if (labels := labels_line(store.provenance)))
    return [*made, *mark_lines([mark for view in views for mark in view.marks])]


def labels_line(provenance: Mapping[str, Any]) -> str:
    """``labels by NETWORK, not by hand``; "" where the labels are the data set's own."""
    made = origin(provenance).labels
    return f"{made}, not by hand" if made else ""


def labels_json(store: Store) -> dict[str, str]:
    """``labels``: that sentence, for outputs in JSON; {} where the labels are the data set's own."""
    made = labels_line(store.provenance)
    return {"labels": made} if made else {}


def mark_lines(marked: Sequence[Mark]) -> list[str]:
    """Marks in words, the layers with the same words together."""
    layers: dict[str, list[str]] = {}
    for mark in marked:
        layers.setdefault(mark.sentence, []).append(mark.layer)
    return [f"{MARKED}{_named(names)} {sentence}" for sentence, names in layers.items()]


def _named(names: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(names))
    return ", ".join(distinct[:_NAMED]) + (f" and {len(distinct) - _NAMED} more" if len(distinct) > _NAMED else "")


def protocol_line(protocol: Protocol) -> str:
    """The protocol in one line; of labels that others gave, that there is none."""
    if protocol.name == NO_PROTOCOL.name:
        return "the labels are descriptions that others gave"
    if protocol.name == IOUS_ALONE.name:
        return f"protocol not told but for the threshold: q {float(protocol.q):.4g}"
    return f"protocol {protocol.describe()}"


def evidence_line(store: Store) -> str:
    """What labels are held against, in one line: the threshold, the null, the split, the blocks."""
    if store.protocol.name == NO_PROTOCOL.name:
        return NO_COUNTS
    # One run counts all layers: where one has a null, the others need not be looked at.
    pairings = next((n for name in store.layer_names if (n := store.layer(name).pairings)), 0)
    said = [
        f"detectors: IoU > {DETECTOR_IOU}",
        f"null: {pairings} wrong pairings" if pairings else "no null",
        "held out: train/val" if {TRAIN, VAL} <= set(store.groups) else "nothing held out",
    ]
    return "; ".join(said)
