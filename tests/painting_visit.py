"""A visit to the painting screen without a terminal, over the process that pretends to paint, or over a real one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import browsing

from ndissect.tui.app.painting import PaintingApp

FAKE = Path(__file__).parent / "fake_painter.py"


class PaintingVisit(browsing.Visit):
    """``PaintingApp`` in ``folder``, which must be the current one; a map of ``cells`` on pictures of ``pixels``."""

    app: PaintingApp  # type: ignore[assignment]

    def __init__(
        self,
        folder: Path,
        *,
        cells: int = 8,
        pixels: int = 64,
        size: tuple[int, int] = (80, 24),
        env: dict[str, str] | None = None,
        unicode: bool = True,
        command: list[str] | None = None,
        store: Path | None = None,
        protocol: str = "blocks",
    ) -> None:
        store = store or folder / "x.nd.h5"
        super().__init__(store, size=size, home=folder, env=env)
        words = command or [sys.executable, "-P", str(FAKE), str(cells), str(pixels)]
        how = {"ious": {"tree": 0.31}, "unicode": unicode, "protocol": protocol}
        self._made = lambda: PaintingApp(store, 3, words, **how)  # type: ignore[assignment,return-value,arg-type]
        self._folder = folder

    def __enter__(self) -> PaintingVisit:
        super().__enter__()
        return self

    def drawn(self, seconds: float = 30) -> None:
        """Wait until the picture is there, and its pixels are counted."""
        self.wait(lambda: self.effect.endswith(" s") and "being counted" not in self.effect, seconds)

    def choose(self, concept: str) -> None:
        """Choose a concept by typing it."""
        self.type(f"/{concept}\n")

    def mouse(self, what: str, column: int, line: int) -> None:
        """Do with the mouse what the method of Textual's pilot does."""
        self._runner.run(getattr(self.pilot, what)(offset=(column, line)))
        self.pause()

    @property
    def status(self) -> str:
        """The line of what is selected."""
        return str(self.app._status.text)

    @property
    def effect(self) -> str:
        """The line of what the edits did."""
        return str(self.app._effect.text)

    @property
    def asked(self) -> list[dict[str, Any]]:
        """What the pretended painter was asked."""
        return [json.loads(line) for line in (self._folder / "asked").read_text().splitlines()]

    @property
    def colors(self) -> set[str]:
        """The colours of the picture on the screen."""
        strips = self.app.screen._compositor.render_strips()[2:18]
        styles = [segment.style for strip in strips for segment in strip.crop(1, 33) if segment.style]
        return {str(color.triplet.hex) for s in styles for color in (s.color, s.bgcolor) if color and color.triplet}
