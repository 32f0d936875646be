"""The curve of a class over units taken away: its sets of units, measures and intervals, its words and its picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ndissect.engine.experiments import ablation_curve as module
from ndissect.engine.experiments.ablation_curve import AblationCurve, ablation_curve, counts_up_to, random_orders
from ndissect.engine.experiments.class_measures import measure_class
from ndissect.engine.experiments.predictions import Predictions
from ndissect.store.bootstrap import block_of
from ndissect.store.counts import BLOCKS
from ndissect.store.effects import balanced_accuracy
from ndissect.store.errors import NDError
from ndissect.tui.pictures import ablation_plot, figures
from ndissect.tui.tables.ablation_curve import curve_json, curve_rows, said_of

UNITS, IMAGES, CLASSES = 6, 240, 3
rng = np.random.default_rng(1)
#: A linear network: the scores are the sum over its units of what each adds to each class.
ADDED = np.abs(rng.normal(0, 0.5, (IMAGES, UNITS, CLASSES))).astype(np.float32)
TRUTH = rng.integers(0, CLASSES, IMAGES)
for unit, gain in enumerate((2.0, 0.5, 0.25)):
    # Units 0, 1 and 2 speak for the class of the image, each less than the one before it.
    ADDED[np.arange(IMAGES), unit, TRUTH] += gain
NAMES = tuple(f"image-{i}.png" for i in range(IMAGES))


def opened(**changes: Any) -> Any:
    """What open_classified gives of this network, as far as the curve looks at it."""
    given: dict[str, Any] = {
        "layer": SimpleNamespace(name="units", units=UNITS),
        "classes": SimpleNamespace(names=("a", "b", "c")),
        "dataset": SimpleNamespace(names=NAMES),
        "truth": TRUTH,
        "truth_from": "images",
        "images": list(range(IMAGES)),
        "splits": ("train", "val"),
        "split": np.arange(IMAGES) % 2,
        "notes": (),
        "store": None,
    }
    return SimpleNamespace(**given | changes)


def predicted(
    c: Any, sets: Sequence[tuple[int, ...]], images: Sequence[int], by: str = "zero", **_: Any
) -> Predictions:
    """What the linear network predicts without sets of units."""
    at = np.array(images)
    scores = np.stack([np.delete(ADDED[at], some, 1).sum(1) for some in [(), *sets]], 1)
    truth = TRUTH[at] if c.truth_from == "images" else scores[:, 0].argmax(1)
    own = np.take_along_axis(scores, truth[:, None, None], 2)[..., 0]
    said = scores.argmax(2).astype(np.int32)
    return Predictions(
        sets=tuple(sets),
        by="zero",
        images=at,
        truth=truth.astype(np.int32),
        plain=said[:, 0],
        plain_score=own[:, 0],
        predicted=said[:, 1:],
        score=own[:, 1:],
        how="linear head",
    )


@pytest.fixture
def c(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module, "predict_without", predicted)
    monkeypatch.setattr(module, "saved_predictions", lambda *_, **__: SimpleNamespace(remove=lambda: None))
    return opened()


def by_hand(keep: Sequence[int], images: np.ndarray, k: int) -> tuple[float, float, float]:
    """Balanced accuracy, recall and mean score of class ``k`` with the units ``keep`` alone."""
    scores = ADDED[images][:, list(keep)].sum(1)
    said, own = scores.argmax(1) == k, TRUTH[images] == k
    return (said[own].mean() + (~said[~own]).mean()) / 2, said[own].mean(), scores[own, k].mean()


def test_numbers_of_units() -> None:
    assert counts_up_to(6) == [0, 1, 2, 4, 6]
    assert counts_up_to(8) == [0, 1, 2, 4, 8]
    assert counts_up_to(1) == [0, 1]
    orders = random_orders(6, 3, 7)
    assert all(sorted(order.tolist()) == list(range(6)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) > 1
    assert [o.tolist() for o in random_orders(6, 3, 7)] == [o.tolist() for o in orders]
    assert [o.tolist() for o in random_orders(6, 3, 8)] != [o.tolist() for o in orders]


def test_every_point_is_that_of_its_units(c: Any) -> None:
    curve = ablation_curve(c, 1, draws=3, seed=5)
    train, val = np.arange(0, IMAGES, 2), np.arange(1, IMAGES, 2)
    every = set(range(UNITS))
    alone = [by_hand(sorted(every - {u}), train, 1) for u in range(UNITS)]
    assert curve.ranking.units.tolist() == sorted(every, key=lambda u: (alone[u][0], alone[u][2], u))
    assert curve.ranking.units[0] == 0
    assert np.allclose(curve.ranking.balanced_accuracy, [a[0] for a in alone])
    assert np.allclose(curve.ranking.score, [a[2] for a in alone], rtol=1e-5)
    assert (curve.split, curve.images, curve.class_images) == ("val", 120, (TRUTH[val] == 1).sum())
    assert (curve.ranking.split, curve.ranking.images) == ("train", 120)
    order = curve.ranking.units.tolist()
    for kind, kept in (("remove", lambda n: order[n:]), ("keep", lambda n: order[:n])):
        series = curve.of(kind)
        assert [p.n for p in series.points] == [0, 1, 2, 4, 6]
        for point in series.points:
            expected = by_hand(kept(point.n), val, 1)
            values = [m.value for m in (point.balanced_accuracy, point.recall, point.score)]
            assert values == pytest.approx(expected, rel=1e-5)
    drawn = curve.of("random")
    for point in drawn.points:
        expected = [by_hand(order[point.n :], val, 1) for order in random_orders(UNITS, 3, 5)]
        assert point.draws == pytest.approx([e[0] for e in expected])
        assert point.recall.value == pytest.approx(np.mean([e[1] for e in expected]))
    assert curve.before.balanced_accuracy.low == curve.before.balanced_accuracy.high
    assert curve.before == replace(curve.of("keep").points[-1], n=0) == curve.of("remove").points[0]


def test_the_interval_is_that_of_the_change(c: Any) -> None:
    """The same as leaving out each block of images by hand, for the paired change."""
    curve = ablation_curve(c, 1, draws=1)
    val = np.arange(1, IMAGES, 2)
    block = np.array([block_of(NAMES[i]) for i in val])
    point = curve.of("remove").points[1]
    kept = [u for u in range(UNITS) if u != curve.ranking.units[0]]

    def change(images: np.ndarray) -> np.ndarray:
        return np.subtract(by_hand(kept, images, 1), by_hand(range(UNITS), images, 1))

    spread = np.array([change(val[block != b]) for b in range(BLOCKS)]) - change(val)
    error = np.sqrt((spread**2).sum(0) * (BLOCKS - 1) / BLOCKS)
    for measured, e in zip((point.balanced_accuracy, point.recall, point.score), error, strict=True):
        half = (measured.high - measured.low) / 2
        assert 1.96 * e < half < 2.6 * e  # by Student's t, of so few blocks
    assert point.balanced_accuracy.high < curve.before.balanced_accuracy.value


def test_measures_are_those_of_the_store() -> None:
    truth = rng.integers(0, 3, 50)
    said = rng.integers(0, 3, (50, 4)).astype(np.int32)
    score = rng.normal(size=(50, 4)).astype(np.float32)
    block = np.arange(50) % BLOCKS
    measured = measure_class(2, truth, block, (said[:, 0], score[:, 0]), (said, score))
    images = np.bincount(truth, minlength=3)
    for e in range(4):
        hits = np.bincount(truth[said[:, e] == truth], minlength=3)
        false = np.bincount(said[said[:, e] != truth, e], minlength=3)
        assert measured.value[0, e] == pytest.approx(balanced_accuracy(hits, false, images)[2])
        assert measured.value[2, e] == pytest.approx(score[truth == 2, e].mean())
    assert (measured.margin[:, 0] == 0).all()
    nobody = measure_class(7, truth, block, (said[:, 0], score[:, 0]), (said, score))
    assert np.isnan(nobody.value).all()


def test_splits_that_do_not_both_show_the_class_are_taken_together(c: Any) -> None:
    curve = ablation_curve(opened(split=np.where(TRUTH == 1, 0, np.arange(IMAGES) % 2)), 1, draws=1)
    assert (curve.split, curve.ranking.split, curve.images) == ("all", "all", IMAGES)
    assert "ranked and measured on the same images" in curve.notes[0]
    one = ablation_curve(opened(splits=("all",), split=np.zeros(IMAGES, int)), 1, draws=1)
    assert (one.split, one.images) == ("all", IMAGES)
    assert "there is one split" in one.notes[0]


def test_the_prediction_stands_for_a_class_that_nothing_says(c: Any) -> None:
    curve = ablation_curve(opened(truth=np.full(IMAGES, -1), truth_from="prediction"), 0, draws=1)
    assert curve.before.balanced_accuracy.value == curve.before.recall.value == 1
    assert curve.split == "val"


def test_a_class_without_images_or_without_others_has_no_curve(c: Any) -> None:
    with pytest.raises(NDError, match="no image is of the class c"):
        ablation_curve(opened(images=np.flatnonzero(TRUTH != 2).tolist()), 2)
    with pytest.raises(NDError, match="every image is of the class c"):
        ablation_curve(opened(images=np.flatnonzero(TRUTH == 2).tolist()), 2)


def test_words_and_json(c: Any) -> None:
    curve = ablation_curve(c, 1, draws=4)
    said = said_of(curve)
    halved = curve.of("remove").halved
    left = {p.n: p.balanced_accuracy.value - 0.5 for p in curve.of("remove").points}
    assert halved == min(n for n in left if all(left[m] <= left[0] / 2 for m in left if m >= n))
    points = curve.of("remove").points
    again = replace(curve.of("remove"), points=(points[0], points[-1], points[0], replace(points[-1], n=9)))
    assert again.halved == 9  # not where it was lost first, and came back
    assert any(line.startswith("most important removed: half of") for line in said)
    assert "ranked on train (120 images" in "".join(said)
    assert "exact, in closed form (linear head)" in "".join(said)
    found = curve_json(curve, None)
    assert [s["series"] for s in found["series"]] == ["remove", "keep", "random"]
    assert [u["unit"] for u in found["ranking"]["units"]] == curve.ranking.units.tolist()
    assert found["before"]["balanced_accuracy"]["value"] == curve.before.balanced_accuracy.value
    assert all(len(p["draws"]) == 4 for p in found["series"][2]["points"])
    useless = replace(curve, series=tuple(replace(s, points=s.points[-1:]) for s in curve.series[:1]))
    assert "not above chance" in said_of(useless)[0]


def test_the_plot_writes_names_as_they_are(c: Any) -> None:
    curve: AblationCurve = replace(ablation_curve(c, 1, draws=4), class_name="$x_1$", layer="a_b")
    rows = curve_rows(curve)
    assert len(rows) == 3 * 5

    def draw(figure: Any) -> None:
        ablation_plot.draw(figure, rows, ("units of a_b", "accuracy of $x_1$"), "$title_", "; ".join(said_of(curve)))

    assert figures._drawn(draw, (8.5, 4.8), "png").startswith(b"\x89PNG")
    text = figures.svg(draw, (8.5, 4.8))
    for word in ("units of a_b", "accuracy of $x_1$", "$title_", "most important removed", "random removed, mean of 4"):
        assert word in text
