"""Overlays: top images with a unit's mask drawn as in the papers, one panel or one contact sheet a unit.

Everything here is plain data in, picture out: no store, no data set, no torch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from ndissect.store.errors import NDError
from ndissect.store.files import own_file, replacing
from ndissect.store.names import quoted
from ndissect.tui.pictures.headed_sheet import CAPTION_SIZE, FAINT, GAP, INK, MARGIN, PAPER, Colour, headed_sheet
from ndissect.tui.pictures.lettering import line_height, shorten, write, written_width

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

#: Brightness of an image outside of the mask.
DIM = 0.35
MASK_LINE: Colour = (255, 240, 140)
TRUTH_LINE: Colour = (96, 205, 255)
#: Drawn along each line, so that it shows on a bright image as well as on a dark one.
HAIRLINE: Colour = (16, 16, 16)
#: Pixels of a dash, and of the space after it.
DASH = 6

#: Between an image and the same with the truth.
PAIR_GAP = 4
#: A sheet is never narrower, so that a title over a single small panel can be read.
MIN_TEXT_WIDTH = 480

_SOFTWARE = "ndissect"


@dataclass(frozen=True)
class Panel:
    """One top image of a unit.

    ``image`` (H, W, 3) uint8: the thumbnail, RGB; ``mask`` (h, w) bool: the unit's mask at the label grid's
    resolution; ``truth`` (h, w) bool: the true concept mask, or None; ``caption``: one line below the panel.
    """

    image: Pixels
    mask: Mask
    truth: Mask | None
    caption: str


def draw_panel(panel: Panel, side: int) -> Image.Image:
    """The panel as an RGB picture whose longer edge is ``side`` pixels; with truth, two of them side by side.

    Inside of the mask the image keeps its brightness, outside it is darkened to ``DIM``; the line follows the mask's
    edge on the outside, so that no pixel of the mask is covered, and leaves out the edge of the image itself. The
    truth has another colour and a dashed line. Raises NDError for arrays that are no image or no mask.
    """
    _check(panel)
    H, W = panel.image.shape[:2]
    scale = side / max(H, W)
    width, height = max(1, round(W * scale)), max(1, round(H * scale))
    image = np.asarray(Image.fromarray(panel.image).resize((width, height), Image.Resampling.LANCZOS))
    drawn = Image.fromarray(_spotlight(image, enlarge(panel.mask, height, width), MASK_LINE, dashed=False))
    if panel.truth is None:
        return drawn
    truth = Image.fromarray(_spotlight(image, enlarge(panel.truth, height, width), TRUTH_LINE, dashed=True))
    pair = Image.new("RGB", (2 * width + PAIR_GAP, height), PAPER)
    pair.paste(drawn, (0, 0))
    pair.paste(truth, (width + PAIR_GAP, 0))
    return pair


def enlarge(mask: Mask, height: int, width: int) -> Mask:
    """``mask`` (h, w) at (height, width): each pixel takes the cell in which its centre lies."""
    rows = (2 * np.arange(height) + 1) * mask.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * mask.shape[1] // (2 * width)
    enlarged: Mask = mask[rows[:, None], columns[None, :]]
    return enlarged


def contact_sheet(
    panels: Sequence[Panel], title: str, subtitle: str = "", columns: int = 5, side: int = 160
) -> Image.Image:
    """All panels as one RGB picture: title, subtitle, then a grid with captions, ``columns`` panels a row.

    A panel with truth counts as one, at double width. Long titles wrap, long captions are cut in the middle. No
    panels give a sheet that says so. Raises NDError as ``draw_panel``.
    """
    drawn = [draw_panel(panel, side) for panel in panels]
    paired = any(panel.truth is not None for panel in panels)
    cell = 2 * side + PAIR_GAP if paired else side
    across = max(1, min(columns, len(drawn)))
    rows = [range(start, min(start + across, len(drawn))) for start in range(0, len(drawn), across)]
    caption_height = line_height(CAPTION_SIZE) + 4

    text_width = max(across * cell + (across - 1) * GAP, MIN_TEXT_WIDTH)
    grid_height = sum(max(drawn[i].height for i in row) + caption_height + GAP for row in rows)

    empty = "" if drawn else "No images to show."
    made = headed_sheet(title, [subtitle], text_width, grid_height - GAP, empty=empty)
    sheet, pen, y = made.picture, made.pen, made.top
    for row in rows:
        below = y + max(drawn[i].height for i in row)
        for column, i in enumerate(row):
            x = MARGIN + column * (cell + GAP)
            sheet.paste(drawn[i], (x, y))
            room = cell
            if panels[i].truth is not None:
                room = max(side, drawn[i].width) - round(written_width("truth", CAPTION_SIZE))
                write(pen, (x + room, below + 4), "truth", CAPTION_SIZE, FAINT)
                room -= GAP
            write(pen, (x, below + 4), shorten(panels[i].caption, CAPTION_SIZE, room), CAPTION_SIZE, INK)
        y = below + caption_height + GAP
    return sheet


def save_png(image: Image.Image, path: Path, metadata: dict[str, str]) -> None:
    """Write ``image`` to ``path`` with ``metadata`` as PNG text; ``path`` is whole or untouched at every moment.

    Raises NDError where the folder is missing, read-only or full.
    """
    if path.is_dir():
        raise NDError(f"Cannot write the picture {path}: it is a folder", "Name a file, for example unit.png")
    text = PngImagePlugin.PngInfo()
    for key, value in {"Software": _SOFTWARE, **metadata}.items():
        text.add_itxt(key, value.replace("\0", " ").encode("utf-8", "backslashreplace").decode("utf-8"))
    try:
        with replacing(path, durable=False) as part, part.open("wb") as file:
            image.save(file, format="PNG", pnginfo=text)
    except OSError as error:
        hint = "Choose a folder that can be written to and has room; `nd doctor` looks at the one it is run in"
        if not path.parent.is_dir():
            hint = f"Create the folder (mkdir -p {quoted(path.parent)}), or name another one"
        raise NDError(f"Cannot write the picture {path}: {error.strerror or error}", hint) from error


def drawn_by_nd(path: Path, marks: Mapping[str, str] = MappingProxyType({})) -> bool:
    """Whether ``path`` is a picture of this program's, which may be drawn again, rather than someone's own.

    ``marks``: further PNG text that it must hold. What a link leads to is not looked at, and is not ours.
    """
    try:
        with open(path, "rb", opener=own_file) as file, Image.open(file, formats=["PNG"]) as image:
            return all(image.info.get(key) == value for key, value in {"Software": _SOFTWARE, **marks}.items())
    except (OSError, SyntaxError, ValueError):
        return False


def _check(panel: Panel) -> None:
    damaged = "The store that holds it is damaged, or was written by another program"
    image = panel.image
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        message = f"The image of '{panel.caption}' is {image.shape} {image.dtype}, not (H, W, 3) uint8"
        raise NDError(message, damaged)
    for what, mask in (("mask", panel.mask), ("truth", panel.truth)):
        if mask is not None and (mask.ndim != 2 or mask.dtype != np.bool_ or 0 in mask.shape):
            raise NDError(f"The {what} of '{panel.caption}' is {mask.shape} {mask.dtype}, not (h, w) bool", damaged)


def _spotlight(image: Pixels, mask: Mask, line: Colour, dashed: bool) -> Pixels:
    """``image`` (H, W, 3) darkened outside of ``mask`` (H, W), with a line around it."""
    out = np.where(mask[..., None], image, np.rint(image * DIM)).astype(np.uint8)
    outline(out, mask, line, dashed=dashed)
    return out


def outline(image: Pixels, mask: Mask, line: Colour, *, dashed: bool = False) -> None:
    """Draw a line around ``mask`` (H, W) into ``image`` (H, W, 3): outside of it, and not along the image's edge."""
    if not mask.any() or mask.all():
        return
    thickness = max(1, round(max(mask.shape) / 240))
    ring = _grow(mask, thickness) & ~mask
    image[_grow(mask, thickness + 1) & ~mask] = HAIRLINE
    if dashed:
        ring &= _grow(_dashes(mask, DASH * thickness), thickness - 1)
    image[ring] = line


def _grow(mask: Mask, times: int) -> Mask:
    """``mask`` and all pixels within ``times`` steps up, down, left or right."""
    for _ in range(times):
        grown = mask.copy()
        grown[1:] |= mask[:-1]
        grown[:-1] |= mask[1:]
        grown[:, 1:] |= mask[:, :-1]
        grown[:, :-1] |= mask[:, 1:]
        mask = grown
    return mask


def _dashes(mask: Mask, dash: int) -> Mask:
    """The pixels just outside of ``mask`` (H, W) that lie on a dash, ``dash`` edges on and ``dash`` off along it.

    Follows the edges between pixels with the mask on the right: only a walk gives dashes of one length in every
    direction.
    """
    ahead: defaultdict[tuple[int, int], list[tuple[int, int, int, int]]] = defaultdict(list)
    entered = set()
    # per side of a pixel: the step to its neighbour, and the corners between which the edge runs
    for dy, dx, start, end in (
        (-1, 0, (0, 0), (0, 1)),
        (0, 1, (0, 1), (1, 1)),
        (1, 0, (1, 1), (1, 0)),
        (0, -1, (1, 0), (0, 0)),
    ):
        neighbour = np.roll(mask, (-dy, -dx), (0, 1))
        for y, x in np.argwhere(mask & ~neighbour).tolist():
            if not (0 <= y + dy < mask.shape[0] and 0 <= x + dx < mask.shape[1]):
                continue
            corner = (y + end[0], x + end[1])
            ahead[(y + start[0], x + start[1])].append((*corner, y + dy, x + dx))
            entered.add(corner)
    dashes = np.zeros_like(mask)
    # a line that ends at the image's edge is walked from its beginning, closed ones from anywhere
    for corner in sorted(ahead, key=lambda c: c in entered):
        here, walked = corner, 0
        while ahead[here]:
            y, x, outside_y, outside_x = ahead[here].pop()
            if walked // dash % 2 == 0:
                dashes[outside_y, outside_x] = True
            here, walked = (y, x), walked + 1
            if here not in ahead:
                break
    return dashes
