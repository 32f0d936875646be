"""A network some of whose units have other values, for experiments of one's own.

::

    with edited(network, "layer4", {107: 0}):
        scores = network.module(inputs)      # without unit 107
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ndissect.engine.networks.capture import Capture
from ndissect.engine.networks.layers import LayerInfo, list_layers, match_layers
from ndissect.engine.networks.resolve import Network
from ndissect.engine.networks.taps import Tap
from ndissect.store.errors import WrongUse


@contextlib.contextmanager
def edited(
    network: Network,
    layer: str | LayerInfo,
    values: Mapping[int, float | Tensor],
    *,
    image_size: tuple[int, int] = (224, 224),
) -> Iterator[None]:
    """For the block, the maps of some units of a layer have these values wherever the network goes on with them.

    ``layer``: as `nd layers` names it, or what :func:`list_layers` says of it, which saves a forward pass.
    ``values``: by unit, a number for all places, or a map (h, w), or one for each image (N, h, w). ``image_size``:
    (rows, columns) of the images that the network will be given, before its own transform. A layer that is called
    several times has the values in every call, unless its name tells which (``layer@2``).

    WrongUse for a layer or a unit that is not there, and, as soon as the network runs, for a map of another size.
    """
    info = _layer(network, layer, image_size) if isinstance(layer, str) else layer
    for unit, value in values.items():
        if not 0 <= unit < info.units:
            raise WrongUse(f"{info.name} has no unit {unit}", f"Its units are 0 to {info.units - 1}")
        if isinstance(value, Tensor) and value.ndim not in (0, 2, 3):
            raise WrongUse(f"the values of unit {unit} are of shape {tuple(value.shape)}", _SHAPES)
    tap = info.tap or Tap(info.name)

    def edit(name: str, maps: Tensor) -> Tensor:
        return _with_values(info.name, maps, values)

    with Capture(network.module, [info.name], {info.name: tap}, edit=edit):
        yield


_SHAPES = "Give a number, a map (h, w), or a map for each image (N, h, w)"


def _layer(network: Network, name: str, image_size: tuple[int, int]) -> LayerInfo:
    infos = list_layers(network, image_size, patterns=[name])
    names = match_layers([name], infos)
    if len(names) > 1:
        raise WrongUse(f"{name} means {len(names)} layers, {', '.join(names[:3])}, ...", "Name one of them")
    return next(info for info in infos if info.name == names[0])


def _with_values(layer: str, maps: Tensor, values: Mapping[int, float | Tensor]) -> Tensor:
    """``maps`` (N, U, h, w) with these values in the place of those units' own."""
    changed = maps.clone()
    for unit, value in values.items():
        given = torch.as_tensor(value, dtype=maps.dtype, device=maps.device)
        of_unit = changed[:, unit]
        if given.ndim and given.shape != of_unit.shape[-given.ndim :]:
            raise WrongUse(
                f"the values of unit {unit} are of shape {tuple(given.shape)}, its maps in {layer} of shape "
                f"{tuple(of_unit.shape)}",
                _SHAPES,
            )
        of_unit.copy_(given)
    return changed
