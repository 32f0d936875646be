"""Why a module of a network was not seen in its forward pass."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn


def why_not_called(name: str, modules: Mapping[str, nn.Module]) -> str:
    """Why the module ``name`` of a network's ``modules``, by name, was called by no code that can be watched."""
    parts = name.split(".")
    parents = (modules.get(".".join(parts[:n])) for n in range(1, len(parts)))
    if any(isinstance(parent, torch.jit.ScriptModule) for parent in parents):
        return "runs inside of TorchScript, where it cannot be watched"
    if isinstance(modules[name], nn.ModuleList | nn.ModuleDict):
        return "holds layers, is not called itself"
    return "not called in the forward pass"
