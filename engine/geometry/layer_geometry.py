"""The layers that are dissected, and where their maps lie on the label grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ndissect.engine.geometry.map_alignment import MapAlignment
from ndissect.engine.geometry.receptive import trace_fields
from ndissect.engine.networks.layers import LayerInfo, taps_of
from ndissect.engine.networks.resolve import Network
from ndissect.store.counts import JudgedOn
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.protocol import Protocol
from ndissect.store.upsampling import Axis, Field, make_axis


@dataclass(frozen=True)
class LayerGeometry:
    """A dissected layer, as counting needs to know it: name, units, map size, and how its maps lie on the grid.

    ``kept``: the rows and columns of the layer's own maps that lie on the image, None for all of them. The others take
    no part in anything, and ``map_size`` does not count them.
    """

    name: str
    module: str
    units: int
    map_size: tuple[int, int]
    axes: tuple[Axis, Axis]
    kept: tuple[slice, slice] | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """The grid (H, W) that the maps are enlarged to."""
        return len(self.axes[0].cell), len(self.axes[1].cell)

    @property
    def judged_on(self) -> JudgedOn:
        """What the layer's counts count: a unit of one value an image has no place, only images that it is high in."""
        return "images" if self.map_size == ONE_VALUE else "pixels"


#: The map of a unit that has one value an image.
ONE_VALUE = (1, 1)


def layer_geometries(
    network: Network,
    inputs: Tensor,
    layers: Sequence[LayerInfo],
    protocol: Protocol,
    grid: tuple[int, int],
    alignments: Mapping[str, MapAlignment] | None = None,
) -> list[LayerGeometry]:
    """The layers with how the rows and the columns of their maps lie on the grid.

    Of layers with one value an image, which have no place, the grid is a single cell.

    ``alignments``: how they lie on the image, by name; on all of it where nothing is said.
    """
    fields: dict[str, tuple[Field, Field] | str] = {}
    size_of_image = network.draws or (int(inputs.shape[-2]), int(inputs.shape[-1]))
    if protocol.upsampling == "receptive-field":
        if network.draws is not None:
            raise WrongUse(
                f"{network.spec} draws pictures: its units have no receptive fields in them",
                "leave --upsampling out, or use half-pixel",
            )
        placed = [x.name for x in layers if x.map_size != ONE_VALUE]
        fields = trace_fields(network.module, inputs, placed, taps_of(layers))
    geometries = []
    for layer in layers:
        assert layer.map_size is not None  # a dissectable layer has a map
        assert layer.units is not None
        field = fields.get(layer.name)
        if isinstance(field, str):
            raise NDError(
                f"the receptive field of {layer.name} cannot be traced: {field}", "use --upsampling half-pixel"
            )
        if layer.map_size == ONE_VALUE:
            cell = make_axis("half-pixel", 1, 1)
            geometries.append(LayerGeometry(layer.name, layer.module_type, layer.units, ONE_VALUE, (cell, cell)))
            continue
        lies = (alignments or {}).get(layer.name, MapAlignment())
        axes: list[Axis] = [
            make_axis(
                protocol.upsampling,
                n,
                size,
                field=field[d] if field else None,
                input_size=size_of_image[d],
                part=lies.parts[d],
                kept=lies.kept[d] if lies.kept else None,
            )
            for d, (n, size) in enumerate(zip(layer.map_size, grid, strict=True))
        ]
        used = (len(axes[0].positions), len(axes[1].positions))
        geometries.append(
            LayerGeometry(layer.name, layer.module_type, layer.units, used, (axes[0], axes[1]), lies.kept)
        )
    return geometries


def geometries_json(geometries: Sequence[LayerGeometry]) -> list[dict[str, Any]]:
    """The layers as JSON values."""
    return [
        {
            "name": p.name,
            "module": p.module,
            "units": p.units,
            "map_size": list(p.map_size),
            "axes": [[a.positions.tolist(), a.cell.tolist(), a.weight.tolist()] for a in p.axes],
        }
        for p in geometries
    ]


def read_geometries(described: list[dict[str, Any]]) -> list[LayerGeometry]:
    """The inverse of :func:`geometries_json`."""
    geometries = []
    for p in described:
        rows, cols = (
            Axis(np.array(at, np.float64), np.array(cell, np.int64), np.array(weight, np.float32))
            for at, cell, weight in p["axes"]
        )
        h, w = p["map_size"]
        geometries.append(
            LayerGeometry(str(p["name"]), str(p["module"]), int(p["units"]), (int(h), int(w)), (rows, cols))
        )
    return geometries
