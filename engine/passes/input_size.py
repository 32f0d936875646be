"""The one size at which all images must reach a network: its maps are compared over all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from ndissect.engine.data.dataset import ConceptDataset, known_sizes
from ndissect.engine.networks.preprocess import Preprocess, run_transform
from ndissect.engine.networks.resolve import Network
from ndissect.store.errors import NDError, WrongUse

Size = tuple[int, int]

# A transform is tried on images of so many sizes; what it makes of others, their batches show.
_MOST_TRIED = 64
_SHOWN = 4


def demand_one_size(network: Network, dataset: ConceptDataset) -> None:
    """WrongUse where the images of ``dataset`` are known to reach ``network`` at several sizes; none is opened."""
    prepare = network.preprocess
    sizes = known_sizes(dataset)
    if prepare.size is not None or sizes is None:
        return
    distinct, counts = np.unique(sizes, axis=0, return_counts=True)
    if len(distinct) == 1:
        return
    by_input: Counter[Size] = Counter()
    for tried, place in enumerate(np.argsort(-counts, kind="stable").tolist()):
        reached = _input_size(prepare, (int(distinct[place, 0]), int(distinct[place, 1])))
        if reached is not None:
            by_input[reached] += int(counts[place])
        if prepare.transform is not None and (len(by_input) > 1 or tried == _MOST_TRIED):
            break
    if len(by_input) > 1:
        # Of a transform no more than the first two sizes were tried.
        raise several_sizes(network, by_input if prepare.transform is None else dict.fromkeys(by_input))


def joined(network: Network, inputs: Iterable[Tensor]) -> Tensor:
    """The inputs (n, C, h, w) of ``network`` as one; WrongUse where they differ in size."""
    every = list(inputs)
    sizes = [(int(x.shape[-2]), int(x.shape[-1])) for x in every]
    if len(set(sizes)) > 1:
        raise several_sizes(network, dict.fromkeys(sizes))
    return torch.cat(every)


def several_sizes(network: Network, sizes: Mapping[Size, int | None]) -> NDError:
    """The error that images of these ``sizes``, and so many of each where that is known, reach ``network``."""
    listed = [f"{h} x {w}" if count is None else f"{count} of {h} x {w}" for (h, w), count in sizes.items()]
    more = f" and {len(listed) - _SHOWN} more sizes" if len(listed) > _SHOWN else ""
    how_many = "several" if None in sizes.values() else len(sizes)
    return WrongUse(
        f"images of {how_many} sizes reach {network.spec} ({', '.join(listed[:_SHOWN])}{more}), all must have one",
        _hint(network.preprocess),
    )


def _hint(prepare: Preprocess) -> str:
    if prepare.transform is None or type(prepare.transform).__module__.startswith("torchvision.transforms._presets"):
        return "give the size to which every image is resized, rows x columns: --size HxW"
    if prepare.source == "demo":
        return "the demo's network takes images of one size: take another, such as torchvision:resnet18"
    return f"let the transform of {prepare.source} resize every image to one size, rows and columns: Resize((224, 224))"


def _input_size(prepare: Preprocess, size: Size) -> Size | None:
    """What becomes of an image of ``size``; None where the transform fails on it, which the run says better."""
    if prepare.transform is None:
        return size
    try:
        out = run_transform(prepare.transform, prepare.mode, torch.zeros((1, 3, *size), dtype=torch.uint8))
    except Exception:  # whatever a researcher's own function raises
        return None
    return int(out.shape[-2]), int(out.shape[-1])
