"""A network on its device, examined, with a data set to read: what every experiment over a data set begins with.

::

    with open_pass(network, dataset, layers, protocol, settings, progress) as p:
        sums = [torch.zeros(geometry.units, dtype=torch.float64) for geometry in p.geometries]

        def add(i: int, maps: Tensor, images: slice) -> None:
            sums[i] += maps.mean((2, 3), dtype=torch.float64).sum(0)

        for batch in p.batches(range(len(dataset))):
            p.forward.run(batch, [add])
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.data.made_labels import MadeLabels
from ndissect.engine.data.samples import LabelledSamples
from ndissect.engine.examination.examine import Examination, examine
from ndissect.engine.geometry.layer_geometry import LayerGeometry
from ndissect.engine.machine.device import exact_arithmetic
from ndissect.engine.machine.progress import Progress
from ndissect.engine.machine.ranks import ALONE, Ranks
from ndissect.engine.machine.timing import Clock
from ndissect.engine.networks.layers import LayerInfo, taps_of
from ndissect.engine.networks.resolve import Network
from ndissect.engine.passes.forward import Forward
from ndissect.engine.passes.input_size import demand_one_size
from ndissect.engine.passes.labeller import Labeller, with_labels
from ndissect.engine.passes.loader import Batch, Loader
from ndissect.engine.passes.thumbnails import keep_thumbnails
from ndissect.engine.passes.transfer import on_device
from ndissect.engine.run.settings import Settings
from ndissect.store.errors import NDError
from ndissect.store.protocol import Protocol


@dataclass(frozen=True)
class ForwardPass:
    """A network over a data set, any number of times: ``forward`` runs it, ``loader`` reads the data.

    ``examination``: how the layers' maps lie on the label grid, and what is wrong with the network; ``clock``: where
    the time goes.
    """

    loader: Loader
    forward: Forward
    examination: Examination
    settings: Settings
    progress: Progress
    clock: Clock
    _open: contextlib.ExitStack

    @property
    def geometries(self) -> list[LayerGeometry]:
        """How the maps of each layer lie on the label grid, in the order of the layers."""
        return list(self.examination.geometries)

    @property
    def device(self) -> torch.device:
        """Where maps are handed out, and counted."""
        return self.forward.counting_device

    def batches(self, images: Sequence[int], *, skip_bad: bool = False) -> Iterator[Batch]:
        """These images in their order, a batch at a time, each to be given to ``forward.run`` before the next.

        Batches are decoded ahead, and copied to a GPU ahead; what it takes to wait for them is timed. Their labels are
        on ``device``. NDError at the first image that cannot be read, unless ``skip_bad``.
        """
        batches = self._batches(images, skip_bad)
        self._open.callback(batches.close)  # where an error ends the loop over them
        return batches

    def _batches(self, images: Sequence[int], skip_bad: bool) -> Generator[Batch, None, None]:
        loaded = self.loader.loaded(images, self.forward.batch.size, skip_bad=skip_bad)
        # A researcher's own transform may hold tensors on the CPU.
        own_transform = self.forward.network.preprocess.transform is not None
        batches = on_device(loaded, self.device, pixels=not own_transform)
        with self.forward.captured(), contextlib.closing(batches):
            while True:
                with self.clock.during("decode"):
                    batch = next(batches, None)
                if batch is None:
                    return
                yield self._labelled(batch)

    def _labelled(self, batch: Batch) -> Batch:
        """``batch`` with the labels that are made of its pixels, where the data set has such.

        Those of samples are made of what the generator draws (:meth:`labelled`), unless they are there already.
        """
        dataset = self.loader.dataset
        if isinstance(dataset, LabelledSamples) and any(dataset.kept(image) is None for image in batch.images):
            return batch
        if not isinstance(dataset, MadeLabels) or not isinstance(dataset.maker, Labeller):
            return batch
        with self.clock.during("labelling", self.device):
            return with_labels(batch, dataset, dataset.maker)

    def labelled(self, batch: Batch, pictures: Sequence[Tensor]) -> Batch:
        """A batch of samples with the labels of ``pictures``, uint8 (n, 3, H, W), which the generator drew of it."""
        dataset = self.loader.dataset
        assert isinstance(dataset, LabelledSamples)
        assert isinstance(dataset.maker, Labeller)
        drawn = torch.cat(list(pictures))
        with self.clock.during("images", self.device):
            keep_thumbnails(dataset, batch.images, drawn)
        with self.clock.during("labelling", self.device):
            return with_labels(replace(batch, pixels=[drawn]), dataset, dataset.maker)


@contextlib.contextmanager
def open_pass(
    network: Network,
    dataset: ConceptDataset,
    layers: Sequence[LayerInfo],
    protocol: Protocol,
    settings: Settings,
    progress: Progress,
    *,
    ranks: Ranks = ALONE,
    seconds: Mapping[str, float] | None = None,
    examination: Examination | None = None,
    when_full: str = "dissect fewer layers at a time, free the device, or use another --device",
) -> Iterator[ForwardPass]:
    """``network`` on the device of ``settings`` for the block, with ``layers`` examined on the first images.

    ``ranks``: the processes that share the work; ``seconds``: by what was done, before this process went on with it;
    ``examination``: of the same layers on images of the same size, as an earlier pass has it: nothing is examined then.
    WrongUse where images are known to reach the network at several sizes; NDError where it is refused
    (ndissect.engine.examination.examine), and where the device has not the memory for what is done in the block;
    ``when_full`` is the hint then.
    """
    exact_arithmetic()
    demand_one_size(network, dataset)
    clock = Clock(seconds)
    loader = make_loader(dataset, protocol, settings)
    forward = Forward(
        network,
        [layer.name for layer in layers],
        settings.device,
        taps=taps_of(layers),
        batch=settings.batch,
        precision=settings.precision,
        progress=progress,
        clock=clock,
    )
    with network_on(network, settings.device, when_full), contextlib.ExitStack() as stack:
        if examination is None:
            with clock.during("check"):
                examination = examine(
                    forward, loader, layers, progress, ranks, anyway=settings.anyway, skip_bad=settings.skip_bad
                )
        forward.crops = examination.crops
        yield ForwardPass(loader, forward, examination, settings, progress, clock, stack)


def make_loader(dataset: ConceptDataset, protocol: Protocol, settings: Settings) -> Loader:
    """``dataset`` as ``settings`` ask it to be read."""
    return Loader(
        dataset,
        protocol,
        settings.workers,
        pin=settings.device.type == "cuda",
        jpeg_on=settings.jpeg_on,
        decode_in=settings.decode_in,
    )


@contextlib.contextmanager
def network_on(network: Network, device: torch.device, when_full: str) -> Iterator[None]:
    """The network on ``device`` for the block, then where it was before."""
    module = network.module
    before = next((t.device for t in itertools.chain(module.parameters(), module.buffers())), torch.device("cpu"))
    try:
        module.to(device)
        yield
    except torch.OutOfMemoryError as e:
        reason = str(e).strip().splitlines()[0]
        raise NDError(f"{device} has not enough free memory: {reason}", when_full) from e
    finally:
        module.to(before)
