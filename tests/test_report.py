"""``nd report``: one page with all numbers of a store and images of some units, and nothing that could act."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cli
import numpy as np
import pytest
import store_factory as factory
from PIL import Image

from ndissect.store.errors import WrongUse
from ndissect.store.evidence import NUMBERS, false_discovery_rate
from ndissect.store.model import Dissection
from ndissect.store.reader import Store
from ndissect.store.writer import write_store
from ndissect.tui.pictures import sheets
from ndissect.tui.pictures.concept_chart import concept_bars
from ndissect.tui.pictures.overlay import draw_panel
from ndissect.tui.reports import report

HOSTILE = r'$\frac{a$</script><script>alert(1)</script><img src="http://x.example/a.png" onerror="alert(2)">'


def weighed(**changes: Any) -> Dissection:
    """A dissection with evidence, and with q on both sides of 0.05, which so few images could not give."""
    d = factory.dissection(groups=("train", "val"), evidence=True, **changes)
    rng = np.random.default_rng(7)
    layers = []
    for layer in d.layers:
        assert layer.evidence is not None
        p = np.where(np.isnan(layer.evidence.p), np.nan, rng.uniform(0, 1, len(layer.evidence.p)) ** 4)
        layers.append(replace(layer, evidence=replace(layer.evidence, p=p, q=false_discovery_rate(p))))
    return replace(d, layers=tuple(layers))


class Elements(HTMLParser):
    """The elements of a page as a browser sees them: tags with attributes, and the text of scripts by their id."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        attributes = self.tags[-1][1] if self.tags else {}
        if self.cdata_elem == "script":
            name = attributes.get("id") or "code"
            self.scripts[name] = self.scripts.get(name, "") + data
        elif self.cdata_elem is None:
            self.text += data


def page_of(path: Path, which: str = report.DETECTORS, top: int = 2) -> tuple[str, Elements]:
    with Store(path) as store:
        views = [store.layer(name) for name in store.layer_names]
        page = "".join(report.pages(store, views, [report.pictured(view, which) for view in views], top))
    return page, Elements(page)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "some.nd.h5"
    write_store(path, weighed())
    return path


def test_the_table_holds_every_number_of_every_unit(store: Path) -> None:
    _, page = page_of(store)
    data = json.loads(page.scripts["data"])
    with Store(store) as opened:
        views = [opened.layer(name) for name in opened.layer_names]
        at = 0
        for i, view in enumerate(views):
            label, value = view.labels
            for u in range(view.units):
                units = {name: column[at] for name, column in data["units"].items()}
                assert (units["layer"], units["unit"], units["label"]) == (i, u, label[u])
                assert units["iou"] == pytest.approx(value[u], rel=1e-5)
                for name in NUMBERS:
                    expected = getattr(view.evidence, name)[u]
                    assert units[name] == (None if np.isnan(expected) else pytest.approx(expected, rel=1e-5)), name
                at += 1
        assert at == len(data["units"]["unit"])
        for row, (name, category, area) in enumerate(data["concepts"]):
            assert name == opened.concepts.label(row)
            assert data["categories"][category][0] == opened.concepts.category_of(row)
            assert area == opened.concept_counts.area.sum(0)[row]
        K = len(data["categories"])
        for k, (category, _) in enumerate(data["categories"]):
            own = opened.concepts.categories.index(category)
            assert data["best"]["concept"][k::K] == [c for view in views for c in view.best.concept[:, own]]


def test_the_summary_is_that_of_nd_inspect(store: Path) -> None:
    page, _ = page_of(store)
    with Store(store) as opened:
        for i, name in enumerate(opened.layer_names):
            row = re.search(rf'data-layer="{i}">[^<]*</button></th>(.*?)</tr>', page)
            s = opened.layer(name).summary()
            shown = re.findall(r'<td class="number">([^<]*)</td>', row[1]) if row else []
            keys = ("units", "detectors", "detectors_q05", "unique_per_category", "unique_best_label")
            assert shown == [str(s[key]) for key in keys]
            assert s["detectors_q05"] is not None


def test_the_bars_are_the_unique_detectors_per_category(store: Path) -> None:
    with Store(store) as opened:
        for name in opened.layer_names:
            view = opened.layer(name)
            bars = concept_bars(view)
            by = view.summary()["by_category"]
            assert {c: sum(bar.category == c for bar in bars) for c in by} == by
            assert sum(bar.units for bar in bars) == (view.best.iou > 0.04).sum()
    page, _ = page_of(store)
    assert page.count("<svg") == len(opened.layer_names)
    for bar in bars:
        assert bar.concept in page


def test_the_images_are_those_of_nd_overlay(store: Path) -> None:
    _, page = page_of(store, report.ALL, top=2)
    with Store(store) as opened:
        for i, name in enumerate(opened.layer_names):
            view = opened.layer(name)
            for u in range(view.units):
                shown = json.loads(page.scripts[f"images-{i}-{u}"])
                panels = sheets.unit_panels(view, u, images=2)
                assert len(shown) == len(panels) == 2
                for (jpeg, caption), panel in zip(shown, panels, strict=True):
                    assert caption == panel.caption
                    with Image.open(io.BytesIO(base64.b64decode(jpeg)), formats=["JPEG"]) as image:
                        drawn = draw_panel(panel, 144)
                        assert image.size == drawn.size
                        difference = np.asarray(image).astype(int) - np.asarray(drawn).astype(int)
                        assert np.abs(difference).mean() < 12, "a JPEG of the same picture"


def test_which_units_have_images(store: Path) -> None:
    def chosen(which: str, top: int = 1) -> set[str]:
        return {name for name in page_of(store, which, top)[1].scripts if name.startswith("images-")}

    with Store(store) as opened:
        views = [opened.layer(name) for name in opened.layer_names]
        detectors = {f"images-{i}-{u}" for i, v in enumerate(views) for u in np.flatnonzero(v.labels[1] > 0.04)}
        best = {f"images-{i}-{v.labels[1].argmax()}" for i, v in enumerate(views)}
        assert chosen(report.ALL) == {f"images-{i}-{u}" for i, v in enumerate(views) for u in range(v.units)}
        assert chosen(report.DETECTORS) == detectors
        assert chosen("1") == best
        assert chosen("0") == set()
        for wrong in ("some", "-1", "1.5", "9" * 40, "²"):
            with pytest.raises(WrongUse, match="--units"):
                report.pictured(views[0], wrong)


def hostile(d: Dissection) -> Dissection:
    """The dissection with markup for every name in it."""
    assert d.images is not None
    names = tuple(f"{HOSTILE}{i}" for i in range(len(d.concepts)))
    return replace(
        d,
        concepts=replace(d.concepts, name=names, categories=tuple(f"{c}{HOSTILE}" for c in d.concepts.categories)),
        images=replace(d.images, name=tuple(f"{HOSTILE}{name}" for name in d.images.name)),
        layers=tuple(replace(layer, name=f"{HOSTILE}${{x}} {layer.name}", module=HOSTILE) for layer in d.layers),
        provenance={
            "command": HOSTILE,
            "started": HOSTILE,
            "network": {"name": HOSTILE, "spec": f"--> <!-- {HOSTILE}", "weights_digest": HOSTILE},
            "data": {"name": HOSTILE, "images": HOSTILE, "used": [HOSTILE]},
            "versions": {HOSTILE: HOSTILE, "torch": {"x": 1}},
            "run": HOSTILE,
        },
    )


def test_nothing_that_a_store_says_can_act(tmp_path: Path, store: Path) -> None:
    path = tmp_path / "hostile.nd.h5"
    write_store(path, hostile(weighed()))
    _, harmless = page_of(store, report.ALL)
    _, found = page_of(path, report.ALL)

    def kinds(elements: Elements) -> set[tuple[str, str]]:
        return {(tag, name) for tag, attributes in elements.tags for name in attributes}

    assert kinds(found) == kinds(harmless), "no element and no attribute that the page has not by itself"
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
    code = [a for tag, a in found.tags if tag == "script" and a.get("type") != "application/json"]
    assert len(code) == 1
    assert found.scripts["code"] == harmless.scripts["code"], "the one script, which the page's policy names by digest"
    data = json.loads(found.scripts["data"])
    assert any(name.startswith(HOSTILE) for name in data["layers"]), "and it is shown as it was written"
    assert HOSTILE in found.text
    assert "$" not in harmless.text


def addresses(page: Elements) -> list[str]:
    asking = ("src", "href", "srcset", "data")
    return [v or "" for _, a in page.tags for k, v in a.items() if k.split(":")[-1] in asking]


def test_no_address_is_asked_for(store: Path) -> None:
    page, found = page_of(store, report.ALL)
    links = [a["href"] for tag, a in found.tags if tag == "a"]
    assert links
    assert all(link and link.startswith("https://arxiv.org/") for link in links), "links that a reader may follow"
    assert [x for x in addresses(found) if not x.startswith("#")] == links
    assert len(re.findall("https?:", page)) == len(links)
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = (a["content"] or "" for tag, a in found.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2]


def test_a_table_without_images_and_evidence_is_reported_as_far_as_it_goes(tmp_path: Path) -> None:
    d = factory.dissection(images=False)
    bare = [replace(x, counts=None, top=None, axes=None, map_size=None, evidence=None) for x in d.layers]
    unknown = [replace(x.statistics, threshold=np.full(len(x.best.concept), np.nan)) for x in bare]
    layers = tuple(replace(x, statistics=s) for x, s in zip(bare, unknown, strict=True))
    write_store(tmp_path / "t.nd.h5", replace(d, layers=layers, grid=None, provenance={}))
    page, found = page_of(tmp_path / "t.nd.h5", report.ALL)
    data: dict[str, Any] = json.loads(found.scripts["data"])
    assert not set(data["units"]) & {*NUMBERS, "threshold"}
    assert not [name for name in found.scripts if name.startswith("images-")]
    assert '<td class="number">–</td>' in page, "no null"
    assert "t.nd.h5" in found.text


def test_the_page_is_written_whole_and_replaced_only_if_asked(tmp_path: Path) -> None:
    place = cli.workplace(tmp_path)
    done = cli.nd("report", folder=place)
    assert (done.returncode, done.stdout) == (0, "net-small.html\n"), done.stderr
    assert "8 units, images of 6" in done.stderr
    size = (place / "net-small.html").stat().st_size
    assert cli.files_in(place) >= {"net-small.html"}
    assert not [name for name in cli.files_in(place) if name.endswith(".part")]
    page = (place / "net-small.html").read_text(encoding="utf-8")
    for words in ("net", "small", "netdissect+: q 0.2", "IoU &gt; 0.04", "torch 2", "dissect net.py:network"):
        assert words in page, words
    cli.failed(cli.nd("report", folder=place), 2, "net-small.html exists", "--force")
    assert cli.nd("report", "units", "--top", "1", "--force", folder=place).returncode == 0
    assert (place / "net-small.html").stat().st_size < size
    data = json.loads(Elements((place / "net-small.html").read_text(encoding="utf-8")).scripts["data"])
    assert data["layers"] == ["units"]


def test_what_cannot_be_reported_is_said_and_leaves_no_file(tmp_path: Path) -> None:
    place = cli.workplace(tmp_path)
    before = cli.files_in(place)
    cli.failed(cli.nd("report", "unit", folder=place), 2, "no layer 'unit'", "units")
    cli.failed(cli.nd("report", "--units", "best", folder=place), 2, "--units 'best'", "detectors")
    cli.failed(cli.nd("report", "-o", "gone/x.html", folder=place), 2, "gone does not exist", "mkdir -p gone")
    cli.failed(cli.nd("report", "--top", "-1", folder=place), 2, "--top")
    assert cli.files_in(place) == before
