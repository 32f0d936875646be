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


#: By what comes before their numbers, the modules with maps that hold other modules, with all that each returns.
_Rows = dict[str, dict[str, list["LayerInfo"]]]


def stages_of(infos: Sequence[LayerInfo]) -> list[str]:
    """The outermost row of stages whose maps are of several sizes, the last of several such; [] where there is none."""
    rows = _rows(infos)
    rows_of_stages = []
    for prefix, row in rows.items():
        stages = [stage for layers in row.values() if (stage := _stage_in(layers, rows))]
        if len({i.map_size for i in stages}) > 1:
            rows_of_stages.append((-prefix.count("."), max(i.order for i in stages), [i.name for i in stages]))
    return max(rows_of_stages, default=(0, 0, []))[2]


def last_blocks(infos: Sequence[LayerInfo], behind: int = -1) -> list[str]:
    """The last of each outermost row of blocks that have tokens, or their units last; [] where there is none.

    ``behind``: blocks are sought behind the layer of this order.
    """
    last = {}
    for prefix, row in _rows(infos).items():
        blocks = [layers[0] for layers in row.values()]
        if len(blocks) > 1 and _alike(blocks) and all(b.made_by and b.order > behind for b in blocks):
            last[prefix] = max(blocks, key=lambda i: i.order)
    outermost = min((prefix.count(".") for prefix in last), default=0)
    return [block.name for prefix, block in last.items() if prefix.count(".") == outermost]


def _rows(infos: Sequence[LayerInfo]) -> _Rows:
    holders = {i.name.rpartition(".")[0] for i in infos}
    rows: _Rows = {}
    for info in infos:
        if not info.spatial or "@" in info.name or info.tap is None or len(info.tap.path) > 1:
            continue
        numbered = re.fullmatch(r"(.*?)\d+", info.tap.module)
        if numbered and info.tap.module in holders:
            rows.setdefault(numbered[1], {}).setdefault(info.tap.module, []).append(info)
    return rows


def _stage_in(layers: Sequence[LayerInfo], rows: _Rows) -> LayerInfo | None:
    """What a module returns, if it holds blocks with maps like that: its children, or those of one of its children."""
    tap = layers[0].tap
    assert tap is not None
    inside = [p for p in rows if re.fullmatch(rf"{re.escape(tap.module)}\.([^.]*\.)?[^.]*", p)]
    blocks = [[inner[0] for inner in rows[prefix].values()] for prefix in inside]
    return next((i for i in layers if any(_alike([i, *row]) for row in blocks)), None)


def _alike(layers: Sequence[LayerInfo]) -> bool:
    return len({(i.units, i.map_size) for i in layers}) == 1
