"""Latents that a generator does not draw itself: those of a file, and those that its encoder makes of photographs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndissect.engine.data.made_labels import own_labels
from ndissect.engine.demo.named import find_named
from ndissect.engine.machine.console import Console
from ndissect.engine.machine.device import DEFAULT_BATCH, computing, out_of_memory, too_large
from ndissect.engine.networks.resolve import Network
from ndissect.engine.run.data_source import open_data
from ndissect.engine.run.options import Options
from ndissect.store.errors import NDError, WrongUse, first_line
from ndissect.store.regular import other_kind

_FILE = "--latents takes a .npy file of numbers (samples, ...)"
# Latents whose numbers are looked at together.
_AT_A_TIME = 16 << 20


@dataclass(frozen=True)
class Encoded:
    """``latents`` (N, *shape) float32 of photographs, with their ``names`` and ``splits``; ``name``: of the data."""

    latents: npt.NDArray[np.float32]
    names: tuple[str, ...]
    splits: tuple[str, ...]
    name: str
    root: Path


def encode_photographs(options: Options, network: Network, device: torch.device, console: Console) -> Encoded:
    """The latents that the encoder of ``network``, its ``encode``, makes of the photographs ``options.encode``.

    They are prepared as the network's own images: scaled to [0, 1], brought to ``--size`` where it is given. At most
    ``options.samples`` of them. WrongUse where the network has no encoder, and where photographs have several sizes;
    NDError where the encoder fails or makes no latents.
    """
    encode = getattr(network.module, "encode", None)
    if not callable(encode):
        raise WrongUse(
            f"{network.spec} has no encoder: --encode needs a method `encode` of the module", "--latents takes a file"
        )
    dataset = own_labels(
        open_data(find_named(options.encode), console.note, options.max_pixels, key=options.format, unlabelled=True)
    )
    count = min(options.samples or len(dataset), len(dataset))
    network.module.to(device)
    made: list[npt.NDArray[np.float32]] = []
    taken: list[int] = []
    waiting: list[Tensor] = []
    some = options.batch_size or DEFAULT_BATCH.get(device.type, 32)
    sizes: dict[tuple[int, int], str] = {}
    with console.progress() as progress:
        step = progress.step("encoding photographs")
        for index in range(len(dataset)):
            if len(taken) == count:
                break
            try:
                image = dataset.read(index).image
            except NDError:
                if not options.skip_bad:
                    raise
                continue
            # A researcher's own transform may hold tensors on the CPU.
            x = network.preprocess.apply(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])
            sizes.setdefault((int(x.shape[-2]), int(x.shape[-1])), dataset.names[index])
            if len(sizes) > 1:
                raise _several_sizes(sizes)
            waiting.append(x)
            taken.append(index)
            if len(waiting) == some or len(taken) == count:
                made.append(_encoded(network, torch.cat(waiting), device))
                waiting = []
                step(len(taken), count)
        if waiting:
            made.append(_encoded(network, torch.cat(waiting), device))
    if not made:
        raise NDError(f"there is no photograph in {options.encode} that can be read", "nd data check says why")
    names, splits = ([values[n] for n in taken] for values in (dataset.names, dataset.splits))
    return Encoded(np.concatenate(made), tuple(names), tuple(splits), dataset.name, dataset.root)


def _several_sizes(sizes: dict[tuple[int, int], str]) -> WrongUse:
    (a, first), (b, second) = list(sizes.items())[:2]
    return WrongUse(
        f"photographs reach the encoder at several sizes: {first} at {a[0]} x {a[1]}, {second} at {b[0]} x {b[1]}",
        "--size 224 brings all of them to one",
    )


def _encoded(network: Network, images: Tensor, device: torch.device) -> npt.NDArray[np.float32]:
    """(n, *shape) float32: the latents of prepared photographs (n, 3, H, W)."""
    encode = network.module.encode
    assert callable(encode)
    try:
        with torch.no_grad(), computing("fp32", device):
            latents = encode(images.to(device))
    except Exception as e:
        if out_of_memory(e):
            raise too_large() from e
        raise NDError(
            f"the encoder of {network.spec} fails on photographs {tuple(images.shape)}: {first_line(e)}",
            "--size brings them to sides that it takes, such as a multiple of 32",
        ) from e
    if not isinstance(latents, Tensor) or latents.ndim < 2 or len(latents) != len(images):
        given = f"a tensor {tuple(latents.shape)}" if isinstance(latents, Tensor) else type(latents).__name__
        raise NDError(f"the encoder of {network.spec} makes no latents: it returns {given}", "let the factory wrap it")
    if not bool(latents.isfinite().all()):
        raise NDError(f"the encoder of {network.spec} makes latents that are no numbers (NaN)", "look at its weights")
    return np.asarray(latents.float().cpu().numpy())


def read_latents(path: Path) -> npt.NDArray[np.floating]:
    """(N, ...) float from a .npy file, in which nothing is executed, and which stays on the disk.

    What its header says is believed only where the file is as long; NDError where it holds no such numbers.
    """
    if kind := other_kind(path):
        raise WrongUse(f"{path} is {kind}, not a regular file", _FILE)
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TypeError, OverflowError, MemoryError) as e:
        raise NDError(f"{path} holds no latents: {first_line(e)}", _FILE) from e
    if not isinstance(values, np.memmap):  # several arrays, packed
        raise NDError(f"{path} holds no latents: it is no single array", _FILE)
    if values.ndim < 2 or not values.size or values.dtype.kind != "f":
        raise NDError(f"{path} holds no latents: it is an array {values.shape} of {values.dtype}", _FILE)
    some = max(1, _AT_A_TIME // (values.size // len(values)))
    for start in range(0, len(values), some):
        if not np.isfinite(values[start : start + some]).all():
            raise NDError(f"{path} holds latents that are no numbers (NaN or infinite)", "make them again")
    return values


__all__ = ["Encoded", "encode_photographs", "read_latents"]
