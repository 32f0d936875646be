"""Where the labels of two layers agree in words: how descriptions, which have no counts, are compared.

Units are matched by their number. Two labels agree where they are the same, or have the same head noun, once case,
underscores, hyphens and the plural are set aside.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ndissect.store.scores import DETECTOR_IOU
from ndissect.tui.tables.comparison import Side

#: The rule in words, for whoever reads the numbers.
RULE = (
    "labels agree that are the same, or whose head nouns are (the last word before a comma, a preposition, and, or, "
    "that), without case, articles, underscores, hyphens and plurals"
)
#: How two labels agree, the stronger first.
SAME, HEAD = "same", "head noun"

_WORD = re.compile(r"[^\W_]+|,")
_ARTICLES = frozenset({"a", "an", "the", "some"})
# What ends the part of a description that has its head noun.
_ENDS = frozenset(
    {
        ",", "and", "or", "of", "with", "without", "in", "on", "at", "to", "from", "for", "by", "near",
        "behind", "under", "over", "above", "below", "against", "around", "inside", "outside", "between",
        "that", "which", "where", "while", "when", "is", "are", "has", "have",
    }
)  # fmt: skip


def normal_words(label: str) -> tuple[str, ...]:
    """The words of ``label`` in lower case and in the singular, without articles; a comma is a word."""
    words = (word.removesuffix("'s") for word in _WORD.findall(label.casefold().replace("'s", "")))
    return tuple(_singular(word) for word in words if word not in _ARTICLES)


def head_noun(words: tuple[str, ...]) -> str:
    """The last of ``words`` before a comma, a preposition or a conjunction; "" where there is none."""
    head = ""
    for word in words:
        if word in _ENDS and head:
            break
        head = "" if word in _ENDS else word
    return head


def agreement(one: str, other: str) -> str | None:
    """How two labels agree: ``same``, ``head noun``, or None where they do not."""
    a, b = normal_words(one), normal_words(other)
    if not a or not b:
        return None
    if a == b:
        return SAME
    head = head_noun(a)
    return HEAD if head and head == head_noun(b) else None


def _singular(word: str) -> str:
    if len(word) <= 3 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    return word[:-2] if word.endswith(("ches", "shes", "sses", "xes", "zes")) else word[:-1]


def agreement_json(a: Side, b: Side) -> dict[str, Any]:
    """The labels of the units that both layers have, and where they agree.

    ``labelled``: units with a label in both; ``detectors``: those of them whose label rests on counts with an IoU above
    0.04, in either layer, None where neither has counts.
    """
    units = min(a.view.units, b.view.units)
    counted = [side.view for side in (a, b) if side.view.descriptions is None]
    detector = np.zeros(units, bool)
    for view in counted:
        detector |= view.labels[1][:units] > DETECTOR_IOU
    sides = [_labels(side, units) for side in (a, b)]
    rows = []
    for unit, (one, other) in enumerate(zip(*sides, strict=True)):
        how = agreement(one["label"] or "", other["label"] or "")
        rows.append({"unit": unit, "a": one, "b": other, "detector": bool(detector[unit]), "agrees": how})
    both = [row for row in rows if row["a"]["label"] and row["b"]["label"]]
    detectors = [row for row in both if row["detector"]]
    return {
        "a": a.identity(),
        "b": b.identity(),
        "units": units,
        "labelled": len(both),
        "agree": sum(row["agrees"] is not None for row in both),
        "agree_same": sum(row["agrees"] == SAME for row in both),
        "detectors": len(detectors) if counted else None,
        "detectors_agree": sum(row["agrees"] is not None for row in detectors) if counted else None,
        "rows": sorted(rows, key=lambda row: (row["agrees"] is None, row["agrees"] != SAME, -_iou(row), row["unit"])),
    }


def _iou(row: dict[str, Any]) -> float:
    return max(side["iou"] if side["iou"] is not None else 0.0 for side in (row["a"], row["b"]))


def _labels(side: Side, units: int) -> list[dict[str, Any]]:
    """Label, IoU and similarity of the first ``units``; None for what is not known."""
    view = side.view
    similarity, names = view.known("similarity"), view.store.concepts
    label, value = view.labels
    return [
        {
            "label": names.label(int(label[u])) if label[u] >= 0 else None,
            "iou": None if np.isnan(value[u]) else float(value[u]),
            "similarity": None if np.isnan(similarity[u]) else float(similarity[u]),
        }
        for u in range(units)
    ]


def sentences(pair: dict[str, Any]) -> list[str]:
    """What :func:`agreement_json` says of two layers, in words."""

    def of(part: int, whole: int, what: str) -> str:
        share = f" ({100 * part / whole:.0f} %)" if whole else ""
        return f"{part} of {whole} {what}{share}"

    said = f"labels agree for {of(pair['agree'], pair['labelled'], 'units that both label')}"
    lines = [f"{said}, {pair['agree_same']} of them in all words"]
    if pair["detectors"]:
        among = of(pair["detectors_agree"], pair["detectors"], "detectors (IoU > 0.04)")
        lines.append(f"labels agree for {among} among these units")
    return lines
