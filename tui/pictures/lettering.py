"""Text in pictures: set in one font that has its letters, in lines of a width, shortened where it is too long."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

#: Fonts of common systems, asked in this order for letters that Pillow's own font lacks (it has ASCII and little more).
FALLBACK_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "Arial Unicode.ttf",
    "Arial.ttf",
    "msyh.ttc",
)


def write(pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, colour: tuple[int, int, int]) -> None:
    """Write one line of ``text``, ``size`` pixels high, with its upper left corner about ``at``."""
    text, font = _set(_plain(text), size)
    # on the baseline, because each font has its own idea of where its top is
    pen.text((at[0], at[1] + size), text, fill=colour, font=font, anchor="ls")


def wrap(text: str, size: int, width: int) -> list[str]:
    """The lines of ``text``, none wider than ``width`` pixels; a word that is wider alone is cut in the middle."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}" if line else word
            if line and written_width(_plain(longer), size) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return [shorten(line, size, width) for line in lines]


def shorten(text: str, size: int, width: int) -> str:
    """``text`` in one line of at most ``width`` pixels, cut in the middle with an ellipsis where it is longer."""
    text = _plain(text)
    if written_width(text, size) <= width:
        return text
    low, high = 0, len(text) - 1
    while low < high:
        kept = (low + high + 1) // 2
        low, high = (kept, high) if written_width(_cut(text, kept), size) <= width else (low, kept - 1)
    return _cut(text, low)


def _cut(text: str, kept: int) -> str:
    tail = kept // 2
    return f"{text[: kept - tail].rstrip()}…{text[len(text) - tail :].lstrip()}"


def line_height(size: int) -> int:
    """Pixels from one line to the next."""
    return round(size * 1.4)


def written_width(text: str, size: int) -> float:
    """Pixels that ``text`` takes in one line."""
    text, font = _set(text, size)
    return font.getlength(text)


def _plain(text: str) -> str:
    """``text`` in one line without control characters; what is not text (half of a surrogate pair) as "?"."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(
        " " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in unicodedata.normalize("NFC", text)
    )


@lru_cache(maxsize=1024)
def _set(text: str, size: int) -> tuple[str, Font]:
    """``text`` and the one font that has most of it; letters that none has lose their accents, or become a box."""
    (font,) = _fonts(size, False)
    lacking = sum(not _has(font, c) for c in text)
    if lacking:
        for other in _fonts(size, True):
            fewer = sum(not _has(other, c) for c in text)
            if fewer < lacking:
                font, lacking = other, fewer
    if lacking:
        text = "".join(c if _has(font, c) else _folded(c, font) for c in text)
    return text, font


@lru_cache(maxsize=64)
def _fonts(size: int, fallback: bool) -> tuple[Font, ...]:
    """Pillow's own font, or those of the system's fonts that are there."""
    if not fallback:
        return (ImageFont.load_default(size),)
    fonts: list[Font] = []
    for name in FALLBACK_FONTS:
        try:
            fonts.append(ImageFont.truetype(name, size))
        except OSError:  # not on this system
            continue
    return tuple(fonts)


@lru_cache(maxsize=4096)
def _has(font: Font, character: str) -> bool:
    """Whether ``font`` has ``character``: a letter that it lacks is drawn as that of the noncharacter U+FFFF."""
    return character.isspace() or bytes(font.getmask(character)) != bytes(font.getmask("\uffff"))


def _folded(character: str, font: Font) -> str:
    base = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
    return base if base and all(_has(font, c) for c in base) else "\uffff"
