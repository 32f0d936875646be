"""Options that the commands share which run a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NetworkArgument = Annotated[
    str,
    typer.Argument(
        metavar="NETWORK",
        help="demo, torchvision:NAME[@WEIGHTS], path/file.py:factory or package.module:factory.",
    ),
]
WeightsOption = Annotated[Path | None, typer.Option(help="A .safetensors or .pt file with the network's weights.")]
MaxWeightsOption = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Weights may take so much memory: 40GB. Default: 16GB, and 8 times their file."),
]
PartialOption = Annotated[bool, typer.Option("--partial", help="Accept weights with missing or unexpected keys.")]
AnywayOption = Annotated[
    bool,
    typer.Option(
        "--anyway",
        help="Run a network that does not repeat itself, whose maps lie elsewhere or that lacks weights; marks it.",
    ),
]
SizeOption = Annotated[
    str | None, typer.Option(help="Input size, N or HxW, for a network that comes without a transform.")
]
MeanOption = Annotated[str | None, typer.Option(help="Mean of each channel in [0, 1], R,G,B; likewise.")]
StdOption = Annotated[str | None, typer.Option(help="Standard deviation of each channel, R,G,B; likewise.")]
LayersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--layers", "--layer", "-l", help="Layers by dotted name or glob ('layer?', 'features.*'); repeatable."
    ),
]
AllConvsOption = Annotated[bool, typer.Option("--all-convs", help="Every convolution.")]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data", "-d", help="A Broden folder, or broden1_224 and the like once downloaded. Default: the demo's."
    ),
]
ProtocolOption = Annotated[str, typer.Option("--protocol", "-p", help="netdissect, cvpr2017, lite or pnas2020.")]
QuantileOption = Annotated[str | None, typer.Option(help="Share of activations above the threshold: 0.005, 5/999.")]
QuantileOverOption = Annotated[str | None, typer.Option(help="raw or upsampled maps.")]
UpsamplingOption = Annotated[str | None, typer.Option(help="half-pixel, receptive-field or half-pixel-zero.")]
GridOption = Annotated[str | None, typer.Option(help="Where masks are counted: label, N or HxW.")]
UnionOption = Annotated[str | None, typer.Option(help="within-category or all-images.")]
MapsOption = Annotated[str | None, typer.Option(help="A pixel that several maps call the same: once or once-a-map.")]
MinImagesOption = Annotated[int, typer.Option(help="Leave out concepts held by fewer images.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
MemoryOption = Annotated[
    str | None,
    typer.Option(metavar="SIZE[,GPU]", help="For thresholds and what may fire: 8GB. Default: half of what is free."),
]
BatchOption = Annotated[int, typer.Option("--batch-size", "-b", min=0, help="Images a forward pass; 0 chooses.")]
WorkersOption = Annotated[int, typer.Option(min=0, help="Threads that decode images; 0 chooses.")]
SkipBadOption = Annotated[bool, typer.Option("--skip-bad", help="Go on without images that cannot be read.")]
PrecisionOption = Annotated[
    str, typer.Option(help="Arithmetic of the forward pass: fp32 (exact), tf32, bf16 or fp16, which are measured.")
]
NullOption = Annotated[
    int | None,
    typer.Option(
        min=0, max=99, help="Wrong pairings of masks and labels, for p and q; 0: none. Default: 4 where that is cheap."
    ),
]
