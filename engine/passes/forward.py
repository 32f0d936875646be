"""Running a network over batches of images, as many at a time as fit the device, and handing out its maps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from ndissect.engine.machine.device import DEFAULT_BATCH, Halving, Precision, computing, out_of_memory, too_large
from ndissect.engine.machine.progress import Progress
from ndissect.engine.machine.timing import Clock
from ndissect.engine.networks.capture import Capture
from ndissect.engine.networks.resolve import Network
from ndissect.engine.networks.taps import Tap
from ndissect.engine.passes.input_size import joined, several_sizes
from ndissect.engine.passes.loader import Batch
from ndissect.store.errors import NDError, first_line


class Consumer(Protocol):
    """Takes layer i's maps (N, U, h, w), and which images of the batch they are.

    After running out of memory it must be as it was before.
    """

    def __call__(self, i: int, maps: Tensor, images: slice, /) -> None: ...


#: Takes the maps of all layers, and which images of the batch they are; out of memory it must be as it was before.
TogetherConsumer = Callable[[Sequence[Tensor], slice], None]


#: Takes what the network returned, and for which images of the batch.
TakeOutput = Callable[[Any, slice], None]


#: Gives the maps (n, U, h, w) of each layer for n images, uint8 (1, 3, H, W), as :meth:`Forward.maps` does.
MapsOf = Callable[[Sequence[Tensor]], Mapping[str, Tensor]]


class Forward:
    """Runs a network, which is on its ``device``, and hands out the maps of the layers ``names``.

    ``taps``: where these are taken, by name; of a layer without one, where the module of its name returns them.
    """

    def __init__(
        self,
        network: Network,
        names: Sequence[str],
        device: torch.device,
        *,
        taps: Mapping[str, Tap] | None = None,
        batch: int = 0,
        precision: Precision = "fp32",
        progress: Progress,
        clock: Clock,
    ) -> None:
        self.network, self.names, self.device, self.precision = network, tuple(names), device, precision
        self.taps = {name: (taps or {}).get(name) or Tap(name) for name in self.names}
        #: Where maps are handed out. Counting needs 64-bit integers and float64 comparisons, which MPS lacks: there
        #: the CPU counts.
        self.counting_device = torch.device("cpu") if device.type == "mps" else device
        self.batch = Halving(batch or DEFAULT_BATCH.get(device.type, 32), progress)
        #: By layer, the rows and columns of its maps that are handed out; all of those of layers that are not named.
        self.crops: dict[str, tuple[slice, slice]] = {}
        self._progress, self._clock = progress, clock
        self._capture: Capture | None = None
        self._size: tuple[int, int] | None = None  # of every input

    @contextlib.contextmanager
    def captured(self) -> Iterator[Capture]:
        """The network with its layers captured for the block, outside of which nothing can be run."""
        with Capture(self.network.module, self.names, self.taps, stop=self.network.draws is None) as capture:
            self._capture = capture
            try:
                yield capture
            finally:
                self._capture = None

    def run(
        self,
        batch: Batch,
        consumers: Sequence[Consumer] = (),
        together: TogetherConsumer | None = None,
        outputs: TakeOutput | None = None,
    ) -> None:
        """One batch through the network: every consumer gets each layer's maps, ``together`` those of all layers.

        ``outputs`` gets before them what a generator drew, of other networks nothing.

        A few images at a time where the device has not the memory for all. NDError where the network fails or a single
        image does not fit the device.
        """
        if len(batch):
            self.batch.run(len(batch), partial(self._run_some, batch, consumers, together, outputs))

    def _run_some(
        self,
        batch: Batch,
        consumers: Sequence[Consumer],
        together: TogetherConsumer | None,
        outputs: TakeOutput | None,
        images: slice,
    ) -> None:
        capture = self._listening()
        with self._clock.during("forward", self.device):
            inputs = self.inputs(batch.pixels, images)
            try:
                with computing(self.precision, self.device):
                    output = capture.run(inputs)
            except Exception as e:
                if out_of_memory(e):
                    raise torch.OutOfMemoryError(str(e)) from e
                raise network_failed(self.network, inputs, e) from e
        if outputs is not None:
            outputs(output, images)
        with self._clock.during("thresholds" if together else "tally", self.device):
            maps = [self._crop(name, capture[name]).to(self.counting_device) for name in capture.names]
            # From here on counts change: what does not fit is cut further for that consumer alone, never counted twice.
            for i, layer in enumerate(maps):
                for consume in consumers:
                    self._hand_out([layer], partial(_hand_over, consume, i), images)
            if together:
                self._hand_out(maps, together, images)

    def _listening(self) -> Capture:
        assert self._capture is not None, "the network runs within captured()"
        return self._capture

    def _crop(self, name: str, maps: Tensor) -> Tensor:
        if name not in self.crops:
            return maps
        rows, cols = self.crops[name]
        return maps[..., rows, cols].contiguous()

    def maps(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        """The whole maps (n, U, h, w) of every layer for n images, uint8 (1, 3, H, W), in full float32.

        NDError where the network fails or a single image does not fit the device; torch.OutOfMemoryError for several.
        """
        capture, inputs = self._listening(), self.inputs(images, slice(0, len(images)))
        try:
            with computing("fp32", self.device):
                capture.run(inputs)
        except Exception as e:
            if out_of_memory(e):
                raise (torch.OutOfMemoryError(str(e)) if len(images) > 1 else too_large()) from e
            raise network_failed(self.network, inputs, e) from e
        return {name: capture[name] for name in capture.names}

    def output(self, images: Sequence[Tensor]) -> Tensor:
        """What a generator draws of the latents that n images carry, in full float32; NDError where it fails."""
        inputs = self.inputs(images, slice(0, len(images)))
        with failures_of(self.network), computing("fp32", self.device):
            drawn = self._listening().run(inputs)
        if not isinstance(drawn, Tensor):
            raise NDError(f"{self.network.spec} draws no pictures: it returns a {type(drawn).__name__}", "")
        return drawn.clone()

    def _hand_out(self, maps: Sequence[Tensor], consume: TogetherConsumer, images: slice) -> None:
        def take(s: slice) -> None:
            some = maps if s.stop - s.start == count else [layer[s] for layer in maps]
            consume(some, slice(images.start + s.start, images.start + s.stop))

        count = len(maps[0])
        inner = Halving(count, self._progress)
        inner.run(count, take)
        if inner.size < count:  # it will not fit the next batch either
            self.batch.size = min(self.batch.size, inner.size)

    def inputs(self, pixels: Sequence[Tensor], images: slice) -> Tensor:
        """The network's input (n, C, h, w) for some images of a batch, on its device.

        WrongUse where they, or those of an earlier batch, have another size.
        """
        part = [pixels[0][images]] if len(pixels) == 1 else list(pixels[images])
        inputs = joined(self.network, prepared(self.network, part, self.device))
        if self.network.draws is not None:
            return inputs  # latents have one shape
        size = (int(inputs.shape[-2]), int(inputs.shape[-1]))
        self._size = self._size or size
        if size != self._size:
            raise several_sizes(self.network, dict.fromkeys((self._size, size)))
        return inputs


def prepared(network: Network, pixels: Sequence[Tensor], device: torch.device) -> Iterator[Tensor]:
    """The input (n, C, h, w) of ``network`` on ``device`` for each of ``pixels``, uint8 (n, 3, H, W)."""
    prepare = network.preprocess
    for x in pixels:
        # A researcher's own transform may hold tensors on the CPU.
        yield (
            prepare.apply(x.to(device, non_blocking=True)) if prepare.transform is None else prepare.apply(x).to(device)
        )


def _hand_over(consume: Consumer, i: int, maps: Sequence[Tensor], images: slice) -> None:
    consume(i, maps[0], images)


@contextlib.contextmanager
def failures_of(network: Network) -> Iterator[None]:
    """The network is run in the block: NDError for what its own code raises there, but for a lack of memory or disk."""
    try:
        yield
    except (NDError, OSError, MemoryError):
        raise
    except Exception as e:  # whatever the researcher's code raises
        if out_of_memory(e):
            raise
        raise NDError(f"{network.spec} failed: {first_line(e)}", "--debug shows where in its code") from e


def network_failed(network: Network, inputs: Tensor, error: Exception) -> NDError:
    """The error that ``network`` failed on ``inputs``; an error that says all already is that itself."""
    if isinstance(error, NDError):
        return error
    if network.draws is not None:
        return NDError(
            f"{network.spec} failed on latents {tuple(inputs.shape)}: {first_line(error)}",
            "--debug shows where in its code",
        )
    return NDError(
        f"{network.spec} failed on a batch of shape {tuple(inputs.shape)}: {first_line(error)}",
        "the factory's transform must give what the network takes; --debug shows the traceback",
    )
