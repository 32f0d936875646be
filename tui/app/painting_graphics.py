"""What a terminal shows of a picture in pixels, and what is sent to it so that it shows another one."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Collection, Set
from dataclasses import dataclass
from typing import Protocol as Interface

import numpy as np
from PIL import Image

from ndissect.tui.app.painting_edits import Cell, rectangles
from ndissect.tui.app.painting_pixels import BLACK, WHITE, PixelPlacement, enlarged, few_colors, marks
from ndissect.tui.pictures.graphics import Protocol
from ndissect.tui.pictures.graphics_sequences import (
    at,
    erased,
    iterm_picture,
    kitty_picture,
    kitty_removal,
    sixel_picture,
)

# More pieces than that are sent as one.
_MOST_PIECES = 12


@dataclass(frozen=True)
class Scene:
    """A picture with its marks, and the cell of the terminal in which its upper left corner lies, from 0.

    ``cursor`` None: without any marks.
    """

    left: int
    top: int
    placement: PixelPlacement
    picture: Image.Image
    cursor: Cell | None
    selected: Set[Cell]
    edited: Set[Cell]

    def marks(self, size: tuple[int, int]) -> np.ndarray:
        """The marks in a picture of ``size``, as ``painting_pixels.marks`` has them."""
        if self.cursor is None:
            return np.zeros(size[::-1], np.uint8)
        return marks(size, self.placement.grid, self.cursor, self.selected, self.edited)

    def lies_as(self, other: Scene) -> bool:
        """Whether the same picture stands at the same place."""
        same = self.picture is other.picture and self.placement == other.placement
        return same and (self.left, self.top) == (other.left, other.top)


class Graphics(Interface):
    """What the terminal shows."""

    def show(self, scene: Scene, lost: Collection[int] = (), *, all_lost: bool = False) -> str:
        """What makes the terminal show ``scene``; text was written over the picture's lines ``lost``, from its top.

        ``all_lost``: nobody knows what the terminal shows.
        """

    def hide(self) -> str:
        """What takes the picture away, where text has been written over all of it."""

    def remove(self) -> str:
        """What takes the picture away, whatever is there."""


class KittyGraphics:
    """Two pictures that the terminal keeps: the sample's, and above it that of the marks, which is small to send."""

    def __init__(self) -> None:
        self._numbers = itertools.count((os.getpid() << 8 & 0x7FFFFFFF) + 1)
        self._shown: Scene | None = None
        self._picture, self._marks = 0, 0

    def show(self, scene: Scene, lost: Collection[int] = (), *, all_lost: bool = False) -> str:
        """As ``Graphics``. What is new lies above what is old, which is taken away then: nothing flickers."""
        del lost  # text takes nothing away
        before, self._shown = self._shown, scene
        if before == scene and not all_lost:
            return ""
        placement, numbers = scene.placement.finest, (self._picture, self._marks)
        drawn = []
        if before is None or all_lost or not scene.lies_as(before):
            self._picture = next(self._numbers)
            base = enlarged(scene.picture, placement.size)
            drawn.append(kitty_picture(base, self._picture, placement.columns, placement.lines))
        self._marks = next(self._numbers)
        ink = _ink(scene.marks(placement.size))
        drawn.append(kitty_picture(ink, self._marks, placement.columns, placement.lines, above=1))
        gone = [kitty_removal(n) for n in numbers if n and n not in (self._picture, self._marks)]
        return at(scene.left, scene.top, "".join(drawn)) + "".join(gone)

    def hide(self) -> str:
        """As ``remove``: text takes nothing away."""
        return self.remove()

    def remove(self) -> str:
        """As ``Graphics``."""
        numbers, self._picture, self._marks = (self._picture, self._marks), 0, 0
        self._shown = None
        return "".join(kitty_removal(number) for number in numbers if number)


class PatchGraphics:
    """A picture that lies in the terminal's cells: those that changed are sent, and text takes it away.

    ``base`` draws the picture without marks in a size, in RGB, or with a palette as ``few_colors``; ``encode`` makes of
    a part what is sent, for so many columns and lines.
    """

    def __init__(
        self,
        base: Callable[[Image.Image, tuple[int, int]], Image.Image],
        encode: Callable[[Image.Image, int, int], str],
        *,
        scales: bool,
    ) -> None:
        self._base, self._encode, self._scales = base, encode, scales
        self._shown: Scene | None = None
        self._plain: Image.Image | None = None
        self._pixels = np.zeros(0, np.uint8)

    def show(self, scene: Scene, lost: Collection[int] = (), *, all_lost: bool = False) -> str:
        """As ``Graphics``."""
        before, self._shown = self._shown, scene
        if before == scene and not lost and not all_lost:
            return ""
        placement = scene.placement.finest if self._scales else scene.placement
        again = self._plain is not None and before is not None and scene.lies_as(before)
        if not again or self._plain is None:
            self._plain = self._base(scene.picture, placement.size)
        frame = _marked(self._plain, scene.marks(placement.size))
        pixels, self._pixels = self._pixels, np.asarray(frame)
        changed = np.ones((placement.lines, placement.columns), bool)
        if again and not all_lost:
            changed = _changed(pixels, self._pixels, placement)
            changed[[line for line in lost if line < placement.lines]] = True
        (wide, high), drawn = placement.cell, []
        for top, left, bottom, right in _pieces(changed):
            part = frame.crop((left * wide, top * high, (right + 1) * wide, (bottom + 1) * high))
            drawn.append(at(scene.left + left, scene.top + top, self._encode(part, right - left + 1, bottom - top + 1)))
        return "".join(drawn)

    def hide(self) -> str:
        """As ``Graphics``: there is nothing to do."""
        self._shown = None
        return ""

    def remove(self) -> str:
        """As ``Graphics``."""
        scene, self._shown = self._shown, None
        if scene is None:
            return ""
        return erased(scene.left, scene.top, scene.placement.columns, scene.placement.lines)


def graphics(protocol: Protocol) -> Graphics | None:
    """What draws by ``protocol``; None for blocks, which are text."""
    if protocol == "kitty":
        return KittyGraphics()
    if protocol == "iterm":
        return PatchGraphics(enlarged, iterm_picture, scales=True)
    if protocol == "sixel":
        return PatchGraphics(few_colors, lambda part, columns, lines: sixel_picture(part), scales=False)
    return None


def _marked(plain: Image.Image, ink: np.ndarray) -> Image.Image:
    """``plain`` with marks in black and white, by colour or by the palette's 254 and 255."""
    pixels = np.array(plain)
    pixels[ink == BLACK] = 254 if plain.mode == "P" else 0
    pixels[ink == WHITE] = 255
    marked = Image.fromarray(pixels)
    if plain.mode == "P":
        marked.putpalette(plain.getpalette() or [])
    return marked


def _ink(ink: np.ndarray) -> Image.Image:
    """Marks alone, transparent elsewhere."""
    return Image.fromarray(np.stack([np.where(ink == WHITE, 255, 0), np.where(ink, 255, 0)], 2).astype(np.uint8))


def _changed(before: np.ndarray, now: np.ndarray, placement: PixelPlacement) -> np.ndarray:
    """(lines, columns): the terminal's cells in which a pixel changed."""
    (wide, high), differs = placement.cell, before != now
    if differs.ndim == 3:
        differs = differs.any(2)
    return np.asarray(differs.reshape(placement.lines, high, placement.columns, wide).any((1, 3)))


def _pieces(changed: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Rectangles (top, left, bottom, right), ends included, that cover all that changed."""
    if changed.all():
        return [(0, 0, changed.shape[0] - 1, changed.shape[1] - 1)]
    cells = [(int(line), int(column)) for line, column in np.argwhere(changed)]
    pieces = rectangles(cells)
    if len(pieces) > _MOST_PIECES:
        (top, left), (bottom, right) = map(min, zip(*cells, strict=True)), map(max, zip(*cells, strict=True))
        pieces = [(top, left, bottom, right)]
    return pieces
