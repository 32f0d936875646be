"""What is wrong with a network's layers, seen before anything is counted: refused, or marked in the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ndissect.store.errors import NDError
from ndissect.store.marks import Mark

# Layers that an error names.
_NAMED = 4


@dataclass(frozen=True)
class Fault:
    """A fault of some layers: its ``kind`` (ndissect.store.marks), what each of them does, and what to do about it."""

    kind: str
    layers: Mapping[str, str]
    hint: str

    def marks(self) -> list[Mark]:
        """A mark for each layer."""
        return [Mark(name, self.kind, said) for name, said in self.layers.items()]


def refuse(faults: Sequence[Fault]) -> None:
    """NDError with the first of ``faults``, if there is one: the layers' names, what is wrong, what to do."""
    if not faults:
        return
    first = faults[0]
    names = list(first.layers)
    others = f" (likewise {', '.join(names[1:_NAMED])}{_more(len(names))})" if len(names) > 1 else ""
    raise NDError(
        f"the layer {names[0]} {first.layers[names[0]]}{others}",
        f"{first.hint}; --anyway runs nonetheless, and marks what comes of it",
    )


def _more(names: int) -> str:
    return f" and {names - _NAMED} more" if names > _NAMED else ""
