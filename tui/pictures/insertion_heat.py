"""Where a concept was inserted with what success: heat over the map, by what stood there, and over single samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ndissect.store.scores import Floats
from ndissect.tui.pictures.headed_sheet import CAPTION_SIZE, FAINT, GAP, INK, MARGIN, PAPER, Colour, headed_sheet
from ndissect.tui.pictures.lettering import line_height, shorten, write, written_width
from ndissect.tui.pictures.overlay import MASK_LINE, Pixels
from ndissect.tui.tables.inserted import InsertionReport, Row

if TYPE_CHECKING:
    from ndissect.engine.experiments.insert import Example

#: Colours of the largest loss, of no change and of the largest gain; of locations at which nothing was inserted.
LOSS: Colour = (33, 102, 172)
NOTHING: Colour = (247, 247, 247)
GAIN: Colour = (178, 24, 43)
UNKNOWN: Colour = (190, 190, 190)
#: How much of the heat is seen over a picture, and how bright the picture is where nothing was inserted.
_HEAT, _DIM = 0.6, 0.35
_LARGE, _SMALL, _PICTURE = 320, 132, 132
#: Contexts that have a map each, those with most locations; maps of so many rows or columns have numbers in them.
_CONTEXTS, _NUMBERED = 6, 8
_COLUMNS = 6
# Between the pictures of one sample.
_BETWEEN = 4
_LEGEND_HEIGHT, _LEGEND_WIDTH = 12, 200


@dataclass(frozen=True)
class _Cell:
    """A picture, or several side by side, and the lines below."""

    picture: Image.Image
    lines: tuple[str, ...]

    @property
    def height(self) -> int:
        """Of both, in pixels."""
        return self.picture.height + 2 + len(self.lines) * line_height(CAPTION_SIZE)


def insertion_heat(report: InsertionReport) -> Image.Image:
    """The picture: the mean change over samples by location and by context, then the first samples."""
    most = sorted((row.locations for row in report.rows()), reverse=True)[:_CONTEXTS]
    contexts = [row for row in report.rows() if row.locations >= most[-1]][:_CONTEXTS]
    scale = _scale(report.all.by_location, *(np.array(row.change) for row in contexts))
    own = _scale(*(example.change for example in report.insertion.examples))
    width = _COLUMNS * (_SMALL + GAP) - GAP
    large = _Cell(_grid(report.all.by_location, scale, _LARGE, numbered=True), ("all contexts, mean over samples",))
    small = [_Cell(_grid(row.by_location, scale, _SMALL), _lines(row)) for row in contexts]
    samples = [_Cell(_sample(example, own), _told(example, report)) for example in report.insertion.examples]
    beside = (width - large.picture.width) // (_SMALL + GAP)
    upper = [small[start : start + beside] for start in range(0, len(small), beside)]
    across = max(1, width // (3 * _PICTURE + 2 * _BETWEEN + GAP))
    lower = [samples[start : start + across] for start in range(0, len(samples), across)]
    text = line_height(CAPTION_SIZE)
    legend = _LEGEND_HEIGHT + text + GAP
    top_height = max(large.height, sum(_height(row) for row in upper))
    below = legend + top_height + 2 * GAP + (legend + sum(_height(row) for row in lower) if samples else 0)
    told = [*report.notes()[1:2], report.units]
    made = headed_sheet(report.title, told, width, below)
    sheet, pen, y = made.picture, made.pen, made.top
    _legend(pen, y, scale, f"mean change in pixels of {report.insertion.label}, by location; grey: nothing inserted")
    y += legend
    _put(sheet, pen, (MARGIN, y), large)
    left = MARGIN + large.picture.width + GAP
    at = y
    for row in upper:
        for column, cell in enumerate(row):
            _put(sheet, pen, (left + column * (_SMALL + GAP), at), cell)
        at += _height(row)
    y += top_height + 2 * GAP
    if samples:
        said = "change in single samples: before; by location; after the insertion that brought most (framed)"
        _legend(pen, y, own, said)
        y += legend
    for row in lower:
        for column, cell in enumerate(row):
            _put(sheet, pen, (MARGIN + column * (samples[0].picture.width + GAP), y), cell)
        y += _height(row)
    return sheet


def _height(row: Sequence[_Cell]) -> int:
    return max(cell.height for cell in row) + GAP


def _put(sheet: Image.Image, pen: ImageDraw.ImageDraw, at: tuple[int, int], cell: _Cell) -> None:
    x, y = at
    sheet.paste(cell.picture, (x, y))
    for i, line in enumerate(cell.lines):
        below = y + cell.picture.height + 2 + i * line_height(CAPTION_SIZE)
        write(pen, (x, below), shorten(line, CAPTION_SIZE, cell.picture.width), CAPTION_SIZE, INK if i == 0 else FAINT)


def _lines(row: Row) -> tuple[str, ...]:
    interval = "" if np.isnan(row.low) else f"{_pixels(row.low)} to {_pixels(row.high)}"
    return (f"{row.context}: {_pixels(row.change)}", interval, f"{row.locations} locations")


def _told(example: Example, report: InsertionReport) -> tuple[str, ...]:
    row, column = example.best
    best = float(example.change[row, column])
    if not best > 0:
        return (f"sample {example.number}: nowhere more {report.insertion.label}",)
    return (f"sample {example.number}: {best:+.0f} pixels of {report.insertion.label} at row {row}, column {column}",)


def _pixels(change: float) -> str:
    """A change of pixels in a short text."""
    return f"{change:+.0f}" if abs(change) >= 10 else f"{change:+.1f}" if abs(change) >= 0.05 else "0"


def _scale(*changes: Floats) -> float:
    """The change that has the strongest colour: the largest one, either way."""
    largest = max((float(np.nanmax(np.abs(x))) for x in changes if not np.isnan(x).all()), default=0.0)
    return largest or 1.0


def _colours(change: Floats, scale: float) -> npt.NDArray[np.float64]:
    """(..., 3): the colour of each change; what is beyond the scale is as strong as its end."""
    share = np.clip(np.nan_to_num(change) / scale, -1, 1)[..., None]
    end = np.where(share < 0, np.array(LOSS), np.array(GAIN))
    colour = np.array(NOTHING) + np.abs(share) * (end - np.array(NOTHING))
    return np.asarray(np.where(np.isnan(change)[..., None], np.array(UNKNOWN, np.float64), colour))


def _size(rows: int, columns: int, side: int) -> tuple[int, int]:
    """(height, width) of something of these proportions whose longer edge is ``side``."""
    most = max(rows, columns)
    return max(1, round(side * rows / most)), max(1, round(side * columns / most))


def _grid(change: Floats, scale: float, side: int, *, numbered: bool = False) -> Image.Image:
    """The changes as squares of colour; ``numbered``: with their numbers, where there is room."""
    rows, columns = change.shape
    height, width = _size(rows, columns, side)
    row = np.arange(height) * rows // height
    column = np.arange(width) * columns // width
    colours = np.rint(_colours(change, scale)).astype(np.uint8)
    picture = Image.fromarray(colours[row[:, None], column[None, :]])
    pen = ImageDraw.Draw(picture)
    if numbered and max(rows, columns) <= _NUMBERED:
        for r, c in np.argwhere(~np.isnan(change)).tolist():
            value = float(change[r, c])
            text = _pixels(value)
            dark = abs(value) > 0.6 * scale
            x = round((c + 0.5) * width / columns - written_width(text, CAPTION_SIZE) / 2)
            y = round((r + 0.5) * height / rows - CAPTION_SIZE * 0.6)
            write(pen, (x, y), text, CAPTION_SIZE, PAPER if dark else INK)
    pen.rectangle((0, 0, width - 1, height - 1), outline=FAINT)
    return picture


def _sample(example: Example, scale: float) -> Image.Image:
    """Before, the heat over it, and after, side by side."""
    rows, columns = example.change.shape
    height, width = _size(example.before.shape[0], example.before.shape[1], _PICTURE)
    before, after = (_enlarged(x, height, width) for x in (example.before, example.after))
    row, column = np.arange(height) * rows // height, np.arange(width) * columns // width
    change = example.change[row[:, None], column[None, :]]
    grey = np.repeat(before.mean(2, keepdims=True), 3, 2)
    heat = (1 - _HEAT) * grey + _HEAT * _colours(change, scale)
    over = np.where(np.isnan(change)[..., None], _DIM * grey, heat)
    strip = Image.new("RGB", (3 * width + 2 * _BETWEEN, height), PAPER)
    framed = Image.fromarray(after)
    (top, left), (down, across) = example.best, (height / rows, width / columns)
    frame = (left * across, top * down, left * across + max(across - 1, 0), top * down + max(down - 1, 0))
    ImageDraw.Draw(framed).rectangle(frame, outline=MASK_LINE, width=2)
    for i, image in enumerate((Image.fromarray(before), Image.fromarray(np.rint(over).astype(np.uint8)), framed)):
        strip.paste(image, (i * (width + _BETWEEN), 0))
    return strip


def _enlarged(image: Pixels, height: int, width: int) -> Pixels:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def _legend(pen: ImageDraw.ImageDraw, y: int, scale: float, said: str) -> None:
    """A bar of colours from the largest loss to the largest gain, with what it is."""
    colours = np.rint(_colours(np.linspace(-scale, scale, _LEGEND_WIDTH), scale)).astype(int)
    for x, colour in enumerate(colours.tolist()):
        pen.line((MARGIN + x, y, MARGIN + x, y + _LEGEND_HEIGHT - 1), fill=tuple(colour))
    pen.rectangle((MARGIN, y, MARGIN + _LEGEND_WIDTH - 1, y + _LEGEND_HEIGHT - 1), outline=FAINT)
    room = _COLUMNS * (_SMALL + GAP) - _LEGEND_WIDTH - 2 * GAP
    at = (MARGIN + _LEGEND_WIDTH + GAP, y - 1)
    write(pen, at, shorten(said, CAPTION_SIZE, room), CAPTION_SIZE, INK)
    for text, share in ((f"{-scale:.3g}", 0.0), ("0", 0.5), (f"{scale:+.3g}", 1.0)):
        x = MARGIN + round(share * (_LEGEND_WIDTH - written_width(text, CAPTION_SIZE)))
        write(pen, (x, y + _LEGEND_HEIGHT), text, CAPTION_SIZE, FAINT)
