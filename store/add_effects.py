"""Putting effects into a store that is there: atomically, all else in it as it was."""

from __future__ import annotations

from pathlib import Path

from ndissect.store.effects import Classes, Effects


def add_effects(path: Path, layer: str, classes: Classes, effects: Effects) -> None:
    """Write ``effects`` of ``layer`` into the store ``path``, in place of those that it holds.

    Where its effects are of the same images, classes, network and ``by``, their ablations that are not among the new
    ones stay. ``classes`` are written where the store has none. The file is replaced as a whole or not at all. WrongUse
    for a store without the layer, or whose classes are others; NDError as for ndissect.store.writer.write_store.
    """
    raise NotImplementedError
