"""Where a concept stands in the pictures of a generator, by cells of a layer's map; locations that are drawn there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndissect.engine.experiments.generated import Generated
from ndissect.engine.machine.device import computing
from ndissect.engine.machine.progress import Progress
from ndissect.engine.networks.tail import Tail
from ndissect.store.counts import Ints
from ndissect.store.errors import NDError

# So many other concepts are named where one is not there.
_NAMED = 5


@dataclass(frozen=True)
class Presence:
    """How many pixels of a concept stand in each cell of a layer's map, in N samples.

    ``samples`` (N,): their numbers; ``held_out`` (N,) bool: which are kept for evaluation; ``pixels`` (N, h * w) int64;
    ``mean_feature`` (U,) float32: of each unit the mean of its activations over the cells of all samples that are not
    held out, each weighted by the pixels of the concept in it.
    """

    samples: Ints
    held_out: npt.NDArray[np.bool_]
    pixels: Ints
    mean_feature: Tensor


@dataclass(frozen=True)
class Locations:
    """L locations: ``samples`` (L,) the numbers of their samples, ``cells`` (L,) their cells, row by row of the map."""

    samples: Ints
    cells: Ints

    def __len__(self) -> int:
        return len(self.samples)

    def some(self, which: Ints | slice) -> Locations:
        """These of the locations."""
        return Locations(self.samples[which], self.cells[which])

    def batches(self, size: int) -> Iterator[Locations]:
        """All of them, ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self.some(slice(start, start + size))


def cell_numbers(picture: tuple[int, int], cells: tuple[int, int], device: torch.device) -> Tensor:
    """(H, W) int64: in which cell of a map of h x w ``cells`` each pixel lies, cells counted row by row."""
    (H, W), (h, w) = picture, cells
    row = torch.arange(H, device=device) * h // H
    column = torch.arange(W, device=device) * w // W
    return row[:, None] * w + column


def presence_of(g: Generated, tail: Tail, concept: int, samples: Ints, progress: Progress) -> Presence:
    """Where the concept in row ``concept`` stands in ``samples``; those of the split val are held out.

    NDError where no sample of the others, or none of those held out, shows it.
    """
    held_out = np.array([g.samples.dataset.splits[number] == "val" for number in samples])
    cells = cell_numbers(g.generator.size, g.map_size, g.labeller.device).flatten()
    count = g.map_size[0] * g.map_size[1]
    pixels: list[npt.NDArray[np.int64]] = []
    total = torch.zeros(g.ious.shape[0], dtype=torch.float64)
    seen = np.zeros(len(g.concepts) + 1, np.int64)
    progress.start(f"looking for {g.concepts.label(concept)}", len(samples))
    for start in range(0, len(samples), g.at_once):
        here = samples[start : start + g.at_once]
        with computing("fp32", g.device):
            rows = g.rows(g.pictures(tail.start(g.inputs(here.tolist()))))
        holds = (rows == concept).any(1).flatten(1).long()
        by_cell = torch.zeros(len(here), count, dtype=torch.long, device=holds.device).index_add_(1, cells, holds)
        training = torch.from_numpy(~held_out[start : start + g.at_once]).to(by_cell.device)
        weight = (by_cell * training[:, None]).cpu().double()
        total += (tail.maps.flatten(2).cpu().double() * weight[:, None]).sum((0, 2))
        pixels.append(by_cell.cpu().numpy())
        seen += np.bincount((rows + 1).flatten().cpu().numpy(), minlength=len(seen))
        progress.advance(len(here))
    presence = Presence(samples, held_out, np.concatenate(pixels), total.float())
    for which, what in ((~held_out, "training"), (held_out, "held-out")):
        if not presence.pixels[which].any():
            raise _absent(g, concept, int(which.sum()), what, seen[1:])
    mean = total / float(presence.pixels[~held_out].sum())
    return Presence(samples, held_out, presence.pixels, mean.float().to(g.device))


def _absent(g: Generated, concept: int, samples: int, what: str, seen: Ints) -> NDError:
    order = [c for c in np.argsort(-seen, kind="stable").tolist() if seen[c] and c != concept]
    most = [g.concepts.label(c) for c in order[:_NAMED]]
    there = f"it finds {', '.join(most)}" if most else "it finds nothing else"
    return NDError(
        f"{g.labeller.spec} finds no {g.concepts.label(concept)} in {samples} {what} samples; {there}",
        "--samples N looks at more of them; name a concept that is there",
    )


def draw_locations(presence: Presence, held_out: bool, count: int, random: np.random.Generator) -> Locations:
    """``count`` locations of the samples that are ``held_out``, or of the others, each drawn in proportion to how much
    of the concept a cell holds; one may be drawn more than once."""
    rows = np.flatnonzero(presence.held_out == held_out)
    weight = presence.pixels[rows].ravel().astype(np.float64)
    drawn = np.sort(random.choice(len(weight), size=count, p=weight / weight.sum()))
    cells = presence.pixels.shape[1]
    return Locations(presence.samples[rows[drawn // cells]], drawn % cells)
