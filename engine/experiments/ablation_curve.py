"""What a class loses as units of a layer are taken away, one after the other.

Bau et al., PNAS 2020; docs/method.md, section 7.5; docs/ablation_curves.md. The n most important units for the class
are removed; in another series all others are. Beside them as many random units are removed, and, for a concept, those
that detect it best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ndissect.engine.experiments.ablate import saved_predictions, used_digest
from ndissect.engine.experiments.class_measures import ClassMeasures, Measured, measure_class, with_margins
from ndissect.engine.experiments.classified import Classified
from ndissect.engine.experiments.predictions import Predictions, predict_without
from ndissect.engine.experiments.saved_predictions import How, SavedPredictions
from ndissect.store.bootstrap import block_of
from ndissect.store.counts import Ints
from ndissect.store.effects import By, Effects, ranked
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.intervals import student
from ndissect.store.reader import Store
from ndissect.store.scores import Floats

#: Random orders of the units, of which the first n are removed.
DRAWS = 20
#: The balanced accuracy of predictions that know nothing of the class.
CHANCE = 0.5

#: Which units are removed: the n most important; all but these; n random ones; the n best of a concept.
Kind = Literal["remove", "keep", "random", "label"]


@dataclass(frozen=True)
class Ranking:
    """The units of a layer by their importance for a class, the most important first: ``units`` (U,) int64.

    ``balanced_accuracy`` (U,) and ``score`` (U,) float64: of the class without each of them alone, over ``images``
    images of ``split``, ``class_images`` of them of the class. ``stored``: taken from the store, not computed again.
    """

    units: Ints
    balanced_accuracy: Floats
    score: Floats
    split: str
    images: int
    class_images: int
    stored: bool


@dataclass(frozen=True)
class Point:
    """The class at ``n`` units. Intervals of 95 % are of the change from n = 0, over image blocks.

    Of random units: means over the draws, with 95 % intervals of these means; ``draws``: the balanced accuracy of each.
    """

    n: int
    balanced_accuracy: Measured
    recall: Measured
    score: Measured
    draws: tuple[float, ...] = ()


@dataclass(frozen=True)
class Series:
    """Points by rising n; ``units``: in the order in which they are removed, or kept; () for random ones."""

    kind: Kind
    units: tuple[int, ...]
    points: tuple[Point, ...]

    @property
    def halved(self) -> int | None:
        """The n from which on half of the class's balanced accuracy above chance is lost; of "keep": is there.

        None where it never is, and where nothing is above chance.
        """
        whole = self.points[-1 if self.kind == "keep" else 0].balanced_accuracy.value - CHANCE
        if not whole > 0:
            return None
        first = None
        for point in reversed(self.points):
            left = point.balanced_accuracy.value - CHANCE
            if left < whole / 2 if self.kind == "keep" else left > whole / 2:
                break
            first = point.n
        return first


@dataclass(frozen=True)
class AblationCurve:
    """A class measured on ``images`` images of ``split``, ``class_images`` of them of the class.

    ``units``: of the layer. ``truth``: as of ndissect.engine.experiments.classified.Classified. ``how`` and ``reason``:
    what was run, as of ndissect.engine.experiments.predictions.Predictions. ``label``: the concept whose units are
    removed in the series of that kind. ``draws`` random orders of the units came from ``seed``. ``notes``: what the
    user should know of the images.
    """

    layer: str
    units: int
    class_name: str
    by: By
    truth: Literal["images", "prediction"]
    split: str
    images: int
    class_images: int
    how: How
    reason: str
    ranking: Ranking
    series: tuple[Series, ...]
    label: str | None
    draws: int
    seed: int
    notes: tuple[str, ...]

    @property
    def before(self) -> Point:
        """The class with all units."""
        return self.series[0].points[0]

    def of(self, kind: Kind) -> Series | None:
        """The series of this kind, None where it was not asked for."""
        return next((series for series in self.series if series.kind == kind), None)


def ablation_curve(
    c: Classified,
    class_number: int,
    *,
    by: By = "zero",
    label: int | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> AblationCurve:
    """What the class loses without units of ``c.layer``, for n = 0, 1, 2, 4, ... and all units.

    ``label``: a row of the concepts of ``c.store``, whose best units by IoU are removed in another series. Units are
    ranked on the train images and removed on the val images, where both have images of the class, else on all.
    ``draws``: random orders of the units, drawn from ``seed``. Effects that the store holds already of the same images
    and network rank the units without another run. NDError where no image is of the class, or all are; WrongUse for a
    label without a store, or of which no unit has an IoU.
    """
    detectors = None if label is None else _best_units(c, label)
    chosen = _choose_images(c, class_number)
    runs = _Runs(c, by)
    ranking = _stored_ranking(c, class_number, by, chosen) or _ranked(runs, class_number, chosen)
    sizes, sets = counts_up_to(c.layer.units), _Sets()
    removed = [sets.row(ranking.units[:n]) for n in sizes]
    kept = [sets.row(ranking.units[n:]) for n in sizes]
    orders = random_orders(c.layer.units, draws, seed)
    drawn = [[sets.row(order[:n]) for order in orders] for n in sizes]
    if detectors is not None:
        best_sizes = counts_up_to(len(detectors.units))
        best = [sets.row(detectors.units[:n]) for n in best_sizes]
    predictions = runs.predict(list(sets.rows), chosen.measured, "curve")
    runs.over()
    measures = _measure(c, class_number, predictions)
    by_importance = tuple(ranking.units.tolist())
    series = [
        Series("remove", by_importance, _points(measures, sizes, removed)),
        Series("keep", by_importance, _points(measures, sizes, kept)),
        Series("random", (), tuple(_of_draws(measures, n, rows) for n, rows in zip(sizes, drawn, strict=True))),
    ]
    if detectors is not None:
        series.append(Series("label", tuple(detectors.units.tolist()), _points(measures, best_sizes, best)))
    return AblationCurve(
        layer=c.layer.name,
        units=c.layer.units,
        class_name=c.classes.names[class_number],
        by=by,
        truth=c.truth_from,
        split=chosen.measured_split,
        images=len(predictions.images),
        class_images=int((predictions.truth == class_number).sum()),
        how=predictions.how,
        reason=predictions.reason,
        ranking=ranking,
        series=tuple(series),
        label=detectors.label if detectors else None,
        draws=draws,
        seed=seed,
        notes=(*c.notes, *chosen.notes),
    )


def counts_up_to(units: int) -> list[int]:
    """0, 1, 2, 4, ... and all ``units``."""
    doubled = [1 << k for k in range(units.bit_length()) if 1 << k < units]
    return [0, *doubled, units]


def random_orders(units: int, draws: int, seed: int) -> list[Ints]:
    """So many orders of ``units`` units, each drawn uniformly: the same for the same seed."""
    return [np.random.default_rng([seed, draw]).permutation(units) for draw in range(draws)]


# Which images, and which units


@dataclass(frozen=True)
class _Chosen:
    """The images on which units are ranked, those on which the class is measured, and the splits they are of."""

    ranked: list[int]
    measured: list[int]
    ranked_split: str
    measured_split: str
    notes: tuple[str, ...]


def _choose_images(c: Classified, class_number: int) -> _Chosen:
    """Train and val images where both have images of the class and others, else all for both."""
    truth = _truth(c)
    own = [i for i in c.images if truth[i] == class_number]
    name = c.classes.names[class_number]
    if not own:
        what = "is predicted as" if c.truth_from == "prediction" else "is of the class"
        raise NDError(f"no image {what} {name}", "name images of it: --images FOLDER with a folder a class")
    if len(own) == len(c.images):
        raise NDError(
            f"every image is of the class {name}, so nothing says how it is told from others",
            "add images of other classes",
        )
    parts = [[i for i in c.images if c.split[i] == row] for row in range(len(c.splits))]
    if len(parts) > 1 and all(0 < sum(truth[i] == class_number for i in part) < len(part) for part in parts):
        return _Chosen(parts[0], parts[-1], c.splits[0], c.splits[-1], ())
    why = "there is one split" if len(parts) == 1 else f"train and val do not both have images of {name} and of others"
    note = f"ranked and measured on the same images, since {why}: importance is overestimated"
    return _Chosen(c.images, c.images, "all", "all", (note,))


def _truth(c: Classified) -> npt.NDArray[np.int64]:
    """The class of each image; where nothing says it, that which the whole network predicts."""
    if c.truth_from == "images":
        return c.truth
    predictions = predict_without(c, [], c.images, phase="predictions")
    truth = np.full(len(c.truth), -1, np.int64)
    truth[predictions.images] = predictions.truth
    return truth


@dataclass(frozen=True)
class _Detectors:
    """The units that have an IoU with the concept ``label``, the best first."""

    label: str
    units: Ints


def _best_units(c: Classified, row: int) -> _Detectors:
    if c.store is None:
        raise WrongUse("--label names a concept of a store, and there is none", "dissect the network, or name --store")
    with Store(c.store) as store:
        ious, label = store.layer(c.layer.name).concept_ious(row), store.concepts.label(row)
    order = np.lexsort([np.arange(len(ious)), -ious])
    units = order[: int((ious > 0).sum())]
    if not len(units):
        raise WrongUse(f"no unit of {c.layer.name} has an IoU with {label}", f"nd concepts '{label}' lists its units")
    return _Detectors(label, units)


class _Runs:
    """The runs of one curve. Their predictions are kept on the disk meanwhile, so that the same call goes on from
    there."""

    def __init__(self, c: Classified, by: By) -> None:
        self.c = c
        self._by = by
        self._saved: list[SavedPredictions] = []

    def predict(self, sets: Sequence[tuple[int, ...]], images: Sequence[int], phase: str) -> Predictions:
        """What the network predicts for ``images`` without each of ``sets``."""
        self._saved.append(saved_predictions(self.c, sets, images, self._by, beside=None))
        return predict_without(self.c, sets, images, self._by, saved=self._saved[-1], phase=phase)

    def over(self) -> None:
        """The curve is there: nothing need be kept."""
        for saved in self._saved:
            saved.remove()


def _ranked(runs: _Runs, class_number: int, chosen: _Chosen) -> Ranking:
    """The units ranked by a run without each of them alone."""
    singles = [(unit,) for unit in range(runs.c.layer.units)]
    predictions = runs.predict(singles, chosen.ranked, "ranking")
    balanced, _, score = _measure(runs.c, class_number, predictions).value[:, :-1]
    return Ranking(
        units=ranked(balanced, score),
        balanced_accuracy=balanced,
        score=score,
        split=chosen.ranked_split,
        images=len(predictions.images),
        class_images=int((predictions.truth == class_number).sum()),
        stored=False,
    )


def _stored_ranking(c: Classified, class_number: int, by: By, chosen: _Chosen) -> Ranking | None:
    """The units ranked by effects in the store; None where it has none of every unit, these images and this network."""
    if c.store is None:
        return None
    with Store(c.store) as store:
        effects = store.layer(c.layer.name).effects if c.layer.name in store.layer_names else None
    if effects is None or chosen.ranked_split not in effects.splits or not _is_of(effects, c, by):
        return None
    rows, split = effects.single(), effects.splits.index(chosen.ranked_split)
    if len(rows) < c.layer.units:
        return None
    balanced = effects.balanced_accuracy_without[split, rows, class_number]
    score = effects.score_without[split, rows, class_number].astype(np.float64)
    images = effects.images[split]
    return Ranking(
        units=ranked(balanced, score),
        balanced_accuracy=balanced,
        score=score,
        split=chosen.ranked_split,
        images=int(images.sum()),
        class_images=int(images[class_number]),
        stored=True,
    )


def _is_of(effects: Effects, c: Classified, by: By) -> bool:
    """Whether the effects are of these images, by their data and classes and as they are made ready, of this network,
    and of this removal."""
    origin, network = effects.origin, effects.origin.get("network")
    data = {"name": c.dataset.name, "digest": c.dataset.tables_digest(), "used": used_digest(c)}
    return (
        origin.get("by") == by
        and origin.get("truth") == c.truth_from
        and origin.get("data") == data
        and isinstance(network, Mapping)
        and network.get("digest") == c.network.digest
        and network.get("preprocess") == c.network.preprocess.describe()
        and effects.images.shape[1] == len(c.classes.names)
        and effects.splits == c.splits
    )


# The measures of the series


class _Sets:
    """Distinct sets of units in the order in which they came: ``rows`` has the row of each."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, ...], int] = {}

    def row(self, units: Ints) -> int:
        """The row of this set; -1 for no units, which is the last row of the measures: the whole network."""
        key = tuple(sorted(units.tolist()))
        return self.rows.setdefault(key, len(self.rows)) if key else -1


def _measure(c: Classified, class_number: int, predictions: Predictions) -> ClassMeasures:
    """The class in each of the ablations, and last with all units."""
    return measure_class(
        class_number,
        predictions.truth,
        np.array([block_of(c.dataset.names[i]) for i in predictions.images], np.int64),
        (predictions.plain, predictions.plain_score),
        (
            np.column_stack([predictions.predicted, predictions.plain]),
            np.column_stack([predictions.score, predictions.plain_score]),
        ),
    )


def _points(measures: ClassMeasures, sizes: Sequence[int], rows: Sequence[int]) -> tuple[Point, ...]:
    return tuple(Point(n, *measures.at(row)) for n, row in zip(sizes, rows, strict=True))


def _of_draws(measures: ClassMeasures, n: int, rows: Sequence[int]) -> Point:
    """The mean over random sets of ``n`` units, with an interval of that mean by Student's t."""
    value = measures.value[:, rows]
    mean = value.mean(1)
    half = np.full(3, np.nan)
    if len(rows) > 1:
        half = student(len(rows) - 1) * value.std(1, ddof=1) / len(rows) ** 0.5
    return Point(n, *with_margins(mean, half), draws=tuple(value[0].tolist()))
