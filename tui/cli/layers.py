"""``nd layers``: the layers of a network, which of them can be dissected, and why others cannot."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from ndissect.engine.run.options import Options
from ndissect.tui.cli.options import JsonOption
from ndissect.tui.cli.run_options import takes_options

if TYPE_CHECKING:
    from torch import nn

    from ndissect.engine.networks.layers import LayerInfo
    from ndissect.tui.cli.layer_tree import ListedLayer

_NETWORK = "network weights weights_key weights_prefix partial size mean std bgr map functional"
# Lines of a screen that are not the tree's: title, heading, notes, the next prompt.
_AROUND = 6


@takes_options(
    only=f"{_NETWORK} max_weights layers generator latent latents class_of",
    first=f"{_NETWORK} input_size layers generator latent latents class_of",
    texts={
        "layers": "Only these and what is inside them, by dotted name or glob; repeatable.",
        "generator": "The network draws images of latents; one that says `generator = True` needs no flag.",
    },
)
def layers(
    options: Options,
    input_size: Annotated[
        str, typer.Option(help="Size of the image before the network's own transform, N or HxW.")
    ] = "224",
    depth: Annotated[
        int | None,
        typer.Option(min=1, help="Levels of the tree on a terminal. Default: as many as the screen has room for."),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every module: all levels, and those that cannot be dissected, and why.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """List a network's layers that can be dissected: dotted name, module, units, map size.

    On a terminal as a tree of all modules, in which repeated blocks stand together; elsewhere a line a layer.
    """
    from ndissect.engine.run.network_loader import network_loader, parse_size
    from ndissect.store.names import quoted
    from ndissect.tui.cli import output

    load = network_loader(options, layers_only=True)
    image_size = parse_size(input_size, "--input-size")
    from ndissect.engine.networks.layers import list_layers
    from ndissect.engine.run.generated import as_drawing

    network = load()
    network = as_drawing(options, network)
    for note in network.notes:
        output.tell(f"note: {note}")
    infos = list_layers(network, image_size, map_rule=options.map, patterns=options.layers)
    listed = [x for x in _listed(network.module, infos) if _is_within(x.name, _chosen(options.layers, infos))]
    if output.on_terminal() and not json:
        hint = f"nd dissect {quoted(network.spec)}{' --functional' * options.functional} --layers NAME"
        _print_tree(listed, network.spec, hint, sys.maxsize if every else depth, unfold=every)
        return
    listed = [x for x in listed if every or not x.reason]
    if json:
        output.print_json({"network": network.spec, "layers": [_as_json(x) for x in listed]})
        return
    titles = ("layer", "module", "units", "map", "parameters", "note")
    rows = [[x.name, x.module, x.units, x.reason or x.map, x.parameters, x.note] for x in listed]
    output.print_table(output.PrintedTable([output.PrintedColumn(title) for title in titles], rows))


def _as_json(layer: ListedLayer) -> dict[str, object]:
    return {
        "layer": layer.name,
        "module": layer.module,
        "units": layer.units,
        "map": layer.map_size,
        "why_not": layer.reason or None,
        "parameters": layer.parameters,
        "calls": layer.calls,
        "note": layer.note or None,
        "default": layer.taken,
    }


def _chosen(patterns: Sequence[str], infos: Sequence[LayerInfo]) -> list[str]:
    """The modules that ``patterns`` mean, be they layers or not; "", which holds all, where there are none."""
    from ndissect.engine.networks.layers import match_layers

    return match_layers(patterns, [replace(info, reason="") for info in infos]) if patterns else [""]


def _is_within(name: str, chosen: Sequence[str]) -> bool:
    return any(not holder or name == holder or name.startswith(f"{holder}.") for holder in chosen)


def _listed(module: nn.Module, infos: Sequence[LayerInfo]) -> list[ListedLayer]:
    """All that is told of each layer."""
    from ndissect.engine.networks.layers import default_layers
    from ndissect.store.errors import WrongUse
    from ndissect.tui.cli.layer_tree import ListedLayer

    try:
        taken = set(default_layers(infos))
    except WrongUse:  # no layer is a map: the reasons are in the list
        taken = set()
    modules = dict(module.named_modules(remove_duplicate=False))
    return [
        ListedLayer(
            name=x.name,
            module=x.module_type,
            units=x.units,
            map_size=x.map_size,
            reason=x.reason,
            parameters=_parameters(modules[x.name]) if x.name in modules else None,
            calls=x.calls,
            note=x.note,
            taken=x.name in taken,
        )
        for x in infos
    ]


def _parameters(module: nn.Module) -> int:
    """How many numbers the parameters of ``module`` and of all inside it hold; those without a size yet hold none."""
    from torch.nn.parameter import is_lazy

    return sum(p.numel() for p in module.parameters() if not is_lazy(p))


def _print_tree(listed: Sequence[ListedLayer], spec: str, hint: str, depth: int | None, *, unfold: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    from ndissect.store.text import one_line
    from ndissect.tui.cli.layer_tree import draw, fitting_depth, folded, grow, height, human, legend, rows
    from ndissect.tui.cli.streams import drawn_on

    console = Console(file=drawn_on(sys.stdout), highlight=False)
    branches = grow(listed) if unfold else folded(grow(listed))
    depth = fitting_depth(branches, shutil.get_terminal_size().lines - _AROUND) if depth is None else depth
    possible = sum(not x.reason for x in listed)
    outermost = sum(branch.layer.parameters or 0 for branch in grow(listed))
    title = f"{spec}  {human(outermost) or 'no'} parameters, {possible} of {len(listed)} dissectable"
    console.print(Text(one_line(title), "italic"), soft_wrap=True)
    table = rows(branches, depth)
    for i, line in enumerate(draw(table, console.width)):
        console.print(Text(line.text, "bold" if i == 0 else "dim" if line.faint else ""), soft_wrap=True)
    notes = legend(table, listed)
    if depth < height(branches):
        notes.append(f"+ more inside: --depth {depth + 1}, --all")
    for note in ("   ".join(notes), hint):
        if note:
            console.print(Text(one_line(note)), soft_wrap=True)
