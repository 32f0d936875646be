"""``nd series``: networks that differ in a factor (iterations, width, dropout ...), each dissected, and compared."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ndissect.store.errors import NDError, WrongUse
from ndissect.store.files import SUFFIX, own_folder, remedy
from ndissect.store.names import safe_name
from ndissect.tui.cli.network_options import (
    AllConvsOption,
    AnywayOption,
    BatchOption,
    DataOption,
    DeviceOption,
    LayersOption,
    MaxWeightsOption,
    MeanOption,
    MemoryOption,
    MinImagesOption,
    NullOption,
    PartialOption,
    ProtocolOption,
    QuantileOption,
    SizeOption,
    SkipBadOption,
    StdOption,
    WorkersOption,
)
from ndissect.tui.cli.options import JsonOption, MaxPixelsOption

if TYPE_CHECKING:
    from ndissect.engine.experiments.series import Member
    from ndissect.store.protocol import Protocol
    from ndissect.tui.tables.series import Dissected

# More curves than this are no plot.
_MOST_PANELS = 12


def series(
    members: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR|NETWORK...", help="A folder of checkpoints or with a series.csv; checkpoints; or networks."
        ),
    ],
    factor: Annotated[
        str | None, typer.Option(help="What they are compared by. Default: the table's first; a checkpoint's number.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="FACTOR=VALUE", help="Only networks with this factor; repeatable.")
    ] = None,
    network: Annotated[str | None, typer.Option(help="The network that checkpoints are weights of.")] = None,
    layers: LayersOption = None,
    all_convs: AllConvsOption = False,
    data: DataOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder of their stores. Default: DIR.series here.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw unique detectors against the factor: FILE.png or FILE.svg.")
    ] = None,
    protocol: ProtocolOption = "netdissect",
    quantile: QuantileOption = None,
    min_images: MinImagesOption = 0,
    null: NullOption = None,
    partial: PartialOption = False,
    anyway: AnywayOption = False,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    device: DeviceOption = "auto",
    memory: MemoryOption = None,
    batch_size: BatchOption = 0,
    workers: WorkersOption = 0,
    skip_bad: SkipBadOption = False,
    max_pixels: MaxPixelsOption = None,
    max_weights: MaxWeightsOption = None,
    json: JsonOption = False,
) -> None:
    """Dissect a series of networks, each into a store, and show unique detectors against what they differ in.

    Networks that are dissected already are not dissected again: after Ctrl-C the same command goes on.
    """
    from ndissect.engine.experiments.series import choose, others, read_series
    from ndissect.store.protocol import make_protocol
    from ndissect.tui.cli import running
    from ndissect.tui.cli.dissect import dissect
    from ndissect.tui.cli.output import tell

    chosen_protocol = make_protocol(protocol, q=quantile, min_images=min_images)
    every = read_series(members, network)
    by, chosen = choose(every, _renamed(every, factor), only or ())
    if plot is not None:
        from ndissect.tui.pictures.figures import check_plot

        check_plot(plot)
        if len(others(chosen, by)) > _MOST_PANELS:
            raise WrongUse(
                f"the plot would have {len(others(chosen, by))} panels: the other factors differ too",
                "choose among them with --only FACTOR=VALUE",
            )
    folder = output or _default_folder(members)
    _make(folder, named=output is not None)
    dataset = running.open_dataset(data, max_pixels)
    paths = [folder / safe_name(member.name, SUFFIX) for member in chosen]
    for path in paths:
        _refuse_others(path, chosen_protocol, dataset.name)
    for done, (member, path) in enumerate(zip(chosen, paths, strict=True)):
        tell(f"{done + 1}/{len(chosen)} {member.name}")
        there = path.exists()
        try:
            dissect(
                member.network,
                layers=layers,
                all_convs=all_convs,
                data=data,
                output=path,
                protocol=protocol,
                quantile=quantile,
                min_images=min_images,
                weights=member.weights,
                partial=partial and member.weights is not None,
                size=size,
                mean=mean,
                std=std,
                device=device,
                memory=memory,
                batch_size=batch_size,
                workers=workers,
                null=null,
                skip_bad=skip_bad,
                max_pixels=max_pixels,
                max_weights=max_weights,
                quiet=True,
                anyway=anyway,
            )
        except NDError as e:
            raise _told(e, member, path, there, done, len(chosen)) from e
    from ndissect.tui.tables.series import read

    found = read(chosen, paths)
    name = factor or by
    header = _header(paths)
    if plot is not None:
        from ndissect.tui.pictures import figures
        from ndissect.tui.pictures.series_plot import draw, figure_size
        from ndissect.tui.tables.series import panels

        shown = panels(found, by)
        figures.save(
            plot, lambda figure: draw(figure, shown, name, header), size=figure_size(shown)
        )  # fmt: skip
    _tell_found(found, by, name, header, json)


def _renamed(members: Sequence[Member], factor: str | None) -> str | None:
    """The factor as the members know it: that of checkpoints is the user's to name."""
    from ndissect.engine.experiments.series import NUMBER

    return NUMBER if factor is not None and all(set(m.factors) == {NUMBER} for m in members) else factor


def _default_folder(given: Sequence[str]) -> Path:
    path = Path(given[0])
    if len(given) == 1 and os.path.exists(path):  # noqa: PTH110 - Path.exists raises where a name is too long
        return Path(safe_name((path if path.is_dir() else path.absolute().parent).resolve().name, ".series"))
    return Path("series")


def _make(folder: Path, *, named: bool) -> None:
    """Make the folder; a link in its place is followed only where the user has ``named`` it."""
    try:
        if named:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            own_folder(folder)
    except OSError as e:
        hint = remedy(e, "choose another with -o/--output")
        raise NDError(f"cannot make the folder {folder}: {e.strerror}", hint) from e


def _refuse_others(path: Path, protocol: Protocol, data: str) -> None:
    """WrongUse where a store of the series is there already, of another protocol or of other images."""
    from ndissect.store.reader import Store

    if not path.exists():
        return
    with Store(path) as store:
        origin = store.provenance.get("data")
        name = origin.get("name") if isinstance(origin, dict) else None
        if store.protocol != protocol:
            differ = f"protocol {store.protocol.describe()}; now {protocol.describe()}"
        elif name != data:
            differ = f"on {name}; now on {data}"
        else:
            return
    raise WrongUse(f"{path} was dissected by other rules: {differ}", "use another folder: -o, or delete it")


def _told(error: NDError, member: Member, path: Path, there: bool, done: int, total: int) -> NDError:
    """The failure of one network, with its name and what there is of the series."""
    from ndissect.tui.cli.stopping import Stopped

    so_far = f"{done} of {total} networks are dissected"
    if isinstance(error, Stopped):
        error.message += f"; {so_far}"
    elif there and isinstance(error, WrongUse) and error.message.startswith(str(path)):
        error.message = f"{path} is of other work: other weights, layers or options"
        error.hint = "use another folder: -o, or delete it"
    else:
        error.message = f"{member.name}: {error.message}"
        error.hint = f"{error.hint.rstrip('. ')}; {so_far}, the same command goes on"
    return error


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


def _tell_found(found: Sequence[Dissected], by: str, name: str, header: str, json: bool) -> None:
    from ndissect.engine.experiments.series import show
    from ndissect.tui.cli.output import PrintedColumn, PrintedTable, count, print_json, print_table
    from ndissect.tui.tables.remarks import UNIQUE

    if json:
        print_json({"factor": name, "header": header, "networks": [_as_json(d) for d in found]})
        return
    varying = [f for f in _factors(found) if f != by and len({d.member.factors.get(f) for d in found}) > 1]
    categories = list(found[0].layers[0].by_category)
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
    for d in found:
        about = [*([d.member.name] if names else []), value(d, by), *(value(d, f) for f in varying)]
        rows += [
            [*about, s.layer, s.units, s.detectors, s.detectors_q05, *s.unique, *s.by_category.values()]
            for s in d.layers
        ]
    notes = [UNIQUE, header, f"stores: {found[0].path.parent}"]
    print_table(PrintedTable(columns, rows, notes=notes), notes_in_logs=True)


def _factors(found: Sequence[Dissected]) -> list[str]:
    return list(dict.fromkeys(name for d in found for name in d.member.factors))


def _as_json(d: Dissected) -> dict[str, Any]:
    m = d.member
    about = {"name": m.name, "network": m.network, "weights": m.weights, "factors": dict(m.factors), "store": d.path}
    return {**about, "layers": [{"layer": s.layer, "summary": s.summary} for s in d.layers]}
