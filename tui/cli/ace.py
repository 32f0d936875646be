"""``nd ace``: the average causal effect of a generator's units on a concept, and coefficients learned for it."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ndissect.engine.run.options import Options
from ndissect.store.errors import WrongUse
from ndissect.tui.cli.generator_options import FIELDS, store_and_layer
from ndissect.tui.cli.options import ForceOption, JsonOption, LimitOption, StoreOption, complete_layer
from ndissect.tui.cli.output import PrintedColumn, PrintedTable
from ndissect.tui.cli.run_options import takes_options
from ndissect.tui.tables.formats import iou, share

if TYPE_CHECKING:
    from ndissect.engine.experiments.ace import High
    from ndissect.tui.tables.causal import CausalReport, RankedUnit

HIGHS = ("mean", "quantile")
_FIRST = "target label units samples steps penalty locations held_out high draws no_store output force limit json store"


@takes_options(only=FIELDS, first=_FIRST)
def ace(
    options: Options,
    label: Annotated[str, typer.Option(metavar="CONCEPT", help="The concept.")],
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[STORE:]LAYER",
            help="A layer of a generator's store: faces.nd.h5:layer4. Default: the store's last.",
            autocompletion=complete_layer,
        ),
    ] = None,
    units: Annotated[int, typer.Option(min=1, help="So many units make a set.")] = 20,
    samples: Annotated[
        int, typer.Option(min=0, help="Samples that are looked through for the concept; 0: the store's, at most 1000.")
    ] = 0,
    steps: Annotated[
        int, typer.Option(min=0, help="Steps of learning, of 16 locations each; 0: no coefficients.")
    ] = 150,
    penalty: Annotated[float, typer.Option(min=0, help="On the L2 norm of the coefficients.")] = 0.005,
    locations: Annotated[int, typer.Option(min=1, max=1_000_000, help="Locations of training.")] = 1_000,
    held_out: Annotated[
        int, typer.Option("--held-out", min=1, max=1_000_000, help="Locations of evaluation, in other samples.")
    ] = 200,
    high: Annotated[
        str,
        typer.Option(metavar="HOW", help="High values: mean, of a unit where the concept is, or quantile, its 99.5 %."),
    ] = "mean",
    draws: Annotated[int, typer.Option(min=0, help="Random sets of as many units, to compare with.")] = 3,
    no_store: Annotated[bool, typer.Option("--no-store", help="Do not write the coefficients into the store.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the ranking of all units: FILE.csv.")
    ] = None,
    force: ForceOption = False,
    limit: LimitOption = None,
    json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """The average causal effect of a generator's units on a concept, and coefficients of all units learned for it.

    Effect: the share of the concept's pixels with the units at high values at locations where it stands, less that with
    them at zero there. Coefficients, between 0 and 1, rank units and are no effects; they are written into the store.
    Ctrl-C ends it, and nothing is written.
    """
    if high not in HIGHS:
        raise WrongUse(f"--high '{high}' is none of {', '.join(HIGHS)}", "mean is that of the units where it stands")
    _check_output(output, force)
    path, layer = store_and_layer(target, store)

    from ndissect.engine.experiments.ace import AceRequest, high_in_words, learned_how
    from ndissect.engine.experiments.ace import ace as run
    from ndissect.engine.experiments.generated import GeneratorRequest
    from ndissect.engine.experiments.unit_coefficients import TAKES_PART
    from ndissect.tui.cli.console import TerminalConsole
    from ndissect.tui.cli.effect_options import labelled_layer
    from ndissect.tui.tables.causal import CausalReport

    request = AceRequest(
        GeneratorRequest(path, layer, options),
        label,
        units=units,
        samples=samples,
        steps=steps,
        penalty=penalty,
        locations=locations,
        held_out=held_out,
        high=cast("High", high),
        draws=draws,
        write=not no_store,
    )
    console = TerminalConsole()
    with console.listening():
        found = run(request, console)
    if found.written is not None:
        console.tell(f"coefficients for {found.name} are written into {found.written}")
    how_learned = "" if found.coefficients is None else learned_how(found)
    with labelled_layer(path, found.layer) as view:
        report = CausalReport(found, view, how_learned, high_in_words(found.request.high), TAKES_PART)
        if output is not None:
            _write_csv(output, report)
            console.tell(f"wrote {output}")
        _print(report, json, limit)
    if found.unwritten is not None:
        raise found.unwritten


def _check_output(output: Path | None, force: bool) -> None:
    """Refuse, before the work, a table that could not be written."""
    from ndissect.store.files import check_writable
    from ndissect.tui.cli.output import confirm_replace

    if output is None:
        return
    if output.suffix.lower() != ".csv":
        raise WrongUse(f"the ranking is a CSV, and {output} does not end so", "for example -o ace.csv")
    check_writable(output, 0)
    confirm_replace(output, force)


def _write_csv(path: Path, report: CausalReport) -> None:
    from ndissect.store.files import atomic

    def cell(value: float) -> float | str:
        return "" if math.isnan(value) else value

    rows = report.to_json()["ranking"]
    with atomic(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(rows[0])
        writer.writerows(map(cell, row.values()) for row in rows)


def _print(report: CausalReport, json: bool, limit: int | None) -> None:
    from ndissect.tui.cli.output import emit, on_terminal, print_json, print_table, rows_to_print

    if json:
        print_json(report.to_json())
        return
    most = rows_to_print(limit, json, notes=10)
    everything = len(report.found.by_iou)
    shown = everything if most is None else min(max(most, 4), everything)
    notes = [f"{shown} of {everything} units are shown; -n 0 shows all"] if shown < everything else []
    notes += [*report.summary(), *report.how(), *report.found.notes]
    if not on_terminal():
        print_table(_ranking(report, shown, [*report.effect_lines(), *notes]), notes_in_logs=True)
        return
    print_table(_effects(report))
    emit("\n")
    print_table(_ranking(report, shown, notes))


def _effects(report: CausalReport) -> PrintedTable:
    columns = [
        PrintedColumn("units"),
        PrintedColumn("effect", _small, right=True),
        PrintedColumn("95 %", _small_interval, right=True, parts=("low", "high")),
        PrintedColumn("at high values", _share, right=True, drop=1),
        PrintedColumn("at zero", _share, right=True, drop=1),
    ]
    rows = [[report.chosen(e), e.ace, (e.low, e.high), e.inserted, e.zeroed] for e in report.found.effects]
    return PrintedTable(columns, rows, title=f"{report.title}: average causal effects")


def _ranking(report: CausalReport, rows: int, notes: list[str]) -> PrintedTable:
    """Both rankings side by side."""
    columns = [PrintedColumn("rank", right=True), PrintedColumn("unit by IoU", right=True)]
    columns += _of_units(report, ["IoU", "coefficient"], "")
    if report.learned:
        columns.append(PrintedColumn("unit by coefficient", right=True))
        columns += _of_units(report, ["coefficient", "IoU"], "its ")

    def cells(unit: RankedUnit, numbers: list[float]) -> list[Any]:
        known = numbers if report.learned else numbers[:1]
        return [unit.unit, *known, *([unit.alone] if report.measured_alone else [])]

    lines = []
    for rank, (first, second) in enumerate(report.rankings(rows), 1):
        beside = [] if second is None else cells(second, [second.coefficient, second.iou])
        lines.append([rank, *cells(first, [first.iou, first.coefficient]), *beside])
    return PrintedTable(columns, lines, title=f"{report.title}: units", notes=notes)


def _of_units(report: CausalReport, names: list[str], before: str) -> list[PrintedColumn]:
    """Columns of units in one ranking, without those that nothing is known of."""
    how = {"IoU": iou, "coefficient": share}
    known = names if report.learned else names[:1]
    columns = [PrintedColumn(before + name, how[name], right=True) for name in known]
    return columns + [PrintedColumn(f"{before}effect alone", _small, right=True, drop=1)] * report.measured_alone


def _small(value: float) -> str:
    """A change of a share: of one cell of a map there are few pixels."""
    return "-" if math.isnan(value) else f"{value:+.5f}"


def _small_interval(ends: tuple[float, float]) -> str:
    return "-" if math.isnan(ends[0]) else f"{_small(ends[0])} to {_small(ends[1])}"


def _share(value: float) -> str:
    return f"{value:.5f}"
