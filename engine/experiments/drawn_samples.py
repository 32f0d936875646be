"""The samples of a generator's store, drawn again: their pictures, and their latents.

::

    with open_sampler(request, console) as sampler:
        pictures = sampler.pictures([17, 18])
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ndissect.engine.experiments.generated import GeneratorRequest, generator_options
from ndissect.engine.machine.console import Console
from ndissect.engine.machine.device import DEFAULT_BATCH, choose_device
from ndissect.engine.networks.generators import Generator
from ndissect.engine.run.forward_pass import network_on
from ndissect.engine.run.from_store import demand_same_weights, told_of_code
from ndissect.engine.run.generated import draw, open_generator
from ndissect.engine.run.network_loader import network_loader
from ndissect.store.errors import WrongUse
from ndissect.store.files import atomic, check_writable
from ndissect.store.reader import Store

# Latents that are written at a time.
_AT_ONCE = 256


@dataclass(frozen=True)
class Sampler:
    """The generator of a ``store`` of ``count`` samples, on its ``device``; ``notes``: how it differs from then."""

    generator: Generator
    store: Path
    count: int
    device: torch.device
    at_once: int
    notes: tuple[str, ...]

    def check(self, numbers: Sequence[int]) -> None:
        """WrongUse where the store is not of one of these samples."""
        for number in numbers:
            if not 0 <= number < self.count:
                raise WrongUse(
                    f"there is no sample {number} in {self.store}", f"they are numbered 0 to {self.count - 1}"
                )

    def pictures(self, numbers: Sequence[int]) -> npt.NDArray[np.uint8]:
        """(n, H, W, 3) uint8: the pictures of samples by their numbers; WrongUse for a number that is not there."""
        self.check(numbers)
        drawn = np.zeros((len(numbers), *self.generator.size, 3), np.uint8)
        for start in range(0, len(numbers), self.at_once):
            some = list(numbers[start : start + self.at_once])
            pictures = draw(self.generator, self.generator.inputs(some, self.device))
            drawn[start : start + len(some)] = pictures.permute(0, 2, 3, 1).cpu().numpy()
        return drawn

    def write_latents(self, path: Path, numbers: Sequence[int]) -> None:
        """Write the latents of these samples to ``path``: a .npy file of (n, ...) float32, as --latents takes it."""
        self.check(numbers)
        shape = (len(numbers), *self.generator.latents.shape)
        check_writable(path, 4 * int(np.prod(shape)))
        with atomic(path) as part:
            written = np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=shape)
            for start in range(0, len(numbers), _AT_ONCE):
                some = list(numbers[start : start + _AT_ONCE])
                written[start : start + len(some)] = self.generator.latents.of(some)
            written.flush()
            del written


@contextlib.contextmanager
def open_sampler(request: GeneratorRequest, console: Console) -> Iterator[Sampler]:
    """The generator of a store, for the block; its labeller is not needed.

    WrongUse where the store is of no generator, or of one whose weights were others (unless ``options.anyway``);
    NDError where the network is gone or fails.
    """
    with Store(request.store) as store:
        options = generator_options(store, request.options)
        for line in told_of_code(store, options, request.options):
            console.note(line)
        network = network_loader(options)()
        notes = demand_same_weights(store, network, anyway=options.anyway)
        said = store.provenance.get("data")
        count = said.get("images") if isinstance(said, dict) else None
    if not isinstance(count, int) or count < 1:
        raise WrongUse(f"{request.store} does not say how many samples it is of", "dissect the generator again")
    device = choose_device(options.device)
    generator = open_generator(options, network, device)
    at_once = options.batch_size or DEFAULT_BATCH.get(device.type, 32)
    with network_on(generator.network, device, "use another --device, or a smaller --batch-size"):
        yield Sampler(generator, request.store, count, device, at_once, notes)
