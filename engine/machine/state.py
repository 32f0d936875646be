"""What a run has counted, as tensors by name: what is saved, gone on from, and added up."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]


def within(state: State, part: str) -> State:
    """The tensors of a state whose names begin with ``part.``, without it."""
    return {name.removeprefix(f"{part}."): t for name, t in state.items() if name.startswith(f"{part}.")}


def under(part: str, state: State) -> State:
    """The inverse of :func:`within`: every name behind ``part.``."""
    return {f"{part}.{name}": t for name, t in state.items()}


def as_tensor(record: Any) -> Tensor:
    """JSON values as uint8, to lie beside tensors in one file."""
    return torch.frombuffer(bytearray(json.dumps(record).encode()), dtype=torch.uint8)


def from_tensor(data: Tensor) -> Any:
    """The inverse of :func:`as_tensor`."""
    return json.loads(bytes(data.cpu().numpy()))


def demand_form(state: State, like: State) -> None:
    """ValueError or KeyError where ``state`` lacks a tensor of ``like``, or has it in another shape or type."""
    for name, mine in like.items():
        there = state[name]
        if there.shape != mine.shape or there.dtype != mine.dtype:
            raise ValueError(f"{name} is {tuple(there.shape)} {there.dtype}, not {tuple(mine.shape)} {mine.dtype}")
