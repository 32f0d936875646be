"""What a run through a network needs before it begins: its layers and how the machine is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.machine.console import Console
from ndissect.engine.machine.memory import budget
from ndissect.engine.machine.ranks import ALONE, Ranks
from ndissect.engine.networks.layers import LayerInfo, default_layers, list_layers, match_layers, taken_unasked
from ndissect.engine.networks.map_rules import is_used
from ndissect.engine.networks.resolve import Network
from ndissect.engine.run.data_source import image_size
from ndissect.engine.run.options import Options
from ndissect.engine.run.settings import Settings
from ndissect.store.errors import WrongUse
from ndissect.store.reader import Store


def make_settings(options: Options, device: torch.device, console: Console, ranks: Ranks = ALONE) -> Settings:
    """How the run uses ``device`` and the memory; WrongUse for what is no size, and for a decoder that is not there."""
    return Settings(
        device=device,
        batch=options.batch_size,
        workers=options.workers,
        top=options.top,
        skip_bad=options.skip_bad,
        memory=budget(options.memory, device, ranks.size),
        precision=options.precision,  # type: ignore[arg-type]
        jpeg_on=_decoder(options.decode, device),
        stop=console.stop,
        null=options.null,
        anyway=options.anyway,
    )


def _decoder(name: str, device: torch.device) -> torch.device | None:
    """Where JPEGs are decoded a batch at a time; None: in threads, ``auto`` as well until it was measured."""
    if name == "gpu" and device.type != "cuda":
        raise WrongUse(f"--decode gpu needs a CUDA device, this run is on {device}", "leave it out")
    return device if name == "gpu" else None


def choose_layers(
    options: Options, network: Network, dataset: ConceptDataset, tell: Callable[[str], None] | None = None
) -> list[LayerInfo]:
    """The layers that are asked for, or those that are taken unasked, which ``tell`` is told.

    WrongUse for a pattern that matches none, and for a rule of the user's that makes the maps of none of them.
    """
    infos = list_layers(network, image_size(dataset), map_rule=options.map, patterns=options.layers)
    if options.layers or options.all_convs:
        names = match_layers(options.layers, infos, options.all_convs)
        if network.draws is not None:
            names = with_maps(names, options.layers, infos)
    else:
        names, which = taken_unasked(infos)
        if tell:
            tell(f"no layer was named: {', '.join(names)} {'is' if len(names) == 1 else 'are'} taken, {which}")
    chosen = [info for info in infos if info.name in set(names)]
    if options.map and not is_used(options.map, [info.tap.layout for info in chosen if info.tap]):
        raise WrongUse(
            f"--map '{options.map}' makes the maps of no layer that is dissected: {names[0]} returns "
            f"{chosen[0].made_by or 'maps'} already",
            "leave it out, or name with --layers what it is for",
        )
    return chosen


def one_layer(
    name: str | None, options: Options, network: Network, dataset: ConceptDataset, store: Store | None
) -> LayerInfo:
    """The layer ``name``, else the last of the store, else the last that is dissected unasked; WrongUse for several.

    Of a generator, a layer without maps is none.
    """
    if name is None and store is not None and store.layer_names:
        name = store.layer_names[-1]
    patterns = () if name is None else (name,)
    infos = list_layers(network, image_size(dataset), map_rule=options.map, patterns=patterns)
    names = default_layers(infos)[-1:] if name is None else match_layers([name], infos)
    if network.draws is not None:
        names = with_maps(names, patterns, infos)
    if len(names) != 1:
        raise WrongUse(f"one layer is needed, '{name}' means {len(names)}: {', '.join(names[:6])}", "name one of them")
    return next(info for info in infos if info.name == names[0])


def with_maps(names: Sequence[str], patterns: Sequence[str], infos: Sequence[LayerInfo]) -> list[str]:
    """Of ``names`` those of layers with maps: a generator's others say nothing of where they draw.

    WrongUse where one without maps is named by its whole name, or where none is left.
    """
    with_maps = [info.name for info in infos if info.spatial]
    left = [name for name in names if name in with_maps]
    named = [name for name in names if name not in with_maps and name in patterns] or names
    if len(left) == len(names) or (left and named is names):
        return left
    listed = f"{', '.join(with_maps[:8])}{' ...' if len(with_maps) > 8 else ''}"
    raise WrongUse(
        f"the layer {named[0]} has one value a sample, and no maps of where something is drawn",
        f"layers with maps: {listed}" if with_maps else "no layer of the network has maps",
    )


def describe_layers(layers: Sequence[LayerInfo]) -> str:
    """``2 layers (layer3, layer4), 384 units``; WrongUse where there is none."""
    if not layers:
        raise WrongUse("no layer was chosen", "nd layers NETWORK lists them")
    names = [layer.name for layer in layers]
    listed = ", ".join(names) if len(names) <= 6 else f"{names[0]} ... {names[-1]}"
    return f"{len(names)} layer{'s' * (len(names) > 1)} ({listed}), {sum(x.units or 0 for x in layers)} units"
