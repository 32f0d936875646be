"""The terminal UI by keyboard: what a reader sees on each screen."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from browsing import Visit, best_ious, units_in, words
from small_store import BEST, FIRST, MADE, OF_FIRST, SECOND, UNITS
from store_factory import dissection, write_small

from ndissect.store.reader import Store
from ndissect.store.scores import label_units
from ndissect.store.writer import write_store
from ndissect.tui.app.actions import ACTIONS
from ndissect.tui.app.start import bookmark_named


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
    with Visit(store, bookmark_named(store, f"{FIRST}:2")) as visit:
        assert "dead" in visit.info
    with Visit(store, bookmark_named(store, f"{FIRST}:3"), size=(100, 24)) as visit:
        assert "2 activations are NaN or infinite" in visit.info


def test_concepts_tell_how_many_units_of_which_layers_detect_each_and_enter_goes_there(visit: Visit) -> None:
    visit.press("2")
    assert visit.crumbs == "small.nd.h5 › concepts"
    assert len(visit.rows) == len(MADE.concepts)
    largest = best_ious(visit.app.navigation.target)
    for line in visit.rows:
        label = next(name for name in map(MADE.concepts.label, range(len(MADE.concepts))) if line.startswith(name))
        detectors = sum(u.label == label and u.iou > 0.04 for u in UNITS)
        best = largest[label]
        rest = words(line)[len(label.split()) + 1 :]
        assert rest[:2] == [str(detectors) if detectors else "-", f"{best:.3f}" if best else "-"], line
    visit.type("/wheel\n")
    visit.press("enter")
    assert visit.crumbs == "small.nd.h5 › concepts › wheel"
    row = next(r for r in range(len(MADE.concepts)) if MADE.concepts.label(r) == "wheel")
    with Store(visit.app.navigation.target) as opened:
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
        by_category: dict[str, dict[str, int]] = {c: {} for c in MADE.concepts.categories}
        for layer in MADE.layers:
            for row in layer.best.concept[layer.best.iou > 0.04].tolist() if layer.name in layers else ():
                counts = by_category[MADE.concepts.category_of(row)]
                counts[MADE.concepts.label(row)] = counts.get(MADE.concepts.label(row), 0) + 1
        return by_category

    def unique() -> dict[str, int]:
        """The first chart: category -> its unique detectors."""
        count = sum(line.split()[0] in MADE.concepts.categories for line in visit.rows)
        return {line.split()[0]: int(words(line)[1]) for line in visit.rows[1 : 1 + count]}

    def concepts() -> dict[str, dict[str, int]]:
        """The second one, below a heading for each category."""
        by_category: dict[str, dict[str, int]] = {}
        for line in visit.rows:
            heading = re.fullmatch(r"(\w+): (\d+) unique, in (\d+) units", line)
            if heading:
                by_category[heading[1]] = {}
            elif by_category and len(words(line)) >= 4 and words(line)[-3].isdigit():
                by_category[list(by_category)[-1]][" ".join(words(line)[:-3])] = int(words(line)[-3])
        return by_category

    visit.resize(80, 40)
    visit.press("j", "j")
    for crumbs, layers in (
        ("summary", (FIRST, SECOND)),
        (f"summary of {SECOND}", (SECOND,)),
        ("summary", (FIRST, SECOND)),
    ):
        visit.press("3")
        assert visit.crumbs == f"small.nd.h5 › {crumbs}"
        by_category = expected(*layers)
        assert unique() == {c: len(names) for c, names in by_category.items()}
        assert concepts() == {c: names for c, names in by_category.items() if names}
        for category, names in by_category.items():
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
    visit.resize(120, 70)
    visit.press("?")
    assert visit.crumbs == "small.nd.h5 › help"
    for action in ACTIONS:
        assert any(line.startswith(f"{action.shown} ") and line.endswith(action.does) for line in visit.rows)
    for term in ("street", "!street", "cat:object", "iou>0.1", "unit:100-200", "dead", "layer:layer4", "class:street"):
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
    detectors = [str(sum(u.iou > 0.04 for u in units)) for units in (UNITS, other)]
    assert counts[1:3] in (detectors, detectors[::-1])


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
