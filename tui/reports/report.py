"""A report of a store as one HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.store.concepts import report_order
from ndissect.store.errors import WrongUse
from ndissect.store.layer_view import LayerView
from ndissect.store.reader import Store
from ndissect.store.scores import DETECTOR_IOU, detectors
from ndissect.store.text import clean_text
from ndissect.tui.pictures import overlay, sheets
from ndissect.tui.reports.report_classes import class_section
from ndissect.tui.reports.report_concepts import concept_section
from ndissect.tui.tables import concept_effects, remarks, views
from ndissect.tui.tables.columns import Medium, columns_of
from ndissect.tui.tables.concept_effects import has_concept_effects
from ndissect.tui.tables.effects import class_names, has_classes, unit_sentences
from ndissect.tui.tables.origin import origin
from ndissect.tui.tables.units import Array, Texts, Units, Values

#: What ``nd report --units`` takes beside a number.
ALL, DETECTORS = "all", "detectors"
#: The longer edge of an embedded image in pixels, and how well its JPEG keeps it.
_SIDE, _QUALITY = 144, 75
#: About what one takes in the page.
BYTES_AN_IMAGE = 8_000
# What the bar charts are drawn in, to become whatever the page writes with: black by day, white by night.
_INK = "#010203"


def pictured(view: LayerView, which: str) -> npt.NDArray[np.int64]:
    """The units of a layer that the report shows images of: ``all``, ``detectors``, or so many of the best, as text.

    None where the store holds no images. WrongUse for any other text.
    """
    if which not in (ALL, DETECTORS) and not (which.isdecimal() and len(which) < 10):
        raise WrongUse(f"--units '{which}' is no choice of units", f"{ALL}, {DETECTORS}, or a number: the best so many")
    if not view.has_top:
        return np.zeros(0, np.int64)
    if which == DETECTORS:
        return np.flatnonzero(detectors(view.best))
    best = np.argsort(-view.labels[1], kind="stable")
    return np.sort(best if which == ALL else best[: int(which)])


def pages(
    store: Store,
    layers: Sequence[LayerView],
    units: Sequence[npt.NDArray[np.int64]],
    top: int,
    drawn: Callable[[int], object] = lambda images: None,
) -> Iterator[str]:
    """The page, a piece at a time: the numbers of all units, and for ``units`` of each layer their ``top`` images.

    ``drawn`` is told how many images have been drawn, after each unit.
    Whatever the store says is escaped, and the page's own policy forbids any other script and any address but its own.
    """
    page = Path(__file__).with_name("report_page.html").read_text(encoding="utf-8")
    style = Path(__file__).with_name("report_page.css").read_text(encoding="utf-8")
    script = Path(__file__).with_name("report_page.js").read_text(encoding="utf-8")
    o = origin(store.provenance)
    title = " on ".join(filter(None, (o.network or store.path.name, o.data)))
    before, after = page.split("<!-- images -->")
    yield Template(before).substitute(
        title=_text(title),
        policy=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=style,
        facts="".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in facts(store).items()),
        unique=_text(remarks.UNIQUE),
        summary=_summary(layers),
        cautions="".join(f"<li>{_text(line)}</li>" for line in remarks.cautions(layers)),
        classes=class_section(layers) + concept_section(layers),
        charts="".join(_chart(i, view) for i, view in enumerate(layers)),
        data=_json(unit_data(store, layers)),
    )
    for i, (view, chosen) in enumerate(zip(layers, units, strict=True)):
        for unit in chosen if top else ():
            images = unit_images(view, int(unit), top)
            yield f'<script type="application/json" id="images-{i}-{unit}">{_json(images)}</script>\n'
            drawn(len(images))
    yield Template(after).substitute(script=script)


def facts(store: Store) -> dict[str, str]:
    """Where the numbers come from and what they were held against, as far as the store tells."""
    about = store.provenance

    def told(*path: str) -> str:
        value: Any = about
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return str(value) if isinstance(value, (str, int, float)) else ""

    o = origin(about)
    grid = f"label grid {store.grid[0]} × {store.grid[1]}" if store.grid else ""
    used = told("data", "used") or told("data", "images")
    started = told("started").replace("T", " ").replace("+00:00", " UTC")
    versions = about.get("versions")
    known = versions if isinstance(versions, Mapping) else {}
    rows = {
        "Network": [o.network, told("network", "spec"), o.weights and f"weights {o.weights[:16]}"],
        "Data": [o.data, used and f"{used} images", grid, told("imported", "file") and "imported table"],
        "Protocol": [remarks.protocol_line(store.protocol).removeprefix("protocol ")],
        "Evidence": [remarks.evidence_line(store)],
        "Marked": remarks.mark_lines(store.marks),
        "Run": [started, told("run", "device"), told("run", "arithmetic")],
        "Versions": [f"{name} {told('versions', name)}" for name in known if told("versions", str(name))],
        "Command": [told("command")],
        "Store": [store.path.name],
    }
    return {name: " · ".join(dict.fromkeys(filter(None, values))) for name, values in rows.items() if any(values)}


def said(view: LayerView, unit: int) -> list[str]:
    """What is known of the unit and the network's classes, and the concepts in a generator's pictures, in sentences."""
    return [*unit_sentences(view, unit), *concept_effects.unit_sentences(view, unit)]


def unit_data(store: Store, layers: Sequence[LayerView]) -> dict[str, Any]:
    """All units of ``layers`` by column, as JSON values; a column of numbers that no layer knows is left out.

    Texts are indices: of a layer into ``layers``, of a label into ``concepts``, -1 for none, of a category into
    ``categories`` and of a class into ``classes``, their number for none. ``said``: what is known of each unit and the
    classes, in sentences; empty where nothing is. ``columns`` says what the table's columns are called and how their
    values are written.
    """
    concepts = store.concepts
    categories = report_order(concepts.categories)
    area = store.concept_counts.area.sum(0)
    units = Units(store, layers)
    told = [
        c
        for c in columns_of(Medium.PAGE | Medium.DETAILS)
        if c.key == "iou" or (units.any_known(c) if c.only_known else _known(units.numbers(c)))
    ]
    order = [concepts.categories.index(name) for name in categories]
    alone = [view.has_ious_alone for view in layers]
    return {
        "detector": DETECTOR_IOU,
        "layers": [view.name for view in layers],
        "ious_alone": alone,
        "on_images": [view.judged_on == "images" for view in layers],
        "categories": [[name, _colour(name)] for name in categories],
        "concepts": [
            [concepts.label(row), categories.index(concepts.category_of(row)), int(area[row])]
            for row in range(len(concepts))
        ],
        "classes": class_names(layers[0]) if any(map(has_classes, layers)) else [],
        "said": [said(view, u) for view in layers for u in range(view.units)]
        if any(has_classes(view) or has_concept_effects(view) for view in layers)
        else [],
        "concept_images": store.concept_counts.images.sum(0).tolist(),
        "columns": [
            {
                "key": column.key,
                "title": column.title if column.page_heading is None else column.page_heading,
                "number": column.kind == "number",
                "first": -1 if column.kind == "number" and column.falling else 1,
                "write": column.digits,
                "help": column.help,
            }
            for column in columns_of(Medium.PAGE)
            if column in told
        ],
        "units": {column.key: _values(units[column]) for column in told},
        "best": {
            name: [value for view in layers for value in getattr(view.best, name)[:, order].ravel().tolist()]
            for name in ("concept", "intersection", "area", *(["iou"] if any(alone) else []))
        },
    }


def unit_images(view: LayerView, unit: int, top: int) -> list[list[str]]:
    """The unit's ``top`` images with its mask: base64 of a JPEG, and what is written below it."""
    images = []
    for panel in sheets.unit_panels(view, unit, images=top):
        out = io.BytesIO()
        overlay.draw_panel(panel, _SIDE).save(out, "JPEG", quality=_QUALITY)
        images.append([base64.b64encode(out.getvalue()).decode("ascii"), panel.caption])
    return images


def _summary(layers: Sequence[LayerView]) -> str:
    rows = []
    for i, view in enumerate(layers):
        s = view.summary()
        _, units, detector_count, per_category, by_label, best = views.layer_row(view)
        survive = s["detectors_q05"]
        numbers = (units, detector_count, "–" if survive is None else survive, per_category, by_label)
        cells = "".join(f'<td class="number">{n}</td>' for n in numbers)
        name = f'<button type="button" class="pick" data-layer="{i}">{_text(view.name)}</button>'
        rows.append(f'<tr><th scope="row">{name}</th>{cells}<td>{_text(best)}</td></tr>')
    return "\n".join(rows)


def _chart(number: int, view: LayerView) -> str:
    from ndissect.tui.pictures import concept_chart, figures  # noqa: PLC0415 - brings matplotlib with it

    bars = concept_chart.concept_bars(view)
    said = f"{view.name}: {len(bars)} unique detectors in {int(detectors(view.best).sum())} of {view.units} units"
    drawing = ""
    if bars:
        drawn = figures.svg(lambda f: concept_chart.draw_bars(f, bars, _INK), concept_chart.chart_size(bars))
        drawing = f'<div class="scroll">{_embedded(drawn, said)}</div>'
    return f'<figure class="chart" data-layer="{number}"><figcaption>{_text(said)}</figcaption>{drawing}</figure>\n'


def _embedded(svg: str, name: str) -> str:
    """An SVG file's element as a part of a page: without its own size, names and addresses, in the page's ink."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    head, rest = svg.split(">", 1)
    box = re.search(r'viewBox="[-0-9. ]+"', head)
    rest = re.sub(r'<g id="[^"]*"', "<g", rest).replace(_INK, "currentColor")
    return f'<svg {box[0] if box else ""} role="img" aria-label="{_text(name)}">{rest}'


def _colour(category: str) -> str:
    from ndissect.tui.pictures import figures  # noqa: PLC0415 - matplotlib takes its time

    return figures.CATEGORY_COLOUR.get(category, figures.OTHER_COLOUR)


def _known(values: Array) -> bool:
    return values.dtype.kind != "f" or bool(np.isfinite(values).any())


def _values(values: Values) -> list[Any]:
    """The values of a column as JSON values: six digits, None for what is not finite, indices for texts, 1 for true."""
    plain: list[Any] = (values.code if isinstance(values, Texts) else values).tolist()
    if isinstance(values, Texts) or values.dtype.kind != "f":
        return [int(value) for value in plain]
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in plain]


def _text(value: str) -> str:
    return html.escape(clean_text(value))


def _json(value: Any) -> str:
    """``value`` as JSON that can stand in a script element: nothing in it ends or opens one, or is unseen."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return clean_text(text).replace("<", "\\u003c")
