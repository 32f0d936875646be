"""Where a store's numbers come from, and what of that forbids to compare two stores' numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ndissect.store.protocol import Protocol
from ndissect.store.reader import Store
from ndissect.store.text import clean_text


@dataclass(frozen=True)
class Origin:
    """Where a store's numbers come from, as far as it tells: "" and None stand for what it does not.

    ``weights``, ``tables`` and ``content`` are digests of the network's weights, of the tables that define the data
    and of all that was read of it; ``preprocess`` is JSON-like text; ``images``: how many there are, ``used``: how
    many were counted; ``labels``: what made the labels where they were not made by hand, "labels by NETWORK".
    """

    network: str
    weights: str
    preprocess: str
    data: str
    labels: str
    images: int | None
    used: int | None
    tables: str
    content: str


def origin(provenance: Mapping[str, Any]) -> Origin:
    """What a store's ``provenance`` says of network and data; of an imported table, the table's name as the network's.

    Anybody may have written it: what is of another type than it should be counts as not told.
    """

    def part(name: str) -> Mapping[str, Any]:
        value = provenance.get(name)
        return value if isinstance(value, dict) else {}

    def text(values: Mapping[str, Any], *names: str) -> str:
        return next((clean_text(v) for name in names if isinstance(v := values.get(name), str) and v), "")

    def whole(values: Mapping[str, Any], name: str) -> int | None:
        value = values.get(name)
        return value if type(value) is int else None

    network, data = part("network"), part("data")
    labeller = data.get("labeller")
    makers = [text(labeller, "name", "spec") or "a network"] if isinstance(labeller, dict) else []
    makers += ["names of colours"] if text(data, "colors") else []
    labels = f"labels by {' and '.join(makers)}" if makers else ""
    prepared = network.get("preprocess")
    table = text(part("imported"), "file").removesuffix(".csv")
    return Origin(
        network=text(network, "name", "spec") or table,
        weights=text(network, "weights_digest"),
        preprocess="" if prepared is None else repr(prepared),
        data=", ".join(filter(None, (text(data, "name") or Path(text(data, "path")).name, labels))),
        labels=labels,
        images=whole(data, "images"),
        used=whole(data, "used"),
        tables=text(data, "tables_digest"),
        content=text(data, "content_digest"),
    )


@dataclass(frozen=True)
class Difference:
    """A choice or a fact in which two stores differ, with its value in either."""

    field: str
    a: str
    b: str

    def __str__(self) -> str:
        return f"{self.field} {self.a} / {self.b}"


def protocol_differences(a: Protocol, b: Protocol) -> list[Difference]:
    """The choices in which two protocols differ; their names are none."""
    first, second = a.to_json(), b.to_json()
    return [
        Difference(k.replace("_", " "), str(first[k]), str(second[k]))
        for k in first
        if k != "name" and first[k] != second[k]
    ]


def data_differences(a: Store, b: Store) -> list[Difference]:
    """What is known to differ between the data of two stores: nothing where either does not tell."""
    differences = []
    if a.grid and b.grid and a.grid != b.grid:
        differences.append(Difference("label grid", "x".join(map(str, a.grid)), "x".join(map(str, b.grid))))
    first, second = origin(a.provenance), origin(b.provenance)
    digests = [
        Difference(name, x, y)
        for name, x, y in (
            ("tables digest", first.tables, second.tables),
            ("content digest", first.content, second.content),
        )
        if x and y and x != y
    ]
    if digests:  # what a reader knows the data by comes before what tells it for certain
        known = (
            ("data", first.data, second.data),
            ("images", first.images, second.images),
            ("images used", first.used, second.used),
        )
        differences += [Difference(name, str(x), str(y)) for name, x, y in known if x and y and x != y]
    return differences + digests


def same_data(a: Store, b: Store) -> bool | None:
    """Whether two stores were counted on the same images and labels; None where that is not recorded."""
    if a is b:
        return True
    if data_differences(a, b):
        return False
    return True if origin(a.provenance).content and origin(b.provenance).content else None
