"""What a long run tells while it works. The engine reports; the command line shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """A part of a run: ``total`` images, 0 where images are not what it counts; ``forward``: through the network."""

    name: str
    total: int = 0
    forward: bool = False


class Progress:
    """A listener that says nothing. Sub-class it to show a run's phases.

    ``left``: seconds to the end of the whole run, which whoever knows them sets; None while they are unknown.
    ``counts``: what a phase counts, where that is not images; it is set once the phase has begun.
    """

    left: float | None = None
    counts: str = "images"

    def plan(self, phases: Sequence[Phase]) -> None:
        """All the phases of the run in their order, told before the first, and again when more is known of the rest."""

    def start(self, phase: str, total: int, done: int = 0) -> None:
        """A phase of ``total`` images begins, ``done`` of them before a stop; phases come one after another."""

    def advance(self, images: int) -> None:
        """``images`` more are done."""

    def busy(self, phase: str) -> None:
        """A phase begins that does not count images."""

    def note(self, text: str) -> None:
        """Something that the user should know, such as a smaller batch after the GPU ran out of memory."""

    def step(self, phase: str) -> Callable[[int, int], None]:
        """A callback (done, total) that shows a phase of its own."""
        done_before = 0

        def report(done: int, total: int) -> None:
            nonlocal done_before
            if done_before == 0:
                self.start(phase, total)
            self.advance(done - done_before)
            done_before = done

        return report

    def end(self) -> None:
        """The run is over, well or not."""
