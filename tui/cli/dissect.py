"""``nd dissect`` and ``nd layers``: the commands that run a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ndissect.engine.run.options import Options
from ndissect.tui.cli.options import ForceOption, JsonOption
from ndissect.tui.cli.run_options import takes_options


@takes_options(first="network layers all_convs data output force restart shard")
def dissect(
    options: Options,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The store. Default: NETWORK-DATA.nd.h5 here.")
    ] = None,
    force: ForceOption = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start anew: throw away what an unfinished run has saved.")
    ] = False,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Part I of N of the images alone, for nd merge: job arrays.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no summary of the layers.")] = False,
    json: JsonOption = False,
) -> None:
    """Dissect layers of a network over labelled images into a store. Without arguments: the bundled demo."""
    from ndissect.engine.run.to_store import dissect_to_store
    from ndissect.tui.cli.console import TerminalConsole
    from ndissect.tui.cli.store_summary import print_summary

    console = TerminalConsole()
    written = dissect_to_store(options, console, output=output, force=force, restart=restart, shard=shard)
    if written is None or quiet:
        return
    if written.before:
        console.tell(f"{written.path} holds this dissection already, nothing was run; --force runs it again")
    print_summary(written.path, json)


@takes_options(
    only="network weights partial size mean std max_weights", first="network weights partial size mean std input_size"
)
def layers(
    options: Options,
    input_size: Annotated[
        str, typer.Option(help="Size of the image before the network's own transform, N or HxW.")
    ] = "224",
    every: Annotated[bool, typer.Option("--all", help="Also the modules that cannot be dissected, and why.")] = False,
    json: JsonOption = False,
) -> None:
    """List a network's layers that can be dissected: dotted name, module, units, map size."""
    from ndissect.engine.run.network_loader import network_loader, parse_size
    from ndissect.store.names import quoted
    from ndissect.tui.cli.output import PrintedColumn, PrintedTable, print_json, print_table, tell

    load = network_loader(options)
    image_size = parse_size(input_size, "--input-size")
    from ndissect.engine.networks.layers import list_layers

    network = load()
    for note in network.notes:
        tell(f"note: {note}")
    listed = [x for x in list_layers(network, image_size) if every or x.dissectable]
    if json:
        value = [
            {"layer": x.name, "module": x.module_type, "units": x.units, "map": x.map_size, "why_not": x.reason or None}
            for x in listed
        ]
        print_json({"network": network.spec, "layers": value})
        return
    rows = [
        [x.name, x.module_type, x.units, f"{x.map_size[0]}x{x.map_size[1]}" if x.map_size else x.reason] for x in listed
    ]
    columns = [
        PrintedColumn("layer"),
        PrintedColumn("module"),
        PrintedColumn("units", right=True),
        PrintedColumn("map"),
    ]
    print_table(
        PrintedTable(columns, rows, title=network.spec, notes=[f"nd dissect {quoted(network.spec)} --layers NAME"])
    )
