"""``nd compare``: layers, networks or checkpoints side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ndissect.store.errors import WrongUse
from ndissect.tui.cli import output
from ndissect.tui.cli.options import JsonOption, LimitOption, StoreOption, complete_layer


def compare(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [C ...]",
            help="Stores, STORE:LAYER, or layers of the store that -s names.",
            show_default=False,
            autocompletion=complete_layer,
        ),
    ],
    store: StoreOption = None,
    layer: Annotated[
        list[str] | None, typer.Option("--layer", "-l", help="Only this layer of the stores; repeatable.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png|FILE.svg", help="Draw the unique detectors by category.")
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Compare stores of other data or another protocol; the output says so.")
    ] = False,
    limit: LimitOption = None,
    json: JsonOption = False,
) -> None:
    """Compare B with A, and C with A: detectors, labels gained and lost, units of the same number.

    Of stores, layers of the same name are compared, or the only layers. Stores of other data or another protocol are
    refused, as their IoUs cannot be compared. With descriptions that nd import has read, which have no counts, it tells
    where the labels of units agree in words.
    """
    from ndissect.tui.tables.compared_stores import compare_stores

    if plot is not None:
        from ndissect.tui.pictures.figures import check_plot

        check_plot(plot)
    comparison = compare_stores(what, store=store, layers=layer or [], anyway=anyway)
    if "agreement" in comparison.result:
        if plot is not None:
            raise WrongUse("descriptions have no counts to draw", "leave --plot out")
        from ndissect.tui.cli.agreement_table import print_agreement

        print_agreement(comparison, limit, json)
        return
    if plot is not None:
        from ndissect.tui.pictures.comparison_plot import draw, size
        from ndissect.tui.pictures.figures import save

        save(
            plot,
            lambda figure: draw(figure, comparison.result, comparison.about),
            size(comparison.result["layers"]),
        )
    _print(comparison.result, comparison.about, limit, json)
    if plot is not None:
        output.tell(f"plot: {plot}")


def _print(result: dict[str, Any], about: list[str], limit: int | None, json: bool) -> None:
    from ndissect.tui.cli import compare_tables

    rows = output.rows_to_print(limit, json)
    if json:
        for pair in result["pairs"]:
            if pair["units"]:
                pair["units"]["rows"] = pair["units"]["rows"][:rows]
        output.print_json(result)
    elif output.on_terminal():
        compare_tables.draw(result, about, rows)
    else:
        output.print_table(compare_tables.long(result, rows))
