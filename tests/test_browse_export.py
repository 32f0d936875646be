"""The terminal UI by keyboard: rows, tables and pictures that are taken out of it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from browsing import Visit, best_ious
from small_store import BEST, FIRST, MADE, OF_FIRST, SECOND, UNITS, number

from ndissect.store.reader import Store

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
    largest = best_ious(tmp_path / "small.nd.h5")
    for concept in exported(tmp_path):
        units = [u for u in UNITS if u.label == concept["concept"]]
        assert int(concept["detectors"]) == sum(u.iou > 0.04 for u in units)
        assert float(concept["iou"]) == largest[concept["concept"]]
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
        visit.wait(lambda: visit.app.images.unseen and str(visit.app.images.unseen[0]) in visit.notice.replace(" ", ""))
        assert "no image viewer was found" in visit.notice
        (path,) = visit.app.images.unseen
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
