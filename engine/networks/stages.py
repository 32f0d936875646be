"""The stages of a network and the last block of a transformer, by how its layers are named and what they return.

Blocks lie in a row under numbered names (``blocks.11``, ``encoder_layer_11``). A stage is a layer that holds such a
row, all of it with maps like its own; the stages of a network are in a row of their own (``features.7``, ``stages.3``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ndissect.engine.networks.layers import LayerInfo


def stages_of(infos: Sequence[LayerInfo]) -> list[str]:
    """The outermost row of stages whose maps are of several sizes; [] where there is none."""
    rows = _rows(infos)
    for prefix in _outermost_first(rows):
        stages = [i for i in rows[prefix].values() if _is_stage(i, rows)]
        if len({i.map_size for i in stages}) > 1:
            return [i.name for i in stages]
    return []


def last_blocks(infos: Sequence[LayerInfo], behind: int = -1) -> list[str]:
    """The last of each outermost row of blocks that have tokens, or their units last; [] where there is none.

    ``behind``: blocks are sought behind the layer of this order.
    """
    rows = _rows(infos)
    last = {}
    for prefix, row in rows.items():
        blocks = list(row.values())
        if len(blocks) > 1 and _alike(blocks) and all(b.made_by and b.order > behind for b in blocks):
            last[prefix] = max(blocks, key=lambda i: i.order)
    outermost = min((prefix.count(".") for prefix in last), default=0)
    return [block.name for prefix, block in last.items() if prefix.count(".") == outermost]


def _rows(infos: Sequence[LayerInfo]) -> dict[str, dict[str, LayerInfo]]:
    """By what comes before their numbers, the layers with maps that hold other layers, by their modules.

    A block that returns several things counts by the first of them that is a map.
    """
    holders = {i.name.rpartition(".")[0] for i in infos}
    rows: dict[str, dict[str, LayerInfo]] = {}
    for info in infos:
        if not info.spatial or "@" in info.name or info.tap is None or len(info.tap.path) > 1:
            continue
        numbered = re.fullmatch(r"(.*?)\d+", info.tap.module)
        if numbered and info.tap.module in holders:
            rows.setdefault(numbered[1], {}).setdefault(info.tap.module, info)
    return rows


def _outermost_first(rows: dict[str, dict[str, LayerInfo]]) -> list[str]:
    return sorted(rows, key=lambda prefix: prefix.count("."))


def _is_stage(layer: LayerInfo, rows: dict[str, dict[str, LayerInfo]]) -> bool:
    """Whether it holds blocks with maps like its own: its children, or those of one of its children."""
    assert layer.tap is not None
    inside = [p for p in rows if re.fullmatch(rf"{re.escape(layer.tap.module)}\.([^.]*\.)?[^.]*", p)]
    return any(_alike([layer, *rows[prefix].values()]) for prefix in inside)


def _alike(layers: Sequence[LayerInfo]) -> bool:
    return len({(i.units, i.map_size) for i in layers}) == 1
