"""What stands beside the picture, or in place of it: the edits, the concepts to choose from, the keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from textual.strip import Strip
from textual.widget import Widget

from ndissect.tui.app.help import shown
from ndissect.tui.app.painting_actions import GROUPS, PAINTING_ACTIONS
from ndissect.tui.app.painting_edits import PaintEdit
from ndissect.tui.app.strips import StyledText, fitted, strip
from ndissect.tui.pictures.glyphs import UNICODE, Glyphs

TextLine = Sequence[StyledText]
MARKS_IN_BLOCKS = (
    ("[] () {}", "the cursor's cell; a selected one; both at once (larger: corners)"),
    ("^ v  ' .", "the same in half a line each, where the cells are small"),
)
MARKS_IN_PIXELS = (
    ("frame", "the cursor's cell; with dashes in it, a selected one"),
    ("dashes", "around the selected cells"),
    ("notch", "in its upper left corner: an edit is for this cell"),
)


class TextPane(Widget):
    """Lines of text, of which as many are seen as there is room for."""

    def __init__(self, glyphs: Glyphs, *, id: str) -> None:
        super().__init__(id=id)
        self._glyphs = glyphs
        self._lines: list[TextLine] = []
        self._seen, self._top = 0, 0

    def show(self, lines: Iterable[TextLine], seen: int = 0) -> None:
        """Show ``lines``, so that the line ``seen`` is on the screen."""
        self._lines, self._seen = list(lines), seen
        self.refresh()

    def scroll_lines(self, by: int) -> None:
        """Show what lies ``by`` lines further down."""
        self._seen = min(max(self._top + by, 0), max(0, len(self._lines) - self.size.height))
        self._top = self._seen
        self.refresh()

    def render_lines(self, crop: Any) -> list[Strip]:
        """The lines, after a look at which of them are seen."""
        height = max(1, self.size.height)
        self._top = min(self._top, self._seen)
        self._top = max(self._top, self._seen - height + 1)
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        """One of the lines."""
        at, width = self._top + y, self.size.width
        return strip(fitted(self._lines[at], width, self._glyphs) if at < len(self._lines) else (), width)

    def render(self) -> Any:
        """Nothing: the text is drawn by ``render_line``."""
        return ""


def edit_lines(edits: Sequence[PaintEdit], undone: bool) -> list[TextLine]:
    """The edits in their order."""
    if not edits:
        return [[("no edits yet" + ("; U redoes" if undone else ""), "faint")]]
    lines: list[TextLine] = [[("edits", "title")]]
    for number, edit in enumerate(edits, 1):
        cells = f"{len(edit.cells)} cell{'s' if len(edit.cells) > 1 else ''}"
        strength = f" x{edit.strength:g}" if edit.strength != 1 else ""
        lines.append([(f"{number:>2} {edit.sign} ", "strong"), (f"{edit.concept}{strength}  {cells}", "")])
    return lines


def concept_lines(concepts: Sequence[str], ious: Mapping[str, float], cursor: int, glyphs: Glyphs) -> list[TextLine]:
    """The concepts that can be chosen, with the IoU of the best unit for each where it is known."""
    if not concepts:
        return [[("no concept is called so", "faint")]]
    width = max(map(len, concepts))
    return [
        [
            (f"{glyphs.cursor if at == cursor else ' '} ", "strong"),
            (f"{name:<{width}}", "cursor" if at == cursor else ""),
            (f"  {ious[name]:.3f}" if name in ious else "", "faint"),
        ]
        for at, name in enumerate(concepts)
    ]


def help_lines(glyphs: Glyphs, *, in_pixels: bool = False) -> list[TextLine]:
    """Every action by group with its keys, and what marks mean in blocks, or in pixels."""
    lines: list[TextLine] = []
    for group in GROUPS:
        lines.append([(group, "title")])
        for action in (a for a in PAINTING_ACTIONS if a.group == group):
            lines.append([(f"  {shown(action, glyphs is UNICODE):<12}", "key"), (action.does, "")])
    marks = MARKS_IN_PIXELS if in_pixels else MARKS_IN_BLOCKS
    lines += [[(f"  {mark:<12}", "key"), (says, "")] for mark, says in marks]
    return lines
