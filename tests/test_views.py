"""What tables and screens show: the units selected and ordered, the concepts ranked, the detectors counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_factory import CATEGORIES, CONCEPTS, DEAD, LAYERS, dissection, write_small
from with_evidence import PAIRINGS, with_evidence

from ndissect.store.concepts import display_name, report_order
from ndissect.store.errors import WrongUse
from ndissect.store.layer_view import LayerView
from ndissect.store.reader import Store
from ndissect.store.scores import DETECTOR_IOU, FEW_IMAGES
from ndissect.store.table2017 import read_table, write_table
from ndissect.store.writer import write_store
from ndissect.tui.tables import remarks, selection, views
from ndissect.tui.tables.columns import SORTS
from ndissect.tui.tables.selection import Filter
from ndissect.tui.tables.units import unit_json

LABELS = ["red", "blue", "car", "traffic light", "señal de tráfico", "wheel", "街道", "art gallery", "striped"]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    layers = {"features.0": (30, (4, 5)), "layer4": (12, (3, 3))}
    with Store(write_small(tmp_path_factory.mktemp("v") / "a.nd.h5", layers=layers, groups=("train", "val"))) as store:
        yield store


@pytest.fixture(scope="module")
def imported(full: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The first layer of the full store, exported as a table and imported again."""
    folder = tmp_path_factory.mktemp("v")
    with (folder / "t.csv").open("w", encoding="utf-8") as out:
        write_table(full.layer("features.0"), out)
    write_store(folder / "a.nd.h5", read_table(folder / "t.csv", "features.0"))
    with Store(folder / "a.nd.h5") as store:
        yield store


@pytest.fixture(scope="module")
def weighed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The full store with evidence for its labels."""
    path = tmp_path_factory.mktemp("v") / "a.nd.h5"
    layers = {"features.0": (30, (4, 5)), "layer4": (12, (3, 3))}
    write_store(path, with_evidence(dissection(layers=layers, groups=("train", "val"))))
    with Store(path) as store:
        yield store


@pytest.fixture(params=["full", "imported", "weighed"])
def view(request: pytest.FixtureRequest) -> LayerView:
    return request.getfixturevalue(request.param).layer("features.0")


def rows_of(view: LayerView, units: np.ndarray) -> list[dict[str, object]]:
    return [unit_json(view, int(u)) for u in units]


# --- selecting and ordering units -----------------------------------------------------------------------------------

PLACE = {c: i for i, c in enumerate(["object", "scene", "part", "material", "texture", "color"])}


def report_key(found: list[dict], row: dict) -> tuple:
    """Units by category, then by the label's frequency among detectors, then by IoU; below the threshold last."""
    above = row["iou"] > DETECTOR_IOU
    frequency = sum(r["label"] == row["label"] and r["iou"] > DETECTOR_IOU for r in found)
    label = row["label"] or "\U0010ffff"
    return (not above, PLACE.get(row["category"], 9), -frequency, label, -row["iou"], row["unit"])


def threshold_key(row: dict) -> float:
    return np.inf if np.isnan(row["threshold"]) else -row["threshold"]


def _last(value: float | None, sign: int = 1) -> float:
    """A key that puts the unknown after all others."""
    return np.inf if value is None else sign * value


KEYS: dict[str, Callable[[list[dict], dict], tuple]] = {
    "iou": lambda _, r: (-r["iou"], r["unit"]),
    "unit": lambda _, r: (r["unit"],),
    "label": lambda _, r: (r["label"] or "\U0010ffff", -r["iou"], r["unit"]),
    "category": lambda _, r: (PLACE.get(r["category"], 9), -r["iou"], r["unit"]),
    "threshold": lambda _, r: (threshold_key(r), r["unit"]),
    "report": report_key,
    "q": lambda _, r: (_last(r["q"]), -r["iou"], r["unit"]),
    "low": lambda _, r: (_last(r["iou_low"], -1), -r["iou"], r["unit"]),
    "heldout": lambda _, r: (_last(r["heldout_iou"], -1), -r["iou"], r["unit"]),
    "stability": lambda _, r: (_last(r["stability"], -1), -r["iou"], r["unit"]),
    "auprc": lambda _, r: (_last(r["auprc"], -1), -r["iou"], r["unit"]),
    "effect": lambda _, r: (_last(r.get("effect")), -r["iou"], r["unit"]),
    # Of stores of generators alone: tests/test_concept_effect_views.py.
    "concept_effect": lambda _, r: (_last(r.get("concept_effect")), -r["iou"], r["unit"]),
    "coefficient": lambda _, r: (_last(r.get("coefficient"), -1), -r["iou"], r["unit"]),
    "similarity": lambda _, r: (-r["iou"], r["unit"]),  # known of descriptions alone: tests/test_descriptions.py
}


def test_every_order_has_its_rule() -> None:
    assert set(KEYS) == set(SORTS)


@pytest.mark.parametrize("sort", SORTS)
def test_units_come_in_the_order_asked_for(view: LayerView, sort: str) -> None:
    units = selection.select_units(view, Filter(), sort)
    assert sorted(units.tolist()) == list(range(view.units))
    found = rows_of(view, units)
    assert found == sorted(found, key=lambda row: KEYS[sort](found, row))


def test_the_report_lists_detectors_by_category_and_then_the_rest(view: LayerView) -> None:
    found = rows_of(view, selection.select_units(view, Filter(), "report"))
    detectors = [row for row in found if row["iou"] > DETECTOR_IOU]
    assert found[: len(detectors)] == detectors
    assert 0 < len(detectors) < len(found)
    order = [
        c
        for c in ("object", "scene", "part", "material", "texture", "color")
        if c in {r["category"] for r in detectors}
    ]
    seen = list(dict.fromkeys(row["category"] for row in detectors))
    assert seen == order
    labels = [row["label"] for row in detectors]
    assert len(list(dict.fromkeys(labels))) == 1 + sum(a != b for a, b in pairwise(labels))


def test_a_unit_without_a_label_is_listed_and_has_none(view: LayerView) -> None:
    for sort in ("iou", "label", "category", "report"):
        assert DEAD in selection.select_units(view, Filter(), sort)[-5:]
    one = unit_json(view, DEAD)
    assert (one["label"], one["category"], one["iou"]) == (None, None, 0.0)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    categories=st.lists(st.sampled_from(CATEGORIES), unique=True, max_size=3),
    concept=st.none() | st.sampled_from(["red", "e", "art", "*t*", "traffic_light", "none", "s?r*", "街"]),
    min_iou=st.sampled_from([0.0, 0.01, 0.04, 0.06, 0.5]),
    sort=st.sampled_from(SORTS),
)
def test_filters_keep_what_they_say(
    view: LayerView, categories: list[str], concept: str | None, min_iou: float, sort: str
) -> None:
    wanted = Filter(tuple(categories), concept, min_iou)
    try:
        known = selection.match_concepts(view.store.concepts, concept, categories)
    except WrongUse:
        with pytest.raises(WrongUse):
            selection.select_units(view, wanted, sort)
        return
    got = selection.select_units(view, wanted, sort)
    labels = {(view.store.concepts.label(int(r)), view.store.concepts.category_of(int(r))) for r in known}

    def passes(row: dict) -> bool:
        if row["iou"] < min_iou:
            return False
        return (not categories and concept is None) or (row["label"], row["category"]) in labels

    expected = [row["unit"] for row in rows_of(view, np.arange(view.units)) if passes(row)]
    assert sorted(got.tolist()) == expected
    assert len(set(got.tolist())) == len(got)


BOUNDS = {
    "q": ("q", 0.04), "low": ("iou_low", 0.03), "heldout": ("heldout_iou", 0.03),
    "stability": ("stability", 0.8), "auprc": ("auprc", 0.5),
}  # fmt: skip


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_filter_by_evidence_is_inclusive_and_unknowns_do_not_pass(weighed: Store, full: Store, bound: str) -> None:
    view, (name, least) = weighed.layer("features.0"), BOUNDS[bound]
    known = {row["unit"]: row[name] for row in rows_of(view, np.arange(view.units)) if row[name] is not None}
    assert 0 < len(known) < view.units
    for value in (least, *list(known.values())[:3]):
        got = selection.select_units(view, Filter(bounds={bound: value}), "unit").tolist()
        assert got == [u for u, x in known.items() if (x <= value if name == "q" else x >= value)]
    for value in (0.0, 1.0):
        assert selection.select_units(full.layer("features.0"), Filter(bounds={bound: value})).tolist() == []


def test_filters_by_evidence_and_label_add_up(weighed: Store) -> None:
    view = weighed.layer("features.0")
    wanted = Filter(("object", "scene"), None, 0.02, {"q": 0.5, "auprc": 0.2})
    expected = [
        r["unit"]
        for r in rows_of(view, np.arange(view.units))
        if r["category"] in ("object", "scene")
        and r["iou"] >= 0.02
        and (r["q"] or 1) <= 0.5
        and (r["auprc"] or 0) >= 0.2
    ]
    assert sorted(selection.select_units(view, wanted).tolist()) == expected
    assert expected


def test_a_units_evidence_for_programs(weighed: Store, full: Store) -> None:
    told = ["p", "q", "iou_low", "iou_high", "stability", "heldout_iou", "auprc"]
    for store in (weighed, full):
        view = store.layer("features.0")
        for unit in range(view.units):
            one = unit_json(view, unit)
            assert list(one) == ["unit", "label", "category", "iou", "threshold", "dead", *told]
            for name in told:
                value = float(getattr(view.evidence, name)[unit])
                assert one[name] is None if np.isnan(value) else one[name] == value


def test_a_minimal_iou_is_inclusive(view: LayerView) -> None:
    best = float(view.labels[1].max())
    assert selection.select_units(view, Filter(min_iou=best)).tolist() == [int(view.labels[1].argmax())]
    assert len(selection.select_units(view, Filter(min_iou=np.nextafter(best, 1)))) == 0


def test_an_unknown_category_names_the_known(view: LayerView) -> None:
    with pytest.raises(WrongUse, match="no category 'colour'") as failed:
        selection.select_units(view, Filter(("colour",)))
    assert "color" in failed.value.hint


# --- matching concepts ----------------------------------------------------------------------------------------------

MATCHES = {
    "red": ["red"],  # the name itself, though others may hold the text
    "RED": ["red"],
    "red-c": ["red"],
    "traffic_light": ["traffic light"],
    "traffic light": ["traffic light"],
    "tr": ["traffic light", "señal de tráfico", "striped"],
    "*a*": ["car", "traffic light", "señal de tráfico", "art gallery"],
    "[bw]*": ["blue", "wheel"],
    "???": ["red", "car"],
    "街道": ["街道"],
    "SEÑAL": ["señal de tráfico"],
    "": LABELS,
    "*": LABELS,
}


@pytest.mark.parametrize("pattern", MATCHES)
def test_concepts_are_matched_as_the_data_set_or_a_report_spells_them(full: Store, pattern: str) -> None:
    rows = selection.match_concepts(full.concepts, pattern)
    assert [full.concepts.label(int(r)) for r in rows] == MATCHES[pattern]


def test_a_pattern_that_matches_nothing_names_the_nearest(full: Store) -> None:
    for pattern, categories, close in (("strped", (), "striped"), ("blu[", (), "blue"), ("wheal", ("part",), "wheel")):
        with pytest.raises(WrongUse, match="no concept matches") as failed:
            selection.match_concepts(full.concepts, pattern, categories)
        assert close in failed.value.hint
    with pytest.raises(WrongUse, match="category part"):
        selection.match_concepts(full.concepts, "red", ("part",))


def test_concepts_are_matched_within_categories(full: Store) -> None:
    rows = selection.match_concepts(full.concepts, "r", ("color", "part"))
    assert [full.concepts.label(int(r)) for r in rows] == ["red"]
    assert selection.match_concepts(full.concepts, None, ("material",)).tolist() == []
    assert len(selection.match_concepts(full.concepts, None)) == len(CONCEPTS)


def test_names_as_reports_show_them() -> None:
    names = [("red-c", "color"), ("art_gallery-s", "scene"), ("t-s", "object"), ("a_b", ""), ("x-s", "")]
    assert [display_name(*n) for n in names] == ["red", "art gallery", "t-s", "a b", "x"]
    assert report_order(("zebra", "color", "animal", "object")) == ["object", "color", "animal", "zebra"]


# --- one unit -------------------------------------------------------------------------------------------------------


def test_a_full_store_ranks_every_concept_of_a_unit(full: Store) -> None:
    view = full.layer("features.0")
    for unit in range(view.units):
        value, both, area = view.unit_ious(unit)
        ranked = views.ranked_concepts(view, unit)
        assert len(ranked) == (value > 0).sum()
        assert [r["iou"] for r in ranked] == sorted((float(v) for v in value[value > 0]), reverse=True)
        for r in ranked:
            assert r["iou"] == r["intersection"] / (r["area"] + r["concept_area"] - r["intersection"])
            row = LABELS.index(r["concept"])
            assert (r["intersection"], r["area"]) == (both[row], area[row])
            assert r["category"] == CONCEPTS[row][2]
        if ranked and unit != DEAD:
            assert (ranked[0]["concept"], ranked[0]["iou"]) == tuple(
                unit_json(view, unit)[key] for key in ("label", "iou")
            )
        assert views.ranked_concepts(view, unit, count=2) == ranked[:2]


def test_an_imported_store_ranks_each_categorys_best(full: Store, imported: Store) -> None:
    one, two = full.layer("features.0"), imported.layer("features.0")
    for unit in range(one.units):
        best = [b for b in views.best_json(one, unit).values() if b]
        assert views.ranked_concepts(two, unit) == sorted(best, key=lambda b: -b["iou"])
        known = {k: v for k, v in views.best_json(one, unit).items() if k in imported.concepts.categories}
        assert views.best_json(two, unit) == known
        assert views.top_images(two, unit) == []


def test_ranked_concepts_pass_the_filter(full: Store) -> None:
    view = full.layer("features.0")
    for unit in range(view.units):
        everything = views.ranked_concepts(view, unit)
        wanted = Filter(("object", "color"), "*e*", 0.02)
        assert views.ranked_concepts(view, unit, wanted) == [
            r for r in everything if r["category"] in ("object", "color") and "e" in r["concept"] and r["iou"] >= 0.02
        ]


def test_the_best_of_each_category_in_report_order(view: LayerView) -> None:
    for unit in range(view.units):
        best = views.best_json(view, unit)
        assert list(best) == report_order(view.store.concepts.categories)
        found = [b for b in best.values() if b]
        label = unit_json(view, unit)
        assert label["iou"] == max((b["iou"] for b in found), default=0.0)
        assert all(b["category"] == category for category, b in best.items() if b)


def test_top_images_are_named_best_first(full: Store) -> None:
    view = full.layer("features.0")
    for unit in (0, 3):
        shown, top = views.top_images(view, unit), view.top(unit)
        assert [t["peak"] for t in shown] == top.peak.tolist() == sorted(top.peak.tolist(), reverse=True)
        assert [t["image"] for t in shown] == [f"ade20k/ünter {i}.jpg" for i in top.image]


# --- concepts -------------------------------------------------------------------------------------------------------


def expected_concepts(layers: list[LayerView], above: float) -> list[dict]:
    """By looking at every unit and at its IoU with every concept."""
    concepts = layers[0].store.concepts
    images = layers[0].store.concept_counts.images.sum(0)
    found = []
    for row in range(len(concepts)):
        label, category = concepts.label(row), concepts.category_of(row)
        mine = [
            one["iou"]
            for view in layers
            for one in rows_of(view, np.arange(view.units))
            if (one["label"], one["category"]) == (label, category)
        ]
        every = [(float(view.unit_ious(u)[0][row]), -i, -u) for i, view in enumerate(layers) for u in range(view.units)]
        best = max(((iou, i, u) for iou, i, u in every if iou > 0), default=None)
        found.append(
            {
                "concept": label,
                "category": category,
                "images": int(images[row]),
                "detectors": sum(iou > above for iou in mine),
                "best_unit": f"{layers[-best[1]].name}:{-best[2]}" if best else None,
                "iou": best[0] if best else 0.0,
            }
        )
    return sorted(found, key=lambda r: (-r["detectors"], -r["iou"], r["concept"]))


@pytest.mark.parametrize("above", [0.0, 0.04, 0.07, 1.0])
def test_concepts_with_their_detectors_and_best_unit(full: Store, imported: Store, above: float) -> None:
    for layers in ([full.layer(n) for n in full.layer_names], [imported.layer("features.0")]):
        rows = selection.match_concepts(layers[0].store.concepts, None)
        assert views.concept_table(layers, rows, above) == expected_concepts(layers, above)
    assert views.concept_table([], np.arange(3), above) == []


def test_the_best_unit_for_a_concept_is_that_of_all_units_whatever_they_are_labelled(full: Store) -> None:
    """Concepts without a detector have a best unit too: the first of the units that the concept itself lists."""
    layers = [full.layer(n) for n in full.layer_names]
    rows = selection.match_concepts(full.concepts, None)
    found = {(one["concept"], one["category"]): one for one in views.concept_table(layers, rows, DETECTOR_IOU)}
    without = [one for one in found.values() if not one["detectors"] and one["iou"] > 0]
    assert without  # the store has such concepts
    for row in rows:
        best = views.units_of_concept(layers, int(row))[:1]
        one = found[full.concepts.label(int(row)), full.concepts.category_of(int(row))]
        assert [one["iou"]] == [unit["iou"] for unit in best] or (one["best_unit"], best) == (None, [])


def test_detectors_of_all_concepts_are_the_layers_detectors(view: LayerView) -> None:
    found = views.concept_table([view], selection.match_concepts(view.store.concepts, None), DETECTOR_IOU)
    assert sum(r["detectors"] for r in found) == view.summary()["detectors"]
    labelled = sum(r["detectors"] > 0 for r in found)
    assert labelled == view.summary()["unique_best_label"]


def test_the_units_of_a_concept(full: Store, imported: Store) -> None:
    layers = [full.layer(n) for n in full.layer_names]
    for row in range(len(CONCEPTS)):
        found = views.units_of_concept(layers, row)
        expected = {
            (view.name, u): float(view.unit_ious(u)[0][row]) for view in layers for u in range(view.units) if u != DEAD
        }
        assert {(f["layer"], f["unit"]): f["iou"] for f in found} == {k: v for k, v in expected.items() if v > 0}
        assert [f["iou"] for f in found] == sorted((f["iou"] for f in found), reverse=True)
        for f in found:
            assert f["label"] == unit_json(full.layer(f["layer"]), f["unit"])["label"]

    view = imported.layer("features.0")
    for row in range(len(imported.concepts)):
        name = (imported.concepts.label(row), imported.concepts.category_of(row))
        best = {
            u: b["iou"]
            for u in range(view.units)
            for b in views.best_json(view, u).values()
            if b and (b["concept"], b["category"]) == name
        }
        assert {f["unit"]: f["iou"] for f in views.units_of_concept([view], row)} == best


# --- summaries ------------------------------------------------------------------------------------------------------


def test_labels_that_rest_on_few_images(tmp_path: Path, full: Store, imported: Store) -> None:
    view = full.layer("features.0")
    images = full.concept_counts.images.sum(0)
    assert (images < FEW_IMAGES).any()
    assert (images >= FEW_IMAGES).any()
    expected = sum(
        images[LABELS.index(one["label"])] < FEW_IMAGES
        for one in rows_of(view, np.arange(view.units))
        if one["iou"] > DETECTOR_IOU
    )
    assert expected > 0
    assert remarks.few_image_labels(view) == expected
    assert f"fewer than {FEW_IMAGES} images" in "\n".join(remarks.summary_lines(view))
    assert remarks.few_image_labels(imported.layer("features.0")) is None
    assert "images" not in "\n".join(remarks.summary_lines(imported.layer("features.0")))

    given = dissection()
    many = replace(given.concept_counts, images=np.full_like(given.concept_counts.images, FEW_IMAGES))
    write_store(tmp_path / "a.nd.h5", replace(given, concept_counts=many))
    with Store(tmp_path / "a.nd.h5") as store:
        assert remarks.few_image_labels(store.layer("features.0")) == 0
        text = "\n".join(remarks.summary_lines(store.layer("features.0")))
        assert f"fewer than {FEW_IMAGES} images: 0 of " in text
        assert "by chance" not in text


def test_the_summary_in_words_says_what_the_numbers_say(view: LayerView) -> None:
    s = view.summary()
    text = "\n".join(remarks.summary_lines(view))
    assert f"{s['units']} units, {s['detectors']} detectors (IoU > 0.04)" in text
    assert f"unique detectors: {s['unique_per_category']} per category" in text
    assert f"{s['unique_best_label']} by best label" in text
    if view.has_counts:
        assert "dead units (constant, or never above zero), which have no label: 1" in text
        assert "activations, left out: features.0:3 (1 NaN, 1 infinite)" in text


def test_units_that_saturate_at_their_threshold_are_told(tmp_path: Path) -> None:
    given = dissection()
    first = given.layers[0]
    threshold = first.statistics.threshold.copy()
    threshold[[4, 6]] = first.statistics.maximum[[4, 6]]  # as in most units of a ReLU6 network
    layer = replace(first, statistics=replace(first.statistics, threshold=threshold))
    write_store(tmp_path / "a.nd.h5", replace(given, layers=(layer, *given.layers[1:])))
    with Store(tmp_path / "a.nd.h5") as store:
        assert "nothing exceeds it): 2" in "\n".join(remarks.summary_lines(store.layer("features.0")))
        assert "nothing exceeds it" not in "\n".join(remarks.summary_lines(store.layer("layer4.1.conv2")))


def test_the_summary_says_how_many_detectors_survive(weighed: Store, full: Store) -> None:
    view = weighed.layer("features.0")
    rows = rows_of(view, np.arange(view.units))
    surviving = sum(r["iou"] > DETECTOR_IOU and r["q"] is not None and r["q"] < 0.05 for r in rows)
    assert 0 < surviving < view.summary()["detectors"]
    assert view.summary()["detectors_q05"] == surviving
    assert remarks.summary_lines(view)[0].endswith(f"detectors (IoU > 0.04), {surviving} of them with q < 0.05")
    assert remarks.summary_lines(full.layer("features.0"))[0].endswith("detectors (IoU > 0.04)")
    assert full.layer("features.0").summary()["detectors_q05"] is None


def test_what_labels_are_held_against_in_one_line(weighed: Store, full: Store, imported: Store, tmp_path: Path) -> None:
    null = f"null: {PAIRINGS} wrong pairings"
    assert remarks.evidence_line(weighed) == f"detectors: IoU > 0.04; {null}; held out: train/val"
    assert remarks.evidence_line(full) == "detectors: IoU > 0.04; no null; held out: train/val"
    assert remarks.evidence_line(imported) == "detectors: IoU > 0.04; no null; nothing held out"
    first, second = with_evidence(dissection()).layers
    write_store(tmp_path / "a.nd.h5", replace(dissection(), layers=(replace(first, null=None), second)))
    with Store(tmp_path / "a.nd.h5") as store:
        assert null in remarks.evidence_line(store)


def test_the_best_unit_of_a_layer(view: LayerView) -> None:
    unit, label, value = views.best_unit(view)
    first = rows_of(view, selection.select_units(view, Filter()))[0]
    assert (unit, label, value) == (first["unit"], first["label"], first["iou"])


def test_a_layer_without_units_and_one_without_labels(tmp_path: Path) -> None:
    given = dissection(layers={"empty": (0, (3, 3)), "mute": (4, (3, 3))})
    mute = given.layers[1]
    none = replace(
        mute.best,
        concept=np.full_like(mute.best.concept, -1),
        intersection=np.zeros_like(mute.best.intersection),
        iou=np.zeros_like(mute.best.iou),
    )
    write_store(tmp_path / "a.nd.h5", replace(given, layers=(given.layers[0], replace(mute, best=none))))
    with Store(tmp_path / "a.nd.h5") as store:
        for name, units in (("empty", 0), ("mute", 4)):
            view = store.layer(name)
            assert views.best_unit(view) == (None, "", 0.0)
            assert remarks.summary_lines(view)[0].startswith(f"{units} units, 0 detectors")
            for sort in SORTS:
                assert set(selection.select_units(view, Filter(), sort).tolist()) == set(range(units))
            assert selection.select_units(view, Filter(concept="red"), "report").tolist() == []
        table = views.concept_table([store.layer("empty")], np.arange(9), 0.04)
        assert {(r["detectors"], r["best_unit"], r["iou"]) for r in table} == {(0, None, 0.0)}
        table = views.concept_table([store.layer(n) for n in store.layer_names], np.arange(9), 0.04)
        assert {r["detectors"] for r in table} == {0}  # no unit is labelled, and yet has IoUs
        assert any(r["iou"] > 0 for r in table)


def test_the_layers_are_those_of_the_factory(tmp_path: Path) -> None:
    with Store(write_small(tmp_path / "a.nd.h5")) as store:
        assert [(n, store.layer(n).units, store.layer(n).map_size) for n in store.layer_names] == [
            (name, units, size) for name, (units, size) in LAYERS.items()
        ]
