"""What differs between two stores in where their numbers come from, in words."""

from __future__ import annotations

from ndissect.tui.app.session import Session
from ndissect.tui.tables.origin import Origin, origin, protocol_differences
from ndissect.tui.tables.remarks import layer_notes


def same(a: Session, b: Session) -> bool:
    """Whether both sessions read one file."""
    return a is b or (a.stamp is not None and a.stamp == b.stamp)


def differences(a: Session, b: Session) -> list[str]:
    """Which stores A and B are, and what differs in how their numbers came about, and what marks them.

    Of one store its marks alone.
    """
    if same(a, b):
        return layer_notes(a.views)
    names = [session.target.name for session in (a, b)]
    if names[0] == names[1]:
        names = [str(session.target) for session in (a, b)]
    of = origin(a.store.provenance), origin(b.store.provenance)
    marked = [f"{letter} {line}" for letter, session in (("A", a), ("B", b)) for line in layer_notes(session.views)]
    stores = f"A {names[0]}   B {names[1]}"
    return [stores, *marked, *_protocols(a, b), *_data_sets(a, b, of), *_networks(*of)]


def _protocols(a: Session, b: Session) -> list[str]:
    first, second = a.store.protocol, b.store.protocol
    differ = ", ".join(map(str, protocol_differences(first, second)))
    names = f"{first.name} / {second.name}"
    return [f"beware: the protocols differ, so IoUs cannot be compared: {names}: {differ}"] if differ else []


def _data_sets(a: Session, b: Session, of: tuple[Origin, Origin]) -> list[str]:
    data_sets = []
    for session, o in zip((a, b), of, strict=True):
        grid = session.store.grid
        images = None if o.images is None else f"{o.images:,} images"
        data_sets.append(" ".join(filter(None, (o.data, images, grid and f"on a {grid[0]}x{grid[1]} grid"))))
    known = all(o.content for o in of)
    if data_sets[0] == data_sets[1] and (not known or of[0].content == of[1].content):
        return [] if known else ["whether both saw the same data is not recorded"]
    pair = f"A {data_sets[0] or 'not recorded'}   B {data_sets[1] or 'not recorded'}"
    if not all(data_sets):
        return [f"whether both saw the same data is not recorded: {pair}"]
    more = ", called alike but of other content" if data_sets[0] == data_sets[1] else ""
    return [f"beware: the data differ, so IoUs cannot be compared: {pair}{more}"]


def _networks(a: Origin, b: Origin) -> list[str]:
    if a.network != b.network:
        return [f"networks: A {a.network or 'not recorded'}   B {b.network or 'not recorded'}"]
    pairs = (("weights", a.weights, b.weights), ("preprocessing", a.preprocess, b.preprocess))
    differ = [what for what, x, y in pairs if x and y and x != y]
    return [f"the network is the same, {a.network}, but not its {' and '.join(differ)}"] if differ else []
