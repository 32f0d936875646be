"""The part of a network behind a layer, run again on one batch with other maps in the layer's place.

::

    with Tail(network.module, tap) as tail:
        plain = tail.start(inputs)                                  # the whole network, once
        without = tail.run(lambda maps: maps * alive[:, None, None])  # what follows the layer alone
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn

from ndissect.engine.networks.taps import Tap


class Tail:
    """Runs ``module`` from the layer at ``tap`` on, for a block.

    ``maps``: (N, U, h, w), those of the latest :meth:`start`. ``alone``: whether what follows the layer can be run by
    itself, which is tried on the first batch: it gives what the whole network gives with the same edit. Where not, each
    run is of the whole network, and ``reason`` says why.
    """

    maps: Tensor
    alone: bool
    reason: str

    def __init__(self, module: nn.Module, tap: Tap) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        raise NotImplementedError

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError

    def start(self, inputs: Tensor) -> Any:
        """What the network returns for ``inputs`` (N, C, H, W); what the layers before the tail returned is kept."""
        raise NotImplementedError

    def run(self, edit: Callable[[Tensor], Tensor]) -> Any:
        """What the network returns for the inputs of the latest :meth:`start` with ``edit(maps)`` in the layer's place.

        ``edit`` gets maps (N, U, h, w) that it must not change, and returns others of that shape.
        """
        raise NotImplementedError
