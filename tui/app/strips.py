"""Text with styles as the strips that Textual draws, in the terminal's own colours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from ndissect.store.text import clean_text
from ndissect.tui.pictures.glyphs import Glyphs

# The terminal's palette decides: what its owner can read in the shell can be read here, on light or on dark.
# Every text has both colours: Textual 8.2.8 crashes over a strip without any where NO_COLOR is set.
PLAIN = Style(color="default", bgcolor="default")
STYLES = {
    "": PLAIN,
    "faint": PLAIN + Style(dim=True),
    "strong": PLAIN + Style(bold=True),
    "title": PLAIN + Style(bold=True, underline=True),
    "bar": Style(color="cyan", bgcolor="default"),
    "cursor": PLAIN + Style(reverse=True),
    "here": PLAIN + Style(bold=True, underline=True),
    "key": PLAIN + Style(bold=True),
    "warning": PLAIN + Style(bold=True, reverse=True),
}

#: A text and the name of its style in ``STYLES``.
StyledText = tuple[str, str]


def strip(texts: Iterable[StyledText], width: int) -> Strip:
    """Returns ``texts`` side by side in exactly ``width`` cells. All lines of the screen are cleaned here."""
    segments, used, last = [], 0, ""
    for text, style in texts:
        if not text:
            continue
        text = clean_text(text)  # noqa: PLW2901 - the same text, as it may be shown
        segments.append(Segment(text, STYLES[style]))
        used += len(text) if text.isascii() else cell_len(text)
        last = style
    if used < width:
        pad = " " * (width - used)
        if segments and last == "":
            segments[-1] = Segment(segments[-1].text + pad, PLAIN)
        else:
            segments.append(Segment(pad, PLAIN))
        return Strip(segments, width)
    drawn = Strip(segments, used)
    return drawn if used == width else drawn.crop(0, width)


class Line(Widget):
    """One line of text that is drawn again only where it has changed."""

    DEFAULT_CSS = "Line { height: 1; width: 1fr; }"

    def __init__(self, glyphs: Glyphs, *, id: str) -> None:
        super().__init__(id=id)
        self.glyphs = glyphs
        self._texts: tuple[StyledText, ...] = ()

    @property
    def text(self) -> str:
        """What the line says."""
        return "".join(text for text, _ in self._texts)

    def show(self, *texts: StyledText) -> None:
        """Show ``texts``."""
        if texts != self._texts:
            self._texts = texts
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """The line, cut where the terminal is too narrow."""
        room = self.size.width
        return strip(fitted(self._texts, room, self.glyphs), room)

    def render(self) -> Any:
        """Nothing: the line is drawn by ``render_line``."""
        return ""


def fitted(texts: Iterable[StyledText], room: int, glyphs: Glyphs) -> list[StyledText]:
    """The texts that fit into ``room`` cells, the last of them cut."""
    fitting: list[StyledText] = []
    for text, style in texts:
        text = glyphs.written(text)  # noqa: PLW2901 - the same text, as it will be seen
        width = cell_len(text)
        if width > room:
            if room > 0:
                fitting.append((glyphs.cut(text, room), style))
            break
        fitting.append((text, style))
        room -= width
    return fitting
