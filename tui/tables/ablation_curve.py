"""What a class loses as units are taken away, as tables: a row for each number of units, and what follows in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ndissect.store.layer_view import LayerView
from ndissect.tui.tables.doubts import doubts, unit_label
from ndissect.tui.tables.how_computed import how_computed

if TYPE_CHECKING:
    from ndissect.engine.experiments.ablation_curve import AblationCurve, Kind, Point, Series

#: How many of the most important units are told with their labels.
MOST_IMPORTANT = 10


@dataclass(frozen=True)
class CurveRow:
    """One point of one series: balanced accuracy, recall and mean score, each with the ends of its interval.

    ``series``: what the series is called; ``least``, ``most``: balanced accuracies of random draws, NaN elsewhere.
    """

    kind: Kind
    series: str
    n: int
    balanced_accuracy: float
    low: float
    high: float
    recall: float
    recall_low: float
    recall_high: float
    score: float
    score_low: float
    score_high: float
    least: float
    most: float


@dataclass(frozen=True)
class RankedUnit:
    """A unit with its label, and the balanced accuracy and mean score of the class without it alone.

    ``label`` is "" and ``iou`` NaN where there are no labels; ``doubt``: as of ndissect.tui.tables.doubts.
    """

    unit: int
    label: str
    iou: float
    doubt: str
    balanced_accuracy: float
    score: float


def titles(curve: AblationCurve) -> list[str]:
    """What the series of the curve are called, in their order."""
    called = {
        "remove": "most important removed",
        "keep": "most important kept alone",
        "random": f"random removed, mean of {curve.draws}",
        "label": f"best for {curve.label} removed",
    }
    return [called[series.kind] for series in curve.series]


def curve_rows(curve: AblationCurve) -> list[CurveRow]:
    """Every point of every series."""
    return [
        CurveRow(series.kind, title, point.n, *_numbers(point))
        for title, series in zip(titles(curve), curve.series, strict=True)
        for point in series.points
    ]


def _numbers(point: Point) -> list[float]:
    measured = (point.balanced_accuracy, point.recall, point.score)
    nan = float("nan")
    drawn = [min(point.draws), max(point.draws)] if point.draws else [nan, nan]
    return [*(x for m in measured for x in (m.value, m.low, m.high)), *drawn]


def ranked_units(curve: AblationCurve, view: LayerView | None) -> list[RankedUnit]:
    """All units of the layer, the most important first; ``view``: where their labels are, None for nowhere."""
    ranking = curve.ranking
    doubt = [""] * curve.units if view is None else doubts(view)
    return [
        RankedUnit(u, *unit_label(view, u), doubt[u], float(ranking.balanced_accuracy[u]), float(ranking.score[u]))
        for u in ranking.units.tolist()
    ]


def said_of(curve: AblationCurve) -> list[str]:
    """What the curve says in words: how many units the class hangs on, and how it was computed."""
    before = curve.before.balanced_accuracy.value
    how = how_computed(curve.how, curve.reason)
    ranked = curve.ranking
    source = "by effects in the store" if ranked.stored else "by removing each unit alone"
    return [
        *(_crossing(curve, title, series, before) for title, series in zip(titles(curve), curve.series, strict=True)),
        *_beyond_random(curve),
        f"ranked on {ranked.split} ({ranked.images} images, {ranked.class_images} of the class), {source};"
        f" measured on {curve.split} ({curve.images} images, {curve.class_images} of the class)",
        f"computed: {how}; removed units are set to {_BY[curve.by]}",
        "intervals: 95 % of the change, over image blocks; of random units: 95 % of the mean over draws",
        *curve.notes,
    ]


_BY = {"zero": "zero", "mean": "their means", "resample": "their maps in other images"}


def _crossing(curve: AblationCurve, title: str, series: Series, before: float) -> str:
    """At how many units half of the class's balanced accuracy above chance is lost, or there."""
    if not before > 0.5:
        return f"{title}: balanced accuracy with all units is {before:.3f}, not above chance (0.5)"
    n, half = series.halved, "half of the balanced accuracy above chance"
    sizes = [point.n for point in series.points]
    if n is None:
        return f"{title}: more than {half} is left at {sizes[-1]} of {curve.units} units"
    few = sizes[sizes.index(n) - 1] if n else 0
    what = "is there" if series.kind == "keep" else "is lost"
    return f"{title}: {half} {what} from {n} of {curve.units} units on" + (f" ({few} are too few)" if few else "")


def _beyond_random(curve: AblationCurve) -> list[str]:
    """At which numbers the most important units hurt more than each of the random draws."""
    removed, drawn = curve.of("remove"), curve.of("random")
    if removed is None or drawn is None or not curve.draws:
        return []
    pairs = list(zip(removed.points, drawn.points, strict=True))[1:-1]
    worse = [a.n for a, b in pairs if a.balanced_accuracy.value < min(b.draws)]
    listed = f"at n = {', '.join(map(str, worse))}" if worse else "at no n"
    return [f"removing the most important hurts more than each of {curve.draws} random draws {listed}"]


def curve_json(curve: AblationCurve, view: LayerView | None) -> dict[str, Any]:
    """All of the curve as JSON values."""
    ranking = curve.ranking
    return {
        "layer": curve.layer,
        "units": curve.units,
        "class": curve.class_name,
        "by": curve.by,
        "truth": curve.truth,
        "how": curve.how,
        "split": curve.split,
        "images": curve.images,
        "class_images": curve.class_images,
        "before": _point_json(curve.before),
        "ranking": {
            "split": ranking.split,
            "images": ranking.images,
            "class_images": ranking.class_images,
            "stored": ranking.stored,
            "units": [vars(row) | {"label": row.label or None} for row in ranked_units(curve, view)],
        },
        "label": curve.label,
        "draws": curve.draws,
        "seed": curve.seed,
        "series": [_series_json(title, series) for title, series in zip(titles(curve), curve.series, strict=True)],
        "said": said_of(curve),
    }


def _series_json(title: str, series: Series) -> dict[str, Any]:
    return {
        "series": series.kind,
        "title": title,
        "units": list(series.units) or None,
        "halved": series.halved,
        "points": [_point_json(point) for point in series.points],
    }


_MEASURES = ("balanced_accuracy", "recall", "score")


def _point_json(point: Point) -> dict[str, Any]:
    measured = {name: vars(getattr(point, name)) for name in _MEASURES}
    return {"n": point.n, **measured, **({"draws": list(point.draws)} if point.draws else {})}
