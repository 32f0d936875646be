"""The few characters that are drawn besides text, for terminals with Unicode and without."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

from ndissect.store.text import clean_text

#: An IoU that fills a bar.
FULL_IOU = 0.4


@dataclass(frozen=True)
class Glyphs:
    """The characters of one kind of terminal. ``eighths`` fill a cell from the left, the last of them fully.

    ``encoding`` is the terminal's: a letter that it lacks is written as an escape, and takes that much room.
    """

    eighths: str
    cursor: str
    mark: str
    rising: str
    falling: str
    ellipsis: str
    crumb: str
    encoding: str = "utf-8"

    def bar(self, share: float, width: int) -> str:
        """``share`` (0 to 1) of ``width`` cells; a share above 0 shows at least as the thinnest piece."""
        pieces = len(self.eighths)
        filled = round(max(0.0, min(share, 1.0)) * width * pieces) if not math.isnan(share) else 0
        if share > 0 and not filled and pieces > 1:
            filled = 1
        whole, rest = divmod(filled, pieces)
        return self.eighths[-1] * whole + (self.eighths[rest - 1] if rest else "")

    def written(self, text: str) -> str:
        """``text`` cleaned, with escapes for what the terminal cannot show."""
        text = clean_text(text)
        if text.isascii() or self.encoding == "utf-8":
            return text
        return text.encode(self.encoding, "backslashreplace").decode(self.encoding)

    def cut(self, text: str, width: int, *, end: bool = False) -> str:
        """``text`` in exactly ``width`` cells: padded, or without its middle (without its ``end`` if that is said)."""
        text = self.written(text)
        if text.isascii() and len(text) <= width:
            return text.ljust(width)
        if cell_len(text) <= width:
            return set_cell_size(text, width)
        room = width - len(self.ellipsis)
        if room < 4:
            return set_cell_size(text, width)
        if end:
            return set_cell_size(text, room) + self.ellipsis
        tail = room // 3
        kept = text[-tail:]
        while cell_len(kept) > tail:
            kept = kept[1:]
        return set_cell_size(text, room - cell_len(kept)) + self.ellipsis + kept


UNICODE = Glyphs("▏▎▍▌▋▊▉█", "›", "●", "▲", "▼", "…", " › ")
ASCII = Glyphs("#", ">", "*", "^", "v", "..", " > ")
