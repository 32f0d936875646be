"""Stores for tests of what tables list, and what must be listed: counted by loops from what was written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from store_factory import CATEGORIES, CONCEPTS, dissection
from with_evidence import with_evidence

from ndissect.store.model import Layer
from ndissect.store.writer import write_store
from ndissect.tui.app.listing import Listing, Order
from ndissect.tui.app.query import parse
from ndissect.tui.app.session import Session

FIRST, SECOND = "features.0", "layer4"
D = dissection(layers={FIRST: (30, (4, 5)), SECOND: (12, (3, 3))}, groups=("train", "val"), top=5)
WEIGHED = with_evidence(D)
LABELS = ("red", "blue", "car", "traffic light", "señal de tráfico", "wheel", "街道", "art gallery", "striped")
REPORT = ("object", "scene", "part", "material", "texture", "color")
CATEGORY = {label: category for label, (_, _, category) in zip(LABELS, CONCEPTS, strict=True)}
NUMBER = {label: number for label, (number, _, _) in zip(LABELS, CONCEPTS, strict=True)}
NAN = float("nan")


def written(folder: Path) -> Path:
    """``folder``, with stores: ``a`` of both layers, ``evidence`` too, ``one`` of the first, ``none`` of no layer."""
    write_store(folder / "a.nd.h5", D)
    write_store(folder / "one.nd.h5", replace(D, layers=D.layers[:1]))
    write_store(folder / "none.nd.h5", replace(D, layers=()))
    write_store(folder / "evidence.nd.h5", WEIGHED)
    return folder


def opened(path: Path) -> Iterator[Session]:
    session = Session(path)
    yield session
    session.close()


# What must come out, by loops over the counts


def layer_of(name: str) -> Layer:
    return next(layer for layer in D.layers if layer.name == name)


def counts_of(layer: str, unit: int) -> dict[str, tuple[float, int, int, int]]:
    """Label -> IoU, I, A, C: the union is taken over the images that hold a concept of the category."""
    counts, dead = layer_of(layer).counts, layer_of(layer).statistics.dead[unit]
    assert counts is not None
    found = {}
    for row, label in enumerate(LABELS):
        k = CATEGORIES.index(CATEGORY[label])
        both = sum(int(counts.intersection[g, unit, row]) for g in range(2))
        area = sum(int(counts.area_in_category[g, unit, k]) for g in range(2))
        concept = sum(int(D.concept_counts.area[g, row]) for g in range(2))
        found[label] = (both / (area + concept - both) if concept and not dead else 0.0, both, area, concept)
    return found


def best_of(ious: dict[str, float]) -> tuple[str, float]:
    """The label with the largest IoU, the first of equals; "" where all are 0."""
    value = max(ious.values(), default=0.0)
    return next((label for label in ious if ious[label] == value), "") if value > 0 else "", value


IOUS = {
    (layer.name, u): {label: found[0] for label, found in counts_of(layer.name, u).items()}
    for layer in D.layers
    for u in range(len(layer.best.concept))
}
UNIT = {at: best_of(ious) for at, ious in IOUS.items()}
WINNERS = {
    at: {k: best_of({c: v for c, v in ious.items() if CATEGORY[c] == k}) for k in CATEGORIES}
    for at, ious in IOUS.items()
}
IMAGES_OF = {label: int(D.concept_counts.images[:, row].sum()) for row, label in enumerate(LABELS)}


def of(layer: str) -> list[tuple[str, int]]:
    """The units of a layer, "" is all."""
    return [at for at in IOUS if layer in ("", at[0])]


def detectors(layer: str) -> int:
    return sum(max(IOUS[at].values()) > 0.04 for at in of(layer))


def by_category(layer: str) -> dict[str, set[str]]:
    """Category -> the concepts that win it somewhere with an IoU above 0.04."""
    return {k: {WINNERS[at][k][0] for at in of(layer) if WINNERS[at][k][1] > 0.04} for k in CATEGORIES}


def best_labels(layer: str) -> int:
    return len({UNIT[at][0] for at in of(layer) if UNIT[at][1] >= 0.04})


def all_cells(listing: Listing, order: Order | None = None, text: str = "") -> list[list[Any]]:
    rows = listing.arrange(parse(text), order)
    return [list(listing.cells(int(row))) for row in rows]


def all_plain(listing: Listing, text: str = "") -> list[dict[str, Any]]:
    return [dict(listing.plain(int(row))) for row in listing.arrange(parse(text)) if row not in listing.headings]


def column(listing: Listing, title: str) -> int:
    return [c.title for c in listing.columns].index(title)


def labelled(label: str, layer: str = "") -> list[tuple[str, int]]:
    """Units that go by the label with an IoU above 0.04."""
    return [at for at in of(layer) if UNIT[at][0] == label and UNIT[at][1] > 0.04]


def best_unit_for(label: str) -> tuple[str | None, float]:
    """Of all units, whatever they go by, the first with the largest IoU with the concept."""
    best = max(of(""), key=lambda at: IOUS[at][label])
    return (f"{best[0]}:{best[1]}", IOUS[best][label]) if IOUS[best][label] > 0 else (None, 0.0)


def sections(listing: Listing) -> dict[str, list[int]]:
    """The rows below each heading; those before any are the best of each category."""
    found: dict[str, list[int]] = {"best": []}
    for row in range(listing.count):
        if row in listing.headings:
            found[str(listing.cells(row)[0])] = []
        else:
            found[list(found)[-1]].append(row)
    return found
