"""What is asked of a library that builds networks by name, and what any source of networks gives."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn

#: What a user writes after the ``@`` for random weights, and what is recorded of them.
UNTRAINED = "none"


@dataclass(frozen=True)
class Request:
    """A network to load by name: ``spec`` as the user typed it, ``target`` and ``detail`` as of NetworkSpec.

    ``own_weights``: the user brings a file of weights. ``layers_only``: its layers are wanted alone, whatever its
    weights are. ``size`` (rows, columns) of its input, where the user gives one.
    """

    spec: str
    target: str
    detail: str | None = None
    own_weights: bool = False
    layers_only: bool = False
    size: tuple[int, int] | None = None

    @property
    def untrained(self) -> bool:
        """Whether random weights are asked for."""
        return self.detail is not None and self.detail.lower() == UNTRAINED

    @property
    def downloads(self) -> bool:
        """Whether the library's own weights are wanted at all."""
        return not self.own_weights and not self.layers_only


@dataclass(frozen=True)
class LoadedModule:
    """A network as a library or the user's code made it: its transform or None, a short name, where it came from.

    ``transform`` may be a preset of torchvision's weights, or a Preprocess. ``classes``, ``notes`` and ``left_out``: as
    of ndissect.engine.networks.resolve.Network.
    """

    module: nn.Module
    transform: object
    name: str
    origin: dict[str, str]
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def file_name(text: str) -> str:
    """``text`` as the short name of a network, of which files are called."""
    return re.sub(r"[^\w.-]+", "_", text).strip("._") or "network"
