"""One layer's activations over a whole data set, computed once and held in memory for many looks at them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ndissect.engine.geometry.layer_geometry import LayerGeometry
from ndissect.engine.machine.memory import Budget
from ndissect.engine.run.forward_pass import ForwardPass
from ndissect.store.errors import NDError
from ndissect.store.files import human_bytes

# Activations that are worked on at once: what is made of them on the way stays within some hundred MB.
_VALUES_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Cached:
    """``maps`` (N, U, h, w) float32 of the images numbered ``images`` in the data set; ``skipped``: (name, why)."""

    geometry: LayerGeometry
    maps: Tensor
    images: list[int]
    skipped: tuple[tuple[str, str], ...]

    def slices(self) -> Iterator[slice]:
        """The images a few at a time, always the same ones together: their products are then the same bit for bit."""
        step = max(1, _VALUES_AT_ONCE // self.maps[:1].numel())
        for start in range(0, len(self.images), step):
            yield slice(start, min(start + step, len(self.images)))


def cached(forward_pass: ForwardPass) -> Cached:
    """The activations of the only layer of ``forward_pass``: on its device where memory allows, else on the host.

    NDError where they fit neither, and for images that cannot be read (unless its settings skip them) or none that can.
    """
    p, dataset, budget = forward_pass, forward_pass.loader.dataset, forward_pass.settings.memory
    (geometry,) = p.geometries
    total, (h, w) = len(dataset), geometry.map_size
    need = 4 * total * geometry.units * h * w
    maps = torch.empty((total, geometry.units, h, w), device=_where(need, budget, p.device, geometry.name, total))
    images: list[int] = []
    bad: list[tuple[str, str]] = []
    p.progress.start("activations", total)
    for batch in p.batches(range(total), skip_bad=p.settings.skip_bad):
        p.forward.run(batch, [_Copying(maps[len(images) :])])
        images += batch.images
        bad += [(dataset.names[number], error.message) for number, error in batch.bad]
        p.progress.advance(len(batch) + len(batch.bad))
    if not images:
        raise NDError(f"{dataset.root} holds no image that can be used", "nd data check says why")
    return Cached(geometry, maps[: len(images)], images, tuple(bad))


def _where(need: int, budget: Budget, device: torch.device, layer: str, images: int) -> torch.device:
    if need <= budget.on(device):
        return device
    if need <= budget.host:
        return torch.device("cpu")
    raise NDError(
        f"the activations of {layer} over {images} images take {human_bytes(need)} of memory, --memory is {budget}",
        "give more --memory, look at fewer --images, or take a layer with fewer or smaller maps",
    )


class _Copying:
    """Puts the maps of one batch where they belong."""

    def __init__(self, target: Tensor) -> None:
        self._target = target

    def __call__(self, i: int, maps: Tensor, images: slice) -> None:
        self._target[images] = maps
