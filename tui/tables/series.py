"""A series of dissections: what each store says of its layers, and unique detectors against a factor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ndissect.engine.experiments.series import Factor, Member, show
from ndissect.store.concepts import report_order
from ndissect.store.reader import Store


@dataclass(frozen=True)
class LayerSummary:
    """A layer of a store; ``by_category``: unique detectors in report order; ``summary``: all that the store says."""

    layer: str
    summary: dict[str, Any]
    by_category: dict[str, int]

    @property
    def units(self) -> int:
        return int(self.summary["units"])

    @property
    def detectors(self) -> int:
        return int(self.summary["detectors"])

    @property
    def detectors_q05(self) -> int | None:
        """Those that are told from chance; None where there was no null."""
        detectors: int | None = self.summary.get("detectors_q05")
        return detectors

    @property
    def unique(self) -> tuple[int, int]:
        """Both counts of unique detectors: per category, and by best label."""
        return self.unique_per_category, self.unique_best_label

    @property
    def unique_per_category(self) -> int:
        return int(self.summary["unique_per_category"])

    @property
    def unique_best_label(self) -> int:
        return int(self.summary["unique_best_label"])


@dataclass(frozen=True)
class Dissected:
    """A network of the series with its store."""

    member: Member
    path: Path
    layers: tuple[LayerSummary, ...]


def read(members: Sequence[Member], paths: Sequence[Path]) -> list[Dissected]:
    """What the stores say."""
    dissected = []
    for member, path in zip(members, paths, strict=True):
        with Store(path) as store:
            layers = []
            for name in store.layer_names:
                summary = store.layer(name).summary()
                order = report_order(store.concepts.categories)
                layers.append(LayerSummary(name, summary, {c: summary["by_category"][c] for c in order}))
        dissected.append(Dissected(member, path, tuple(layers)))
    return dissected


@dataclass(frozen=True)
class Panel:
    """Curves of one layer against the factor ``x``: means over the networks that share a value.

    ``title``: the layer and the other factors, where they differ between panels.
    """

    title: str
    x: list[Factor]
    per_category: list[float]
    best_label: list[float]
    by_category: dict[str, list[float]]


def panels(dissected: Sequence[Dissected], factor: str) -> list[Panel]:
    """One panel for each layer and each combination of the other factors.

    Networks that differ in their layers are compared by their last ones. Combinations with a single value of the
    factor are left out where others have more.
    """
    same = all([s.layer for s in d.layers] == [s.layer for s in dissected[0].layers] for d in dissected)
    layers = range(len(dissected[0].layers)) if same else [-1]
    groups: dict[tuple[tuple[str, Factor], ...], list[Dissected]] = {}
    for d in dissected:
        rest = tuple((name, value) for name, value in d.member.factors.items() if name != factor)
        groups.setdefault(rest, []).append(d)
    most = max(len({d.member.factors.get(factor) for d in some}) for some in groups.values())
    if most > 1:
        groups = {k: some for k, some in groups.items() if len({d.member.factors.get(factor) for d in some}) > 1}
    varying = {name for rest in groups for name, value in rest if any((name, value) not in r for r in groups)}
    made = []
    for i in layers:
        layer = [dissected[0].layers[i].layer] if same else ["last layer"]
        for rest, some in groups.items():
            about = [f"{name} {show(value)}" for name, value in rest if name in varying]
            made.append(_panel(", ".join(layer + about), some, factor, i))
    return made


def _panel(title: str, some: Sequence[Dissected], factor: str, i: int) -> Panel:
    values = list(dict.fromkeys(d.member.factors.get(factor, "") for d in some))
    if not any(isinstance(v, str) for v in values):
        values.sort()
    at = [[d.layers[i] for d in some if d.member.factors.get(factor, "") == v] for v in values]
    categories = at[0][0].by_category
    return Panel(
        title,
        values,
        [float(np.mean([s.unique_per_category for s in same])) for same in at],
        [float(np.mean([s.unique_best_label for s in same])) for same in at],
        {c: [float(np.mean([s.by_category[c] for s in same])) for same in at] for c in categories},
    )
