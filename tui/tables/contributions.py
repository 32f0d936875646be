"""What units add to the score of a class (ndissect.engine.experiments.explain), as rows beside their labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ndissect.store.layer_view import LayerView
from ndissect.tui.tables.doubts import doubts, unit_label
from ndissect.tui.tables.how_computed import how_computed
from ndissect.tui.tables.remarks import layer_notes
from ndissect.tui.tables.where_in_image import mask_of, place_of_peak

if TYPE_CHECKING:
    from ndissect.engine.experiments.explanation import ExplainedImage, Explanation

# Classes that a note names.
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
        labels, iou = zip(*(unit_label(view, unit) for unit in range(units)), strict=True)
        low, high, doubt = nan, nan, [""] * units
        if view is not None:
            low, high, doubt = view.known("iou_low"), view.known("iou_high"), doubts(view)
        where = [""] * units
        if len(e.images) == 1:
            where = [place_of_peak(values, view) for values in e.closeups[0].maps]
        numbers = (low, high, e.contributions, e.low, e.high, e.shares)
        low_, high_, contribution, least, most, share = (x.tolist() for x in numbers)
        return [
            Contribution(
                u,
                labels[u],
                iou[u],
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
        said = how_computed(e.how, e.reason)
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
        speak = int((plus > 0).sum())
        return (
            f"{speak} unit{' speaks' if speak == 1 else 's speak'} for it, {plus.sum():+.4g};"
            f" {int((minus < 0).sum())} against it,"
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
            "how": how_computed(e.how),
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
