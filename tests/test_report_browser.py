"""The report in a real browser, opened as a file without a network: it sorts, filters, and shows its images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import Page, browser, chromium
from test_report import HOSTILE, hostile, weighed

from ndissect.store.reader import Store
from ndissect.store.writer import write_store
from ndissect.tui.reports import report

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")

LAYERS = {"features.0": (90, (4, 5)), "layer4.1.conv2": (60, (3, 3))}
ROWS = "[...document.querySelectorAll('tr.unit')]"


def write(folder: Path, name: str, made: object) -> Path:
    write_store(folder / f"{name}.nd.h5", made)  # type: ignore[arg-type]
    path = folder / f"{name}.html"
    with Store(folder / f"{name}.nd.h5") as store, path.open("w", encoding="utf-8") as file:
        views = [store.layer(layer) for layer in store.layer_names]
        file.writelines(report.pages(store, views, [report.pictured(view, report.DETECTORS) for view in views], 3))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("report"), "some", weighed(layers=LAYERS))


@pytest.fixture
def page(made: Path, tmp_path: Path) -> Iterator[Page]:
    with browser(tmp_path) as opened:
        opened.show(1280, 900)
        opened.open(made)
        yield opened
        assert opened.complaints == []
        assert {address.partition(":")[0] for address in opened.asked} <= {"file", "data"}
        assert [address for address in opened.asked if address.startswith("file:")] == [made.as_uri()]


def shown(page: Page, key: str) -> list[str]:
    """A column of the table as it is to be seen."""
    cells = page.evaluate(f"{ROWS}.map(row => row.querySelector('td[data-key={key}]').innerText.trim())")
    assert isinstance(cells, list)
    return cells


def expected(made: Path) -> list[dict[str, object]]:
    """Every unit of the store: layer, unit, label, category, IoU, q."""
    found = []
    with Store(made.with_suffix(".nd.h5")) as store:
        for layer in store.layer_names:
            view = store.layer(layer)
            for u, (row, iou) in enumerate(zip(*view.labels, strict=True)):
                label = store.concepts.label(int(row)) if row >= 0 else ""
                category = store.concepts.category_of(int(row)) if row >= 0 else ""
                about = {"layer": layer, "unit": u, "label": label, "category": category}
                found.append({**about, "iou": float(iou), "q": None if np.isnan(q := view.evidence.q[u]) else float(q)})
    return found


def test_the_best_units_come_first_and_more_come_when_they_are_looked_for(page: Page, made: Path) -> None:
    units = sorted(expected(made), key=lambda u: -u["iou"])  # type: ignore[operator]
    ious = [f"{u['iou']:.4f}" for u in units]
    first = shown(page, "iou")
    assert 20 < len(first) < len(units)
    assert first == ious[: len(first)]
    assert page.evaluate("document.querySelector('#count').textContent") == "150 of 150 units"
    page.wait_for(f"scrollTo(0, document.body.scrollHeight), {ROWS}.length === 150")
    assert shown(page, "iou") == ious
    assert page.evaluate("document.querySelector('#more').hidden") is True


def test_a_click_on_a_title_sorts_and_another_one_turns_it(page: Page) -> None:
    page.click("th[data-key=unit] button")
    first = [int(x) for x in shown(page, "unit")]
    assert first == sorted(first)
    assert page.evaluate("document.querySelector('th[data-key=unit]').ariaSort") == "ascending"
    page.click("th[data-key=unit] button")
    last = [int(x) for x in shown(page, "unit")]
    assert last == sorted(last, reverse=True)
    assert last[0] == 89
    page.click("th[data-key=heldout_iou] button")
    held = shown(page, "heldout_iou")
    assert [x for x in held if x != "–"] == sorted((x for x in held if x != "–"), reverse=True)
    assert page.evaluate("document.querySelectorAll('th[aria-sort]').length") == 1


def test_the_keyboard_alone_is_enough(page: Page, made: Path) -> None:
    page.press("]", "s")  # descending, then by the next column, q: the smallest first
    assert page.evaluate("document.querySelector('th[aria-sort]').dataset.key") == "q"
    known = sorted(float(str(u["q"])) for u in expected(made) if u["q"] is not None)
    assert [float(x) for x in shown(page, "q")] == pytest.approx(known[:60], rel=0.05)
    page.press("]")
    assert page.evaluate("document.querySelector('th[aria-sort]').ariaSort") == "descending"

    page.press("/", "c", "a", "r", "Enter")
    assert set(shown(page, "label")) == {"car"}
    assert page.evaluate("document.activeElement.className") == "open", "on the first of the rows that were found"
    page.press("j")
    page.press("Enter")
    second = f"{ROWS}[1]"
    assert page.evaluate(f"{second}.querySelector('button').ariaExpanded") == "true"
    assert page.evaluate(f"{second}.nextElementSibling.className") == "detail"
    page.press("Enter")
    assert page.evaluate("document.querySelectorAll('tr.detail').length") == 0
    page.press("k", "ArrowDown", "ArrowDown")
    assert page.evaluate(f"{ROWS}.findIndex(row => row.contains(document.activeElement))") == 2
    page.press("/", "Escape")
    assert page.evaluate("document.querySelector('#count').textContent") == "150 of 150 units"


def test_filters_leave_the_units_that_they_name(page: Page, made: Path) -> None:
    def choose(name: str, value: str) -> None:
        page.evaluate(
            f"(e => {{ e.value = {json.dumps(value)}; e.dispatchEvent(new Event('input')) }})"
            f"(document.querySelector('#{name}'))"
        )

    def count(passes: object) -> str:
        return f"{sum(passes(u) for u in units)} of 150 units"  # type: ignore[operator]

    units = expected(made)
    said = "document.querySelector('#count').textContent"
    choose("least", "0.1")
    assert page.evaluate(said) == count(lambda u: u["iou"] >= 0.1)
    choose("layer", "1")
    assert page.evaluate(said) == count(lambda u: u["iou"] >= 0.1 and u["layer"] == "layer4.1.conv2")
    assert set(shown(page, "layer")) == {"layer4.1.conv2"}
    choose("layer", "")
    choose("least", "0")
    page.click("#significant")
    assert page.evaluate(said) == count(lambda u: u["q"] is not None and u["q"] < 0.05)
    page.click("#significant")
    categories = page.evaluate("[...document.querySelector('#category').options].map(o => o.text)")
    choose("category", str(categories.index("part") - 1))
    assert page.evaluate(said) == count(lambda u: u["category"] == "part")
    assert set(shown(page, "category")) == {"part"}
    choose("category", "")
    choose("words", "features WHEEL")
    assert page.evaluate(said) == count(lambda u: u["layer"] == "features.0" and u["label"] == "wheel")
    choose("words", "nothing of that name")
    assert page.evaluate(said) == "0 of 150 units"
    assert shown(page, "unit") == []
    page.press("j", "k", "s")  # over no rows at all


def test_a_unit_opens_with_its_images_and_its_evidence(page: Page) -> None:
    assert page.evaluate("document.images.length") == 0, "none is decoded before it is asked for"
    page.click("tr.unit td[data-key=label]")
    page.wait_for("document.images.length === 3 && [...document.images].every(i => i.complete)")
    assert page.evaluate("[...document.images].map(i => i.naturalWidth)") == [144] * 3
    said = page.evaluate("document.querySelector('tr.detail').innerText")
    for words in ("95 % interval", "of resamples", "against chance: p", "chosen on train", "AUPRC", "both px"):
        assert words in said, words
    page.click("tr.unit td[data-key=label]")
    assert page.evaluate("document.images.length") == 0
    page.click("#pictures")
    page.wait_for("document.images.length > 20 && document.images[0].complete")
    assert page.evaluate("document.images[0].naturalWidth") == 144
    page.click("tr.unit td[data-key=label]")
    assert page.evaluate("document.querySelectorAll('tr.detail .best').length") == 1


def test_a_layer_of_the_summary_brings_its_chart_and_its_units(page: Page) -> None:
    visible = "[...document.querySelectorAll('.chart')].filter(c => !c.hidden).map(c => c.dataset.layer).join()"
    assert page.evaluate(visible) == "1", "the deepest layer's at first"
    page.click(".pick[data-layer='0']")
    assert page.evaluate(visible) == "0"
    assert set(shown(page, "layer")) == {"features.0"}
    assert page.evaluate("document.querySelector('.chart svg').getBoundingClientRect().width") > 600


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_wider_than_the_window(page: Page, width: int) -> None:
    page.show(width, 800, dark=True)
    page.press("j", "Enter")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") != "rgb(255, 255, 255)"
    assert page.print().startswith(b"%PDF")


def test_what_a_hostile_store_says_is_shown_and_not_done(tmp_path: Path) -> None:
    path = write(tmp_path, "hostile", hostile(weighed()))
    with browser(tmp_path / "profile") as page:
        page.open(path)
        page.press("j", "Enter")
        assert HOSTILE in page.evaluate("document.querySelector('tr.unit').textContent")
        assert page.evaluate("document.title").startswith(HOSTILE)
        assert page.evaluate("document.querySelectorAll('img[onerror], img[src^=http]').length") == 0
        assert page.complaints == []
        assert [address for address in page.asked if not address.startswith("data:")] == [path.as_uri()]
