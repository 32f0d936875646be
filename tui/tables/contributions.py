"""What units add to the score of a class (ndissect.engine.experiments.explain), as rows beside their labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ndissect.store.evidence import SIGNIFICANT
from ndissect.store.layer_view import LayerView
from ndissect.store.scores import DETECTOR_IOU, FEW_IMAGES
from ndissect.tui.tables.remarks import layer_notes
from ndissect.tui.tables.where_in_image import mask_of, place_of_peak

if TYPE_CHECKING:
    from ndissect.engine.experiments.explanation import ExplainedImage, Explanation

DEAD, NO_LABEL = "dead", "no label"
_HOW = {
    "linear head": "exact, in closed form (linear head)",
    "tail": "exact, by running what follows the layer",
    "network": "exact, by running the whole network",
    "gradient": "approximate: activation times gradient",
}
# Units, or classes, that a note names.
_NAMED = 8


@dataclass(frozen=True)
class Contribution:
    """What one unit adds.

    ``label``: "" for none; ``iou`` with its interval, NaN where unknown; ``doubt``: why the label cannot be trusted, ""
    where it can, or where there are no labels at all; ``contribution``, over several images with an interval ``low`` to
    ``high``, NaN for one; ``share`` of the sum of all, NaN where that is not above 0; ``where`` the unit peaks in the
    image, "" where that is nowhere or the images are several.
    """

    unit: int
    label: str
    iou: float
    iou_low: float
    iou_high: float
    doubt: str
    contribution: float
    low: float
    high: float
    share: float
    where: str


@dataclass(frozen=True)
class Explained:
    """An explanation beside the labels of a store's layer; ``view``: None without labels."""

    explanation: Explanation
    view: LayerView | None

    @cached_property
    def rows(self) -> list[Contribution]:
        """All units, those that add most first, of equals the first unit."""
        e, view = self.explanation, self.view
        units = len(e.contributions)
        nan = np.full(units, np.nan)
        labels, iou = [""] * units, nan
        low, high, doubt = nan, nan, [""] * units
        if view is not None:
            names = [*(view.store.concepts.label(row) for row in range(len(view.store.concepts))), ""]
            labels, iou, doubt = [names[row] for row in view.labels[0].tolist()], view.labels[1], doubts(view)
            low, high = view.known("iou_low"), view.known("iou_high")
        where = [""] * units
        if len(e.images) == 1:
            where = [place_of_peak(values, view) for values in e.closeups[0].maps]
        numbers = (iou, low, high, e.contributions, e.low, e.high, e.shares)
        iou_, low_, high_, contribution, least, most, share = (x.tolist() for x in numbers)
        return [
            Contribution(
                u,
                labels[u],
                iou_[u],
                low_[u],
                high_[u],
                doubt[u],
                contribution[u],
                least[u],
                most[u],
                share[u],
                where[u],
            )
            for u in np.argsort(-e.contributions, kind="stable").tolist()
        ]

    def speaking_for(self, limit: int | None = None) -> list[Contribution]:
        """The units that add to the score, those that add most first; at most ``limit``, None is all."""
        return [row for row in self.rows if row.contribution > 0][:limit]

    def speaking_against(self, limit: int | None = None) -> list[Contribution]:
        """The units that take from the score, those that take most first; at most ``limit``, None is all."""
        return [row for row in reversed(self.rows) if row.contribution < 0][:limit]

    def area(self, unit: int) -> float:
        """The share of the image on which a unit is above its threshold; NaN without a store, and of several images."""
        e = self.explanation
        if self.view is None or len(e.images) > 1:
            return math.nan
        return float(mask_of(unit, e.closeups[0].maps[unit], self.view).mean())

    @property
    def subject(self) -> str:
        """What is explained: ``street``, ``street rather than highway``, ``what each image is predicted as``."""
        e = self.explanation
        said = "the prediction of each image" if e.explained is None else self.name(e.explained)
        return said if e.versus < 0 else f"{said} rather than {self.name(e.versus)}"

    def name(self, number: int) -> str:
        """What class ``number`` is called."""
        return self.explanation.classes.names[number]

    @property
    def title(self) -> str:
        """What was explained, in which images, with which score, or by how much it exceeds that of the other class."""
        e = self.explanation
        score = "score" if e.versus < 0 else "difference of scores"
        images = e.images[0].name if len(e.images) == 1 else f"the mean of {len(e.images)} images"
        return f"{e.network} {e.layer}: why {self.subject}, in {images}; {score} {e.score:.4g}"

    def notes(self) -> list[str]:
        """How contributions were computed, what they sum to, and what the network predicts."""
        marks = [] if self.view is None else layer_notes([self.view])
        told = [*self._predictions(), *self._nothing(), *self._classes(), *self.explanation.notes]
        return [*marks, self.how, self._sums(), *told]

    @property
    def how(self) -> str:
        """How contributions were computed, and whether they sum to the score."""
        e = self.explanation
        said = _HOW[e.how] + (f" ({e.reason})" if e.reason else "")
        if e.exact:
            return f"{said}: contributions and bias sum to the score within 1e-5 of the largest score ({e.gap:.1g})"
        if e.how == "linear head":
            return f"{said}, but contributions and bias miss the score by {e.gap:.1g} of the largest score"
        if e.how == "gradient":
            return f"{said}; without --fast it is exact"
        return f"{said}: the score less the score with the unit set to zero; such differences do not sum to the score"

    def _sums(self) -> str:
        e = self.explanation
        plus, minus = np.clip(e.contributions, 0, None), np.clip(e.contributions, None, 0)
        bias = "" if math.isnan(e.bias) else f"; bias {e.bias:+.4g}"
        return (
            f"{int((plus > 0).sum())} units speak for it, {plus.sum():+.4g}; {int((minus < 0).sum())} against it,"
            f" {minus.sum():+.4g}{bias}"
        )

    def _predictions(self) -> list[str]:
        """What the network predicts, where that is not what is explained or not what is true."""
        e = self.explanation
        if len(e.images) > 1:
            predicted = np.bincount([image.predicted for image in e.images])
            most = [int(k) for k in np.argsort(-predicted, kind="stable") if predicted[k]]
            more = f" and {len(most) - _NAMED} more" if len(most) > _NAMED else ""
            return ["predicted as: " + ", ".join(f"{self.name(k)} {predicted[k]}" for k in most[:_NAMED]) + more]
        (image,) = e.images
        said = [] if image.predicted == image.explained else [f"it is predicted as {self.name(image.predicted)}"]
        return said + self._mistake(image)

    def _mistake(self, image: ExplainedImage) -> list[str]:
        if image.truth < 0 or image.truth == image.predicted:
            return []
        wrong = f"its true class is {self.name(image.truth)}"
        if self.explanation.versus >= 0:
            return [wrong]
        from ndissect.store.names import quoted  # noqa: PLC0415 - for this line alone

        return [f"{wrong}: --versus {quoted(self.name(image.truth))} tells what speaks for the mistake"]

    def _nothing(self) -> list[str]:
        e = self.explanation
        if not e.contributions.any():
            return [f"all contributions are 0: no unit of {e.layer} changes the score; those of another layer may (-l)"]
        if not e.contributions.sum() > 0:
            return ["no shares: the contributions do not sum to more than 0"]
        return []

    def _classes(self) -> list[str]:
        e = self.explanation
        return [] if e.classes.source == "the network" else [f"classes named by {e.classes.source}"]

    def to_json(self) -> dict[str, Any]:
        """The explanation as JSON values, over all units; NaN stands for what is not known."""
        e = self.explanation
        several = len(e.images) > 1
        versus = None if e.versus < 0 else self.name(e.versus)
        if several:
            images: dict[str, Any] = {"images": [self._image_json(image) for image in e.images]}
            images["class"] = None if e.explained is None else self.name(e.explained)
        else:
            images = self._image_json(e.images[0])
        return {
            **images,
            "versus": versus,
            "score": e.score,
            "bias": e.bias,
            "exact": e.exact,
            "how": _HOW[e.how],
            "reason": e.reason,
            "network": e.network,
            "layer": e.layer,
            "notes": list(e.notes),
            "units": [self._unit_json(row, several=several) for row in self.rows],
        }

    def _image_json(self, image: ExplainedImage) -> dict[str, Any]:
        return {
            "image": image.name,
            "class": self.name(image.explained),
            "predicted": self.name(image.predicted),
            "truth": None if image.truth < 0 else self.name(image.truth),
            "score": image.score,
            "bias": image.bias,
        }

    def _unit_json(self, row: Contribution, *, several: bool) -> dict[str, Any]:
        interval = {"low": row.low, "high": row.high} if several else {"where": row.where or None}
        return {
            "unit": row.unit,
            "label": row.label or None,
            "iou": row.iou,
            "contribution": row.contribution,
            "share": row.share,
            **interval,
            "doubt": row.doubt or None,
        }


def doubts(view: LayerView) -> list[str]:
    """Why the label of each unit cannot be trusted, "" where it can: it has none, it is no better than chance, it does
    not hold on the images that did not choose it, or a handful of images is all that it rests on."""
    label, iou = view.labels
    evidence, images = view.evidence, view.store.concept_counts.images
    known_images = np.append(np.where((images < 0).any(0), FEW_IMAGES, images.sum(0)), FEW_IMAGES)[label]
    q, heldout, chosen = view.known("q"), view.known("heldout_iou"), evidence.heldout_concept
    reasons = [
        (view.statistics.dead, DEAD),
        (label < 0, NO_LABEL),
        (iou <= DETECTOR_IOU, f"IoU at most {DETECTOR_IOU}"),
        (q >= SIGNIFICANT, f"q at least {SIGNIFICANT}: chance reaches it"),
        ((chosen >= 0) & (chosen != label), "train images choose another label"),
        (heldout <= DETECTOR_IOU, f"held out: IoU at most {DETECTOR_IOU} on val"),
        (known_images < FEW_IMAGES, f"fewer than {FEW_IMAGES} images hold it"),
    ]
    said = [""] * view.units
    for holds, why in reversed(reasons):  # the first that holds is told
        for unit in np.flatnonzero(holds).tolist():
            said[unit] = why
    return said


def label_text(label: str, doubt: str) -> str:
    """A label as tables and figures show it: with a question mark where it is not to be trusted."""
    if doubt in (DEAD, NO_LABEL):
        return doubt
    return f"{label}?" if doubt else label


def doubt_lines(rows: Sequence[Contribution]) -> list[str]:
    """The doubts of these rows' labels in words, the units with the same doubt together."""
    units: dict[str, list[int]] = {}
    for row in rows:
        if row.doubt and row.doubt not in (DEAD, NO_LABEL):
            units.setdefault(row.doubt, []).append(row.unit)
    return [f"?  not to be trusted, {why}: {_listed(numbers)}" for why, numbers in units.items()]


def _listed(units: list[int]) -> str:
    more = f" and {len(units) - _NAMED} more" if len(units) > _NAMED else ""
    return ", ".join(map(str, sorted(units)[:_NAMED])) + more
