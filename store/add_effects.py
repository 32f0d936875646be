"""Putting effects into a store that is there: atomically, all else in it as it was."""

from __future__ import annotations

from pathlib import Path

from ndissect.store import limits, parts
from ndissect.store.disk import Disk
from ndissect.store.effects import Classes, Effects, agreed, comparable, merged, without_repeats
from ndissect.store.errors import WrongUse
from ndissect.store.group_writer import write_group
from ndissect.store.hdf5 import member_name
from ndissect.store.reader import Store
from ndissect.store.rewriting import copied, rewrite
from ndissect.store.writer import check_size, write_effects


def add_effects(path: Path, layer: str, classes: Classes, effects: Effects) -> Effects | None:
    """Write ``effects`` of ``layer`` into the store ``path``, in place of those that it holds.

    Where its effects are of the same images, classes, network and ``by``, their ablations that are not among the new
    ones stay (see :func:`ndissect.store.effects.merged`); else those of the store go, and are returned. ``classes`` are
    written where the store has none, or knows them only by numbers. The file is replaced as a whole or not at all:
    what another program put there meanwhile is read again. WrongUse for a store without the layer, or whose classes are
    others; NDError as for ndissect.store.writer.write_store.
    """

    def plan(store: Store) -> tuple[Classes, Effects, Effects | None]:
        return _joined(store, layer, classes, effects)

    def write(disk: Disk, planned: tuple[Classes, Effects, Effects | None]) -> None:
        _write(path, disk, layer, *planned[:2])

    return rewrite(path, plan, write)[2]


def _joined(store: Store, layer: str, classes: Classes, effects: Effects) -> tuple[Classes, Effects, Effects | None]:
    """The classes and the effects of the layer as they are to be, and those that cannot stay beside them."""
    view = store.layer(layer)
    both = agreed(store.classes, classes)
    if both is None:
        count = len(store.classes.names) if store.classes else 0
        why = "others of that number" if count == len(classes.names) else f"{len(classes.names):,}"
        raise WrongUse(
            f"{store.path} holds effects and heads of {count:,} classes, and these are {why}",
            "use the network and the names that the store was made with, or another store",
        )
    if not limits.fits_classes(classes.names):
        raise WrongUse("the names of the classes are more than a store may hold", "shorten them (--classes FILE)")
    for units in effects.units:
        view.check_unit(max(units))
    known = view.effects
    joined = without_repeats(effects) if known is None else merged(known, effects)
    check_size(joined)
    gone = known if known is not None and not comparable(known, effects) else None
    return both, joined, gone


def _write(path: Path, disk: Disk, layer: str, classes: Classes, effects: Effects) -> None:
    """All that the store at ``path`` holds, with these classes and effects, to ``disk``."""
    name = f"{parts.LAYERS.name}/{member_name(layer)}"
    with copied(path, disk, {f"/{parts.CLASSES.name}", f"/{name}/{parts.EFFECTS.name}"}) as (new, version):
        write_group(new, parts.CLASSES, classes, version=version)
        write_effects(new[name], effects, version)
