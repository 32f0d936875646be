"""``nd ablate`` on a generator's store: what its pictures lose without the best units for a concept, or each unit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ndissect.engine.experiments.effect_request import EffectRequest
from ndissect.store.errors import WrongUse
from ndissect.tui.cli.effect_options import labelled_layer
from ndissect.tui.cli.output import PrintedColumn, PrintedTable
from ndissect.tui.tables.formats import iou, share, signed

if TYPE_CHECKING:
    from ndissect.engine.experiments.remove import By, Removal
    from ndissect.tui.tables.removed import RemovalReport, Shares, UnitReport

BYS = ("iou", "effect")
# Other concepts that a terminal shows; pictures on a sheet.
_OTHERS, _PICTURES = 8, 6
# No layer has as many units.
_DIGITS = 7


def ablate_generator(
    request: EffectRequest,
    units: Sequence[int] | None,
    *,
    label: str | None,
    top: str | None,
    by: str | None,
    samples: int | None,
    draws: int | None,
    output: Path | None,
    force: bool,
    write: bool,
    limit: int | None,
    json: bool,
) -> None:
    """Print what is shown of a removal, and draw it to ``output``.

    WrongUse, before torch is imported, for flags that do not fit; else as of ndissect.engine.experiments.remove.
    """
    if label is None:
        given = {"--top": top, "--by": by, "--draws": draws, "--output": output}
        wrong = next((flag for flag, value in given.items() if value is not None), None)
        if wrong is not None:
            raise WrongUse(f"{wrong} goes with --label", "nd ablate STORE:LAYER --label tree --top 1,2,4,8,20")
    elif units is not None:
        raise WrongUse("--label chooses the units by itself", "nd ablate STORE:LAYER --label CONCEPT, without units")
    if by is not None and by not in BYS:
        raise WrongUse(f"--by '{by}' is none of {', '.join(BYS)}", "of a generator, --by says what ranks the units")
    tops = None if top is None else parse_tops(top)
    if output is not None:
        check_sheet(output, force)

    from ndissect.engine.experiments.generated import GeneratorRequest
    from ndissect.engine.experiments.remove import DRAWS, SAMPLES, remove, remove_each
    from ndissect.tui.cli.console import TerminalConsole
    from ndissect.tui.tables.removed import RemovalReport, UnitReport

    assert request.store is not None
    console = TerminalConsole()
    asked = GeneratorRequest(request.store, request.layer, request.options)
    if label is None:
        each = remove_each(asked, units, samples or SAMPLES, write=write, console=console)
        if each.written:
            console.tell(f"effects of {each.layer} are written into {request.store}")
        with labelled_layer(request.store, each.layer) as view:
            _print_units(UnitReport(each, view), limit, json)
        if each.unwritten is not None:
            raise each.unwritten
        return
    done = remove(
        asked,
        label,
        tops,
        cast("By", by or "iou"),
        samples or SAMPLES,
        draws or DRAWS,
        pictures=0 if output is None else _PICTURES,
        write=write,
        console=console,
    )
    with labelled_layer(request.store, done.layer) as view:
        report = RemovalReport(done, view)
        if output is not None:
            _draw(report, output, request.store)
            console.tell(str(output))
        _print_removal(report, done, limit, json)


def parse_tops(text: str) -> list[int]:
    """``1,2,4`` -> [1, 2, 4]; WrongUse for what are no numbers from 1."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) <= _DIGITS and int(part) for part in parts):
        raise WrongUse(f"--top '{text}' holds what is no number of units", "write 1,2,4,8,20")
    return sorted({int(part) for part in parts})


def check_sheet(output: Path, force: bool) -> None:
    """Refuse, before the work, a sheet that could not be written."""
    from ndissect.store.files import check_writable
    from ndissect.tui.cli.output import confirm_replace

    if output.suffix.lower() != ".png":
        raise WrongUse(f"the sheet is a PNG, and {output} does not end so", "for example -o sheet.png")
    check_writable(output, 0)
    confirm_replace(output, force)


def _draw(report: RemovalReport, output: Path, store: Path) -> None:
    from ndissect.tui.pictures.overlay import save_png
    from ndissect.tui.pictures.removal_sheet import removal_sheet

    save_png(removal_sheet(report), output, {"Title": report.title, "Source": str(store)})


def _print_removal(report: RemovalReport, done: Removal, limit: int | None, json: bool) -> None:
    from ndissect.tui.cli.output import emit, on_terminal, print_json, print_table

    if json:
        print_json(report.to_json())
        return
    if not on_terminal():
        print_table(_removals(report, report.notes()), notes_in_logs=True)
        return
    print_table(_removals(report, []))
    emit("\n")
    every = report.others()
    shown = every[: limit or None] if limit is not None else every[:_OTHERS]
    more = [f"{len(shown)} of {len(every)} other concepts are shown; -n 0 shows all"] if len(shown) < len(every) else []
    print_table(_others(report, shown, [*more, *report.notes()]))


def _removals(report: RemovalReport, notes: Sequence[str]) -> PrintedTable:
    """The concept's share without more and more of its best units."""
    from ndissect.tui.tables.removed import units_text

    columns = [
        PrintedColumn("n", right=True),
        PrintedColumn("units", lambda units: units_text([int(u) for u in units.split(",")]), drop=3),
        PrintedColumn("after", share, right=True),
        PrintedColumn("95 %", _range, right=True, parts=("low", "high")),
        PrintedColumn("change", signed, right=True),
        PrintedColumn("random", share, right=True),
        PrintedColumn("range", _range, right=True, drop=2, parts=("random_low", "random_high")),
    ]
    cells = [
        [len(s.units), ",".join(map(str, s.units)), s.after, (s.low, s.high), s.change, *_random(s)]
        for s in report.rows
    ]
    return PrintedTable(columns, cells, title=report.title, notes=notes)


def _others(report: RemovalReport, rows: Sequence[Shares], notes: Sequence[str]) -> PrintedTable:
    """The other concepts without the most units."""
    columns = [
        PrintedColumn("concept"),
        PrintedColumn("before", share, right=True),
        PrintedColumn("after", share, right=True),
        PrintedColumn("95 %", _range, right=True, parts=("low", "high")),
        PrintedColumn("change", signed, right=True),
        PrintedColumn("random", share, right=True),
        PrintedColumn("range", _range, right=True, drop=2, parts=("random_low", "random_high")),
    ]
    cells = [[s.concept, s.before, s.after, (s.low, s.high), s.change, *_random(s)] for s in rows]
    units = len(report.removal.top[-1].units)
    title = f"other concepts without {'these' if units > 1 else 'this'} {units} unit{'s' * (units != 1)}"
    return PrintedTable(columns, cells, title=title, notes=notes)


def _print_units(report: UnitReport, limit: int | None, json: bool) -> None:
    from ndissect.tui.cli.output import print_json, print_table, rows_to_print

    if json:
        print_json(report.to_json())
        return
    columns = [
        PrintedColumn("unit", right=True),
        PrintedColumn("label"),
        PrintedColumn("IoU", iou, right=True, drop=3),
        PrintedColumn("falls most", lambda name: name or "-"),
        PrintedColumn("before", share, right=True, drop=1),
        PrintedColumn("after", share, right=True),
        PrintedColumn("95 %", _range, right=True, parts=("low", "high")),
        PrintedColumn("rises most", lambda name: name or "-", drop=2),
        PrintedColumn("by", signed, right=True, drop=2),
    ]
    rows = report.rows
    shown = rows[: rows_to_print(limit, json)]
    cells = []
    for row in shown:
        f, r = row.falls, row.rises
        fall = [f.concept, f.before, f.after, (f.low, f.high)] if f else ["", _NAN, _NAN, (_NAN, _NAN)]
        cells.append([row.unit, row.label, row.iou, *fall, r.concept if r else "", r.change if r else _NAN])
    more = [f"{len(shown)} of {len(rows)} units are shown; -n 0 shows all"] if len(shown) < len(rows) else []
    print_table(PrintedTable(columns, cells, title=report.title, notes=[*more, *report.notes()]), notes_in_logs=True)


_NAN = float("nan")


def _random(shares: Shares) -> tuple[float, tuple[float, float]]:
    return shares.random, (shares.random_low, shares.random_high)


def _range(ends: tuple[float, float]) -> str:
    from ndissect.tui.tables.formats import interval

    return interval(*ends)
