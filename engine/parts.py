"""What may fire (ndissect.engine.kept) as tensors by name, to lie in a file, and what such a file may hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ndissect.engine.cells import Cells
from ndissect.engine.kept import Piece
from ndissect.engine.places import Place
from ndissect.engine.state import State


def to_tensors(pieces: Sequence[Piece]) -> tuple[dict[str, Any], State]:
    """The record and the tensors of some pieces, without their labels, which can be read again."""
    found: State = {}
    for number, piece in enumerate(pieces):
        for i, layer in enumerate(piece.layers):
            if isinstance(layer, Cells):
                found[f"{number}.{i}.index"], found[f"{number}.{i}.corners"] = layer.index, layer.corners
                found[f"{number}.{i}.shape"] = torch.tensor(layer.shape)
            else:
                found[f"{number}.{i}.maps"] = layer
    return {"images": [piece.images for piece in pieces]}, found


def to_pieces(record: dict[str, Any], tensors: State) -> list[Piece]:
    """The inverse of :func:`to_tensors`; ValueError, KeyError or TypeError for what it has not made."""
    return [
        Piece([int(i) for i in images], _layers(tensors, number), saved=True)
        for number, images in enumerate(record["images"])
    ]


def _layers(tensors: State, number: int) -> list[Cells | Tensor]:
    layers: list[Cells | Tensor] = []
    while True:
        name = f"{number}.{len(layers)}"
        if f"{name}.maps" in tensors:
            layers.append(tensors[f"{name}.maps"])
        elif f"{name}.index" in tensors:
            a, b, c, d = tensors[f"{name}.shape"].tolist()
            layers.append(Cells((a, b, c, d), tensors[f"{name}.index"], tensors[f"{name}.corners"]))
        else:
            return layers


def check_piece(piece: Piece, places: Sequence[Place], images: range) -> None:
    """ValueError where ``piece`` cannot be of these layers and images: counting would read what is not there."""
    if not piece.images or len(piece.layers) != len(places) or not all(i in images for i in piece.images):
        raise ValueError(f"{len(piece.layers)} layers of {len(piece.images)} images")
    for layer, place in zip(piece.layers, places, strict=True):
        h, w = place.map_size
        if isinstance(layer, Tensor):
            right = layer.dtype == torch.float32 and tuple(layer.shape) == (len(piece.images), place.units, h, w)
        else:
            right = layer.shape == (len(piece.images), place.units, h + 1, w + 1) and _is_whole(layer)
        if not right:
            raise ValueError(f"what may fire in {place.name}")


def _is_whole(cells: Cells) -> bool:
    index, corners, M = cells.index, cells.corners, cells.index.numel()
    if index.dtype not in (torch.int32, torch.int64) or tuple(index.shape) != (M,):
        return False
    if corners.dtype != torch.float32 or tuple(corners.shape) != (4, M):
        return False
    return M == 0 or bool(index[0] >= 0 and index[-1] < math.prod(cells.shape) and (index[1:] > index[:-1]).all())
