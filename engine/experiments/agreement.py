"""How far a labeller agrees with labels by hand, concept by concept: before it labels what nobody has labelled."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndissect.engine.data.class_names import ClassName
from ndissect.engine.data.concept_names import normal_name
from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.data.subset import spread
from ndissect.engine.machine.console import Console
from ndissect.engine.machine.device import DEFAULT_BATCH, choose_device
from ndissect.engine.passes.labeller import Labeller
from ndissect.engine.passes.loader import Batch, Loader
from ndissect.engine.run.data_source import open_named
from ndissect.engine.run.labelling import Labelling, make_labeller
from ndissect.engine.run.options import Options
from ndissect.store.concepts import ConceptTable
from ndissect.store.errors import WrongUse
from ndissect.store.files import atomic

#: A concept with a lower IoU is better left out: most of what the labeller calls so is something else, or is missed.
LEAST_IOU = 0.3

_Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ConceptAgreement:
    """A concept that both name: ``name`` and ``category`` by hand; ``classes``: the numbers of the labeller's.

    ``images``: how many hold it by hand; of their pixels, and those of all images with labels of its category,
    ``by_hand``, ``by_labeller`` and ``both`` have it. ``by_labeller_known``: those where labels by hand of the category
    say anything.
    """

    name: str
    category: str
    classes: tuple[int, ...]
    images: int
    by_hand: int
    by_labeller: int
    by_labeller_known: int
    both: int

    @property
    def iou(self) -> float | None:
        """Of all pixels: what has no label by hand is not the concept. None where neither has the concept."""
        return _share(self.both, self.by_hand + self.by_labeller - self.both)

    @property
    def iou_known(self) -> float | None:
        """Of the pixels that have a label by hand: what has none is not judged."""
        return _share(self.both, self.by_hand + self.by_labeller_known - self.both)

    @property
    def precision(self) -> float | None:
        """How much of what the labeller calls so is so by hand."""
        return _share(self.both, self.by_labeller)

    @property
    def recall(self) -> float | None:
        """How much of what is so by hand the labeller calls so."""
        return _share(self.both, self.by_hand)


@dataclass(frozen=True)
class Agreement:
    """What was found over ``images`` images: ``concepts`` that both name, best first.

    ``pixels``: those with such a concept by hand, of which ``agreeing`` have it by the labeller. ``unjudged``: names of
    the labeller's that no image has by hand. ``skipped``: (name, why) of images that cannot be read.
    """

    labeller: str
    data: str
    images: int
    concepts: tuple[ConceptAgreement, ...]
    unjudged: tuple[str, ...]
    pixels: int
    agreeing: int
    skipped: tuple[tuple[str, str], ...]
    names: tuple[ClassName, ...]

    def poor(self, least: float = LEAST_IOU) -> list[ConceptAgreement]:
        """The concepts whose IoU is below ``least``: what to leave out."""
        return [concept for concept in self.concepts if (concept.iou or 0.0) < least]

    def write_classes(self, path: Path, least: float = LEAST_IOU) -> None:
        """Write the labeller's classes for ``--labeller-classes``, those without a name that are to be left out.

        What cannot be judged stays. NDError where the file cannot be written.
        """
        out = {number for concept in self.poor(least) for number in concept.classes}
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("number", "name", "category"))
        for number, named in enumerate(self.names):
            table.writerow((number, *(("", "") if named is None or number in out else named)))
        with atomic(path) as part:
            part.write_text(text.getvalue(), encoding="utf-8")


def agreement(options: Options, console: Console, *, images: int | None = None) -> Agreement:
    """Compare the labels of ``options.labeller`` with those that ``options.data`` has by hand.

    Concepts are matched by name, without regard to case, ``_`` and ``-``, and to the synonyms after a comma; a file of
    classes names those that are called otherwise. ``images``: so many, spread evenly, by default all. WrongUse where
    the data have no labels, or no concept that the labeller knows; NDError as for a dissection.
    """
    protocol, device = options.make_protocol(), choose_device(options.device)
    dataset = open_named(options, console)
    if not len(dataset.concepts):
        raise WrongUse(f"{dataset.root} has no labels to agree with", "name a data set that is labelled by hand")
    some = dataset if images is None else spread(dataset, images)
    made = make_labeller(options, some, protocol, device, console)
    counting = _Counting(made, dataset.concepts)
    skipped = []
    with console.progress() as progress:
        progress.start("labelling", len(some), 0)
        loader = Loader(some, protocol, options.workers, pin=device.type == "cuda")
        size = options.batch_size or DEFAULT_BATCH[device.type]
        for batch in loader.batches(range(len(some)), size, skip_bad=options.skip_bad):
            counting.add(batch, made.labeller)
            skipped += [(some.names[number], error.message) for number, error in batch.bad]
            progress.advance(len(batch) + len(batch.bad))
    return counting.result(made, some, tuple(skipped))


class _Counting:
    """Adds up where hand and labeller agree: by class of concepts by hand, (labeller's concepts + 1, by hand + 1)."""

    def __init__(self, made: Labelling, by_hand: ConceptTable) -> None:
        self._by_hand = by_hand
        rows = {name: row for row in reversed(range(len(by_hand))) for name in _names(by_hand.label(row))}
        found = [next((rows[n] for n in _names(name) if n in rows), -1) for name, _ in made.classes]
        if max(found, default=-1) < 0:
            raise WrongUse(
                f"none of the concepts of {made.labeller.spec} is called as one of the data: "
                + ", ".join(name for name, _ in made.classes[:5]),
                "--labeller-classes FILE names its classes as the data do",
            )
        #: The row by hand + 1 of each concept of the labeller, from 1; 0 where there is none.
        self.row = np.array([0, *(row + 1 for row in found)])
        category = np.array([-1, *by_hand.category])
        self._category = torch.from_numpy(category)
        size, categories = (len(self.row), len(by_hand) + 1), len(by_hand.categories)
        self._both = np.zeros(size, np.int64)
        self._labeller, self._known = (
            np.zeros((categories, size[0]), np.int64),
            np.zeros((categories, size[0]), np.int64),
        )
        self._area, self._holding = np.zeros(size[1], np.int64), np.zeros(size[1], np.int64)
        self._pixels = self._agreeing = self.images = 0

    def add(self, batch: Batch, labeller: Labeller) -> None:
        """Take the labels by hand of a batch, and those of the labeller."""
        if not len(batch):
            return
        made = labeller.numbers(batch.pixels)[:, 0].flatten(1).long()
        own = self._own(batch).to(made.device)
        category = self._category.to(made.device)[own]  # (N, P, M)
        rows, size = own.shape[2], self._both.shape
        places = made[..., None].expand(-1, -1, rows) * size[1] + own
        self._both += _counted(places, size[0] * size[1]).reshape(size)
        for k in range(len(self._labeller)):
            known = (category == k).any(2)
            there = known.any(1)
            self._labeller[k] += _counted(made[there], size[0])
            self._known[k] += _counted(made[known], size[0])
        area = batch.area.numpy()
        self._area += area.sum(0)
        self._holding += (area > 0).sum(0)
        matched = torch.from_numpy(self.row).to(made.device)
        judged = torch.isin(own, matched[matched > 0]).any(2)
        said = matched[made]
        self._pixels += int(judged.sum())
        self._agreeing += int(((own == said[..., None]) & (said > 0)[..., None]).any(2).sum())
        self.images += len(batch)

    @staticmethod
    def _own(batch: Batch) -> Tensor:
        """(N, P, M) int64: all labels by hand of every pixel, those of the whole image among them."""
        pixels, levels = batch.labels.pixels.long(), batch.labels.image_level.long()
        return torch.cat([pixels, levels[:, None].expand(-1, pixels.shape[1], -1).to(pixels.device)], 2)

    def result(self, made: Labelling, dataset: ConceptDataset, skipped: tuple[tuple[str, str], ...]) -> Agreement:
        """What was found."""
        concepts, unjudged = [], []
        by_row: dict[int, list[int]] = {}
        for number, (name, _) in enumerate(made.classes, 1):
            row = int(self.row[number])
            if row == 0 or not self._area[row]:
                unjudged.append(name)
            else:
                by_row.setdefault(row, []).append(number)
        for row, numbers in by_row.items():
            k = int(self._by_hand.category[row - 1])
            classes = tuple(n for n, number in enumerate(made.numbers) if number in numbers)
            concepts.append(
                ConceptAgreement(
                    self._by_hand.label(row - 1),
                    self._by_hand.category_of(row - 1),
                    classes,
                    int(self._holding[row]),
                    int(self._area[row]),
                    int(self._labeller[k, numbers].sum()),
                    int(self._known[k, numbers].sum()),
                    int(self._both[numbers, row].sum()),
                )
            )
        concepts.sort(key=lambda concept: -(concept.iou or 0.0))
        return Agreement(
            made.labeller.spec,
            dataset.name,
            self.images,
            tuple(concepts),
            tuple(unjudged),
            self._pixels,
            self._agreeing,
            skipped,
            made.names,
        )


def _counted(values: Tensor, size: int) -> _Counts:
    counts: _Counts = torch.bincount(values.flatten(), minlength=size).cpu().numpy()
    return counts


def _names(name: str) -> list[str]:
    """What a concept may be called: the whole of ``name``, and the synonyms in it."""
    return list(dict.fromkeys([normal_name(name), *map(normal_name, re.split(r"[,;]", name))]))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
