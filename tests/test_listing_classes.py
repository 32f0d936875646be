"""What the tables of classes list, against loops over the counts: classes, their units, a unit's classes, sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from effects_factory import NAMES, Scene, effects_of
from listed import all_plain, column, opened
from store_factory import dissection

from ndissect.store.effects import Effects
from ndissect.store.model import Dissection
from ndissect.store.writer import write_store
from ndissect.tui.app.classes import class_units, classes_listing
from ndissect.tui.app.listing import Item, Listing, Order
from ndissect.tui.app.query import Mistake, parse
from ndissect.tui.app.session import Session
from ndissect.tui.app.unit import unit_listing
from ndissect.tui.app.unit_classes import set_classes, set_name, unit_classes
from ndissect.tui.app.units import layer_units
from ndissect.tui.tables.doubts import doubts

FIRST, SECOND = "features.0", "layer4"
UNITS = {FIRST: 9, SECOND: 12}
LAYERS = {FIRST: (9, (4, 5)), SECOND: (12, (3, 3))}
SCENES = {name: Scene(units, seed=i) for i, (name, units) in enumerate(UNITS.items())}
SETS = ((0, 3, 7), (1, 2, 3), (4, 5, 6), (2, 9))
SINGLES = {FIRST: tuple((u,) for u in range(9) if u != 4), SECOND: tuple((u,) for u in range(12))}
EFFECTS = {FIRST: effects_of(SCENES[FIRST], SINGLES[FIRST]), SECOND: effects_of(SCENES[SECOND], SINGLES[SECOND] + SETS)}
K = len(NAMES)
MADE = dissection(layers=LAYERS, effects=True, evidence=True, groups=("train", "val"))


def made(effects: dict[str, Effects | None], *, heads: bool) -> Dissection:
    """MADE with ``effects`` of its layers, and with linear heads or without."""
    return replace(
        MADE,
        layers=tuple(
            replace(layer, effects=effects.get(layer.name), head=layer.head if heads else None) for layer in MADE.layers
        ),
    )


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """Effects of both layers, and their heads."""
    write_store(tmp_path / "a.nd.h5", made({**EFFECTS}, heads=True))
    yield from opened(tmp_path / "a.nd.h5")


@pytest.fixture
def one_layer(tmp_path: Path) -> Iterator[Session]:
    """Effects of the second layer alone, and no head."""
    write_store(tmp_path / "one.nd.h5", made({SECOND: EFFECTS[SECOND]}, heads=False))
    yield from opened(tmp_path / "one.nd.h5")


@pytest.fixture
def heads(tmp_path: Path) -> Iterator[Session]:
    """Heads without effects."""
    write_store(tmp_path / "heads.nd.h5", made({}, heads=True))
    yield from opened(tmp_path / "heads.nd.h5")


@pytest.fixture
def nothing(tmp_path: Path) -> Iterator[Session]:
    """Neither classes nor effects."""
    write_store(tmp_path / "nothing.nd.h5", replace(made({}, heads=False), classes=None))
    yield from opened(tmp_path / "nothing.nd.h5")


# What must come out, by loops over the counts


def balanced(hits: Any, false: Any, images: Any, k: int) -> float:
    others = sum(int(n) for n in images) - int(images[k])
    return (int(hits[k]) / int(images[k]) + 1 - int(false[k]) / others) / 2 if images[k] else np.nan


def change(layer: str, units: tuple[int, ...], k: int, split: int = 1) -> float:
    """Of the balanced accuracy of class ``k`` without ``units``; split 0 is train, 1 is val."""
    of = EFFECTS[layer]
    row = of.units.index(units)
    without = balanced(of.hits_without[split, row], of.false_without[split, row], of.images[split], k)
    return without - balanced(of.hits[split], of.false[split], of.images[split], k)


def score_change(layer: str, units: tuple[int, ...], k: int) -> float:
    of = EFFECTS[layer]
    return float(of.score_without[0, of.units.index(units), k]) - float(of.score[0, k])


def rank(layer: str, units: tuple[int, ...], k: int) -> tuple[float, float]:
    """What units and classes are ranked by: both of the train images."""
    return change(layer, units, k, 0), score_change(layer, units, k)


def needs(layer: str, unit: int, k: int) -> bool:
    of = EFFECTS[layer]
    return (unit,) in of.units and bool(of.high[1, of.units.index((unit,)), k] < 0)


def every_single() -> list[tuple[str, int]]:
    return [(layer, u) for layer in UNITS for (u,) in SINGLES[layer]]


def titles(listing: Listing) -> list[str]:
    return [c.title for c in listing.columns]


def passing(listing: Listing, text: str) -> set[Any]:
    return {(row["layer"], row["unit"]) for row in all_plain(listing, text)}


# The Classes table


def test_classes_have_images_accuracy_and_the_units_that_they_need_most(session: Session) -> None:
    listing = classes_listing(session)
    rows = {row["class"]: row for row in all_plain(listing)}
    assert set(rows) == set(NAMES)
    of = EFFECTS[SECOND]
    for k, name in enumerate(NAMES):
        row = rows[name]
        assert row["images"] == of.images[1, k]
        if not of.images[1, k]:
            assert np.isnan([row["balanced_accuracy"], row["recall"], row["worst_change"]]).all()
            assert row["most"] == ""
            continue
        assert row["balanced_accuracy"] == pytest.approx(balanced(of.hits[1], of.false[1], of.images[1], k))
        assert row["recall"] == pytest.approx(of.hits[1, k] / of.images[1, k])
        first = sorted(every_single(), key=lambda at: rank(at[0], (at[1],), k))[:3]
        assert row["worst_change"] == pytest.approx(change(first[0][0], (first[0][1],), k))
        assert row["units_needed"] == sum(needs(layer, u, k) for layer, u in every_single())
        named = [text.split(" ")[0] for text in row["most"].split("; ")]
        assert named == [f"{layer}:{u}" for layer, u in first if change(layer, (u,), k, 0) < 0]
    assert [listing.cells(int(r))[0] for r in listing.arrange()][-1] == NAMES[-1]  # without an image: unknown


def test_classes_say_what_the_numbers_are_of(session: Session, one_layer: Session) -> None:
    said = " ".join(classes_listing(one_layer).notes)
    assert f"{int(EFFECTS[SECOND].images[1].sum())} images of val, classes of the images" in said
    assert "ranked on train" in said
    assert "exact, in closed form (linear head)" in said
    assert titles(classes_listing(one_layer))[-1] == f"needs most of {SECOND}"
    assert titles(classes_listing(session))[-1] == "needs most"


def test_classes_by_prediction_are_called_so(tmp_path: Path) -> None:
    by_prediction = effects_of(SCENES[SECOND], SINGLES[SECOND], ("all",), truth="prediction", how="tail", by="mean")
    write_store(tmp_path / "p.nd.h5", made({SECOND: by_prediction}, heads=False))
    for session in opened(tmp_path / "p.nd.h5"):
        for listing in (classes_listing(session), class_units(session, 0), unit_classes(session, SECOND, 0)):
            said = "  ".join(listing.notes)
            assert f"{int(by_prediction.images.sum())} images, classes by prediction alone" in said
            assert "in its place: its mean" in said
            assert "exact, by running what follows the layer" in said
            assert "ranked" not in said


def test_a_label_that_is_not_to_be_trusted_has_a_question_mark(session: Session) -> None:
    listing = classes_listing(session)
    why = {layer: doubts(session.view(layer)) for layer in UNITS}
    marked = 0
    for row in all_plain(listing):
        for text in filter(None, row["most"].split("; ")):
            at, _, rest = text.partition(" ")
            layer, _, unit = at.rpartition(":")
            doubt, name = why[layer][int(unit)], rest.rpartition(" ")[0]
            assert name.endswith("?") == bool(doubt) or name == doubt
            marked += name.endswith("?")
    assert marked
    assert any("not to be trusted" in note for note in listing.notes)


# The units of a class


def test_the_units_of_a_class_come_ranked_on_train_and_report_val(session: Session) -> None:
    for k in range(K - 1):
        listing = class_units(session, k)
        rows = all_plain(listing)
        known = [row for row in rows if not np.isnan(row["change"])]
        assert [(row["layer"], row["unit"]) for row in known] == sorted(
            every_single(), key=lambda at: rank(at[0], (at[1],), k)
        )
        assert len(rows) == len(known) + 1  # the one that was not taken away alone
        for row in known:
            layer, at = row["layer"], (row["unit"],)
            of = EFFECTS[layer]
            i = of.units.index(at)
            assert row["change"] == pytest.approx(change(layer, at, k))
            assert row["change_low"] == pytest.approx(of.low[1, i, k])
            assert row["change_high"] == pytest.approx(of.high[1, i, k])
            recall = of.hits_without[1, i, k] / of.images[1, k] - of.hits[1, k] / of.images[1, k]
            assert row["recall_change"] == pytest.approx(recall)
            assert row["label"] == (session.labels[session.view(layer).labels[0][row["unit"]]] or None)


def test_the_units_of_a_class_are_sorted_and_filtered(session: Session) -> None:
    listing = class_units(session, 0)
    order = Order(column(listing, "change"), descending=True)
    values = [all_plain(listing)[int(row)]["change"] for row in listing.arrange(order=order)]
    assert values[:-1] == sorted(values[:-1], reverse=True)
    expected = {(layer, u) for layer, u in every_single() if change(layer, (u,), 0) < -0.02}
    assert passing(listing, "effect<-0.02") == expected
    assert passing(listing, f"effect<-0.02 layer:{SECOND}") == {at for at in expected if at[0] == SECOND}
    assert listing.item(0).kind == "unit"
    assert {"change", "low", "high"} <= set(titles(listing))


# The classes of a unit


def test_the_classes_of_a_unit_are_ranked_on_train(session: Session) -> None:
    for layer, unit in (*every_single(),)[::5]:
        listing = unit_classes(session, layer, unit)
        rows = all_plain(listing)
        ranked = sorted(range(K - 1), key=lambda k: rank(layer, (unit,), k))
        assert [row["number"] for row in rows] == [*ranked, K - 1]
        for row, cells in zip(rows[:-1], (listing.cells(i) for i in range(K)), strict=False):
            k = row["number"]
            assert row["change"] == pytest.approx(change(layer, (unit,), k))
            assert ("needs it" in cells) == needs(layer, unit, k)
        assert listing.item(0) == Item("class", layer, unit, output=ranked[0])


def test_a_unit_that_was_not_taken_away_says_so(session: Session) -> None:
    listing = unit_classes(session, FIRST, 4)
    assert "it was not taken away alone" in listing.notes
    assert all(np.isnan(row["change"]) for row in all_plain(listing))


def test_a_units_page_names_the_classes_that_need_it_and_those_that_it_speaks_for(session: Session) -> None:
    listing = unit_listing(session, SECOND, 1)
    rows = [listing.plain(i) for i in range(listing.count) if i not in listing.headings]
    ranked = sorted(range(K - 1), key=lambda k: rank(SECOND, (1,), k))[:3]
    named = [row for row in rows if "change" in row]
    assert [row["class"] for row in named] == [NAMES[k] for k in ranked if change(SECOND, (1,), k, 0) < 0]
    assert named[0]["change"] == pytest.approx(change(SECOND, (1,), ranked[0]))
    head = session.view(SECOND).head
    assert head is not None
    speaks = head.weight[:, 1] - head.weight[:, 1].astype(float).mean()
    text = next(row["classes"] for row in rows if str(row.get("classes", "")).startswith("speaks for"))
    assert text.startswith(f"speaks for {NAMES[int(speaks.argmax())]} {speaks.max():+.3f}")
    text = next(row["classes"] for row in rows if str(row.get("classes", "")).startswith("speaks against"))
    assert text.startswith(f"speaks against {NAMES[int(speaks.argmin())]} {speaks.min():+.3f}")


def test_sets_stand_beside_other_sets_of_as_many_units(session: Session) -> None:
    listing = set_classes(session, SECOND, (0, 3, 7))
    for row in all_plain(listing):
        k = row["number"]
        if k == K - 1:
            continue
        assert row["change"] == pytest.approx(change(SECOND, (0, 3, 7), k))
        assert row["others"] == pytest.approx(np.mean([change(SECOND, other, k) for other in ((1, 2, 3), (4, 5, 6))]))
    assert "others: the mean of 2 other sets of 3 units" in listing.notes
    assert "others" not in titles(set_classes(session, SECOND, (2, 9)))
    with pytest.raises(KeyError):
        set_classes(session, SECOND, (0, 1))
    assert set_name(SECOND, (12, 3, 13, 7, 14)) == "layer4:3,7,12-14"


# Heads alone, and nothing at all


def test_without_effects_heads_tell_which_units_speak_for_a_class(heads: Session) -> None:
    listing = classes_listing(heads)
    assert titles(listing)[-1] == "spoken for by"
    head = heads.view(SECOND).head
    assert head is not None
    rows = [row for row in all_plain(class_units(heads, 2)) if row["layer"] == SECOND]
    speaks = head.weight[2] - head.weight.astype(float).mean(0)
    assert [row["unit"] for row in rows] == np.argsort(-speaks, kind="stable").tolist()
    assert rows[0]["speaks"] == pytest.approx(speaks.max())
    assert "change" not in rows[0]
    ranked = [row["number"] for row in all_plain(unit_classes(heads, SECOND, 2))]
    assert ranked[0] == int((head.weight[:, 2]).argmax())
    assert any("nd ablate" in note for note in listing.notes)


def test_a_store_without_effects_lists_units_as_before(nothing: Session) -> None:
    listing = layer_units(nothing, SECOND)
    assert "effect" not in titles(listing)
    for text, said in (
        ("class:street", "rows have no class here; nd ablate"),
        ("effect<0", "rows have no effect here"),
    ):
        with pytest.raises(Mistake, match=said):
            listing.arrange(parse(text))
    assert classes_listing(nothing).count == 0
    assert "nd ablate layer4 -s" in classes_listing(nothing).empty


# Units by their effects


def test_units_are_filtered_by_their_effects_on_any_class_and_on_one(session: Session) -> None:
    listing = layer_units(session, "")
    worst = {
        (layer, u): min(range(K - 1), key=lambda k, at=(layer, u): rank(at[0], (at[1],), k))  # type: ignore[misc]
        for layer, u in every_single()
    }
    expected = {at for at, k in worst.items() if change(at[0], (at[1],), k) < -0.02}
    assert expected
    assert passing(listing, "effect<-0.02") == expected
    for text, classes in (("class:street", [1]), ("class:kitchen,ski_resort", [0, 2]), ("class:ART", [3])):
        below = {at for at in worst if any(change(at[0], (at[1],), k) < -0.02 for k in classes)}
        assert passing(listing, f"{text} effect<-0.02") == below
        above = {at for at in worst if any(change(at[0], (at[1],), k) > 0.01 for k in classes)}
        assert passing(listing, f"effect>0.01 {text}") == above
        assert (
            passing(listing, f"{text} !effect<-0.02")
            == {(layer, u) for layer, n in UNITS.items() for u in range(n)} - below
        )
    both = [{at for at in worst if change(at[0], (at[1],), k) < 0} for k in (0, 1)]
    assert passing(listing, "class:kitchen class:street effect<0") == both[0] & both[1]
    with pytest.raises(Mistake, match="no class matches zebra; there is"):
        listing.arrange(parse("class:zebra effect<0"))


def test_a_class_alone_keeps_the_units_that_it_needs_or_that_speak_for_it(session: Session, one_layer: Session) -> None:
    expected = {(SECOND, u) for u in range(12) if needs(SECOND, u, 1)}
    assert passing(layer_units(one_layer, SECOND), "class:street") == expected
    assert passing(layer_units(one_layer, SECOND), "!class:street") == {(SECOND, u) for u in range(12)} - expected
    head = session.view(SECOND).head
    assert head is not None
    spoken = set()
    for u in range(12):
        speaks = head.weight[:, u].astype(float) - head.weight[:, u].astype(float).mean()
        if 1 in np.argsort(-speaks, kind="stable")[:3] and speaks[1] > 0:
            spoken.add((SECOND, u))
    assert passing(layer_units(session, SECOND), "class:street") == expected | spoken


def test_the_column_of_effects_tells_the_class_hurt_most_and_is_exported(session: Session) -> None:
    listing = layer_units(session, SECOND)
    for row in all_plain(listing):
        k = min(range(K - 1), key=lambda k, u=row["unit"]: rank(SECOND, (u,), k))  # type: ignore[misc]
        assert row["effect"] == pytest.approx(change(SECOND, (row["unit"],), k))
        assert row["needed_by"] == (NAMES[k] if change(SECOND, (row["unit"],), k, 0) < 0 else None)
    assert titles(listing)[-2:] == ["effect", "needed by"]
