"""Concepts painted into pictures of a generator, and out of them: in cells of a layer's map (Bau et al., PNAS 2020).

::

    with open_painter(request, console) as painter:
        before = painter.sample(17)
        painted = painter.paint([Edit("tree", "add", rectangle(3, 4, 6, 9))])
        painted.picture, painted.changed_outside

To add a concept its best units are set to their high value in the cells, to remove it to zero; all else of the map is
left, and the rest of the network is run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndissect.engine.data.concept_images import described
from ndissect.engine.experiments.edits import Edit, check_cells
from ndissect.engine.experiments.generated import HIGH, Generated, GeneratorRequest, open_generated, set_units
from ndissect.engine.machine.console import Console
from ndissect.engine.machine.device import computing
from ndissect.engine.networks.tail import Tail
from ndissect.store.errors import WrongUse

#: Units that draw a concept, where nothing else is said (Bau et al., PNAS 2020).
UNITS = 20

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ConceptPixels:
    """How many pixels of the picture show a concept before the edits, and after them."""

    concept: str
    before: int
    after: int


@dataclass(frozen=True)
class Painted:
    """A ``picture`` (H, W, 3) uint8 after edits, and what is other than before.

    A pixel is inside where it lies in the square of an edited cell. ``changed_inside`` of ``pixels_inside`` changed,
    ``changed_outside`` of ``pixels_outside``, there by ``largest_outside`` levels of 255 at most. ``concepts``: those
    of the edits, each once, in their order; empty where nothing was labelled.
    """

    picture: Picture
    changed_inside: int
    pixels_inside: int
    changed_outside: int
    pixels_outside: int
    largest_outside: int
    concepts: tuple[ConceptPixels, ...]

    def to_json(self) -> dict[str, Any]:
        """All but the picture, as JSON values."""
        said = asdict(self)
        del said["picture"]
        said["concepts"] = [asdict(concept) for concept in self.concepts]
        return said


class Painter:
    """A generator whose samples are painted on, one at a time."""

    def __init__(self, generated: Generated, tail: Tail, units: int = UNITS) -> None:
        self.generated, self.units = generated, units
        self._tail = tail
        self._number: int | None = None
        self._before: Picture = np.zeros((0, 0, 3), np.uint8)
        self._areas: Tensor | None = None

    @property
    def layer(self) -> str:
        """The layer whose maps are edited."""
        return self.generated.layer.name

    @property
    def concepts(self) -> tuple[str, ...]:
        """The names of the concepts that can be painted; with their category where two have one name."""
        known = self.generated.concepts
        return tuple(described(known, i) if known.name.count(name) > 1 else name for i, name in enumerate(known.name))

    @property
    def map_size(self) -> tuple[int, int]:
        """Rows and columns of the layer's map."""
        return self.generated.map_size

    @property
    def picture_size(self) -> tuple[int, int]:
        """Rows and columns of a picture, in pixels."""
        return self.generated.generator.size

    @property
    def number(self) -> int | None:
        """The number of the sample that is painted on; None: none yet."""
        return self._number

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of a picture: how it is made, and how the network differs from the store's."""
        made = (
            f"added: the {self.units} units of the highest IoU are set to their {HIGH:.1%} quantile over samples;"
            f" removed: to 0; then what follows {self.layer} is run"
        )
        whole = () if self._tail.alone else (f"the whole network is run for each picture: {self._tail.reason}",)
        return (made, *whole, *self.generated.notes)

    def best_units(self, concept: str) -> list[int]:
        """The units that draw ``concept``, the best first; WrongUse with the nearest names where there is no such."""
        return self.generated.best_units(self.generated.concept(concept))[: self.units]

    def prepare(self) -> None:
        """Find the units' high values now, rather than with the first edit that adds something."""
        self._high  # noqa: B018

    @cached_property
    def _high(self) -> Tensor:
        return self.generated.high_values()

    def sample(self, number: int) -> Picture:
        """(H, W, 3) uint8: the picture of a sample, which is painted on from now on; WrongUse where there is none."""
        check_sample(number, self.generated)
        with self._exact():
            output = self._tail.start(self.generated.inputs([number]))
            before = self.generated.pictures(output)
        self._number, self._before, self._areas = number, as_image(before), None
        return self._before

    def paint(self, edits: Sequence[Edit], *, label: bool = True) -> Painted:
        """The current sample after ``edits``, one after the other: where two set the same unit the later one wins.

        ``label``: also count the pixels of the edits' concepts, before and after. WrongUse for a cell outside of the
        map or an unknown concept.
        """
        if self._number is None:
            raise WrongUse("there is no sample to paint on yet", "choose one by its number")
        settings = [self._setting(edit) for edit in edits]

        def edited(maps: Tensor) -> Tensor:
            for units, values, cells, strength in settings:
                maps = set_units(maps, units, values, cells, strength)
            return maps

        with self._exact():
            after = self.generated.pictures(self._tail.run(edited))
            concepts = self._concepts(edits, after) if label else ()
        return compared(self._before, as_image(after), self._squares(edits), concepts)

    def _setting(self, edit: Edit) -> tuple[list[int], Tensor, Tensor, float]:
        check_cells(edit.cells, self.map_size, self.layer)
        units = self.best_units(edit.concept)
        values = self._high[units] if edit.action == "add" else torch.zeros(len(units))
        return units, values, torch.from_numpy(cell_mask(edit.cells, self.map_size)), edit.strength

    def _concepts(self, edits: Sequence[Edit], after: Tensor) -> tuple[ConceptPixels, ...]:
        if not edits:
            return ()
        if self._areas is None:
            before = torch.from_numpy(self._before.copy()).permute(2, 0, 1)[None].to(after.device)
            self._areas = self.generated.areas(before)[0].cpu()
        areas = self.generated.areas(after)[0].cpu()
        rows = {self.generated.concept(edit.concept): None for edit in edits}
        names = self.concepts
        return tuple(ConceptPixels(names[row], int(self._areas[row]), int(areas[row])) for row in rows)

    def _squares(self, edits: Sequence[Edit]) -> npt.NDArray[np.bool_]:
        cells = cell_mask([cell for edit in edits for cell in edit.cells], self.map_size)
        return squares(cells, self.picture_size)

    @contextlib.contextmanager
    def _exact(self) -> Iterator[None]:
        with torch.no_grad(), computing("fp32", self.generated.device):
            yield


@contextlib.contextmanager
def open_painter(request: GeneratorRequest, console: Console, units: int = UNITS) -> Iterator[Painter]:
    """A painter on the generator of a store, for the block; ``units``: how many draw a concept.

    Errors are those of open_generated, and WrongUse where the store has no such layer.
    """
    with open_generated(request, console) as generated, Tail(generated.network.module, generated.tap) as tail:
        yield Painter(generated, tail, units)


def check_sample(number: int, generated: Generated) -> None:
    """WrongUse where the store is not of a sample of this number."""
    if not 0 <= number < generated.count:
        raise WrongUse(
            f"there is no sample {number} in {generated.store}", f"they are numbered 0 to {generated.count - 1}"
        )


def cell_mask(cells: Sequence[tuple[int, int]], map_size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """(h, w) bool: True in these cells of a map."""
    mask = np.zeros(map_size, np.bool_)
    for row, column in cells:
        mask[row, column] = True
    return mask


def squares(cells: npt.NDArray[np.bool_], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """(H, W) bool of cells (h, w): True for each pixel of ``size`` (H, W) of which any part lies in such a cell."""
    mask = np.zeros(size, np.bool_)
    height, width = cells.shape
    for row, column in np.argwhere(cells):
        top, left = row * size[0] // height, column * size[1] // width
        bottom, right = -(-(row + 1) * size[0] // height), -(-(column + 1) * size[1] // width)
        mask[top:bottom, left:right] = True
    return mask


def compared(
    before: Picture, after: Picture, inside: npt.NDArray[np.bool_], concepts: tuple[ConceptPixels, ...] = ()
) -> Painted:
    """What differs between two pictures (H, W, 3), in the pixels ``inside`` (H, W) and in all others."""
    difference = np.abs(after.astype(np.int16) - before).max(2)
    changed = difference > 0
    return Painted(
        after,
        int((changed & inside).sum()),
        int(inside.sum()),
        int((changed & ~inside).sum()),
        int((~inside).sum()),
        int(difference[~inside].max(initial=0)),
        concepts,
    )


def as_image(pictures: Tensor) -> Picture:
    """(H, W, 3) uint8: the first of pictures (n, 3, H, W)."""
    return np.ascontiguousarray(pictures[0].permute(1, 2, 0).cpu().numpy())
