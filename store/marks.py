"""What a run was warned of and went on in spite of: it stays with the numbers, in the store's provenance.

A mark is of one layer, of one of these kinds:

===============  =========================================================================================
kind             the layer
===============  =========================================================================================
``twice``        does not compute the same twice of the same images
``neighbours``   computes maps of an image that depend on the other images of its batch
``placement``    has maps that do not lie where the labels are
``weights``      passed on what weights computed that its weights file left out (random ones)
===============  =========================================================================================
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

from ndissect.store.text import clean_text

#: How a line that tells of a mark begins.
MARKED = "MARKED: "
KINDS = ("twice", "neighbours", "placement", "weights")
# Of what a store says, at most so much is read: marks a layer, and characters of a sentence.
_MOST, _LONGEST = len(KINDS), 400


@dataclass(frozen=True)
class Mark:
    """What is wrong with a layer's numbers: a ``kind`` of ``KINDS``, and a ``sentence`` for a reader."""

    layer: str
    kind: str
    sentence: str


def marks_json(marks: Sequence[Mark]) -> list[dict[str, str]]:
    """The marks as JSON values, as provenance and exports hold them."""
    return [asdict(mark) for mark in marks]


def read_marks(value: object, layers: Collection[str]) -> tuple[Mark, ...]:
    """The marks that ``value``, the ``marks`` of a provenance, holds of ``layers``.

    Anybody may have written it: what is no mark of one of the layers is left out, text is cleaned and cut.
    """
    marks: dict[tuple[str, str], Mark] = {}
    for entry in value if isinstance(value, list) else []:
        if not isinstance(entry, dict) or len(marks) >= _MOST * len(layers):
            continue
        layer, kind, sentence = (entry.get(name) for name in ("layer", "kind", "sentence"))
        if isinstance(layer, str) and layer in layers and kind in KINDS and isinstance(sentence, str):
            marks.setdefault((layer, str(kind)), Mark(layer, str(kind), clean_text(sentence[:_LONGEST])))
    return tuple(marks.values())
