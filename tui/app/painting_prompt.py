"""The line in which a concept or the number of a sample is typed, and the concepts that fit what is typed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from textual.containers import Horizontal
from textual.widgets import Static

from ndissect.store.errors import NDError
from ndissect.tui.app.filter_line import FilterLine
from ndissect.tui.app.messages import Notice
from ndissect.tui.app.painting_panes import TextLine, concept_lines
from ndissect.tui.pictures.glyphs import Glyphs


class Prompt(Horizontal):
    """Asks for a concept or a sample; ``chosen`` is called with what was asked for and what was answered.

    ``ious``: the IoU of each concept's best unit, where it is known.
    """

    def __init__(
        self, notice: Notice, ious: Mapping[str, float], chosen: Callable[[Literal["concept", "sample"], str], object]
    ) -> None:
        self._sign = Static("/", id="sign", markup=False)
        self.input = FilterLine(self._submit, id="filter")
        super().__init__(self._sign, self.input, id="query")
        self.display = False
        self.asked: Literal["", "concept", "sample"] = ""
        self._notice, self._ious, self._chosen = notice, ious, chosen
        self._concepts: Sequence[str] = ()
        self._offered: list[str] = []
        self._at = 0

    def ask_for_concept(self, concepts: Sequence[str], now: str) -> None:
        """Let one of ``concepts`` be chosen; ``now`` is the one that was before."""
        self._concepts = concepts
        self._ask("concept", "/")
        self._at = self._offered.index(now) if now in self._offered else 0

    def ask_for_sample(self) -> None:
        """Let the number of a sample be typed."""
        self._ask("sample", ":")

    def _ask(self, what: Literal["concept", "sample"], sign: str) -> None:
        self.asked = what
        self._sign.update(sign)
        self.input.value = ""
        self.offer()
        self.display = True
        self.screen.set_focus(self.input)

    def stop(self) -> None:
        """Ask no longer."""
        self.asked = ""
        self.display = False
        self.screen.set_focus(None)

    def offer(self) -> None:
        """List the concepts that fit what is typed."""
        self._offered, self._at = matching(self._concepts, self.input.value), 0

    def move(self, down: int) -> None:
        """Go to another of the concepts that are listed."""
        self._at = min(max(self._at + down, 0), max(0, len(self._offered) - 1))

    def lines(self, glyphs: Glyphs) -> tuple[list[TextLine], int]:
        """What is listed, and which of the lines the cursor is on."""
        return concept_lines(self._offered, self._ious, self._at, glyphs), self._at

    def _submit(self, text: str) -> None:
        asked, answer = self.asked, text.strip()
        with self._notice.telling_errors():
            if asked == "concept":
                offered = matching(self._concepts, text)  # the list may not have been told of the last letter yet
                if not offered:
                    raise NDError(f"no concept is called '{answer}'", "esc leaves the list")
                answer = offered[min(self._at, len(offered) - 1)]
            self.stop()
            if asked and answer:
                self._chosen(asked, answer)


def matching(concepts: Sequence[str], typed: str) -> list[str]:
    """The concepts that hold what was typed, those that begin with it first."""
    word = typed.strip().casefold()
    held = [name for name in concepts if word in name.casefold()]
    return sorted(held, key=lambda name: not name.casefold().startswith(word))
