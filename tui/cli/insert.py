"""``nd insert``: where a concept can be inserted into the pictures of a generator."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ndissect.engine.run.options import Options
from ndissect.store.errors import WrongUse
from ndissect.tui.cli.generator_options import FIELDS, store_and_layer
from ndissect.tui.cli.options import ForceOption, JsonOption, LimitOption, StoreOption
from ndissect.tui.cli.run_options import takes_options

if TYPE_CHECKING:
    from ndissect.tui.tables.inserted import InsertionReport

_FIRST = "target label units samples quantile every output store limit force json"


@takes_options(only=FIELDS, first=_FIRST)
def insert(
    options: Options,
    target: Annotated[
        str | None,
        typer.Argument(metavar="[STORE:]LAYER", help="Of a generator's store: church.nd.h5:layer4. Default: its last."),
    ] = None,
    label: Annotated[str, typer.Option(metavar="CONCEPT", help="The concept that is inserted.")] = "",
    units: Annotated[
        int | None, typer.Option(min=1, help="So many of its best units, by IoU. Default: 20, or all where fewer.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="The first so many samples of the store.")] = 100,
    quantile: Annotated[
        float, typer.Option(min=0, max=1, help="Units are set to this quantile of their activations.")
    ] = 0.995,
    every: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            min=1,
            help="Every K-th row and column of the map; 1: all. Default: all up to 64 locations, else 64 at random.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Draw a heat map of the changes, and samples: FILE.png.")
    ] = None,
    store: StoreOption = None,
    limit: LimitOption = None,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Where a concept can be inserted into a generator's pictures: by what stood there before.

    The concept's units are set high at one location of the map at a time, and its new pixels counted: doors go where
    buildings are, and not into the sky. Ctrl-C keeps what was measured, and the same command goes on.
    """
    if not label:
        raise WrongUse("no concept is named", "nd insert STORE.nd.h5:layer4 --label door")
    path, layer = store_and_layer(target, store)
    _check_output(output, force)

    from ndissect.engine.experiments.generated import GeneratorRequest
    from ndissect.engine.experiments.insert import insert as run
    from ndissect.tui.cli.console import TerminalConsole
    from ndissect.tui.tables.inserted import InsertionReport

    insertion = run(
        GeneratorRequest(path, layer, options),
        label,
        units=units,
        samples=samples,
        quantile=quantile,
        every=every,
        console=TerminalConsole(),
    )
    report = InsertionReport(insertion, str(path))
    _print(report, limit, json)
    if output is not None:
        from ndissect.tui.cli.output import tell
        from ndissect.tui.pictures.insertion_heat import insertion_heat
        from ndissect.tui.pictures.overlay import save_png

        save_png(insertion_heat(report), output, {"Title": report.title, "Source": str(path)})
        tell(str(output))


def _check_output(output: Path | None, force: bool) -> None:
    """Refuse, before the work, a picture that could not be written."""
    from ndissect.store.files import check_writable
    from ndissect.tui.cli.output import confirm_replace

    if output is None:
        return
    if output.suffix.lower() != ".png":
        raise WrongUse(f"the picture is a PNG, and {output} does not end so", "for example -o heat.png")
    check_writable(output, 0)
    confirm_replace(output, force)


def _print(report: InsertionReport, limit: int | None, json: bool) -> None:
    from ndissect.tui.cli.output import PrintedColumn, PrintedTable, print_json, print_table, rows_to_print
    from ndissect.tui.tables.formats import share

    if json:
        print_json(report.to_json())
        return
    columns = [
        PrintedColumn("context"),
        PrintedColumn("locations", right=True),
        PrintedColumn("samples", right=True, drop=2),
        PrintedColumn("change", _signed, right=True),
        PrintedColumn("95 %", _range, right=True, parts=("low", "high")),
        PrintedColumn("succeeded", share, right=True),
        PrintedColumn("in square", share, right=True, drop=1),
    ]
    rows = report.rows()
    shown = rows[: rows_to_print(limit, json)]
    more = [f"{len(shown)} of {len(rows)} contexts are shown; -n 0 shows all"] if len(shown) < len(rows) else []
    cells = [[r.context, r.locations, r.samples, r.change, (r.low, r.high), r.succeeded, r.inside] for r in shown]
    table = PrintedTable(columns, cells, title=report.title, notes=[*more, *report.notes()])
    print_table(table, notes_in_logs=True)


def _signed(value: float) -> str:
    """A change of pixels: ``+12.3``."""
    return "-" if math.isnan(value) else f"{value:+.2f}" if value else "0"


def _range(ends: tuple[float, float]) -> str:
    return "-" if math.isnan(ends[0]) else f"{_signed(ends[0])} to {_signed(ends[1])}"
