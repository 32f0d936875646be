"""The classes of a unit, or of units that were taken away together: what each class is without them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.cells import cell_len

from ndissect.tui.app.effects import SPOKEN, Changes, ClassEffects, before, notes
from ndissect.tui.app.listing import Cell, Column, Item, Listing
from ndissect.tui.app.query import Fields, texts
from ndissect.tui.app.session import Session
from ndissect.tui.tables.formats import share, signed
from ndissect.tui.tables.remarks import layer_notes

Floats = npt.NDArray[np.float64]
# Where there is no room the columns with the highest go first.
_DROPS = {
    "change": 0, "low": 2, "high": 2, "recall": 4, "score": 6, "others": 1, "speaks": 3, "images": 5, "bal acc": 7,
}  # fmt: skip


def unit_classes(session: Session, layer: str, unit: int) -> Listing:
    """One row a class: what it loses without ``layer``:``unit``, and how much the unit speaks for it, as far as known.

    The class that its absence hurts most comes first; without effects, the one that it speaks for most.
    """
    known = session.class_effects(layer)
    assert known is not None
    view = session.view(layer)
    label = int(view.labels[0][unit])
    said = [f"{layer}:{unit} {session.labels[label]}".rstrip() if not view.statistics.dead[unit] else f"{layer}:{unit}"]
    if known.effects is not None and not known.known[unit]:
        said.append("it was not taken away alone")
    numbers = _numbers(known.singles, unit) if known.effects is not None else {}
    if known.head is not None:
        numbers["speaks"] = known.speaks[unit]
    return _listing(session, f"classes of {layer}:{unit}", known, known.classes_hurt(unit), numbers, said, unit)


def set_classes(session: Session, layer: str, units: tuple[int, ...]) -> Listing:
    """One row a class: what it loses without all of ``units`` of ``layer``, beside other sets of as many units.

    The class that is hurt most comes first. KeyError where the store does not tell what these units do together.
    """
    known = session.class_effects(layer)
    if known is None or known.effects is None:
        raise KeyError(units)
    row = known.sets[units]
    change, score = Changes(known.effects, np.array([row]), 0).order
    numbers = _numbers(Changes(known.effects, np.array([row])), 0)
    said = []
    others = [at for other, at in known.sets.items() if len(other) == len(units) and other != units]
    if others:
        numbers["others"] = Changes(known.effects, np.array(others)).accuracy.mean(0)
        said.append(f"others: the mean of {len(others)} other sets of {len(units)} units")
    ranked = np.lexsort((score[0], change[0]))
    return _listing(session, f"classes without {set_name(layer, units)}", known, ranked, numbers, said)


def set_name(layer: str, units: Sequence[int]) -> str:
    """Units of a layer as ``nd ablate`` takes them: ``layer4:3,7,12-15``."""
    ranges: list[list[int]] = []
    for unit in sorted(units):
        if ranges and unit == ranges[-1][1] + 1:
            ranges[-1][1] = unit
        else:
            ranges.append([unit, unit])
    return f"{layer}:{','.join(str(a) if a == b else f'{a}-{b}' for a, b in ranges)}"


def _numbers(done: Changes, row: int) -> dict[str, Floats]:
    """What an ablation does to each class, (K,) each, by the title of its column."""
    return {
        "change": done.accuracy[row],
        "low": done.low[row],
        "high": done.high[row],
        "recall": done.recall[row],
        "score": done.score[row],
    }


def _listing(
    session: Session,
    name: str,
    known: ClassEffects,
    ranked: npt.NDArray[np.intp],
    numbers: Mapping[str, Floats],
    said: Sequence[str],
    unit: int = -1,
) -> Listing:
    """The listing ``name`` of all classes in the order ``ranked``, with ``numbers`` of each: those of ``unit``."""
    names, told = session.classes, known.effects
    images, accuracy, _ = before(told) if told else (np.full(len(names), np.nan),) * 3
    columns = {title: values[ranked] for title, values in numbers.items()}
    counted = {"images": images[ranked], "bal acc": accuracy[ranked]} if told else {}
    how = notes(told) if told else ("by the weights of the linear head",)
    none = np.full(len(ranked), np.nan)
    judged = np.where(columns.get("high", none) < 0, "needs it", np.where(columns.get("low", none) > 0, "harmed", ""))
    alphabet = np.argsort(np.argsort(np.array([names[k].casefold() for k in ranked], object), kind="stable"))

    def cells(row: int) -> list[Cell]:
        about = [f"{images[ranked[row]]:.0f}", share(accuracy[ranked[row]])] if told else []
        return [
            names[ranked[row]],
            *(signed(values[row]) for values in columns.values()),
            *([str(judged[row])] if told else []),
            *about,
        ]

    def plain(row: int) -> Mapping[str, Any]:
        k = int(ranked[row])
        about = {"images": int(images[k]), "balanced_accuracy": float(accuracy[k])} if told else {}
        return {"class": names[k], "number": k, **about} | {
            title: float(values[row]) for title, values in columns.items()
        }

    def fields() -> Fields:
        effect = {"effect": columns["change"]} if told else {}
        return Fields(
            words=(texts([f"{names[k]} {word}" for k, word in zip(ranked, judged, strict=True)]),),
            numbers={"images": images[ranked], **effect},
        )

    def key(values: npt.NDArray[Any]) -> Callable[[], npt.NDArray[Any]]:
        return lambda: values

    return Listing(
        name=name,
        subject="",
        columns=(
            Column("class", 14, grows=True, most=max(map(cell_len, names), default=0), sort=key(alphabet)),
            *(
                Column(title, 7, right=True, drop=_DROPS[title], sort=key(values), descending=title == "speaks")
                for title, values in columns.items()
            ),
            *([Column("", 8, drop=1)] if told else []),
            *(
                Column(title, 7, right=True, drop=_DROPS[title], sort=key(values), descending=True)
                for title, values in counted.items()
            ),
        ),
        count=len(ranked),
        cells=cells,
        item=lambda row: Item("class", known.layer, unit, output=int(ranked[row])),
        fields=fields,
        faint=lambda row: bool(told) and not judged[row],
        plain=plain,
        copied=lambda row: "\t".join(
            [names[ranked[row]], *(f"{title} {signed(values[row])}" for title, values in columns.items())]
        ),
        notes=(*layer_notes([session.view(known.layer)]), how[0], *said, *how[1:]),
    )


@dataclass(frozen=True)
class ClassLine:
    """A line of a unit's page on a class, of number ``output``, or on several (-1); ``plain``: its values in full."""

    cells: tuple[Cell, ...]
    output: int
    plain: Mapping[str, Any]


def unit_lines(session: Session, layer: str, unit: int) -> list[ClassLine]:
    """The first few classes that need the unit; then what it speaks for and against, a text each, as far as known."""
    known = session.class_effects(layer)
    if known is None:
        return []
    names = session.classes
    lines = []
    hurt = known.classes_hurt(unit)[:SPOKEN] if known.effects is not None else ()
    for k in (int(k) for k in hurt if known.ranking.accuracy[unit, k] < 0):
        of = _numbers(known.singles, unit)
        numbers = {title: float(values[k]) for title, values in of.items() if title != "score"}
        first, *others = map(signed, numbers.values())
        judged = "needs it" if numbers["high"] < 0 else ""
        lines.append(ClassLine((names[k], judged, first, "", *others), k, {"class": names[k], **numbers}))
    for word, against in (("for", False), ("against", True)):
        spoken = [f"{names[k]} {signed(known.speaks[unit, k])}" for k in known.spoken(unit, against=against)]
        if spoken:
            text = f"speaks {word} {', '.join(spoken)}"
            lines.append(ClassLine((text,), -1, {"classes": text}))
    return lines
