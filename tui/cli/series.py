"""``nd series``: networks that differ in a factor (iterations, width, dropout ...), each dissected, and compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ndissect.engine.run.options import Options
from ndissect.store.errors import WrongUse
from ndissect.tui.cli.options import JsonOption
from ndissect.tui.cli.run_options import takes_options

if TYPE_CHECKING:
    from ndissect.tui.tables.series import Dissected

# More curves than this are no plot.
_MOST_PANELS = 12


@takes_options(
    without="network quantile_over upsampling grid union maps weights precision decode top",
    first="members factor only network layers all_convs data output plot protocol quantile min_images null",
)
def series(
    options: Options,
    members: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR|NETWORK...", help="A folder of checkpoints or with a series.csv; checkpoints; or networks."
        ),
    ],
    factor: Annotated[
        str | None,
        typer.Option(
            help="What they are compared by. Default: the table's first; checkpoints: the number after this word."
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="FACTOR=VALUE", help="Only networks with this factor; repeatable.")
    ] = None,
    network: Annotated[str | None, typer.Option(help="The network that checkpoints are weights of.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder of their stores. Default: DIR.series here.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw unique detectors against the factor: FILE.png or FILE.svg.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Dissect a series of networks, each into a store, and show unique detectors against what they differ in.

    Networks that are dissected already are not dissected again: after Ctrl-C the same command goes on.
    """
    from ndissect.engine.experiments.series import others
    from ndissect.engine.experiments.series_stores import dissect_series, plan_series
    from ndissect.tui.cli.console import TerminalConsole
    from ndissect.tui.tables.series import panels, read

    options.make_protocol()
    plan = plan_series(members, network=network, factor=factor, only=only or (), folder=output)
    if plot is not None:
        from ndissect.tui.pictures.figures import check_plot

        check_plot(plot)
        if len(others(plan.members, plan.factor)) > _MOST_PANELS:
            raise WrongUse(
                f"the plot would have {len(others(plan.members, plan.factor))} panels: the other factors differ too",
                "choose among them with --only FACTOR=VALUE",
            )
    paths = dissect_series(plan, options, TerminalConsole())
    dissected = read(plan.members, paths)
    header = _header(paths)
    if plot is not None:
        from ndissect.tui.pictures import figures
        from ndissect.tui.pictures.series_plot import draw, figure_size

        shown = panels(dissected, plan.factor)
        figures.save(plot, lambda figure: draw(figure, shown, plan.axis, header), size=figure_size(shown))
    _print(dissected, plan.factor, plan.title, header, json)


def _header(paths: Sequence[Path]) -> str:
    from ndissect.store.reader import Store
    from ndissect.tui.tables.remarks import evidence_line, mark_lines, protocol_line

    said, marked = [], []
    for path in paths:
        with Store(path) as store:
            said.append((protocol_line(store.protocol), evidence_line(store)))
            marked += [f"{path.name} {line}" for line in mark_lines(store.marks)]
    evidence = " or ".join(dict.fromkeys(line for _, line in said))  # where a null was cheap for some of them alone
    return "; ".join([*marked, said[0][0], evidence])


def _print(dissected: Sequence[Dissected], by: str, name: str, header: str, json: bool) -> None:
    from ndissect.engine.experiments.series import show
    from ndissect.tui.cli.output import PrintedColumn, PrintedTable, count, print_json, print_table
    from ndissect.tui.tables.remarks import UNIQUE

    if json:
        print_json({"factor": name, "header": header, "networks": [_as_json(d) for d in dissected]})
        return
    varying = [f for f in _factors(dissected) if f != by and len({d.member.factors.get(f) for d in dissected}) > 1]
    categories = list(dissected[0].layers[0].by_category)
    names = [] if by == "network" else [PrintedColumn("network")]  # named by their specs, which say more
    columns = [
        *names,
        PrintedColumn(name, right=bool(names)),
        *(PrintedColumn(f, right=True) for f in varying),
        PrintedColumn("layer"),
        *(PrintedColumn(t, right=True) for t in ("units", "detectors", "q<0.05", "unique/cat", "unique/best")),
        *(PrintedColumn(c, count, right=True) for c in categories),
    ]

    def value(d: Dissected, factor: str) -> str:
        return show(d.member.factors[factor]) if factor in d.member.factors else ""

    rows: list[list[Any]] = []
    for d in dissected:
        about = [*([d.member.name] if names else []), value(d, by), *(value(d, f) for f in varying)]
        rows += [
            [*about, s.layer, s.units, s.detectors, s.detectors_q05, *s.unique, *s.by_category.values()]
            for s in d.layers
        ]
    notes = [UNIQUE, header, f"stores: {dissected[0].path.parent}"]
    print_table(PrintedTable(columns, rows, notes=notes), notes_in_logs=True)


def _factors(dissected: Sequence[Dissected]) -> list[str]:
    return list(dict.fromkeys(name for d in dissected for name in d.member.factors))


def _as_json(d: Dissected) -> dict[str, Any]:
    m = d.member
    about = {"name": m.name, "network": m.network, "weights": m.weights, "factors": dict(m.factors), "store": d.path}
    return {**about, "layers": [{"layer": s.layer, "summary": s.summary} for s in d.layers]}
