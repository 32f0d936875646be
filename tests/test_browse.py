"""The terminal UI by keyboard: what a reader sees on each screen, and what each key does."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import pytest
from browsing import Unit, Visit, units_in, words
from store_factory import dissection, write_small

from ndissect.store.errors import NDError
from ndissect.store.live import RunWriter, run_file
from ndissect.store.reader import Store
from ndissect.store.scores import label_units
from ndissect.store.writer import write_store
from ndissect.tui.app.actions import ACTIONS, Action
from ndissect.tui.app.start import place_named
from ndissect.tui.app.state import Place

FIRST, SECOND = "features.0", "layer4.1.conv2"
MADE = dissection()
#: A store of more rows than a screen has.
MANY = {"early": (40, (4, 5)), "conv": (300, (3, 3))}
UNITS = units_in(MADE)
OF_FIRST = sorted((u for u in UNITS if u.layer == FIRST), key=lambda u: -u.iou)
BEST = OF_FIRST[0]


def number(line: str) -> int:
    """The unit of a row of the Units table."""
    return int(words(line)[0])


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_small(tmp_path / "small.nd.h5")


@pytest.fixture
def visit(store: Path) -> Iterator[Visit]:
    with Visit(store) as visit:
        yield visit


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("many") / "many.nd.h5", layers=MANY)


@pytest.fixture(scope="module")
def of_many() -> list[Unit]:
    return units_in(dissection(layers=MANY))


# Screens


def test_layers_tell_units_detectors_unique_detectors_and_the_best_unit(visit: Visit) -> None:
    assert visit.crumbs == "small.nd.h5 › layers"
    assert len(visit.rows) == 3
    for layer, line in zip(MADE.layers, visit.rows, strict=False):
        iou, concept = layer.best.iou, layer.best.concept
        label, value = label_units(layer.best)
        per_category = sum(len({*concept[iou[:, k] > 0.04, k].tolist()}) for k in range(iou.shape[1]))
        by_label = len({*label[value >= 0.04].tolist()})
        best = int(value.argmax())
        assert words(line)[:8] == [
            layer.name,
            str(len(label)),
            str((value > 0.04).sum()),
            str(per_category),
            str(by_label),
            str(best),
            MADE.concepts.label(int(label[best])),
            f"{value.max():.2f}",
        ]
    assert words(visit.rows[2]) == ["all", "layers", str(len(UNITS)), str(sum(u.iou > 0.04 for u in UNITS))]


def test_layers_have_a_bar_by_category_whose_letters_are_explained(store: Path) -> None:
    with Visit(store) as visit:
        bars = [line.split()[-1] for line in visit.rows[:2]]
        for layer, bar in zip(MADE.layers, bars, strict=True):
            unique = [len({*layer.best.concept[layer.best.iou[:, k] > 0.04, k].tolist()}) for k in range(6)]
            letters = {"color": "c", "object": "o", "part": "p", "material": "m", "scene": "s", "texture": "t"}
            shown = {c for c, n in zip(MADE.concepts.categories, unique, strict=True) if n}
            assert set(bar) == {letters[c] for c in shown}
        for named in ("o object", "s scene", "p part", "m material", "t texture", "c color"):
            assert named in visit.info


def test_units_tell_label_category_iou_threshold_and_which_are_dead(visit: Visit) -> None:
    visit.press("enter")
    assert visit.crumbs == f"small.nd.h5 › {FIRST}"
    assert [words(line) for line in visit.rows] == [unit.shown for unit in OF_FIRST]
    assert "dead" in visit.rows[-1]
    bars = [sum("▏▎▍▌▋▊▉█".find(c) + 1 for c in line) for line in visit.rows]
    assert bars == sorted(bars, reverse=True)
    assert bars[0] > 2 * bars[4] * 0.9  # 0.112 is drawn about twice as long as 0.056
    assert bars[-1] == 0


def test_a_unit_has_its_best_concept_of_every_category_with_counts_and_its_top_images(visit: Visit) -> None:
    visit.resize(119, 40)
    visit.press("enter", "enter")
    assert visit.crumbs == f"small.nd.h5 › {FIRST} › {BEST.unit} {BEST.label} {BEST.iou:.3f}"
    layer = MADE.layers[0]
    assert layer.counts is not None
    assert layer.top is not None
    lines = [words(line) for line in visit.rows]
    at_images = next(i for i, line in enumerate(lines) if line[:2] == ["top", "images"])
    at_others = next(i for i, line in enumerate(lines) if line[:2] == ["next", "concepts"])
    area = MADE.concept_counts.area.sum(0)

    def of_concept(row: int) -> list[str]:
        k = int(MADE.concepts.category[row])
        both, mask = layer.counts.intersection[0, BEST.unit, row], layer.counts.area_in_category[0, BEST.unit, k]
        iou = both / (mask + area[row] - both)
        category = MADE.concepts.category_of(row)
        return [*MADE.concepts.label(row).split(), category, f"{iou:.4f}", str(both), str(mask), str(area[row])]

    best = [int(row) for row in layer.best.concept[BEST.unit] if row >= 0]
    assert sorted(lines[:at_images]) == sorted(of_concept(row) for row in best)
    assert lines[0][0] == BEST.label
    known = [of_concept(row) for row in range(len(MADE.concepts))]
    assert all(line in known for line in lines[at_others + 1 :])
    ious = [float(line[-4]) for line in lines[at_others + 1 :]]
    assert ious == sorted(ious, reverse=True)
    assert MADE.images is not None
    for rank, line in enumerate(lines[at_images + 1 : at_others]):
        image = int(layer.top.image[BEST.unit, rank])
        assert line[:4] == [
            *MADE.images.name[image].split(),
            MADE.images.split[image],
            f"{layer.top.peak[BEST.unit, rank]:.4g}",
        ]
    assert at_others - at_images == 4
    assert f"threshold {BEST.threshold:.4g}" in visit.info


def test_the_names_of_a_units_images_have_room_at_80_columns(tmp_path: Path) -> None:
    assert MADE.images is not None
    names = tuple(f"ade20k/ADE_val_{i:08}.jpg" for i in range(len(MADE.images.name)))
    write_store(tmp_path / "named.nd.h5", replace(MADE, images=replace(MADE.images, name=names)))
    with Visit(tmp_path / "named.nd.h5") as visit:
        visit.press("enter", "enter")
        top = MADE.layers[0].top
        assert top is not None
        for image in top.image[BEST.unit]:
            assert f" {names[image]} " in visit.text
        for title in ("category", "IoU", "both", "mask", "concept"):
            assert title in visit.header


def test_a_dead_unit_and_one_with_nan_say_so(store: Path) -> None:
    with Visit(store, place_named(store, f"{FIRST}:2")) as visit:
        assert "dead" in visit.info
    with Visit(store, place_named(store, f"{FIRST}:3"), size=(100, 24)) as visit:
        assert "2 activations are NaN or infinite" in visit.info


def test_concepts_tell_how_many_units_of_which_layers_detect_each_and_enter_goes_there(visit: Visit) -> None:
    visit.press("2")
    assert visit.crumbs == "small.nd.h5 › concepts"
    assert len(visit.rows) == len(MADE.concepts)
    for line in visit.rows:
        label = next(name for name in map(MADE.concepts.label, range(len(MADE.concepts))) if line.startswith(name))
        found = sum(u.label == label and u.iou > 0.04 for u in UNITS)
        best = max((u.iou for u in UNITS if u.label == label), default=0.0)
        rest = words(line)[len(label.split()) + 1 :]
        assert rest[:2] == [str(found) if found else "-", f"{best:.3f}" if best else "-"], line
    visit.type("/wheel\n")
    visit.press("enter")
    assert visit.crumbs == "small.nd.h5 › concepts › wheel"
    row = next(r for r in range(len(MADE.concepts)) if MADE.concepts.label(r) == "wheel")
    with Store(visit.app.shelf.target) as opened:  # type: ignore[union-attr]
        expected = {
            (name, unit, f"{value:.3f}")
            for name in opened.layer_names
            for unit, value in enumerate(opened.layer(name).concept_ious(row))
            if value > 0
        }
    shown = [words(line) for line in visit.rows]
    assert len(shown) == len(expected)
    for line in shown:
        layer, unit = line[0], int(line[1])
        iou = next(
            v for name, u, v in expected if u == unit and (name == layer or ("…" in layer and name[0] == layer[0]))
        )
        assert iou in line
    visit.press("enter")
    assert visit.crumbs.startswith("small.nd.h5 › concepts › wheel › ")
    assert "top images" in visit.text


def test_the_summary_counts_detectors_by_category_and_concept_for_all_layers_or_one(visit: Visit) -> None:
    def expected(*layers: str) -> dict[str, dict[str, int]]:
        """Category -> concept -> units whose best concept of the category it is, with an IoU above 0.04."""
        found: dict[str, dict[str, int]] = {c: {} for c in MADE.concepts.categories}
        for layer in MADE.layers:
            for row in layer.best.concept[layer.best.iou > 0.04].tolist() if layer.name in layers else ():
                counts = found[MADE.concepts.category_of(row)]
                counts[MADE.concepts.label(row)] = counts.get(MADE.concepts.label(row), 0) + 1
        return found

    def unique() -> dict[str, int]:
        """The first chart: category -> its unique detectors."""
        count = sum(line.split()[0] in MADE.concepts.categories for line in visit.rows)
        return {line.split()[0]: int(words(line)[1]) for line in visit.rows[1 : 1 + count]}

    def concepts() -> dict[str, dict[str, int]]:
        """The second one, below a heading for each category."""
        found: dict[str, dict[str, int]] = {}
        for line in visit.rows:
            heading = re.fullmatch(r"(\w+): (\d+) unique, in (\d+) units", line)
            if heading:
                found[heading[1]] = {}
            elif found and len(words(line)) >= 4 and words(line)[-3].isdigit():
                found[list(found)[-1]][" ".join(words(line)[:-3])] = int(words(line)[-3])
        return found

    visit.resize(80, 40)
    visit.press("j", "j")
    for crumbs, layers in (
        ("summary", (FIRST, SECOND)),
        (f"summary of {SECOND}", (SECOND,)),
        ("summary", (FIRST, SECOND)),
    ):
        visit.press("3")
        assert visit.crumbs == f"small.nd.h5 › {crumbs}"
        found = expected(*layers)
        assert unique() == {c: len(names) for c, names in found.items()}
        assert concepts() == {c: names for c, names in found.items() if names}
        for category, names in found.items():
            if names:
                assert f"{category}: {len(names)} unique, in {sum(names.values())} units" in visit.rows
    bars = {words(line)[0]: line.count("█") for line in visit.rows}
    assert bars["car" if "car" in bars else "blue"] > 10
    assert bars["red"] / bars["blue"] == pytest.approx(
        concepts()["color"]["red"] / concepts()["color"]["blue"], abs=0.1
    )


def test_the_summary_is_of_the_layer_that_the_cursor_is_on_and_what_it_lists_opens(visit: Visit) -> None:
    visit.press("j", "3")
    assert visit.crumbs == f"small.nd.h5 › summary of {SECOND}"
    visit.press("enter")  # a category: the units labelled with one of its concepts
    assert visit.crumbs == f"small.nd.h5 › summary of {SECOND} › object"
    assert visit.rows
    assert all(" object " in line for line in visit.rows)
    visit.press("escape", "G", "enter")
    assert visit.crumbs.startswith(f"small.nd.h5 › summary of {SECOND} › ")
    concept = visit.crumbs.rpartition(" › ")[2]
    assert visit.app.table.listing is not None
    assert {visit.app.table.listing.item(i).layer for i in visit.app.table.rows} == {SECOND}
    assert concept in {u.label for u in UNITS}
    assert visit.rows


def test_the_summary_of_all_layers_goes_back_to_the_layer_it_was_of(visit: Visit) -> None:
    for keys, crumbs in (
        (("3",), f"summary of {FIRST}"),
        (("3",), "summary"),
        (("3",), f"summary of {FIRST}"),
        (("3", "2", "3", "3"), f"summary of {FIRST}"),
        (("1", "g", "j", "3", "3", "3"), f"summary of {SECOND}"),
    ):
        visit.press(*keys)
        assert visit.crumbs == f"small.nd.h5 › {crumbs}"


def test_the_help_lists_every_action_and_the_filter_language(visit: Visit) -> None:
    visit.resize(120, 60)
    visit.press("?")
    assert visit.crumbs == "small.nd.h5 › help"
    for action in ACTIONS:
        assert any(line.startswith(f"{action.shown} ") and line.endswith(action.does) for line in visit.rows)
    for term in ("street", "!street", "cat:object", "iou>0.1", "unit:100-200", "dead", "layer:layer4"):
        assert term in visit.text
    visit.press("escape")
    assert visit.crumbs == "small.nd.h5 › layers"


def test_the_help_can_be_read_to_its_end_at_80x24(visit: Visit) -> None:
    visit.press("?")
    seen = "\n".join(visit.rows)
    for _ in range(6):
        visit.press("pagedown")
        seen += "\n" + "\n".join(visit.rows)
    for action in ACTIONS:
        assert action.does in seen, action.name


def test_two_marked_units_are_compared(visit: Visit) -> None:
    visit.press("enter", "space", "space")
    a, b = OF_FIRST[:2]
    assert "2 marked" in visit.keys
    assert [line for line in visit.lines if "●" in line] == visit.lines[2:4]
    visit.press("c")
    assert visit.crumbs == "small.nd.h5 › compare"
    assert f"A {a.name} {a.label} {a.iou:.3f}" in visit.info
    assert f"B {b.name} {b.label} {b.iou:.3f}" in visit.info
    ious = [MADE.layers[0].best.iou, MADE.layers[0].best.concept]
    row_of = {MADE.concepts.label(i): i for i in range(len(MADE.concepts))}
    for label, unit, column in ((a.label, a, 0), (b.label, b, 1)):
        line = words(next(line for line in visit.rows if line.startswith(label)))
        assert line[2 + column] == f"{ious[0][unit.unit][ious[1][unit.unit] == row_of[label]][0]:.4f}"
    visit.press("escape")
    assert visit.crumbs == f"small.nd.h5 › {FIRST}"
    assert "2 marked" in visit.keys


def test_a_marked_unit_is_compared_with_the_one_of_another_layer(visit: Visit) -> None:
    visit.press("enter", "space", "h", "j", "enter", "c")
    other = max((u for u in UNITS if u.layer == SECOND), key=lambda u: u.iou)
    assert f"A {BEST.name}" in visit.info
    assert f"B {other.name}" in visit.info


def test_two_layers_and_two_stores_are_compared(visit: Visit, store: Path) -> None:
    write_small(store.with_name("other.nd.h5"), seed=1)
    visit.press("space", "space", "c")
    assert f"A {FIRST}   B {SECOND}" in visit.info
    counts = next(words(line) for line in visit.rows if line.startswith("detectors"))
    assert counts[1:3] == [str(sum(u.layer == name and u.iou > 0.04 for u in UNITS)) for name in (FIRST, SECOND)]
    visit.press("escape", "4", "g", "space", "space", "c")
    assert visit.crumbs == "small.nd.h5 › compare"
    assert "other.nd.h5" in visit.info
    assert FIRST in visit.text
    other = units_in(dissection(seed=1))
    counts = next(words(line) for line in visit.rows if line.startswith("detectors"))
    found = [str(sum(u.iou > 0.04 for u in units)) for units in (UNITS, other)]
    assert counts[1:3] in (found, found[::-1])


def test_the_two_marked_last_are_compared(visit: Visit) -> None:
    visit.press("enter", "space", "space", "space", "c")
    assert f"A {OF_FIRST[1].name} " in visit.info
    assert f"B {OF_FIRST[2].name} " in visit.info


def test_another_store_of_the_folder_is_opened_and_this_one_left_where_it_was(visit: Visit, store: Path) -> None:
    write_small(store.with_name("other.nd.h5"), layers={"only": (7, (3, 3))})
    visit.press("j", "enter", "j", "4")
    assert visit.crumbs == "small.nd.h5 › stores"
    assert sorted(words(line)[0] for line in visit.rows) == ["other", "small"]
    visit.type("/other\n")
    visit.press("enter")
    assert visit.crumbs == "other.nd.h5 › layers"
    assert words(visit.row)[:2] == ["only", "7"]
    visit.press("4", "/", *"small", "enter", "enter")
    assert visit.crumbs.startswith(f"small.nd.h5 › {SECOND}")
    assert visit.position == "2/6"


def test_another_store_opens_at_its_first_row_and_not_at_that_of_the_list_of_stores(visit: Visit, store: Path) -> None:
    old = write_small(store.with_name("old.nd.h5"))
    os.utime(old, (0, 0))
    visit.press("4", "j", "enter")
    assert visit.crumbs == "old.nd.h5 › layers"
    assert visit.position == "1/3"


# Keys: each action by each of its keys


@dataclass(frozen=True)
class Effect:
    """What the key of an action does over the store of 40 and 300 units, where a page has 20 rows.

    ``before``: keys pressed first; ``seen`` is true after the key and was not before.
    """

    before: tuple[str, ...]
    seen: Callable[[Visit], bool]


AT_MANY = ("j", "enter")


def row(place: int) -> Callable[[Visit], bool]:
    return lambda visit: visit.position.startswith(f"{place}/")


def says(*said: str) -> Callable[[Visit], bool]:
    return lambda visit: all(text in visit.notice for text in said)


def at(crumbs: str) -> Callable[[Visit], bool]:
    return lambda visit: visit.crumbs == f"many.nd.h5 › {crumbs}"


def sorted_by(title: str, arrow: str) -> Callable[[Visit], bool]:
    return lambda visit: any(
        t[-1] in "▲▼" and title.startswith(t[:-1]) and t[-1] == arrow for t in visit.header.split()
    )


EFFECTS = {
    "down": Effect(AT_MANY, row(2)),
    "up": Effect((*AT_MANY, "j", "j"), row(2)),
    "enter": Effect((), at("early")),
    "back": Effect(AT_MANY, at("layers")),
    "out": Effect(AT_MANY, at("layers")),
    "first": Effect((*AT_MANY, "j", "j"), row(1)),
    "last": Effect(AT_MANY, row(300)),
    "half_down": Effect(AT_MANY, row(11)),
    "half_up": Effect((*AT_MANY, "G"), row(290)),
    "page_down": Effect(AT_MANY, row(21)),
    "page_up": Effect((*AT_MANY, "G"), row(280)),
    "layers": Effect(("2",), at("layers")),
    "concepts": Effect((), at("concepts")),
    "summary": Effect((), at("summary of early")),
    "stores": Effect((), at("stores")),
    "filter": Effect(AT_MANY, lambda visit: visit.info == "/"),
    "next": Effect(("enter", "enter"), lambda visit: visit.app.table.listing.subject == f"early:{RANKED[1]}"),
    "previous": Effect(("enter", "j", "enter"), lambda visit: visit.app.table.listing.subject == f"early:{RANKED[0]}"),
    "sort": Effect(AT_MANY, sorted_by("threshold", "▼")),
    "ascending": Effect(AT_MANY, sorted_by("IoU", "▲")),
    "descending": Effect((*AT_MANY, "["), sorted_by("IoU", "▼")),
    "overlay": Effect(AT_MANY, says("no image viewer was found", ".png")),
    "viewer": Effect(AT_MANY, at("viewers")),
    "truth": Effect(AT_MANY, says("pictures are drawn with where the label really is")),
    "preview": Effect(AT_MANY, lambda visit: len(visit.rows) == 20),
    "mark": Effect(AT_MANY, lambda visit: "1 marked" in visit.keys),
    "compare": Effect((*AT_MANY, "space", "space"), at("compare")),
    "copy": Effect(AT_MANY, lambda visit: bool(visit.sent) and visit.copied.startswith("conv:")),
    "export": Effect(AT_MANY, says("300 rows written to", ".csv")),
    "reload": Effect(AT_MANY, says("read again")),
    "palette": Effect(AT_MANY, at("palette")),
    "help": Effect(AT_MANY, at("help")),
    "suspend": Effect(AT_MANY, lambda visit: visit.suspended),
    "quit": Effect(AT_MANY, lambda visit: not visit.app.is_running),
}
RANKED = [u.unit for u in sorted(units_in(dissection(layers=MANY))[:40], key=lambda u: -u.iou)]


def test_every_action_has_an_effect_that_is_checked() -> None:
    assert set(EFFECTS) == {action.name for action in ACTIONS}


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
def test_each_key_of_an_action_does_it(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: Action
) -> None:
    monkeypatch.chdir(tmp_path)
    effect = EFFECTS[action.name]
    for i, key in enumerate(action.keys):
        with Visit(many, Place(), home=tmp_path / str(i), preview=action.name == "preview") as visit:
            visit.press(*effect.before)
            assert not effect.seen(visit)
            visit.press(key)
            visit.wait(lambda: effect.seen(visit), 5)


# Moving


def test_the_cursor_stays_within_the_rows_and_on_the_screen(many: Path, tmp_path: Path) -> None:
    with Visit(many, Place("layers", 1, "conv"), home=tmp_path) as visit:
        visit.press("k", "pageup", "ctrl+u")
        assert visit.position == "1/300"
        visit.press("pagedown")
        assert visit.position == "21/300"
        assert len(visit.rows) == 20
        for keys in (("G",), ("j",), ("pagedown",), ("ctrl+d",)):
            visit.press(*keys)
            assert visit.position == "300/300"
            assert visit.row.startswith("›")
        assert visit.lines.index(visit.row) == 21  # the last row stands at the bottom
        visit.press("g")
        assert visit.lines.index(visit.row) == 2


def test_the_cursor_passes_over_headings(visit: Visit) -> None:
    visit.press("3")
    seen = []
    for _ in range(30):
        seen.append(visit.row)
        visit.press("j")
    assert not any("unique" in line for line in seen)
    assert visit.position == f"{len({*seen})}/{len({*seen})}"
    visit.press("g")
    assert visit.lines[2].strip() == "unique detectors by category"
    assert visit.row == visit.lines[3]


def test_the_first_heading_is_seen_again_when_coming_back_up(visit: Visit) -> None:
    visit.press("?", "G", "g")
    assert visit.lines[2].split() == ["Move"]
    visit.press("G", *["k"] * 60)
    assert visit.lines[2].split() == ["Move"]


# Filter


FILTERS: list[tuple[str, Callable[[Unit], bool]]] = [
    ("blue", lambda u: u.label == "blue"),
    ("BLU", lambda u: u.label == "blue"),
    ("light traffic", lambda u: u.label == "traffic light"),
    ('"traffic light"', lambda u: u.label == "traffic light"),
    ('"light traffic"', lambda u: False),
    ("!blue", lambda u: u.label != "blue"),
    ("!blue !red", lambda u: u.label not in ("blue", "red")),
    ("cat:object", lambda u: u.category == "object"),
    ("cat:obj", lambda u: u.category == "object"),
    ("cat:object,scene", lambda u: u.category in ("object", "scene")),
    ("!cat:object", lambda u: u.category != "object"),
    ("iou>0.05", lambda u: u.iou > 0.05),
    ("iou<=0.05", lambda u: u.iou <= 0.05),
    ("iou>0.03 iou<0.05 cat:color", lambda u: 0.03 < u.iou < 0.05 and u.category == "color"),
    ("unit:10-20", lambda u: 10 <= u.unit <= 20),
    ("unit:7", lambda u: u.unit == 7),
    ("unit:7,20-22,39", lambda u: u.unit in (7, 20, 21, 22, 39)),
    ("dead", lambda u: u.dead),
    ("!dead", lambda u: not u.dead),
    ("detector", lambda u: u.iou > 0.04),
    ("layer:early unit:5", lambda u: u.unit == 5),
    ("threshold>1.2", lambda u: u.threshold > 1.2),
    ("街道", lambda u: u.label == "街道"),
    ("SEÑAL", lambda u: u.label.startswith("señal")),
]


def test_the_rows_that_pass_each_kind_of_filter_are_shown_and_counted(
    many: Path, of_many: list[Unit], tmp_path: Path
) -> None:
    with Visit(many, Place("layers", 1, "early"), home=tmp_path, size=(80, 50)) as visit:
        for text, passes in FILTERS:
            visit.type(f"/{text}")
            expected = {u.unit for u in of_many if u.layer == "early" and passes(u)}
            assert {number(line) for line in visit.rows} == expected, text
            visit.press("enter")
            assert visit.info == f"/{text}"
            assert visit.position.split("/")[1] == f"{len(expected)} of 40", text
            visit.press("escape")
            assert visit.position.endswith("/40")


def test_all_layers_are_filtered_by_layer(many: Path, of_many: list[Unit], tmp_path: Path) -> None:
    with Visit(many, home=tmp_path, size=(80, 60)) as visit:
        visit.press("G", "enter")
        assert visit.crumbs == "many.nd.h5 › all layers"
        visit.type("/layer:ear* iou>0.05\n")
        expected = [u for u in of_many if u.layer == "early" and u.iou > 0.05]
        assert visit.position == f"1/{len(expected)} of 340"
        assert {words(line)[0] for line in visit.rows} == {"early"}
        assert {int(words(line)[1]) for line in visit.rows} == {u.unit for u in expected}


def test_a_filter_works_while_it_is_typed(visit: Visit) -> None:
    visit.press("enter")
    visit.type("/w")
    assert [words(line)[1] for line in visit.rows] == ["wheel", "wheel"]
    assert visit.info == "/w"
    assert visit.position == "1/2 of 9"
    visit.type("o")
    assert visit.position == "0/0 of 9"
    assert "nothing passes the filter" in visit.text
    visit.press("backspace", "backspace")
    assert visit.position.endswith("/9")
    visit.type("r")
    assert visit.position == f"1/{sum('r' in u.label for u in OF_FIRST)} of 9"


def test_enter_keeps_a_filter_and_escape_drops_it(visit: Visit) -> None:
    visit.press("enter")
    visit.type("/wheel")
    visit.press("escape")
    assert visit.position.endswith("/9")
    assert "/wheel" not in visit.text
    visit.type("/wheel\n")
    assert visit.info == "/wheel"
    assert visit.position == "1/2 of 9"
    visit.press("j")
    assert visit.position == "2/2 of 9"
    visit.press("/")
    assert visit.info == "/wheel"  # to be changed
    visit.press("escape")
    assert visit.position.endswith("/9")
    assert words(visit.row)[1] == "wheel"  # where the cursor was


def test_letters_typed_into_a_filter_are_no_keys(visit: Visit) -> None:
    visit.press("enter")
    visit.type("/q?snNcoye 12")
    assert visit.info == "/q?snNcoye 12"
    assert visit.app.is_running
    assert visit.crumbs == f"small.nd.h5 › {FIRST}"


def test_the_filter_of_each_table_is_its_own_and_still_there_on_return(visit: Visit) -> None:
    visit.press("enter")
    visit.type("/wheel\n")
    visit.press("enter")
    assert "wheel" in visit.crumbs
    assert "/" not in visit.position.partition(" ")[2]
    visit.press("h", "h", "j", "enter")
    assert visit.position == "1/6"
    visit.press("h", "k", "enter")
    assert visit.info == "/wheel"
    assert visit.position == "1/2 of 9"


MISTAKES = [
    ("iou>", 4, "number"),
    ("iou>x", 4, "number"),
    ("wheel iou>0.1x", 10, "number"),
    ("cat:", 0, "name"),
    ("cat:animal", 0, "animal"),
    ("blue !", 5, "!"),
    ("unit:x", 5, "numbers"),
    ("unit:9-2", 5, "before"),
    ("layre:layer4", 0, "layre"),
    ("iuo>0.1", 0, "iuo"),
    ("peak>1", 0, "peak"),
]


@pytest.mark.parametrize(("text", "at", "said"), MISTAKES, ids=[text for text, _, _ in MISTAKES])
def test_a_mistake_is_shown_in_place_and_the_rows_stay(visit: Visit, text: str, at: int, said: str) -> None:
    visit.press("enter")
    visit.press("/")
    for i, letter in enumerate(text):  # as far as it makes sense, rows change
        if i == len(text) - 1:
            before = visit.rows
        visit.type(letter)
    line = visit.lines[-1]
    assert line.index("^") == text_begins(visit) + at
    assert said in line
    if visit.lines[-1] == line and len(text.split()) == 1:
        assert visit.rows == before
    visit.press("enter")
    assert visit.lines[-1] == line  # not taken
    assert visit.info == f"/{text}"
    visit.press("escape")
    assert visit.position.endswith("/9")
    assert "^" not in visit.keys


def text_begins(visit: Visit) -> int:
    """The column at which the filter that is typed begins."""
    return visit.lines[-2].index("/") + 1


def test_a_mistake_that_is_mended_is_gone(visit: Visit) -> None:
    visit.press("enter")
    visit.type("/iou>")
    assert "^" in visit.keys
    visit.type("0.07")
    assert "^" not in visit.keys
    assert visit.position == "1/2 of 9"


def test_n_goes_to_the_next_row_that_passes_the_last_filter_be_it_on_or_no_longer(visit: Visit) -> None:
    visit.press("enter")
    visit.type("/wheel\n")
    for key, position in (("n", "2/2 of 9"), ("N", "1/2 of 9")):
        visit.press(key)
        assert visit.position == position
    visit.press("escape", "g")
    wheels = [i for i, u in enumerate(OF_FIRST, 1) if u.label == "wheel"]
    assert visit.position == "1/9"
    for expected in (*wheels, wheels[0]):
        visit.press("n")
        assert visit.position == f"{expected}/9"
    for expected in (wheels[-1], wheels[0], wheels[-1]):
        visit.press("N")
        assert visit.position == f"{expected}/9"


def test_n_where_no_row_passes_says_so(visit: Visit) -> None:
    visit.press("enter")
    visit.type("/wheel\n")
    visit.press("escape", "2")
    visit.type("/zebra\n")
    visit.press("escape", "n")
    assert "no row passes zebra" in visit.notice


def test_n_in_a_unit_goes_to_the_next_unit_of_the_table_as_it_is_filtered_and_sorted(visit: Visit) -> None:
    visit.press("enter")
    visit.type("/cat:color\n")
    visit.press("enter")
    colours = [u for u in OF_FIRST if u.category == "color"]
    for unit in (*colours, colours[-1]):
        assert f"› {unit.unit} {unit.label} {unit.iou:.3f}" in visit.crumbs
        assert words(visit.rows[0])[0] == unit.label
        visit.press("n")
    visit.press("N")
    assert f"› {colours[-2].unit} " in visit.crumbs
    visit.press("h")
    assert number(visit.row) == colours[-2].unit


# Sort


def test_s_sorts_by_the_next_column_and_brackets_turn_it(many: Path, of_many: list[Unit], tmp_path: Path) -> None:
    units = [u for u in of_many if u.layer == "conv"]
    orders: dict[str, Callable[[Unit], object]] = {
        "unit": lambda u: u.unit,
        "label": lambda u: (u.label == "", u.label),
        "threshold": lambda u: u.threshold,
        "IoU": lambda u: u.iou,
        "images": lambda u: u.images,
    }
    with Visit(many, Place("layers", 1, "conv"), home=tmp_path, size=(90, 310)) as visit:
        seen = set()
        for _ in range(8):
            title = next(t for t in visit.header.split() if t[-1] in "▲▼")
            name = next(
                c
                for c in ("unit", "label", "category", "threshold", "IoU", "images")
                if c[:4] == title[:4][: len(c)] or c.startswith(title[:-1])
            )
            seen.add(name)
            if name in orders:
                by_number = {u.unit: orders[name](u) for u in units}
                keys = [by_number[number(line)] for line in visit.rows]
                assert keys == sorted(keys, reverse=title[-1] == "▼"), name  # type: ignore[type-var]
                visit.press("]" if title[-1] == "▲" else "[")
                turned = [by_number[number(line)] for line in visit.rows]
                assert turned == sorted(keys, reverse=title[-1] == "▲"), name  # type: ignore[type-var]
            visit.press("s")
        assert seen == {"unit", "label", "category", "threshold", "IoU", "images"}


def test_the_cursor_stays_on_its_row_while_rows_are_sorted(visit: Visit) -> None:
    visit.press("enter", "j", "j")
    for key in ("[", "s", "s", "]", "s", "s"):
        visit.press(key)
        assert number(visit.row) == OF_FIRST[2].unit


def test_layers_and_concepts_are_sorted_too(visit: Visit) -> None:
    visit.press("s")
    counts = [int(words(line)[-1] if "all" in line else words(line)[1]) for line in visit.rows[1:]]
    assert counts == sorted(counts, reverse=True)
    visit.press("2", "[")
    found = [line.split() for line in visit.rows]
    detectors = [0 if "-" in line[-6:-2] and "-" in line else 1 for line in found]
    assert detectors == sorted(detectors)


# Esc, marks, palette


def test_escape_leaves_the_most_transient_thing_first(visit: Visit) -> None:
    visit.press("space", "enter")
    visit.type("/blue\n")
    visit.press("?")
    visit.type("/mark")
    visit.press("enter", "?")
    assert visit.notice
    visit.press("escape")
    assert visit.notice == ""
    assert visit.info == "/mark"
    visit.press("escape")
    assert visit.crumbs.endswith("help")
    assert "/mark" not in visit.text
    visit.press("escape")
    assert visit.crumbs == f"small.nd.h5 › {SECOND}"
    assert visit.info == "/blue"
    visit.press("escape")
    assert visit.position.endswith("/6")
    visit.press("escape")
    assert visit.crumbs == "small.nd.h5 › layers"
    assert "1 marked" in visit.keys
    visit.press("escape")
    assert "marked" not in visit.keys
    visit.press("escape")
    assert "q quits" in visit.notice
    assert visit.app.is_running


def test_any_key_takes_a_message_away_and_does_what_it_does(visit: Visit) -> None:
    visit.press("c")
    assert visit.notice
    visit.press("j")
    assert not visit.notice
    assert visit.position == "2/3"
    visit.press("c", "escape")
    assert not visit.notice
    assert visit.crumbs == "small.nd.h5 › layers"


def test_space_marks_and_unmarks_and_marks_can_be_filtered(visit: Visit) -> None:
    visit.press("enter", "j", "space", "space")
    assert "2 marked" in visit.keys
    visit.type("/marked\n")
    assert [number(line.lstrip("● ")) for line in visit.rows] == [u.unit for u in OF_FIRST[1:3]]
    assert visit.position == "1/2 of 9"
    visit.press("escape", "g", "j", "space")
    assert "1 marked" in visit.keys
    assert sum("●" in line for line in visit.lines) == 1


def test_the_palette_finds_an_action_by_what_it_does_and_does_it(visit: Visit) -> None:
    visit.press("enter", ":")
    visit.type("half a page up")
    assert visit.position.startswith("1/1 of ")
    visit.press("escape")
    assert visit.crumbs == f"small.nd.h5 › {FIRST}"
    visit.press("ctrl+p")
    visit.type("next column")
    visit.press("enter")
    assert visit.crumbs == f"small.nd.h5 › {FIRST}"
    assert any(title.startswith("thresh") and title[-1] == "▼" for title in visit.header.split())
    visit.press(":")
    visit.type("summary\n")
    assert visit.crumbs.startswith("small.nd.h5 › summary")


def test_what_is_typed_stands_behind_the_key_that_asked_for_it(visit: Visit) -> None:
    visit.press(":")
    visit.type("zebra")
    assert visit.info == ":zebra"
    visit.press("enter")  # no action: it stays
    assert visit.crumbs.endswith("palette")
    assert visit.info == ":zebra"
    visit.press("escape", "escape", "escape", "/", *"lay")
    assert visit.info == "/lay"


def test_the_palette_offers_what_is_possible_here(visit: Visit) -> None:
    visit.resize(80, 50)
    visit.press(":")
    assert not any("compare two marked" in line for line in visit.rows)
    visit.press("escape", "space", "space", ":")
    assert any("compare two marked" in line for line in visit.rows)


def test_the_palette_acts_on_the_table_that_it_was_called_from(visit: Visit) -> None:
    visit.press("enter", "j", ":")
    visit.type("copy the row\n")
    assert visit.copied.startswith(OF_FIRST[1].name)
    visit.press(":")
    visit.type("mark the row\n")
    assert "1 marked" in visit.keys
    visit.press("2", ":")
    visit.type("last row\n")
    assert visit.position == "9/9"


# Keys that can do nothing say why

IMPOSSIBLE = [
    ("c", (), "c: mark two units, layers or stores with space first"),
    ("c", ("space", "k"), "c: "),
    ("o", (), "o: go to a unit first"),
    ("O", ("2",), "O: go to a unit first"),
    ("p", (), "p: "),
    ("s", ("3",), "s: the rows of this table have one order"),
    ("[", ("enter", "enter"), "[: the rows of this table have one order"),
    ("]", ("?",), "]: the rows of this table have one order"),
    ("space", ("2",), "space: units, layers and stores can be marked"),
    ("space", ("G",), "space: units, layers and stores can be marked"),
    ("?", ("?",), "?: "),
    ("y", ("enter", "/", *"zebra", "enter"), "y: there is no row"),
    ("e", ("enter", "/", *"zebra", "enter"), "e: there are no rows"),
    ("enter", ("enter", "/", *"zebra", "enter"), "enter: there is nothing to open here"),
]


@pytest.mark.parametrize(("key", "before", "said"), IMPOSSIBLE, ids=[f"{k} {''.join(b)}" for k, b, _ in IMPOSSIBLE])
def test_a_key_that_can_do_nothing_says_why(
    visit: Visit, store: Path, key: str, before: tuple[str, ...], said: str
) -> None:
    visit.press(*before)
    lines = visit.lines
    visit.press(key)
    assert visit.notice.startswith(said)
    assert len(visit.notice) > len(said.split(maxsplit=1)[0]) + 8
    assert visit.crumbs == lines[0]
    assert [p.name for p in store.parent.glob("*.csv")] == []


# Where it opens


def test_it_opens_where_the_reader_was_in_that_store(store: Path) -> None:
    other = write_small(store.with_name("other.nd.h5"), layers={"only": (7, (3, 3))})
    with Visit(store) as visit:
        visit.press("j", "enter", "j", "j", "enter")
        there = visit.crumbs
        visit.press("q")
    with Visit(other) as visit:
        assert visit.crumbs == "other.nd.h5 › layers"
        visit.press("2", "j", "j", "q")
    with Visit(store) as visit:
        assert visit.crumbs == there
        visit.press("h")
        assert visit.position == "3/6"
        visit.press("h")
        assert visit.position == "2/3"
    with Visit(other) as visit:
        assert visit.crumbs == "other.nd.h5 › concepts"
        assert visit.position == "3/9"


def test_the_place_is_written_at_the_end_and_not_at_every_key(store: Path) -> None:
    with Visit(store) as visit:
        visit.press("j", "enter", "2", "3", "1", "enter", "j", "4")
        assert not list(store.parent.glob("state/**/*.json"))
        visit.press("r", "q")  # from among the stores
    assert len(list(store.parent.glob("state/**/*.json"))) == 1
    with Visit(store) as visit:
        assert visit.crumbs == f"small.nd.h5 › {SECOND}"
        assert visit.position == "2/6"


def test_a_place_that_the_store_no_longer_has_is_left(store: Path) -> None:
    with Visit(store, place_named(store, f"{FIRST}:8")) as visit:
        visit.press("q")
    write_small(store, layers={FIRST: (3, (3, 3))})
    with Visit(store) as visit:
        assert visit.crumbs == f"small.nd.h5 › {FIRST}"
    write_small(store, layers={"other": (3, (3, 3))})
    with Visit(store) as visit:
        assert visit.crumbs == "small.nd.h5 › layers"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"PATH": 3}', '{"PATH": {"root": "nowhere"}}', '{"PATH": {"depth": 9}}']
)
def test_a_damaged_memory_of_places_is_no_obstacle(store: Path, text: str) -> None:
    with Visit(store) as visit:
        visit.press("q")
    kept = next(p for p in store.parent.glob("state/**/*") if p.is_file())
    kept.write_text(text.replace("PATH", str(store)))
    with Visit(store) as visit:
        assert visit.crumbs.startswith("small.nd.h5 › ")
        visit.press("1", "g", "j", "enter")
        assert visit.position == "1/6"


def test_it_opens_at_the_layer_or_unit_that_is_named(store: Path) -> None:
    with Visit(store, place_named(store, SECOND)) as visit:
        assert visit.crumbs == f"small.nd.h5 › {SECOND}"
        visit.press("h")
        assert visit.position == "2/3"
    with Visit(store, place_named(store, f"{FIRST}:7")) as visit:
        assert visit.crumbs.startswith(f"small.nd.h5 › {FIRST} › 7 ")
        visit.press("h")
        assert number(visit.row) == 7
    for name in ("nosuch", "features.0:9", "features.0:x", "features.0:", ":3", "features.0:-1"):
        with pytest.raises(NDError) as error:
            place_named(store, name)
        assert error.value.hint, name


# Panes


@pytest.mark.parametrize(
    ("columns", "panes"),
    [
        *((columns, ["root"]) for columns in (40, 80, 119)),
        *((columns, ["root", "units"]) for columns in (120, 159)),
        *((columns, ["root", "units", "unit"]) for columns in (160, 240)),
    ],
)
def test_panes_side_by_side(store: Path, columns: int, panes: list[str]) -> None:
    with Visit(store, size=(columns, 24)) as visit:
        visit.rest()
        assert visit.panes == panes
        assert FIRST in visit.lines[2]
        if len(panes) > 1:
            assert words(visit.rows_of(visit.app.query_one("#units"))[0])[:2] == BEST.shown[:2]
        if len(panes) > 2:
            assert "top images" in visit.text
        visit.press("enter", "enter")
        visit.rest()
        assert visit.panes == {1: ["unit"], 2: ["units", "unit"], 3: ["root", "units", "unit"]}[len(panes)]
        assert "top images" in visit.text


def test_the_tables_on_the_right_follow_the_cursor(store: Path) -> None:
    with Visit(store, size=(160, 24)) as visit:
        visit.press("j")
        visit.wait(lambda: len(visit.rows_of(visit.app.query_one("#units"))) == 6)
        visit.press("enter", "j", "j")
        unit = sorted((u for u in UNITS if u.layer == SECOND), key=lambda u: -u.iou)[2]
        visit.wait(lambda: unit.label in visit.rows_of(visit.app.query_one("#unit"))[0])
        assert f"{unit.iou:.4f}" in visit.rows_of(visit.app.query_one("#unit"))[0]


def test_the_pane_that_looks_as_if_it_had_the_keys_has_them(store: Path) -> None:
    def looks_active() -> list[str | None]:
        """The panes that draw a cursor in reverse."""
        found = []
        for table in visit.app.query("Table"):
            strip = table.render_line(1) if table.display else None
            if strip and any(segment.style and segment.style.reverse for segment in strip):
                found.append(table.id)
        return found

    with Visit(store, size=(160, 24)) as visit:
        for keys in ((), ("enter",), ("enter",), ("tab",), ("tab",), ("h",), ("shift+tab",)):
            visit.press(*keys)
            visit.rest()
            assert looks_active() == [visit.app.table.id], keys


def test_the_terminal_is_resized_at_any_time(store: Path) -> None:
    with Visit(store) as visit:
        visit.press("enter", "j", "enter")
        crumbs = visit.crumbs
        for columns, lines in ((160, 50), (120, 10), (30, 8), (20, 5), (200, 60), (80, 24)):
            visit.resize(columns, lines)
            visit.rest()
            assert visit.lines[0].startswith(crumbs[:10])
            assert len(visit.panes) == (1 if columns < 120 else 2 if columns < 160 else 3)
            assert visit.panes[-1] == "unit"
        assert visit.crumbs == crumbs
        visit.press("?")
        visit.resize(160, 30)
        assert visit.crumbs.endswith("help")
        visit.press("escape", "/", "x")
        visit.resize(80, 24)
        assert visit.info == "/x"


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 2), (10, 4), (500, 3)])
def test_a_very_small_terminal_is_no_reason_to_stop(store: Path, size: tuple[int, int]) -> None:
    with Visit(store, size=size) as visit:
        visit.press("enter", "j", "enter", "?", "escape", "/", "a", "escape", "2", "3", "4", "c")
        visit.resize(80, 24)
        visit.press("1")
        assert visit.crumbs == "small.nd.h5 › layers"


@pytest.mark.parametrize("keys", [("3",), ("?",), ("?", "j", "k"), ("enter", "enter"), ("enter", "enter", "G", "g")])
def test_a_terminal_with_room_for_one_row_shows_that_of_the_cursor(store: Path, keys: tuple[str, ...]) -> None:
    with Visit(store, size=(40, 5)) as visit:
        visit.press(*keys)
        assert len(visit.rows) == 1
        assert visit.row.startswith("›")


# The mouse


def test_a_click_moves_the_cursor_two_open_and_the_header_sorts(visit: Visit) -> None:
    visit.click(10, 3)
    assert visit.position == "2/3"
    assert visit.crumbs == "small.nd.h5 › layers"
    visit.click(10, 2, times=2)
    assert visit.crumbs == f"small.nd.h5 › {FIRST}"
    visit.click(visit.header.index("threshold") + 2, 1)
    thresholds = [float(words(line)[-2 if u.images else -1]) for line, u in zip(visit.rows, OF_FIRST, strict=True)][:-1]
    assert thresholds == sorted(thresholds, reverse=True)
    first = visit.rows[0]
    visit.click(visit.header.index("thresh") + 2, 1)
    assert visit.rows[0] != first


def test_a_click_into_another_pane_takes_the_keys_there(store: Path) -> None:
    with Visit(store, size=(160, 24)) as visit:
        visit.rest()
        column = visit.app.query_one("#units").region.x + 10
        visit.click(column, 4)
        assert visit.crumbs == f"small.nd.h5 › {FIRST}"
        assert visit.position == "3/9"
        visit.press("k")
        assert visit.position == "2/9"


# Taking away


def exported(folder: Path) -> list[dict[str, str]]:
    """The rows of the only CSV file in ``folder``, which is taken away."""
    (path,) = folder.glob("*.csv")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    path.unlink()
    return rows


def test_the_row_is_copied_with_the_numbers_of_the_store(visit: Visit) -> None:
    visit.press("y")
    assert visit.copied == FIRST
    visit.press("enter", "j", "y")
    unit = OF_FIRST[1]
    assert visit.copied.split("\t") == [unit.name, unit.label, unit.category, f"{unit.iou:.6g}"]
    assert unit.name in visit.notice
    visit.press("2", "y")
    label, best, iou = visit.copied.split("\t")
    assert (best, iou) == next((u.name, f"{u.iou:.6g}") for u in UNITS if u.label == label and u.iou == max(
        v.iou for v in UNITS if v.label == label))  # fmt: skip


def test_inside_tmux_the_copy_reaches_the_outer_terminal_too(store: Path) -> None:
    with Visit(store, env={"TMUX": "/tmp/tmux-0/default,1,0"}) as visit:
        visit.press("y")
        assert "\x1bPtmux;\x1b\x1b]52;c;" in "".join(visit.sent)
        assert visit.copied == FIRST


def test_the_units_are_exported_as_filtered_and_sorted_in_full_precision(
    visit: Visit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    visit.press("enter")
    visit.type("/cat:color,part\n")
    visit.press("[", "e")
    expected = sorted((u for u in OF_FIRST if u.category in ("color", "part")), key=lambda u: u.iou)
    assert f"{len(expected)} rows written to {tmp_path}" in " ".join(visit.notice.split()).replace(" /", " /")
    rows = exported(tmp_path)
    assert [(row["layer"], int(row["unit"]), row["label"], row["category"]) for row in rows] == [
        (u.layer, u.unit, u.label, u.category) for u in expected
    ]
    assert [float(row["iou"]) for row in rows] == [u.iou for u in expected]
    assert [float(row["threshold"]) for row in rows] == [u.threshold for u in expected]
    assert {row["dead"] for row in rows} == {"False"}


def test_layers_concepts_the_summary_and_a_unit_are_exported(
    visit: Visit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    visit.press("e")
    rows = exported(tmp_path)
    assert [(row["layer"], int(row["units"]), int(row["detectors"])) for row in rows[:2]] == [
        (name, sum(u.layer == name for u in UNITS), sum(u.layer == name and u.iou > 0.04 for u in UNITS))
        for name in (FIRST, SECOND)
    ]
    assert float(rows[0]["best_iou"]) == BEST.iou
    visit.press("2", "e")
    for concept in exported(tmp_path):
        found = [u for u in UNITS if u.label == concept["concept"]]
        assert int(concept["detectors"]) == sum(u.iou > 0.04 for u in found)
        assert float(concept["iou"]) == max((u.iou for u in found), default=0.0)
    visit.press("3", "e")
    rows = exported(tmp_path)
    assert {row["concept"] for row in rows} - {""} == {
        MADE.concepts.label(i) for layer in MADE.layers for i in layer.best.concept[layer.best.iou > 0.04].tolist()
    }
    visit.press("1", "g", "enter", "g", "enter", "e")
    rows = exported(tmp_path)
    with Store(tmp_path / "small.nd.h5") as opened:
        value, both, mask = opened.layer(FIRST).unit_ious(BEST.unit)
    of_label = next(i for i in range(len(MADE.concepts)) if MADE.concepts.label(i) == BEST.label)
    row = next(row for row in rows if row["concept"] == BEST.label)
    assert float(row["iou"]) == value[of_label]
    assert (int(row["intersection"]), int(row["area"])) == (both[of_label], mask[of_label])
    assert [row["image"] for row in rows if row["image"]] == [
        MADE.images.name[i]
        for i in MADE.layers[0].top.image[BEST.unit]  # type: ignore[union-attr]
    ]


def test_an_export_replaces_no_file(visit: Visit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    visit.press("e")
    (path,) = tmp_path.glob("*.csv")
    path.write_text("mine")
    visit.press("e", "e")
    assert path.read_text() == "mine"
    assert len(list(tmp_path.glob("*.csv"))) == 3


def test_an_export_into_a_folder_that_is_gone_says_so(
    visit: Visit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    visit.press("e")
    assert visit.notice
    assert visit.app.is_running


# Pictures


@pytest.fixture
def feh(tmp_path: Path) -> Path:
    """A window viewer that records what it was given to show; the file that it writes."""
    script, record = tmp_path / "bin" / "feh", tmp_path / "shown"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho "$@" >> "{record}"\n')
    script.chmod(0o755)
    return record


def test_o_draws_the_units_picture_and_shows_it_by_the_viewer(store: Path, feh: Path) -> None:
    with Visit(store, env={"ND_VIEWER": "feh"}) as visit:
        visit.press("enter", "o")
        visit.press("j")  # it goes on meanwhile
        assert visit.position == "2/9"
        visit.wait(lambda: "Opened with feh" in visit.notice)
        picture = Path(feh.read_text().strip())
        assert picture.parent == store.parent / "cache" / "overlays"
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert f"{FIRST}-{BEST.unit}" in picture.name
        visit.press("enter", "o")
        visit.wait(lambda: len(feh.read_text().split()) == 2 and "Opened" in visit.notice)
        assert f"{FIRST}-{OF_FIRST[1].unit}" in feh.read_text().split()[1]


def test_t_draws_where_the_label_really_is_beside_each_image(store: Path, feh: Path) -> None:
    from PIL import Image

    with Visit(store, env={"ND_VIEWER": "feh"}) as visit:
        visit.press("enter", "o")
        visit.wait(lambda: feh.exists() and "Opened" in visit.notice)
        visit.press("t")
        assert "with where the label really is" in visit.notice
        visit.press("o")
        visit.wait(lambda: len(feh.read_text().split()) == 2)
        visit.press("t")
        assert "without" in visit.notice
    plain, truth = (Image.open(path).size for path in feh.read_text().split())
    assert truth[0] > plain[0]


def test_the_viewer_is_chosen_with_capital_o(store: Path, feh: Path) -> None:
    with Visit(store, env={"DISPLAY": ":9"}) as visit:
        visit.press("enter", "O")
        assert visit.crumbs == "small.nd.h5 › viewers"
        assert ["feh" in visit.rows[0], len(visit.rows)] == [True, 2]
        visit.press("escape")
        assert visit.crumbs == f"small.nd.h5 › {FIRST}"
        visit.press("O", "enter")
        visit.wait(lambda: "Opened with feh" in visit.notice)
        assert f"{FIRST}-{BEST.unit}" in feh.read_text()


def test_without_a_viewer_the_path_is_told_copied_and_kept_for_the_end(store: Path) -> None:
    with Visit(store) as visit:
        visit.press("enter", "enter", "o")
        visit.wait(lambda: visit.app.paths and str(visit.app.paths[0]) in visit.notice.replace(" ", ""))
        assert "no image viewer was found" in visit.notice
        (path,) = visit.app.paths
        assert path.is_file()
        assert visit.copied == str(path)


def test_p_shows_the_top_images_of_the_unit_that_the_cursor_is_on(store: Path) -> None:
    def picture() -> list[str]:
        region = visit.app.query_one("#picture").region
        return visit.lines[region.y : region.bottom]

    with Visit(store, preview=True, size=(80, 40)) as visit:
        visit.press("enter")
        visit.wait(lambda: "".join(picture()).strip())
        first = picture()
        visit.press("j")
        visit.wait(lambda: "".join(picture()).strip() and picture() != first)
        visit.press("k")
        visit.wait(lambda: picture() == first)
        assert number(visit.row) == BEST.unit
        visit.press("p")
        assert not picture()
        visit.press("p")
        visit.wait(lambda: picture() == first)


# What happens to the file


@pytest.fixture
def watched(store: Path) -> Iterator[Visit]:
    """A visit that looks at the file twenty times a second."""
    with mock.patch("ndissect.tui.app.app._WATCH", 0.05), Visit(store) as visit:
        yield visit


def test_r_reads_the_store_again_with_the_cursor_the_filter_and_the_order_kept(visit: Visit, store: Path) -> None:
    visit.press("space", "k", "enter", "j", "j")
    visit.type("/!blue\n")
    visit.press("[")
    before = visit.lines
    visit.press("r", "escape")
    assert visit.lines == before
    new = units_in(dissection(seed=7))
    write_small(store, seed=7)
    visit.press("r")
    assert "read again" in visit.notice
    visit.press("escape")
    assert number(visit.row) == OF_FIRST[2].unit
    assert visit.info == "/!blue"
    expected = sorted((u for u in new if u.layer == FIRST and u.label != "blue"), key=lambda u: u.iou)
    shown = {number(line): words(line) for line in visit.rows}
    assert shown == {u.unit: u.shown for u in expected}


def test_a_unit_page_shows_the_new_numbers_after_r(visit: Visit, store: Path) -> None:
    visit.press("enter", "enter")
    write_small(store, seed=7)
    visit.press("r", "escape")
    unit = next(u for u in units_in(dissection(seed=7)) if u.name == BEST.name)
    assert visit.crumbs == f"small.nd.h5 › {FIRST} › {unit.unit} {unit.label} {unit.iou:.3f}"
    assert f"{unit.iou:.4f}" in visit.rows[0]


#: To the second row of each table on the left, and of the tables that are opened from it.
PLACES = [
    *(("j", "enter", "j", "enter", "j")[:n] for n in (1, 3, 5)),  # a layer
    *(("2", "j", "enter", "j", "enter", "j")[:n] for n in (2, 4, 6)),  # a concept
    *(("3", "j", "enter", "j", "enter", "j")[:n] for n in (2, 4, 6)),  # a category
    *(("j", "3", "G", "enter", "G", "enter", "j")[:n] for n in (3, 5, 7)),  # a concept of a layer's summary
    ("4", "j"),
]


@pytest.mark.parametrize("keys", PLACES, ids="".join)
def test_r_leaves_the_reader_in_place(visit: Visit, store: Path, keys: tuple[str, ...]) -> None:
    write_small(store.with_name("other.nd.h5"))
    visit.press(*keys)
    before = visit.lines
    visit.press("r")
    assert "read again" in visit.notice
    visit.press("escape")
    assert visit.lines == before


def test_quitting_among_the_units_of_a_category_it_opens_there_again(store: Path) -> None:
    with Visit(store) as visit:
        visit.press("j", "3", "enter", "j")
        before = visit.lines
        visit.press("q")
    with Visit(store) as visit:
        assert visit.lines == before


def test_a_store_that_is_replaced_is_noticed_and_read_on_demand(watched: Visit, store: Path) -> None:
    watched.press("enter", "j")
    rows = watched.rows
    write_small(store, seed=7)
    watched.wait(lambda: "small.nd.h5 was replaced: r reads the new one" in watched.notice)
    assert watched.rows[:8] == rows[:8]  # as long as the reader does not ask
    watched.press("enter")
    assert "top images" in watched.text
    watched.press("h", "r", "escape")
    assert words(watched.row) == next(u.shown for u in units_in(dissection(seed=7)) if u.name == OF_FIRST[1].name)


def test_a_store_that_is_deleted_is_noticed_and_can_still_be_read(watched: Visit, store: Path) -> None:
    store.unlink()
    watched.wait(lambda: "small.nd.h5 is gone from the disk" in watched.notice)
    watched.press("enter", "enter")
    assert "top images" in watched.text
    watched.press("r")
    assert "small.nd.h5" in watched.notice
    assert "top images" in watched.text
    watched.press("2", "3", "4", "1", "j", "enter")
    assert watched.position == "1/6"


def test_a_store_that_came_back_damaged_is_refused_and_the_old_one_stays(watched: Visit, store: Path) -> None:
    store.unlink()
    store.write_bytes(b"no store" * 100)
    watched.wait(lambda: "was replaced" in watched.notice)
    watched.press("r")
    assert "small.nd.h5" in watched.notice
    assert "replaced" not in watched.notice
    watched.press("enter", "enter")
    assert "top images" in watched.text


# A run that is still writing the store

LAYERS = tuple((layer.name, len(layer.best.iou)) for layer in MADE.layers)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "run.nd.h5"


@pytest.fixture
def often() -> Iterator[None]:
    with mock.patch("ndissect.tui.app.app._WATCH", 0.05):
        yield


@pytest.mark.usefixtures("often")
def test_a_run_is_shown_from_its_start_to_its_end_without_losing_the_cursor(target: Path) -> None:
    half, more = dissection(seed=3), dissection(seed=4)
    with RunWriter(target, "nd dissect", LAYERS) as run:
        run.update("thresholds", 30, 120, rate=12.0, eta=200.0, step=2, steps=4)
        with Visit(target) as visit:
            visit.wait(lambda: "25% of thresholds (2/4)" in visit.lines[1])
            for said in ("12 images/s", "3 min left", "no counts yet"):
                assert said in visit.lines[1]
            assert [words(line) for line in visit.rows] == [[name, str(units)] for name, units in LAYERS]
            for key, said in (
                ("enter", "enter: "),
                ("2", "2: the run has counted nothing yet"),
                ("3", "3: "),
                ("o", "o: "),
            ):
                visit.press(key)
                assert said in visit.notice
            visit.press("j")

            run.update("tally", 60, 120, rate=55.0, eta=27.0, step=4, steps=4)
            run.publish(half, 60)
            visit.wait(lambda: "counts of 60 images so far" in visit.lines[1])
            assert "50% of tally (4/4)  55 images/s  27 s left" in visit.lines[1]
            visit.press("g", "enter", "j", "j")
            units = sorted((u for u in units_in(half) if u.layer == FIRST), key=lambda u: -u.iou)
            assert [words(line) for line in visit.rows] == [u.shown for u in units]
            here = units[2]

            run.publish(more, 90)
            visit.wait(lambda: "counts of 90 images so far" in visit.lines[1])
            units = sorted((u for u in units_in(more) if u.layer == FIRST), key=lambda u: -u.iou)
            visit.wait(lambda: [words(line) for line in visit.rows] == [u.shown for u in units])
            assert number(visit.row) == here.unit
            assert visit.crumbs == f"run.nd.h5 › {FIRST}"

            write_store(target, MADE)
            run.__exit__(None, None, None)
            visit.wait(lambda: "the run has ended: this is its store" in visit.notice)
            assert [words(line) for line in visit.rows] == [u.shown for u in OF_FIRST]
            assert number(visit.row) == here.unit
            visit.wait(lambda: "images/s" not in visit.text)
            visit.press("q")
        with Visit(target) as visit:
            assert number(visit.row) == here.unit


def test_marks_cannot_be_compared_before_the_run_has_counted_anything(target: Path) -> None:
    for name in ("a.nd.h5", "b.nd.h5"):
        write_small(target.with_name(name))
    with RunWriter(target, "nd dissect", LAYERS) as run:
        run.update("thresholds", 30, 120, rate=12.0, eta=200.0, step=2, steps=4)
        with Visit(target) as visit:
            for keys in (("space", "space"), ("4", "G", "space", "k", "space")):
                visit.press(*keys, "c")
                assert visit.notice == "c: the run has counted nothing yet"
                visit.press("escape")
            assert visit.crumbs == "run.nd.h5 › stores"


@pytest.mark.usefixtures("often")
def test_a_filter_that_is_typed_goes_on_while_a_run_is_refreshed(target: Path) -> None:
    with RunWriter(target, "nd dissect", LAYERS) as run:
        run.update("tally", 60, 120, rate=55.0, eta=27.0, step=4, steps=4)
        run.publish(dissection(seed=3), 60)
        with Visit(target) as visit:
            visit.press("enter")
            visit.type("/cat:obj")
            run.publish(MADE, 90)
            expected = [u.shown for u in OF_FIRST if u.category == "object"]
            visit.wait(lambda: [words(line) for line in visit.rows] == expected)
            assert visit.info == "/cat:obj"
            visit.type("ect\n")
            assert visit.info == "/cat:object"
            assert visit.position.endswith(f"/{len(expected)} of 9")


ELSEWHERE = [("3", "enter", "j"), ("3", "enter", "enter"), ("2", "enter", "j"), ("4",)]


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("keys", ELSEWHERE, ids="".join)
def test_a_run_that_is_refreshed_leaves_the_reader_in_place(target: Path, keys: tuple[str, ...]) -> None:
    with RunWriter(target, "nd dissect", LAYERS) as run:
        run.update("tally", 60, 120, rate=55.0, eta=27.0, step=4, steps=4)
        run.publish(MADE, 60)
        with Visit(target) as visit:
            visit.press(*keys)
            before = visit.crumbs, words(visit.row)[:3]
            run.publish(MADE, 90)
            visit.wait(lambda: "counts of 90 images so far" in visit.lines[1])
            visit.rest()
            assert (visit.crumbs, words(visit.row)[:3]) == before


@pytest.mark.usefixtures("often")
def test_the_help_stays_while_a_run_is_refreshed(target: Path) -> None:
    with RunWriter(target, "nd dissect", LAYERS) as run:
        run.update("tally", 60, 120, rate=55.0, eta=27.0, step=4, steps=4)
        run.publish(dissection(seed=3), 60)
        with Visit(target) as visit:
            visit.press("enter", "?", "j", "j")
            before = visit.rows, visit.row
            run.publish(MADE, 90)
            visit.wait(lambda: "counts of 90 images" in visit.text)
            visit.rest()
            assert visit.crumbs == "run.nd.h5 › help"
            assert (visit.rows, visit.row) == before
            visit.press("escape")
            assert [words(line) for line in visit.rows] == [u.shown for u in OF_FIRST]


@pytest.mark.usefixtures("often")
def test_a_run_that_was_killed_says_so_and_what_it_counted_can_be_read(target: Path) -> None:
    with RunWriter(target, "nd dissect", LAYERS) as run:
        run.update("tally", 60, 120, rate=55.0, eta=27.0, step=4, steps=4)
        run.publish(MADE, 60)
        with Visit(target) as visit:
            visit.wait(lambda: "50%" in visit.lines[1])
            run._ended.set()
            run._wake.set()
            run._thread.join()
            record = json.loads(run_file(target).read_text())
            run_file(target).write_text(json.dumps({**record, "pid": 2**22 + 1}))
            visit.wait(lambda: "the run stopped at 50% of tally" in visit.lines[1])
            visit.press("enter")
            assert [words(line) for line in visit.rows] == [u.shown for u in OF_FIRST]


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("published", [False, True])
def test_a_run_that_ends_without_a_store_is_told(target: Path, published: bool) -> None:
    with RunWriter(target, "nd dissect", LAYERS) as run:
        run.update("tally", 60, 120, rate=55.0, eta=27.0, step=4, steps=4)
        if published:
            run.publish(MADE, 60)
        with Visit(target) as visit:
            visit.wait(lambda: "50%" in visit.lines[1])
            run.__exit__(None, None, None)
            visit.wait(lambda: "run.nd.h5" in visit.notice)
            assert "50%" not in visit.lines[1]
            visit.press("j", "enter", "r", "2", "3", "4", "1")
            assert visit.app.is_running


@pytest.mark.usefixtures("often")
def test_a_store_that_a_run_will_replace_says_so(store: Path) -> None:
    with Visit(store) as visit:
        visit.press("enter", "j")
        with RunWriter(store, "nd dissect", LAYERS) as run:
            run.update("tally", 60, 120, rate=55.0, eta=27.0, step=4, steps=4)
            visit.wait(lambda: "this store will be replaced" in visit.lines[1])
            write_small(store, seed=7)
        visit.wait(lambda: "was replaced" in visit.notice)
        assert "50%" not in visit.text
