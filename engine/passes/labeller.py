"""Labels made of pixels, on the device where the pixels are: by a segmentation network, and by the names of colours.

Nothing here knows of data sets on a disk but :func:`with_labels`: pixels go in, whoever made them, and labels come out.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ndissect.engine.data.color_names import LEVELS, color_table
from ndissect.engine.data.label_arrays import label_kind, whole_words
from ndissect.engine.data.made_labels import LabelsMade, MadeLabels
from ndissect.engine.machine.device import computing, out_of_memory
from ndissect.engine.machine.progress import Progress
from ndissect.engine.machine.timing import Clock
from ndissect.engine.networks.resolve import Network
from ndissect.engine.passes.forward import Forward, prepared
from ndissect.engine.passes.labels import LabelBatch
from ndissect.engine.passes.loader import Batch
from ndissect.store.concepts import ConceptTable
from ndissect.store.errors import NDError, first_line

# Of what a network returns beside a tensor, where the scores are: torchvision's and transformers' segmentation.
_SCORES = ("out", "logits")
# A mean of whole levels that is one itself must not fall below it by rounding.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Segmenter:
    """A segmentation network, and what its classes are: ``numbers`` (K,), the concept of each class, 0 for none.

    ``least``: a pixel whose largest softmax score is lower has no label.
    """

    network: Network
    numbers: tuple[int, ...]
    least: float = 0.0


class Labeller:
    """Makes the label maps of ``made`` for images: by ``segmenter``, None without, and by the names of their colours.

    Scores are brought to the label grid by bilinear interpolation (half-pixel) and the largest of them is taken there;
    a colour is that of the mean of the pixels under a cell of the grid. ``first_color``: the number of the first
    colour's concept. The network is taken to ``device``.
    """

    def __init__(
        self,
        made: LabelsMade,
        segmenter: Segmenter | None,
        first_color: int,
        device: torch.device,
        *,
        batch: int = 0,
        progress: Progress | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.made, self._segmenter, self._first_color = made, segmenter, first_color
        #: Where labels come out: where masks are counted.
        self.device = torch.device("cpu") if device.type == "mps" else device
        self._colors: Tensor | None = None
        if made.colors:
            self._colors = torch.from_numpy(color_table().reshape(-1).astype(np.int32)).to(self.device)
        self._forward: Forward | None = None
        if segmenter is not None:
            segmenter.network.module.to(device)
            self._numbers = torch.tensor(segmenter.numbers, dtype=torch.int32, device=device)
            self._forward = Forward(
                segmenter.network, (), device, batch=batch, progress=progress or Progress(), clock=clock or Clock()
            )
        self._alone = threading.Lock()

    @property
    def segmenter(self) -> Segmenter | None:
        """The network that labels; None where names of colours alone do."""
        return self._segmenter

    @property
    def spec(self) -> str:
        """What labels, as it was typed."""
        return self._segmenter.network.spec if self._segmenter else "names of colours"

    def numbers(self, pixels: Sequence[Tensor]) -> Tensor:
        """(N, M, H, W) int32 on ``device``: the concept numbers of images, 0 is none.

        ``pixels``: uint8 tensors (n, 3, h, w) on any device, one where all images have one size, else one an image.
        NDError where the network fails, gives no scores of its classes, or a single image does not fit the device.
        """
        planes = []
        if self._forward is not None:
            planes.append(self._by_network(self._forward, pixels).to(self.device))
        if self._colors is not None:
            planes.append(torch.cat([self._by_color(x.to(self.device), self._colors) for x in pixels]))
        return torch.stack(planes, 1)

    def labels(self, pixels: Sequence[Tensor]) -> LabelBatch:
        """The labels of images that have none of their own, on ``device``; ``pixels`` and errors as in ``numbers``.

        Rows are those of ``made.concepts``: the classes of the network, then the colours.
        """
        numbers = self.numbers(pixels)
        concepts = self.made.concepts(ConceptTable(np.zeros(0, np.int32), (), np.zeros(0, np.int32), ()))
        return joined(_unlabelled(len(numbers), concepts, self.made.grid, self.device), numbers, concepts)

    def label_image(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
        """(M, H, W): the concept numbers of an image (h, w, 3), for any thread (ndissect.engine.data.made_labels)."""
        with self._alone:
            numbers = self.numbers([torch.from_numpy(image.copy()).permute(2, 0, 1)[None]])
            return numbers[0].cpu().numpy().astype(np.uint16)

    def _by_network(self, forward: Forward, pixels: Sequence[Tensor]) -> Tensor:
        labels: list[Tensor] = []

        def some(images: slice) -> None:
            labels.append(torch.cat([self._classes(forward, inputs) for inputs in _inputs(forward, pixels, images)]))

        forward.batch.run(sum(map(len, pixels)), some)
        return torch.cat(labels)

    def _classes(self, forward: Forward, inputs: Tensor) -> Tensor:
        """(n, H, W) int32: the concept number of the class of each pixel of the grid."""
        assert self._segmenter is not None
        scores = run_segmenter(self._segmenter.network, inputs, forward.device)
        if len(scores) != len(inputs) or scores.shape[1] != len(self._numbers):
            raise _other_scores(self._segmenter, inputs, scores)
        scores = F.interpolate(scores.float(), self.made.grid, mode="bilinear", align_corners=False)
        largest, label = scores.max(1)
        number = self._numbers[label]
        if self._segmenter.least > 0:
            number = number * ((largest - scores.logsumexp(1)).exp() >= self._segmenter.least)
        return number

    def _by_color(self, images: Tensor, table: Tensor) -> Tensor:
        """(n, H, W) int32: the numbers of the colours of images (n, 3, h, w)."""
        mean = F.interpolate(images.float(), self.made.grid, mode="area") + _ROUNDING
        red, green, blue = (mean / (256 // LEVELS)).to(torch.int64).unbind(1)
        return table[(red * LEVELS + green) * LEVELS + blue] + (self._first_color - 1)


def _inputs(forward: Forward, pixels: Sequence[Tensor], images: slice) -> list[Tensor]:
    """The labeller's inputs for some images of a batch: one tensor of all, or of those in a row that have one size."""
    part = [pixels[0][images]] if len(pixels) == 1 else pixels[images]
    each = prepared(forward.network, part, forward.device)
    return [torch.cat(list(alike)) for _, alike in itertools.groupby(each, lambda x: x.shape)]


def run_segmenter(network: Network, inputs: Tensor, device: torch.device) -> Tensor:
    """(n, K, h, w): the scores of a segmentation network on its ``device`` for its inputs, in full float32.

    torch.OutOfMemoryError where the device has not the memory, NDError where the network fails or gives no scores.
    """
    try:
        with computing("fp32", device), torch.no_grad():
            output = network.module(inputs)
    except Exception as e:
        if out_of_memory(e):
            raise torch.OutOfMemoryError(str(e)) from e
        raise NDError(
            f"the labeller {network.spec} failed on images {tuple(inputs.shape)}: {first_line(e)}",
            "--labeller-size gives it an input of another size",
        ) from e
    return scores_of(output, network.spec)


def scores_of(output: Any, spec: str) -> Tensor:
    """(N, K, h, w): the scores of the classes in what a segmentation network returns; two of a network with one score.

    A tensor, a dict or an object that holds it as ``out`` or ``logits``, or a tuple whose first element it is. NDError
    where there are no such scores.
    """
    scores = output
    if isinstance(output, Mapping):
        scores = next((output[name] for name in _SCORES if name in output), None)
    elif isinstance(output, tuple | list):
        scores = output[0] if output else None
    elif not isinstance(output, Tensor):
        scores = next((getattr(output, name) for name in _SCORES if hasattr(output, name)), None)
    if not isinstance(scores, Tensor) or scores.ndim != 4 or not scores.is_floating_point():
        given = f"a tensor {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(output).__name__
        raise NDError(
            f"{spec} labels no pixels: it returns {given}",
            "a labeller returns scores (images, classes, rows, columns), or a dict with `out` or `logits` of them",
        )
    # Of one score, which says how much a pixel is of the class, the other is what it would be without it.
    return torch.cat([torch.zeros_like(scores), scores], 1) if scores.shape[1] == 1 else scores


def _other_scores(segmenter: Segmenter, inputs: Tensor, scores: Tensor) -> NDError:
    return NDError(
        f"{segmenter.network.spec} gives scores {tuple(scores.shape)} for images {tuple(inputs.shape)}",
        f"it gave {len(segmenter.numbers)} classes before: a labeller gives as many for every image",
    )


def with_labels(batch: Batch, dataset: MadeLabels, labeller: Labeller) -> Batch:
    """``batch`` with the labels that are made beside its own: those that are kept, else new ones, which are kept."""
    if not len(batch):
        return batch
    kept = [dataset.kept(index) for index in batch.images]
    lacking = [n for n, maps in enumerate(kept) if maps is None]
    made = labeller.numbers(_images(batch.pixels, lacking)) if lacking else None
    if made is not None:
        for n, maps in zip(lacking, made.cpu().numpy(), strict=True):
            dataset.keep(batch.images[n], maps)
    if made is not None and len(lacking) == len(kept):
        numbers = made
    else:
        there = [np.zeros((dataset.made.maps, *dataset.grid), np.uint16) if maps is None else maps for maps in kept]
        numbers = torch.from_numpy(np.stack(there).astype(np.int32)).to(labeller.device)
        if made is not None:
            numbers[lacking] = made
    rows = _rows(numbers, dataset)
    labels = joined(batch.labels, rows, dataset.concepts)
    return replace(batch, labels=labels, area=labels.area.cpu())


def _images(pixels: Sequence[Tensor], which: Sequence[int]) -> list[Tensor]:
    """Those images of a batch, in the form of its pixels."""
    if len(pixels) > 1:
        return [pixels[n] for n in which]
    return [pixels[0] if len(which) == len(pixels[0]) else pixels[0][list(which)]]


def _rows(numbers: Tensor, dataset: MadeLabels) -> Tensor:
    """Concept numbers as concept rows + 1: those that are made are the last ones of the table, in their order."""
    first = dataset.made.first_number(dataset.source.concepts)
    before = len(dataset.concepts) - dataset.made.count
    known = (numbers >= first) & (numbers < first + dataset.made.count)  # a file may hold anything
    return torch.where(known, numbers - first + before + 1, 0)


def _unlabelled(images: int, concepts: ConceptTable, grid: tuple[int, int], device: torch.device) -> LabelBatch:
    """So many images without a label."""
    kind = torch.int16 if label_kind(len(concepts)) is np.int16 else torch.int32
    return LabelBatch(
        pixels=torch.zeros((images, grid[0] * grid[1], 1), dtype=kind, device=device),
        image_level=torch.zeros((images, 0), dtype=torch.int32, device=device),
        area=torch.zeros((images, len(concepts) + 1), dtype=torch.int64, device=device),
        present=torch.zeros((images, len(concepts.categories)), dtype=torch.bool, device=device),
        group=torch.zeros(images, dtype=torch.int64, device=device),
    )


def joined(own: LabelBatch, rows: Tensor, concepts: ConceptTable) -> LabelBatch:
    """``own`` labels and others of the same N images, (N, M, H, W) concept rows + 1, of concepts that own has none of.

    It is on the device of ``rows``.
    """
    own = own.to(rows.device)
    N, C = len(rows), len(concepts)
    beside = rows.flatten(2).transpose(1, 2).to(own.pixels.dtype)
    pixels = beside if not bool((own.area > 0).any()) else torch.cat([own.pixels, beside], 2)
    most = whole_words(pixels.shape[2], pixels.element_size())
    pixels = F.pad(pixels, (0, most - pixels.shape[2])).contiguous()
    places = rows.flatten(1).long() + torch.arange(N, device=rows.device)[:, None] * (C + 1)
    area = torch.bincount(places.flatten(), minlength=N * (C + 1)).view(N, C + 1)
    area[:, 0] = 0
    area = own.area + area
    in_category = F.one_hot(torch.from_numpy(concepts.category).long(), len(concepts.categories))
    present = (area[:, 1:] > 0).float() @ in_category.float().to(rows.device) > 0
    return replace(own, pixels=pixels, area=area, present=present)
