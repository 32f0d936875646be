"""``nd ablate LAYER --class NAME --curve``: what a class loses as more and more units are taken away."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from ndissect.store.errors import WrongUse
from ndissect.tui.cli.effect_options import labelled_layer

if TYPE_CHECKING:
    from ndissect.engine.experiments.ablation_curve import AblationCurve
    from ndissect.engine.experiments.effect_request import EffectRequest
    from ndissect.store.effects import By
    from ndissect.store.layer_view import LayerView


def curve(
    request: EffectRequest,
    *,
    class_name: str,
    label: str | None = None,
    plot: Path | None = None,
    by: By = "zero",
    json: bool = False,
    draws: int = 20,
    seed: int = 0,
) -> None:
    """Print, and draw where asked, the ablation curve of the class ``class_name``.

    ``label``: a concept of the store, whose best units are removed in another series. WrongUse for a plot that cannot
    be one and for a concept that is none, before a network is loaded; else as of open_classified and ablation_curve.
    """
    if plot is not None:
        from ndissect.tui.pictures.figures import check_plot

        check_plot(plot)
    row = None if label is None else _concept(request.store, label)

    from ndissect.engine.experiments.ablation_curve import ablation_curve
    from ndissect.engine.experiments.classified import open_classified
    from ndissect.tui.cli.console import TerminalConsole

    console = TerminalConsole()
    try:
        with console.listening(), open_classified(request, console) as c, console.saving_first():
            made = ablation_curve(c, c.class_number(class_name), by=by, label=row, draws=draws, seed=seed)
            network, data = c.network.name, c.dataset.name
    except KeyboardInterrupt as e:
        again = shlex.join(console.goes_on)
        raise console.stopped(e, "what was predicted is saved", f"go on: {again}") from None
    if plot is not None:
        _draw(plot, made, f"{network} {made.layer} on {data}: {made.class_name}")
        console.tell(str(plot))
    with labelled_layer(request.store, made.layer) as view:
        _print(made, view, network, json)


def _concept(path: Path | None, label: str) -> int:
    """The row of the one concept that ``label`` means; WrongUse for none and for several."""
    from ndissect.store.reader import Store
    from ndissect.tui.tables.selection import match_concepts

    if path is None:
        raise WrongUse("--label names a concept of a store, and there is none", "name one: -s STORE")
    with Store(path) as store:
        rows = match_concepts(store.concepts, label).tolist()
        if len(rows) > 1:
            named = ", ".join(store.concepts.label(row) for row in rows[:8])
            raise WrongUse(f"--label '{label}' means {len(rows)} concepts", f"choose one: {named}")
    return int(rows[0])


def _draw(path: Path, made: AblationCurve, what: str) -> None:
    from ndissect.tui.pictures import figures
    from ndissect.tui.pictures.ablation_plot import draw
    from ndissect.tui.tables.ablation_curve import curve_rows, said_of

    axis = f"units of {made.layer} removed, or kept (of {made.units})", f"balanced accuracy of {made.class_name}"
    note = "; ".join(said_of(made))
    figures.save(path, lambda figure: draw(figure, curve_rows(made), axis, what, note), (8.5, 4.8))


def _print(made: AblationCurve, view: LayerView | None, network: str, json: bool) -> None:
    from ndissect.tui.cli.output import PrintedColumn, PrintedTable, emit, on_terminal, print_json, print_table
    from ndissect.tui.tables.ablation_curve import MOST_IMPORTANT, curve_json, curve_rows, ranked_units, said_of, titles
    from ndissect.tui.tables.doubts import doubt_lines, doubted
    from ndissect.tui.tables.formats import iou, number, share

    if json:
        print_json({"network": network, **curve_json(made, view)})
        return
    title = f"{network} {made.layer}, {made.units} units: {made.class_name}"
    said = said_of(made)
    if not on_terminal():
        names = ["series", "n", "balanced_accuracy", "low", "high", "recall", "recall_low", "recall_high"]
        names += ["score", "score_low", "score_high"]
        rows = [[vars(row)[name] for name in names] for row in curve_rows(made)]
        columns = [PrintedColumn(name) for name in names]
        print_table(PrintedTable(columns, rows, title=title, notes=said), notes_in_logs=True)
        return
    ranked = ranked_units(made, view)[:MOST_IMPORTANT]
    columns = [
        PrintedColumn("unit", right=True),
        PrintedColumn("label"),
        PrintedColumn("IoU", iou, right=True),
        PrintedColumn("without it alone", share, right=True),
        PrintedColumn("mean score", number, right=True),
    ]
    cells = [[r.unit, doubted(r.label, r.doubt), r.iou, r.balanced_accuracy, r.score] for r in ranked]
    notes = doubt_lines((r.unit, r.doubt) for r in ranked)
    print_table(PrintedTable(columns, cells, title=f"{title}: balanced accuracy without a unit", notes=notes))
    emit("\n")
    at = {(row.series, row.n): row for row in curve_rows(made)}
    columns = [PrintedColumn("n", right=True), *(PrintedColumn(name, right=True) for name in titles(made))]
    cells = [[n, *(_cell(at.get((name, n))) for name in titles(made))] for n in sorted({n for _, n in at})]
    print_table(PrintedTable(columns, cells, title=f"{title}: balanced accuracy and its interval", notes=said))


def _cell(row: object) -> str:
    from ndissect.tui.tables.ablation_curve import CurveRow
    from ndissect.tui.tables.formats import interval, share

    if not isinstance(row, CurveRow):
        return "-"
    return f"{share(row.balanced_accuracy)} {interval(row.low, row.high)}"
