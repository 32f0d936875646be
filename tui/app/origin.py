"""Where a store's numbers come from, and what differs in that between two stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ndissect.store.hdf5 import clean_text
from ndissect.tui.app.session import Session


@dataclass(frozen=True)
class Origin:
    """Where a store's numbers come from, as far as it tells: "" and None stand for what it does not.

    ``weights`` and ``content`` are digests of the network's weights and of the data, ``preprocess`` is JSON-like text.
    """

    network: str
    weights: str
    preprocess: str
    data: str
    images: int | None
    content: str


def origin(provenance: Mapping[str, Any]) -> Origin:
    """What a store's ``provenance`` says of network and data; of an imported table, the table's name as the network's.

    Anybody may have written it: what is of another type than it should be counts as not told.
    """

    def part(name: str) -> Mapping[str, Any]:
        found = provenance.get(name)
        return found if isinstance(found, dict) else {}

    def text(found: Mapping[str, Any], *names: str) -> str:
        return next((clean_text(v) for name in names if isinstance(v := found.get(name), str) and v), "")

    network, data = part("network"), part("data")
    images, prepared = data.get("images"), network.get("preprocess")
    table = text(part("imported"), "file").removesuffix(".csv")
    return Origin(
        network=text(network, "name", "spec") or table,
        weights=text(network, "weights_digest"),
        preprocess="" if prepared is None else repr(prepared),
        data=text(data, "name") or Path(text(data, "path")).name,
        images=images if type(images) is int else None,
        content=text(data, "content_digest"),
    )


def same(a: Session, b: Session) -> bool:
    """Whether both sessions read one file."""
    return a is b or (a.stamp is not None and a.stamp == b.stamp)


def differences(a: Session, b: Session) -> list[str]:
    """Which stores A and B are, and what differs in how their numbers came about; nothing if they are one store."""
    if same(a, b):
        return []
    names = [session.target.name for session in (a, b)]
    if names[0] == names[1]:
        names = [str(session.target) for session in (a, b)]
    of = origin(a.store.provenance), origin(b.store.provenance)
    return [clean_text(f"A {names[0]}   B {names[1]}"), *_protocols(a, b), *_data_sets(a, b, of), *_networks(*of)]


def _protocols(a: Session, b: Session) -> list[str]:
    first, second = (session.store.protocol.to_json() for session in (a, b))
    differ = [f"{k.replace('_', ' ')} {first[k]} / {second[k]}" for k in first if k != "name" and first[k] != second[k]]
    if not differ:
        return []
    names = f"{first['name']} / {second['name']}"
    return [f"beware: the protocols differ, so IoUs cannot be compared: {names}: {', '.join(differ)}"]


def _data_sets(a: Session, b: Session, of: tuple[Origin, Origin]) -> list[str]:
    told = []
    for session, o in zip((a, b), of, strict=True):
        grid = session.store.grid
        images = None if o.images is None else f"{o.images:,} images"
        told.append(" ".join(filter(None, (o.data, images, grid and f"on a {grid[0]}x{grid[1]} grid"))))
    known = all(o.content for o in of)
    if told[0] == told[1] and (not known or of[0].content == of[1].content):
        return [] if known else ["whether both saw the same data is not recorded"]
    pair = f"A {told[0] or 'not recorded'}   B {told[1] or 'not recorded'}"
    if not all(told):
        return [f"whether both saw the same data is not recorded: {pair}"]
    more = ", called alike but of other content" if told[0] == told[1] else ""
    return [f"beware: the data differ, so IoUs cannot be compared: {pair}{more}"]


def _networks(a: Origin, b: Origin) -> list[str]:
    if a.network != b.network:
        return [f"networks: A {a.network or 'not recorded'}   B {b.network or 'not recorded'}"]
    pairs = (("weights", a.weights, b.weights), ("preprocessing", a.preprocess, b.preprocess))
    differ = [what for what, x, y in pairs if x and y and x != y]
    return [f"the network is the same, {a.network}, but not its {' and '.join(differ)}"] if differ else []
