"""Candidates (ndissect.engine.measures.candidates) as tensors by name, as a file holds them, and what it may hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ndissect.engine.geometry.layer_geometry import LayerGeometry
from ndissect.engine.machine.state import State
from ndissect.engine.measures.candidates import CandidateBatch
from ndissect.engine.measures.cells import Cells


def to_tensors(batches: Sequence[CandidateBatch]) -> tuple[dict[str, Any], State]:
    """The record and the tensors of some batches, without their labels, which can be read again."""
    state: State = {}
    for number, batch in enumerate(batches):
        for i, layer in enumerate(batch.layers):
            if isinstance(layer, Cells):
                state[f"{number}.{i}.index"], state[f"{number}.{i}.corners"] = layer.index, layer.corners
                state[f"{number}.{i}.shape"] = torch.tensor(layer.shape)
            else:
                state[f"{number}.{i}.maps"] = layer
    return {"images": [batch.images for batch in batches]}, state


def to_batches(record: dict[str, Any], tensors: State) -> list[CandidateBatch]:
    """The inverse of :func:`to_tensors`; ValueError, KeyError or TypeError for what it has not made."""
    return [
        CandidateBatch([int(i) for i in images], _layers(tensors, number), saved=True)
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


def check_batch(batch: CandidateBatch, geometries: Sequence[LayerGeometry], images: range) -> None:
    """ValueError where ``batch`` cannot be of these layers and images: counting would read what is not there."""
    if not batch.images or len(batch.layers) != len(geometries) or not all(i in images for i in batch.images):
        raise ValueError(f"{len(batch.layers)} layers of {len(batch.images)} images")
    for layer, geometry in zip(batch.layers, geometries, strict=True):
        h, w = geometry.map_size
        if isinstance(layer, Tensor):
            fits = layer.dtype == torch.float32 and tuple(layer.shape) == (len(batch.images), geometry.units, h, w)
        else:
            fits = layer.shape == (len(batch.images), geometry.units, h + 1, w + 1) and _is_whole(layer)
        if not fits:
            raise ValueError(f"what may fire in {geometry.name}")


def _is_whole(cells: Cells) -> bool:
    index, corners, M = cells.index, cells.corners, cells.index.numel()
    if index.dtype not in (torch.int32, torch.int64) or tuple(index.shape) != (M,):
        return False
    if corners.dtype != torch.float32 or tuple(corners.shape) != (4, M):
        return False
    return M == 0 or bool(index[0] >= 0 and index[-1] < math.prod(cells.shape) and (index[1:] > index[:-1]).all())
