"""What a long run tells while it works. The engine reports; the command line shows."""

from __future__ import annotations


class Progress:
    """A listener that says nothing. Sub-class it to show a run's phases."""

    def start(self, phase: str, total: int) -> None:
        """A phase of ``total`` images begins; phases come one after another."""

    def advance(self, images: int) -> None:
        """``images`` more are done."""

    def note(self, text: str) -> None:
        """Something that the user should know, such as a smaller batch after the GPU ran out of memory."""

    def end(self) -> None:
        """The run is over, well or not."""
