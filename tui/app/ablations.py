"""Units taken away together from within the terminal UI: what is taken, the run in the background, and its end."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndissect.store.errors import NDError
from ndissect.store.names import quoted
from ndissect.tui.app.covers import Cover
from ndissect.tui.app.marks import Marks
from ndissect.tui.app.messages import Notice
from ndissect.tui.app.navigation import Navigation
from ndissect.tui.app.strips import Line
from ndissect.tui.app.watch import rough_duration

if TYPE_CHECKING:
    from ndissect.tui.app.background import BackgroundRun

# Of the command that wrote a layer's effects, what says whose images and classes they are of: with other images the
# new ones would take the place of all that are there. Code is never taken from it.
_KEPT = ("--images", "--data", "--format", "--classes", "--by")


class Ablations:
    """Takes marked units away by ``nd ablate`` in the background, and shows what came of it.

    ``reopen`` reads the store again. ``line`` tells of the run.
    """

    def __init__(
        self, navigation: Navigation, marks: Marks, notice: Notice, line: Line, reopen: Callable[[], None]
    ) -> None:
        self._navigation, self._marks, self._notice, self._line = navigation, marks, notice, line
        self._reopen = reopen
        self._run: BackgroundRun | None = None
        self._told: list[str] = []  # whose code is run
        self._layer, self._name = "", ""
        self._units: tuple[int, ...] = ()
        self._target = Path()

    @property
    def running(self) -> bool:
        """Whether a run goes on."""
        return self._run is not None

    def chosen(self) -> tuple[str, tuple[int, ...]] | None:
        """The layer and the marked units, else the unit that the reader is at; None where there is none of one layer.

        Of marks in several layers the layer is "".
        """
        items = self._marks.units or list(filter(None, [self._navigation.panes.unit_here]))
        layers = {item.layer for item in items}
        if not layers:
            return None
        return layers.pop() if len(layers) == 1 else "", tuple(sorted(item.unit for item in items))

    def why_not(self) -> str | None:
        """Why no units can be taken away, None where they can."""
        session = self._navigation.session
        if session is None or session.path != session.target:
            return "the run that writes this store has not ended"
        if self._run is not None:
            return f"{self._name} is being ablated, for {rough_duration(self._run.elapsed)}; its log: {self._run.log}"
        chosen = self.chosen()
        if chosen is None:
            return "mark units with space first, or go to one"
        return None if chosen[0] else "the marked units are of several layers: mark those of one"

    def begin(self) -> None:
        """Show what the chosen units do together where the store tells it, else start the run that finds out.

        NDError where the network or its images are not at hand: it says what is missing, and the command.
        """
        chosen, session = self.chosen(), self._navigation.session
        assert chosen is not None and session is not None
        # What is needed from here on only: the first screen is there sooner without it.
        from ndissect.tui.app.at_hand import code_named, missing  # noqa: PLC0415
        from ndissect.tui.app.background import start  # noqa: PLC0415
        from ndissect.tui.app.unit_classes import set_name  # noqa: PLC0415

        self._layer, self._units = chosen
        self._name = set_name(*chosen)
        self._target = self._navigation.target
        if self._show_effects():
            self._notice.say(f"{self._name}: the store tells this already; nd ablate measures it again")
            return
        words = ablation_words(self._name, self._target.absolute(), self._origin())
        images = next((w.partition("=")[2] for w in words if w.startswith("--images=")), "")
        lacking = missing(session.store.provenance, images)
        if lacking:
            command = " ".join(
                ["nd", *map(quoted, words[:2]), "-s", quoted(self._target.name), *map(quoted, words[3:])]
            )
            raise NDError(
                f"{self._name} cannot be ablated here: this needs {', '.join(lacking)}",
                f"where the network is, this writes it into the store: {command}",
            )
        code = code_named(session.store.provenance)
        if code and self._told != code:
            self._told = code
            self._notice.say(f"this runs the code of {' and '.join(code)}, which the store names: A again runs it")
            return
        self._run = start(words, f"ablate-{self._target.name.removesuffix('.nd.h5')}-{self._layer}")
        self.look()

    def _origin(self) -> Mapping[str, Any]:
        """Where the effects of the layer that the store has come from; nothing where it has none."""
        session = self._navigation.session
        known = session.class_effects(self._layer) if session else None
        return known.effects.origin if known and known.effects else {}

    def look(self) -> None:
        """Tell how far the run is; at its end read the store again and show what the units do, or why it failed."""
        run = self._run
        self._line.display = run is not None
        if run is None:
            return
        code = run.code
        if code is None:
            since = f"ablating {self._name} for {rough_duration(run.elapsed)}  "
            self._line.show((since, "strong"), (run.last_line or str(run.log), "faint"))
            return
        self._run, self._line.display = None, False
        if code:
            message, hint = run.error
            self._notice.say(f"ablating {self._name} failed: {message}", hint or f"its log: {run.log}")
        elif self._navigation.target != self._target:
            self._notice.say(f"{self._name} is ablated: {self._target.name} tells what it does")
        else:
            self._reopen()
            panes = self._navigation.panes
            busy = not panes.table.has_focus or bool(panes.covers)  # a filter is typed, or something is read
            if busy or not self._show_effects():
                self._notice.say(f"{self._name} is ablated" + ("; A shows what it does" if busy else ""))

    def _show_effects(self) -> bool:
        """Show what the units do where the store tells it. Returns False where it does not."""
        session = self._navigation.session
        known = session.class_effects(self._layer) if session else None
        if session is None or known is None or known.effects is None:
            return False
        from ndissect.tui.app.unit_classes import set_classes, unit_classes  # noqa: PLC0415

        if len(self._units) == 1:
            if known.effects.numbered(self._units[0]) is None:
                return False
            listing = unit_classes(session, self._layer, self._units[0])
        elif self._units in known.sets:
            listing = set_classes(session, self._layer, self._units)
        else:
            return False
        self._navigation.panes.show_cover(Cover(listing, self._navigation.go_to))
        return True

    @property
    def left_running(self) -> str:
        """What is said when the terminal UI ends while a run goes on; "" where none does."""
        if self._run is None or self._run.code is not None:
            return ""
        return f"nd ablate {self._name} goes on (process {self._run.process.pid}); its log: {self._run.log}"


def ablation_words(name: str, store: Path, origin: Mapping[str, Any]) -> list[str]:
    """The words of the command that ablates ``name`` (``layer4:3,7``), on the images of the effects that are there.

    ``origin``: what the store says of these (ndissect.store.effects).
    """
    kept = []
    said = iter(_words(origin.get("command")))
    for word in said:
        option, sign, value = word.partition("=")
        if option in _KEPT:
            value = value if sign else next(said, "")
            kept.append(f"{option}={value}")
    return ["ablate", name, f"--store={store}", *kept]


def _words(command: Any) -> list[str]:
    """A command's words, as a list or as one text; none of what is no command."""
    if isinstance(command, list):
        return [word for word in command if isinstance(word, str)]
    with contextlib.suppress(ValueError):  # a quotation without an end
        return shlex.split(command) if isinstance(command, str) else []
    return []
