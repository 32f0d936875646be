"""The terminal UI by keyboard over a store whose labels have evidence: columns, orders, filters, a unit's page."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import Visit, words
from small_store import number
from store_factory import dissection
from with_evidence import PAIRINGS, with_evidence

from ndissect.store.scores import label_units
from ndissect.store.writer import write_store
from ndissect.tui.app.start import bookmark_named
from ndissect.tui.app.state import Bookmark

LAYERS = {"early": (8, (4, 5)), "layer4.1.conv2": (30, (3, 3))}
LATE = "layer4.1.conv2"
MADE = with_evidence(dissection(layers=LAYERS, groups=("train", "val")))
EVIDENCE = MADE.layers[1].evidence
assert EVIDENCE is not None
LABEL, IOU = label_units(MADE.layers[1].best)
UNITS = range(len(LABEL))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_store(tmp_path / "weighed.nd.h5", MADE)
    return tmp_path / "weighed.nd.h5"


@pytest.fixture
def visit(store: Path) -> Iterator[Visit]:
    with Visit(store, Bookmark("layers", 1, LATE)) as visit:
        yield visit


def test_80_columns_show_the_interval_q_and_held_out_iou(visit: Visit) -> None:
    assert words(visit.header) == ["unit", "label", "category", "IoU▼", "interval", "q", "held-out"]
    assert len(visit.rows) == 20
    for line in visit.rows:
        u = number(line)
        if math.isnan(EVIDENCE.q[u]):
            assert words(line)[-3:] == ["-", "-", "-"]
            continue
        q = EVIDENCE.q[u]
        assert words(line)[-3:] == [
            f"{EVIDENCE.iou_low[u]:.3f}-{EVIDENCE.iou_high[u]:.3f}",
            "<0.001" if q < 0.001 else f"{q:.3f}",
            f"{EVIDENCE.heldout_iou[u]:.3f}",
        ]
    visit.resize(119, 40)
    assert words(visit.header)[-5:] == ["held-out", "stability", "AUPRC", "threshold", "images"]
    assert "q: share of false labels" in visit.info


def test_units_are_sorted_by_q_with_the_key_that_sorts_and_unknowns_stay_last(visit: Visit) -> None:
    visit.resize(80, 50)
    for _ in range(2):
        visit.press("s")
    assert "q▲" in visit.header
    for key in ("[", "]"):
        visit.press(key)
        values = [EVIDENCE.q[number(line)] for line in visit.rows]
        known = [q for q in values if not math.isnan(q)]
        assert known == sorted(known, reverse=key == "]")
        assert len(known) < len(values)
        assert all(math.isnan(q) for q in values[len(known) :])


def test_units_are_filtered_by_evidence_while_it_is_typed(visit: Visit) -> None:
    visit.resize(80, 50)
    visit.type("/q")
    assert visit.position.endswith("/30")  # the name of a number is no word yet
    visit.type("<0.05")
    assert {number(line) for line in visit.rows} == {u for u in UNITS if EVIDENCE.q[u] < 0.05}
    visit.type(" low>0.04 significant detector\n")
    expected = {u for u in UNITS if EVIDENCE.q[u] < 0.05 and EVIDENCE.iou_low[u] > 0.04}
    assert expected
    assert {number(line) for line in visit.rows} == expected


def test_a_units_page_tells_its_evidence_in_lines_that_the_cursor_reaches_and_y_copies(store: Path) -> None:
    unit = next(u for u in UNITS if not math.isnan(EVIDENCE.q[u]))
    label = MADE.concepts.label(int(LABEL[unit]))
    with Visit(store, bookmark_named(store, f"{LATE}:{unit}")) as visit:
        at = visit.rows.index(f"evidence for {label}")
        lines = visit.rows[at + 1 : at + 5]
        assert lines[0].startswith(
            f"IoU {EVIDENCE.iou_low[unit]:.3f}-{EVIDENCE.iou_high[unit]:.3f} (95 %); the label in"
        )
        assert lines[1].startswith(f"q {EVIDENCE.q[unit]:.3g}, p {EVIDENCE.p[unit]:.3g}: ")
        assert f": {PAIRINGS} wrong pairings reach IoU " in lines[1]
        assert lines[2].startswith("held out: train chooses ")
        assert lines[3].startswith(f"AUPRC {EVIDENCE.auprc[unit]:.3f}, by chance ")
        assert visit.rows[at + 5].startswith("top images")
        visit.press(*"j" * at)
        assert visit.row.removeprefix("›").strip() == lines[0]
        visit.press("y")
        assert visit.copied == f"{LATE}:{unit}\t{lines[0]}"
        visit.press("enter")  # opens nothing, and does no harm
        assert visit.rows[at].endswith(label)
        visit.resize(50, 24)
        assert any(line.startswith("q ") and line.endswith("…") for line in visit.rows)


def test_layers_and_summary_tell_what_survives(store: Path) -> None:
    surviving = sum((EVIDENCE.q < 0.05) & (IOU > 0.04))
    with Visit(store) as visit:
        assert words(visit.header)[:4] == ["layer▲", "units", "detect", "q<0.05"]
        row = next(line for line in visit.rows if line.startswith(LATE))
        assert words(row)[1:4] == ["30", str((IOU > 0.04).sum()), str(surviving)]
        visit.press("j", "3")
        while "summary of" not in visit.crumbs:
            visit.press("3")
        assert visit.rows[0] == f"{surviving} of {(IOU > 0.04).sum()} detectors have q < 0.05"


def test_without_colour_and_in_ascii_evidence_is_told_too(store: Path) -> None:
    with Visit(store, Bookmark("layers", 1, LATE), env={"NO_COLOR": "1"}, unicode=False) as visit:
        assert words(visit.header)[-3:] == ["interval", "q", "held-out"]
        assert any("<0.001" in line for line in visit.rows)
