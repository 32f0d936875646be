"""Plots write names as they are: no formula, none left out of a legend, nothing that a viewer of SVG stumbles on."""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cli
import pytest
from hostile import harmless, name
from store_factory import dissection

from ndissect.store.reader import Store
from ndissect.store.writer import write_store
from ndissect.tui.pictures import concept_chart, figures, rotation_plot, series_plot, sweep_plot
from ndissect.tui.tables import rotated, series, swept

NAMES = ("$^$", "$x$ or $y$", "_hidden", r"a_b^c\frac", "100 %", "\ud800", "\udcff", "{red}", "<b>&amp;", name("EVIL"))
#: As they are to be read.
WRITTEN = ("$^$", "$x$ or $y$", "_hidden", r"a_b^c\frac", "100 %", "\ufffd", r"\xff", "{red}", "<b>&amp;")


def texts(svg: str) -> list[str]:
    """What is written in an SVG file, which is XML."""
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter() if element.tag.endswith("text")]


def written(draw: Callable[[Any], None], expected: Sequence[str] = WRITTEN) -> None:
    """Assert that ``draw`` draws as PNG, too, and writes each of ``expected``."""
    assert figures._drawn(draw, (7.0, 4.2), "png").startswith(b"\x89PNG")
    found = texts(figures._drawn(draw, (7.0, 4.2), "svg").decode())
    assert all(harmless(text, layout="\n") for text in found)
    for text in expected:
        assert any(text in one for one in found), (text, found)


def test_of_a_series_against_a_number() -> None:
    by_category = {category: [1.0, 2.0] for category in NAMES}
    panel = series.Panel("$^$ title_1", [1.0, 2.0], [3.0, 4.0], [2.0, 3.0], by_category)
    written(lambda f: series_plot.draw(f, [panel, panel], "$factor^", "note $_"), [*WRITTEN, "$^$ title_1", "$factor^"])


def test_of_a_series_against_a_name() -> None:
    panel = series.Panel("t", list(NAMES), [3.0] * len(NAMES), [2.0] * len(NAMES), {"_c": [1.0] * len(NAMES)})
    written(lambda f: series_plot.draw(f, [panel], "$factor^", "note $_"), [*WRITTEN, "_c", "note $_"])


def test_a_logarithmic_axis_is_marked_by_numbers() -> None:
    x = [float(2**i) for i in range(16)]
    panel = series.Panel("t", list(x), x, x, {"object": x})
    written(lambda f: series_plot.draw(f, [panel], "steps", "note"), ["100", "1000", "10000"])
    found = texts(figures.svg(lambda f: series_plot.draw(f, [panel], "steps", "note")))
    assert not any("$" in text or "math" in text for text in found)


def test_of_a_sweep() -> None:
    counts = dict.fromkeys(NAMES, 2)
    levels = tuple(swept.Level(q, (), counts, counts, 0.1) for q in (0.01, 0.005, 0.001))
    layers = [swept.SweptLayer("$^$_layer", 4, levels, (), ()) for _ in range(2)]
    written(lambda f: sweep_plot.draw(f, layers, "$title_", "$note^"), [*WRITTEN, "$title_", "$note^"])


def test_of_rotations() -> None:
    spread = {c: rotated.Spread(2.0, 0.5) for c in NAMES}
    counts = {c: rotated.Spread(3.0, 0.5) for c in (rotated.DETECTORS, rotated.PER_CATEGORY, rotated.BEST_LABEL)}
    rows = [rotated.AtAlpha(alpha, 3, counts, spread) for alpha in (0.0, 1.0)]
    written(lambda f: rotation_plot.draw(f, rows, "$title_", "$note^"), [*WRITTEN, "$title_", "rotation α"])


def test_of_concepts() -> None:
    bars = [concept_chart.Bar(text, category, 2) for text in NAMES for category in ("object", "$^$", "_k")]
    written(lambda f: concept_chart.draw_bars(f, bars), [*WRITTEN[:-1], "$^$", "_k"])


def test_of_a_comparison(tmp_path: Path) -> None:
    made = dissection(evidence=True)
    renamed = replace(
        made,
        layers=tuple(replace(layer, name=text) for layer, text in zip(made.layers, ("$^$", r"_$\frac"), strict=True)),
        concepts=replace(made.concepts, categories=(*NAMES[:5], "texture")),
    )
    write_store(tmp_path / "$^$.nd.h5", renamed)
    for suffix in ("svg", "png"):
        args = ("compare", "$^$", r"_$\frac", "-s", "$^$.nd.h5", "--plot", f"_$^$.{suffix}")
        done = cli.nd(*args, folder=tmp_path)
        assert done.returncode == 0, done.stderr
    found = texts((tmp_path / "_$^$.svg").read_text("utf-8"))
    with Store(tmp_path / "$^$.nd.h5") as store:
        for text in ("$^$", r"_$\frac", *store.concepts.categories):
            assert any(text in one for one in found), (text, found)


@pytest.mark.parametrize("text", ["a\u202eb", "a\u200bb", "a\U000e0041b"])
def test_a_report_writes_nothing_unseen(tmp_path: Path, text: str) -> None:
    made = dissection(evidence=True)
    concepts = replace(made.concepts, name=tuple(f"{text}{i}" for i in range(len(made.concepts))))
    images = replace(made.images, name=tuple(f"{text}{i}" for i in range(12)))  # type: ignore[type-var]
    write_store(tmp_path / "x.nd.h5", replace(made, concepts=concepts, images=images))
    done = cli.nd("report", "-o", "r.html", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    page = html.unescape((tmp_path / "r.html").read_text("utf-8"))
    assert "a\ufffdb" in page
    assert text[1] not in page
    assert not re.search(r"\\u(202e|200b|db40)", page)
