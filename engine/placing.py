"""Where the maps of a network's layers lie on the label grid."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ndissect.engine.gathering import Place
from ndissect.engine.layers import LayerInfo
from ndissect.engine.networks.resolve import Network
from ndissect.engine.receptive import trace_fields
from ndissect.store.errors import NDError
from ndissect.store.protocol import Protocol
from ndissect.store.upsampling import Axis, Field, make_axis


def place_layers(
    network: Network, inputs: Tensor, layers: Sequence[LayerInfo], protocol: Protocol, grid: tuple[int, int]
) -> list[Place]:
    """The layers with how the rows and the columns of their maps lie on the grid."""
    fields: dict[str, tuple[Field, Field] | str] = {}
    if protocol.upsampling == "receptive-field":
        fields = trace_fields(network.module, inputs, [layer.name for layer in layers])
    places = []
    for layer in layers:
        assert layer.map_size is not None  # a dissectable layer has a map
        assert layer.units is not None
        field = fields.get(layer.name)
        if isinstance(field, str):
            raise NDError(
                f"the receptive field of {layer.name} cannot be traced: {field}", "use --upsampling half-pixel"
            )
        axes: list[Axis] = [
            make_axis(protocol.upsampling, n, size, field[d] if field else None, inputs.shape[2 + d])
            for d, (n, size) in enumerate(zip(layer.map_size, grid, strict=True))
        ]
        places.append(Place(layer.name, layer.module_type, layer.units, layer.map_size, (axes[0], axes[1])))
    return places
