"""The classes of a unit, or of units that were taken away together: what each class is without them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.cells import cell_len

from ndissect.store.effects import Effects, hurt_most, recall, speaks_for
from ndissect.store.layer_view import LayerView
from ndissect.tui.app.effects import SPOKEN, before, notes
from ndissect.tui.app.listing import Cell, Column, Item, Listing
from ndissect.tui.app.query import Fields, texts
from ndissect.tui.app.session import Session
from ndissect.tui.tables.effects import spoken_by_unit
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
    view = session.view(layer)
    label = "" if view.statistics.dead[unit] else session.labels[view.labels[0][unit]]
    said = [f"{layer}:{unit} {label}".rstrip()]
    row = view.effects.numbered(unit) if view.effects is not None else None
    if view.effects is not None and row is None:
        said.append("it was not taken away alone")
    speaks = speaks_for(view.head, unit) if view.head is not None else None
    numbers = _numbers(view.effects, row) if view.effects is not None else {}
    ranked = np.arange(len(session.classes)) if speaks is None else np.argsort(-speaks, kind="stable")
    if view.effects is not None and row is not None:
        ranked = _ranked(view.effects, row)
    if speaks is not None:
        numbers["speaks"] = speaks
    return _listing(session, f"classes of {layer}:{unit}", view, ranked, numbers, said, unit)


def set_classes(session: Session, layer: str, units: tuple[int, ...]) -> Listing:
    """One row a class: what it loses without all of ``units`` of ``layer``, beside other sets of as many units.

    The class that is hurt most comes first. KeyError where the store does not tell what these units do together.
    """
    view, known = session.view(layer), session.class_effects(layer)
    if view.effects is None or known is None:
        raise KeyError(units)
    row = known.sets[units]
    numbers = _numbers(view.effects, row)
    said = []
    others = [at for other, at in known.sets.items() if len(other) == len(units) and other != units]
    if others:
        numbers["others"] = view.effects.change_by(np.array(others)).mean(0)
        said.append(f"others: the mean of {len(others)} other sets of {len(units)} units")
    return _listing(
        session, f"classes without {set_name(layer, units)}", view, _ranked(view.effects, row), numbers, said
    )


def set_name(layer: str, units: Sequence[int]) -> str:
    """Units of a layer as ``nd ablate`` takes them: ``layer4:3,7,12-15``."""
    ranges: list[list[int]] = []
    for unit in sorted(units):
        if ranges and unit == ranges[-1][1] + 1:
            ranges[-1][1] = unit
        else:
            ranges.append([unit, unit])
    return f"{layer}:{','.join(str(a) if a == b else f'{a}-{b}' for a, b in ranges)}"


def _numbers(e: Effects, row: int | None) -> dict[str, Floats]:
    """What an ablation does to each class, (K,) each, by the title of its column; NaN where there is none."""
    if row is None:
        return {title: np.full(e.images.shape[1], np.nan) for title in ("change", "low", "high", "recall", "score")}
    return {
        "change": e.change_by(row),
        "low": e.low[-1, row].astype(np.float64),
        "high": e.high[-1, row].astype(np.float64),
        "recall": recall(e.hits_without[-1, row], e.images[-1]) - recall(e.hits[-1], e.images[-1]),
        "score": e.score_without[-1, row].astype(np.float64) - e.score[-1],
    }


def _ranked(effects: Effects, row: int) -> npt.NDArray[np.intp]:
    """All classes, those first that are hurt most, those without images last."""
    first = hurt_most(effects, row)
    return np.append(first, np.setdiff1d(np.arange(effects.images.shape[1]), first)).astype(np.intp)


def _listing(
    session: Session,
    name: str,
    view: LayerView,
    ranked: npt.NDArray[np.intp],
    numbers: Mapping[str, Floats],
    said: Sequence[str],
    unit: int = -1,
) -> Listing:
    """The listing ``name`` of all classes in the order ``ranked``, with ``numbers`` of each: those of ``unit``."""
    names, told = session.classes, view.effects
    images, accuracy, _ = before(told) if told else (np.full(len(names), np.nan),) * 3
    columns = {title: values[ranked] for title, values in numbers.items()}
    counted = {"images": images[ranked], "bal acc": accuracy[ranked]} if told else {}
    how = notes([view])
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
        item=lambda row: Item("class", view.name, unit, output=int(ranked[row])),
        fields=fields,
        faint=lambda row: bool(told) and not judged[row],
        plain=plain,
        copied=lambda row: "\t".join(
            [names[ranked[row]], *(f"{title} {signed(values[row])}" for title, values in columns.items())]
        ),
        notes=(*layer_notes([view]), how[0], *said, *how[1:]),
    )


@dataclass(frozen=True)
class ClassLine:
    """A line of a unit's page on a class, of number ``output``, or on several (-1); ``plain``: its values in full."""

    cells: tuple[Cell, ...]
    output: int
    plain: Mapping[str, Any]


def unit_lines(session: Session, layer: str, unit: int) -> list[ClassLine]:
    """The first few classes that need the unit; then what it speaks for and against, a text each, as far as known."""
    view, names, lines = session.view(layer), session.classes, []
    row = view.effects.numbered(unit) if view.effects is not None else None
    if view.effects is not None and row is not None:
        of, ranks = _numbers(view.effects, row), view.effects.change_by(row, 0)
        for k in (int(k) for k in hurt_most(view.effects, row)[:SPOKEN] if ranks[k] < 0):
            numbers = {title: float(values[k]) for title, values in of.items() if title != "score"}
            first, *others = map(signed, numbers.values())
            judged = "needs it" if numbers["high"] < 0 else ""
            lines.append(ClassLine((names[k], judged, first, "", *others), k, {"class": names[k], **numbers}))
    spoken = spoken_by_unit(view, unit) or []
    for word, sign, classes in (("for", 1, spoken), ("against", -1, spoken[::-1])):
        named = [f"{c['class']} {signed(c['speaks'])}" for c in classes[:SPOKEN] if sign * c["speaks"] > 0]
        if named:
            text = f"speaks {word} {', '.join(named)}"
            lines.append(ClassLine((text,), -1, {"classes": text}))
    return lines
