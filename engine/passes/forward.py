"""Running a network over batches of images, in pieces that fit the device, and handing out its maps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from ndissect.engine.machine.device import DEFAULT_BATCH, Halving, Precision, computing, out_of_memory, too_large
from ndissect.engine.machine.progress import Progress
from ndissect.engine.machine.timing import Clock
from ndissect.engine.networks.capture import Capture
from ndissect.engine.networks.resolve import Network
from ndissect.engine.passes.extremes import Extremes, extremes
from ndissect.engine.passes.loader import Batch
from ndissect.store.errors import NDError


class Consumer(Protocol):
    """Takes layer i's maps (N, U, h, w), their extremes, and which images of the batch they are.

    After running out of memory it must be as it was before.
    """

    def __call__(self, i: int, maps: Tensor, known: Extremes, images: slice, /) -> None: ...


class Forward:
    """A network on its device with the layers that are captured."""

    def __init__(
        self,
        network: Network,
        names: Sequence[str],
        device: torch.device,
        *,
        batch: int = 0,
        precision: Precision = "fp32",
        progress: Progress,
        clock: Clock,
    ) -> None:
        self.network, self.names, self.device, self.precision = network, tuple(names), device, precision
        # Counting needs 64-bit integers and float64 comparisons, which MPS lacks: there the CPU counts.
        self.counting = torch.device("cpu") if device.type == "mps" else device
        self.batch = Halving(batch or DEFAULT_BATCH.get(device.type, 32), progress)
        #: Of a layer's maps, the rows and columns that take part; all of those of other layers.
        self.kept: dict[str, tuple[slice, slice]] = {}
        self._progress, self._clock = progress, clock

    @contextlib.contextmanager
    def captured(self) -> Iterator[Capture]:
        """The network with its layers listened to."""
        with Capture(self.network.module, self.names) as capture:
            yield capture

    def run(
        self,
        capture: Capture,
        batch: Batch,
        consumers: Sequence[Consumer],
        whole: Callable[[Sequence[Tensor], Sequence[Extremes], slice], None] | None = None,
    ) -> None:
        """One batch through the network: every consumer gets each layer's maps, ``whole`` those of all layers.

        NDError where the network fails or a single image does not fit the device.
        """
        if len(batch):
            self.batch.run(len(batch), partial(self._piece, capture, batch, consumers, whole))

    def _piece(
        self,
        capture: Capture,
        batch: Batch,
        consumers: Sequence[Consumer],
        whole: Callable[[Sequence[Tensor], Sequence[Extremes], slice], None] | None,
        piece: slice,
    ) -> None:
        with self._clock.during("forward", self.device):
            inputs = self.inputs(batch.pixels, piece)
            try:
                with computing(self.precision, self.device):
                    capture.run(inputs)
            except Exception as e:
                if out_of_memory(e):
                    raise torch.OutOfMemoryError(str(e)) from e
                raise _network_failed(self.network, inputs, e) from e
        with self._clock.during("thresholds" if whole else "tally", self.device):
            maps = [self._part(name, capture[name]).to(self.counting) for name in capture.names]
            known = [extremes(layer) for layer in maps]
            # From here on counts change: what does not fit is cut further for that consumer alone, never counted twice.
            for i in range(len(maps)):
                for consume in consumers:
                    self._consume(consume, i, maps[i], known[i], piece)
            if whole:
                whole(maps, known, piece)

    def _part(self, name: str, maps: Tensor) -> Tensor:
        """The part of a layer's maps that takes part."""
        if name not in self.kept:
            return maps
        rows, cols = self.kept[name]
        return maps[..., rows, cols].contiguous()

    def maps(self, capture: Capture, images: Sequence[Tensor]) -> dict[str, Tensor]:
        """The whole maps (n, U, h, w) of every layer for n images, uint8 (1, 3, H, W), in full float32.

        NDError where the network fails or a single image does not fit the device; torch.OutOfMemoryError for several.
        """
        inputs = self.inputs(images, slice(0, len(images)))
        try:
            with computing("fp32", self.device):
                capture.run(inputs)
        except Exception as e:
            if out_of_memory(e):
                raise (torch.OutOfMemoryError(str(e)) if len(images) > 1 else too_large()) from e
            raise _network_failed(self.network, inputs, e) from e
        return {name: capture[name] for name in capture.names}

    def _consume(self, consume: Consumer, i: int, maps: Tensor, known: Extremes, piece: slice) -> None:
        def take(s: slice) -> None:
            images = slice(piece.start + s.start, piece.start + s.stop)
            consume(i, maps[s], Extremes(known.peak[s], known.low[s], known.clean), images)

        inner = Halving(len(maps), self._progress)
        inner.run(len(maps), take)
        if inner.size < len(maps):  # it will not fit the next batch either
            self.batch.size = min(self.batch.size, inner.size)

    def inputs(self, pixels: Sequence[Tensor], piece: slice) -> Tensor:
        """The network's input (n, C, h, w) for some images of a batch, on its device."""
        part = [pixels[0][piece]] if len(pixels) == 1 else list(pixels[piece])
        prepare = self.network.preprocess
        if prepare.transform is None:  # a researcher's own transform may hold tensors on the CPU
            return torch.cat([prepare.apply(x.to(self.device, non_blocking=True)) for x in part])
        return torch.cat([prepare.apply(x) for x in part]).to(self.device)


def _network_failed(network: Network, inputs: Tensor, error: Exception) -> NDError:
    if isinstance(error, NDError):
        return error
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return NDError(
        f"{network.spec} failed on a batch of shape {tuple(inputs.shape)}: {reason}",
        "the factory's transform must give what the network takes; --debug shows the traceback",
    )
