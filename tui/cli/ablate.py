"""``nd ablate``: take units of a layer away and measure what each class loses, or what a generator's pictures do."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ndissect.engine.experiments.effect_request import EffectRequest
from ndissect.engine.run.options import Options
from ndissect.store.errors import WrongUse
from ndissect.tui.cli.effect_options import FIELDS, labelled_layer, takes_effect_options
from ndissect.tui.cli.generator_options import FIELDS as GENERATOR_FIELDS
from ndissect.tui.cli.options import ForceOption, JsonOption, LimitOption, complete_layer
from ndissect.tui.cli.output import PrintedColumn, PrintedTable
from ndissect.tui.tables.formats import iou, share

if TYPE_CHECKING:
    from ndissect.store.effects import By
    from ndissect.tui.tables.ablated import Ablated, Change, ClassRow, RandomSets, UnitRow

BYS = ("zero", "mean", "resample")
_UNITS = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*", re.ASCII)
# No layer has as many units, nor numbers of as many digits: it would be a slip.
_MOST, _DIGITS = 1 << 20, 9
# Fields of Options that fit a generator's store as well.
_FITTING = f"{GENERATOR_FIELDS} map max_weights max_pixels"
# Rows of each table on a terminal of any height.
_FEWEST = 4


@takes_effect_options(first="layer", also=GENERATOR_FIELDS, store_in="layer")
def ablate(
    request: EffectRequest,
    layer: Annotated[
        str | None,
        typer.Argument(
            metavar="[STORE:]LAYER[:UNITS]",
            help="A layer, or some of its units: layer4:3,7,12-15. Default: the store's last.",
            autocompletion=complete_layer,
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            help="What takes a unit's place: zero, its mean, or resample: another image's. Of a generator, what ranks "
            "the units for --label: iou, or effect, that of each alone.",
            show_default="zero, iou",
        ),
    ] = None,
    class_: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="One class in full: every unit, ranked.")
    ] = None,
    curve: Annotated[
        bool, typer.Option("--curve", help="The class without the n most important units, with these alone, ...")
    ] = False,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="CONCEPT",
            help="In the curve: also without the units best for it. Of a generator: remove the units best for it.",
        ),
    ] = None,
    top: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...", help="Of a generator: so many of the best units for --label.", show_default="1,2,4,8,20"
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Of a generator: the first so many samples.", show_default="250")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the curve: FILE.png or FILE.svg.")] = None,
    draws: Annotated[
        int | None,
        typer.Option(min=2, help="Random sets of as many units, to compare with.", show_default="20; of a generator 4"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Of a generator: draw pictures before and after: FILE.png."),
    ] = None,
    force: ForceOption = False,
    no_store: Annotated[bool, typer.Option("--no-store", help="Do not write the effects into the store.")] = False,
    limit: LimitOption = None,
    json: JsonOption = False,
) -> None:
    """Take units of a layer away and measure what each class loses.

    Each unit alone: the change of balanced accuracy, recall and mean score. With several UNITS also all of them
    together, beside as many random ones. On a generator's store: what its pictures lose of each concept, without the
    units that are best for a --label, or without each unit. Effects are written into the store of the labels. Ctrl-C
    keeps what was predicted, and the same command goes on.
    """
    name, units = parse_units(layer)
    request = replace(request, layer=name)
    if request.store is not None and is_of_generator(request.store):
        demand_fitting(
            request,
            {"--class": class_, "--curve": curve, "--plot": plot},
            FIELDS,
            f"{GENERATOR_FIELDS} map max_weights max_pixels",
        )
        from ndissect.tui.cli.ablate_generator import ablate_generator

        ablate_generator(
            request,
            units,
            label=label,
            top=top,
            by=by,
            samples=samples,
            draws=draws,
            output=output,
            force=force,
            write=not no_store,
            limit=limit,
            json=json,
        )
        return
    demand_fitting(request, {"--top": top, "--samples": samples, "--output": output}, GENERATOR_FIELDS, FIELDS)
    by, draws = by or "zero", draws or 20
    if by not in BYS:
        raise WrongUse(f"--by '{by}' is none of {', '.join(BYS)}", "zero sets a unit to zero")
    if curve:
        if class_ is None or units is not None:
            raise WrongUse("--curve is of one class, over all units of a layer", "nd ablate LAYER --class NAME --curve")
        from ndissect.tui.cli.ablate_curve import curve as show_curve

        show_curve(request, class_name=class_, label=label, plot=plot, by=cast("By", by), json=json, draws=draws)
        return
    if label is not None or plot is not None:
        raise WrongUse("--label and --plot go with --curve", "nd ablate LAYER --class NAME --curve")

    from ndissect.engine.experiments.ablate import ablate as run
    from ndissect.tui.cli.console import TerminalConsole
    from ndissect.tui.tables.ablated import Ablated

    console = TerminalConsole()
    done = run(request, units, cast("By", by), class_name=class_, draws=draws, write=not no_store, console=console)
    if done.written is not None:
        console.tell(f"effects of {done.layer} are written into {done.written}")
    with labelled_layer(request.store, done.layer) as view:
        _print(Ablated(done, view), json, limit)
    if done.unwritten is not None:
        raise done.unwritten


def is_of_generator(path: Path) -> bool:
    """Whether a store is of a generator."""
    from ndissect.store.reader import Store

    with Store(path) as store:
        return isinstance(store.provenance.get("generator"), dict)


def demand_fitting(request: EffectRequest, flags: dict[str, object], wrong: str, fitting: str) -> None:
    """WrongUse where one of ``flags`` is given, or an option of the fields ``wrong`` that is none of ``fitting``."""
    known = {field.name: field.default for field in fields(Options)}
    others = [name for name in wrong.split() if name not in fitting.split()]
    given = {f"--{name.replace('_', '-')}": getattr(request.options, name) != known[name] for name in others}
    if wrong == FIELDS:
        given |= {"--network": request.network, "--images": request.images}
    for flag, value in {**flags, **given}.items():
        if value not in (None, False):
            what = "a generator" if wrong == FIELDS else "a network that sees images"
            raise WrongUse(
                f"{request.store or 'this network'} is of {what}: {flag} does not go with it", "leave it out"
            )


def parse_units(text: str | None) -> tuple[str | None, list[int] | None]:
    """The layer and the units that ``LAYER[:UNITS]`` names, rising, None for all; WrongUse for what are no units."""
    name, colon, units = (text or "").rpartition(":")
    if not colon:
        return text, None
    wrong = WrongUse(f"'{text}' names no units", "write LAYER, LAYER:7, LAYER:3,7,12 or LAYER:3-9")
    if not name or not _UNITS.fullmatch(units):
        raise wrong
    chosen: set[int] = set()
    for part in units.split(","):
        first, _, last = part.partition("-")
        if not len(part) <= 2 * _DIGITS or not 0 <= int(last or first) - int(first) < _MOST:
            raise wrong
        chosen.update(range(int(first), int(last or first) + 1))
    return name, sorted(chosen)


def _print(ablated: Ablated, json: bool, limit: int | None) -> None:
    from ndissect.tui.cli.output import emit, on_terminal, print_json, print_table, rows_to_print

    if json:
        print_json(ablated.to_json())
        return
    number = ablated.ablation.class_number
    if number is not None:
        rows = ablated.of_class(number)
        shown = rows[: rows_to_print(limit, json)]
        notes = [*_more(len(shown), len(rows), "units"), _OF_CLASS, *ablated.notes(shown)]
        print_table(_of_class(ablated, number, shown, notes), notes_in_logs=True)
        return
    if not on_terminal():
        print_table(_by_unit(ablated, ablated.units[: limit or None], ablated.notes([])), notes_in_logs=True)
        return
    most = rows_to_print(limit, json)
    some = most if limit is not None or most is None else max(_FEWEST, most // 2)  # there are two tables
    classes, units, sets = ablated.classes[:some], ablated.units[:some], ablated.together(some)
    tables = [
        _by_class(ablated, classes, _more(len(classes), len(ablated.classes), "classes")),
        _by_unit(ablated, units, _more(len(units), len(ablated.units), "units")),
    ]
    if sets:
        tables.append(_together(ablated, sets))
    shown = [change for row in classes for change in row.needs[:1]] + [row.hurt for row in units]
    tables[-1] = replace(tables[-1], notes=[*tables[-1].notes, *ablated.notes(shown)])
    for i, table in enumerate(tables):
        if i:
            emit("\n")
        print_table(table)


def _more(shown: int, there: int, what: str) -> list[str]:
    return [f"{shown} of {there} {what} are shown; -n 0 shows all"] if shown < there else []


def _by_class(ablated: Ablated, rows: Sequence[ClassRow], notes: Sequence[str]) -> PrintedTable:
    """The unit that each class needs most, and the next ones."""
    columns = [
        PrintedColumn("class"),
        PrintedColumn("images", right=True, drop=3),
        PrintedColumn("bal. acc.", share, right=True, drop=2),
        PrintedColumn("needs unit", right=True),
        PrintedColumn("label"),
        PrintedColumn("IoU", iou, right=True, drop=5),
        PrintedColumn("change", _signed, right=True),
        PrintedColumn("95 %", _range, right=True, parts=("low", "high")),
        PrintedColumn("random unit", _signed, right=True, drop=1),
        PrintedColumn("then", drop=6),
    ]
    cells = []
    for row in rows:
        first = row.needs[0]
        then = "; ".join(f"{c.unit} {c.label} {_signed(c.change)}".replace("  ", " ") for c in row.needs[1:])
        numbers = [row.name, row.images, row.balanced_accuracy, first.unit, first.label, first.iou, first.change]
        cells.append([*numbers, (first.low, first.high), row.random, then])
    title = f"{ablated.title}: the units that classes need most"
    return PrintedTable(columns, cells, title=title, notes=notes)


def _by_unit(ablated: Ablated, rows: Sequence[UnitRow], notes: Sequence[str]) -> PrintedTable:
    """The class that each unit hurts most to lose, and that which it helps most."""
    columns = [
        PrintedColumn("unit", right=True),
        PrintedColumn("label"),
        PrintedColumn("IoU", iou, right=True, drop=3),
        PrintedColumn("hurts most", lambda name: name or "-"),
        PrintedColumn("change", _signed, right=True),
        PrintedColumn("95 %", _range, right=True, parts=("low", "high")),
        PrintedColumn("helps most", lambda name: name or "-", drop=2),
        PrintedColumn("by", _signed, right=True, drop=2),
        PrintedColumn("95 %", _range, right=True, drop=4, parts=("by_low", "by_high")),
    ]
    cells = []
    for row in rows:
        hurt, helped = row.hurt, row.helped
        line = [hurt.unit, hurt.label, hurt.iou]
        line += [hurt.name, hurt.change, (hurt.low, hurt.high)] if row.hurts else ["", _NAN, (_NAN, _NAN)]
        other = (helped.name, helped.change, (helped.low, helped.high)) if helped else ("", _NAN, (_NAN, _NAN))
        cells.append([*line, *other])
    return PrintedTable(columns, cells, title=f"{ablated.title}: classes hurt and helped without a unit", notes=notes)


def _of_class(ablated: Ablated, number: int, rows: Sequence[Change], notes: Sequence[str]) -> PrintedTable:
    """Every unit in regard to one class."""
    columns = [
        PrintedColumn("unit", right=True),
        PrintedColumn("label"),
        PrintedColumn("IoU", iou, right=True, drop=2),
        PrintedColumn("bal. acc.", share, right=True, drop=1),
        PrintedColumn("change", _signed, right=True),
        PrintedColumn("95 %", _range, right=True, parts=("low", "high")),
        PrintedColumn("recall", _signed, right=True),
        PrintedColumn("score", _signed_number, right=True),
    ]
    cells = [
        [c.unit, c.label, c.iou, c.balanced_accuracy, c.change, (c.low, c.high), c.recall_change, c.score_change]
        for c in rows
    ]
    return PrintedTable(columns, cells, title=[f"{ablated.title}: {ablated.of_all(number)}"], notes=notes)


def _together(ablated: Ablated, rows: Sequence[tuple[Change, RandomSets | None]]) -> PrintedTable:
    """What all units that were asked for do to each class, beside random sets."""
    columns = [
        PrintedColumn("class"),
        PrintedColumn("bal. acc.", share, right=True, drop=1),
        PrintedColumn("change", _signed, right=True),
        PrintedColumn("95 %", _range, right=True, parts=("low", "high")),
        PrintedColumn("random", _signed, right=True),
        PrintedColumn("range", _range, right=True, parts=("random_low", "random_high")),
    ]
    cells = [
        [c.name, c.balanced_accuracy, c.change, (c.low, c.high), *((r.mean, (r.low, r.high)) if r else _NO_RANDOM)]
        for c, r in rows
    ]
    title = f"{ablated.title}: without all {len(rows[0][0].units)} units together"
    return PrintedTable(columns, cells, title=title)


_OF_CLASS = "recall, score: their changes, of the class's own images; equal changes are ranked by that of the score"
_NAN = math.nan
_NO_RANDOM = (_NAN, (_NAN, _NAN))


def _signed(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:+.3f}" if value else "0"


def _range(ends: tuple[float, float]) -> str:
    if math.isnan(ends[0]):
        return "-"
    return f"{_signed(ends[0])} {_signed(ends[1])}" if any(ends) else "0"


def _signed_number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.3g}"
