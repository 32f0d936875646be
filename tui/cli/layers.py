"""``nd layers``: the layers of a network, which of them can be dissected, and why others cannot."""

from __future__ import annotations

from typing import Annotated

import typer

from ndissect.engine.run.options import Options
from ndissect.tui.cli.options import JsonOption
from ndissect.tui.cli.run_options import takes_options


@takes_options(
    only="network weights weights_key weights_prefix partial size mean std bgr map functional max_weights",
    first="network weights weights_key weights_prefix partial size mean std bgr map functional input_size",
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

    load = network_loader(options, layers_only=True)
    image_size = parse_size(input_size, "--input-size")
    from ndissect.engine.networks.layers import list_layers

    network = load()
    for note in network.notes:
        tell(f"note: {note}")
    listed = [x for x in list_layers(network, image_size, map_rule=options.map) if every or x.dissectable]
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
