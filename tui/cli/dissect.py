"""``nd dissect`` and ``nd layers``: the commands that run a network."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ndissect.tui.cli.network_options import (
    AllConvsOption,
    AnywayOption,
    BatchOption,
    DataOption,
    DeviceOption,
    GridOption,
    LayersOption,
    MapsOption,
    MaxWeightsOption,
    MeanOption,
    MemoryOption,
    MinImagesOption,
    NetworkArgument,
    NullOption,
    PartialOption,
    PrecisionOption,
    ProtocolOption,
    QuantileOption,
    QuantileOverOption,
    SizeOption,
    SkipBadOption,
    StdOption,
    UnionOption,
    UpsamplingOption,
    WeightsOption,
    WorkersOption,
)
from ndissect.tui.cli.options import ForceOption, JsonOption, MaxPixelsOption

if TYPE_CHECKING:
    from ndissect.engine.networks.resolve import Network


def dissect(
    network: NetworkArgument = "demo",
    layers: LayersOption = None,
    all_convs: AllConvsOption = False,
    data: DataOption = None,
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
    protocol: ProtocolOption = "netdissect",
    quantile: QuantileOption = None,
    quantile_over: QuantileOverOption = None,
    upsampling: UpsamplingOption = None,
    grid: GridOption = None,
    union: UnionOption = None,
    maps: MapsOption = None,
    min_images: MinImagesOption = 0,
    weights: WeightsOption = None,
    partial: PartialOption = False,
    anyway: AnywayOption = False,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "fp32",
    memory: MemoryOption = None,
    batch_size: BatchOption = 0,
    workers: WorkersOption = 0,
    decode: Annotated[
        str, typer.Option(help="Where JPEGs are decoded: cpu, or gpu, which is faster and rounds otherwise.")
    ] = "cpu",
    top: Annotated[int, typer.Option(min=1, max=1000, help="Top images kept for each unit.")] = 10,
    null: NullOption = None,
    skip_bad: SkipBadOption = False,
    max_pixels: MaxPixelsOption = None,
    max_weights: MaxWeightsOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no summary of the layers.")] = False,
    json: JsonOption = False,
) -> None:
    """Dissect layers of a network over labelled images into a store. Without arguments: the bundled demo."""
    from ndissect.store.protocol import make_protocol
    from ndissect.tui.cli import running

    chosen = make_protocol(
        protocol,
        q=quantile,
        quantile_over=quantile_over,
        upsampling=upsampling,
        grid=grid,
        union=union,
        maps=maps,
        min_images=min_images,
    )
    load = loading(
        network, weights, partial, size, mean, std, max_weights
    )  # looks at the files: before they are read below
    request = running.Request(
        network=network,
        layers=tuple(layers or ()),
        all_convs=all_convs,
        data=data,
        output=output,
        force=force,
        restart=restart,
        device=device,
        precision=known_precision(precision),
        memory=memory,
        batch=batch_size,
        workers=workers,
        top=top,
        skip_bad=skip_bad,
        max_pixels=max_pixels,
        decode=_one_of("--decode", decode, ("cpu", "gpu")),
        shard=shard,
        null=null,
        quiet=quiet,
        anyway=anyway,
        asked={
            "network": network,
            "weights": weights.name if weights else None,  # what is in it is looked at once it is loaded
            "partial": partial,
            "transform": [size, mean, std],
            "layers": layers,
            "all_convs": all_convs,
            "top": top,
            "null": null,
            "precision": precision,
            "decode": decode,
            "protocol": chosen.to_json(),
        },
    )
    running.dissect(request, chosen, load, json)


def known_precision(text: str) -> str:
    """``text`` where it is a precision; WrongUse else."""
    return _one_of("--precision", text, ("fp32", "tf32", "bf16", "fp16"))


def _one_of(option: str, text: str, known: tuple[str, ...]) -> str:
    from ndissect.store.errors import WrongUse

    if text not in known:
        raise WrongUse(f"{option} '{text}' is unknown", f"use {', '.join(known[:-1])} or {known[-1]}")
    return text


def layers(
    network: NetworkArgument = "demo",
    weights: WeightsOption = None,
    partial: PartialOption = False,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    input_size: Annotated[
        str, typer.Option(help="Size of the image before the network's own transform, N or HxW.")
    ] = "224",
    max_weights: MaxWeightsOption = None,
    every: Annotated[bool, typer.Option("--all", help="Also the modules that cannot be dissected, and why.")] = False,
    json: JsonOption = False,
) -> None:
    """List a network's layers that can be dissected: dotted name, module, units, map size."""
    from ndissect.store.names import quoted
    from ndissect.tui.cli.output import PrintedColumn, PrintedTable, print_json, print_table, tell

    load = loading(network, weights, partial, size, mean, std, max_weights)
    image_size = _pair(input_size, "--input-size")
    from ndissect.engine.networks.layers import list_layers

    loaded = load()
    for note in loaded.notes:
        tell(f"note: {note}")
    found = [x for x in list_layers(loaded, image_size) if every or x.dissectable]
    if json:
        value = [
            {"layer": x.name, "module": x.module_type, "units": x.units, "map": x.map_size, "why_not": x.reason or None}
            for x in found
        ]
        print_json({"network": loaded.spec, "layers": value})
        return
    rows = [
        [x.name, x.module_type, x.units, f"{x.map_size[0]}x{x.map_size[1]}" if x.map_size else x.reason] for x in found
    ]
    columns = [
        PrintedColumn("layer"),
        PrintedColumn("module"),
        PrintedColumn("units", right=True),
        PrintedColumn("map"),
    ]
    print_table(
        PrintedTable(columns, rows, title=loaded.spec, notes=[f"nd dissect {quoted(loaded.spec)} --layers NAME"])
    )


def loading(
    spec: str,
    weights: Path | None,
    partial: bool,
    size: str | None,
    mean: str | None,
    std: str | None,
    max_weights: str | None,
) -> Callable[[], Network]:
    """What loads the network. Its options are looked at now: a slip is told before torch takes seconds to import."""

    file = spec.rpartition(":")[0]
    if file.endswith(".py"):
        _require_file(Path(file).expanduser(), "a network of your own is written path/file.py:factory")
    if weights is not None:
        _require_file(weights, "--weights takes a .safetensors or .pt file")
    pair = _pair(size, "--size") if size else None
    means, stds = _floats(mean, "--mean"), _floats(std, "--std")

    def load() -> Network:
        from ndissect.engine.networks.resolve import load_network

        return load_network(
            spec, weights=weights, partial=partial, size=pair, mean=means, std=stds, max_weights=_size(max_weights)
        )

    return load


def _require_file(path: Path, hint: str) -> None:
    from ndissect.store.errors import WrongUse
    from ndissect.store.regular import other_kind

    if kind := other_kind(path):
        raise WrongUse(f"{path} is {kind}, not a regular file", hint)
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises where a name is too long
        raise WrongUse(f"there is no file {path}", hint)


def _size(text: str | None) -> int | None:
    from ndissect.engine.machine.memory import parse_bytes

    return None if text is None else parse_bytes(text, "--max-weights", "write it as 40GB")


def _pair(text: str, option: str) -> tuple[int, int]:
    from ndissect.store.errors import WrongUse

    height, _, width = text.partition("x")
    try:
        size = int(height), int(width or height)
    except ValueError:
        size = (0, 0)
    if min(size) < 1:
        raise WrongUse(f"{option} '{text}' is no size", "write a number such as 224, or HxW such as 360x480")
    return size


def _floats(text: str | None, option: str) -> tuple[float, ...] | None:
    from ndissect.store.errors import WrongUse

    if text is None:
        return None
    try:
        return tuple(float(x) for x in text.split(","))
    except ValueError:
        raise WrongUse(f"{option} '{text}' is no list of numbers", "for example 0.485,0.456,0.406") from None
