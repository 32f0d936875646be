"""``nd paint`` in the terminal: concepts painted into a generator's picture by keys, the network in another process."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from rich.console import RenderableType
from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Input

from ndissect.store.errors import NDError
from ndissect.tui.app.footer import footer
from ndissect.tui.app.keyed_app import KeyedApp, bindings_of
from ndissect.tui.app.messages import Notice
from ndissect.tui.app.painting_actions import BY_NAME, FOOTER, PAINTING_ACTIONS
from ndissect.tui.app.painting_canvas import Canvas, written_lines
from ndissect.tui.app.painting_edits import Cell, PaintEdit, Painting, next_strength
from ndissect.tui.app.painting_files import again, new_file_name, unsaved_lines
from ndissect.tui.app.painting_layout import PAINTING_CSS, is_narrow, is_small, too_small_lines
from ndissect.tui.app.painting_panes import TextPane, edit_lines, help_lines
from ndissect.tui.app.painting_prompt import Prompt
from ndissect.tui.app.painting_selection import Selection
from ndissect.tui.app.painting_server import Drawn, PaintingServer, Ready, Wish
from ndissect.tui.app.painting_status import effect_line, status_line
from ndissect.tui.app.strips import Line
from ndissect.tui.pictures.glyphs import ASCII, UNICODE
from ndissect.tui.pictures.graphics import Protocol

# Keys that a line, while something is typed into it, has no use for.
_WHILE_TYPING = ("escape", "down", "up", "ctrl+c", "ctrl+q")


class PaintingApp(KeyedApp):
    """Paints on the samples of the generator of ``store``, whose network runs in the process that ``command`` starts.

    ``ious``: the IoU of each concept's best unit, where it is known. ``left`` is what is told at the end.
    """

    CSS = PAINTING_CSS
    BINDINGS: ClassVar[list[BindingType]] = bindings_of(PAINTING_ACTIONS)
    ACTIONS_BY_NAME = BY_NAME
    WHILE_TYPING = _WHILE_TYPING

    def __init__(
        self,
        store: Path,
        sample: int,
        command: Sequence[str],
        *,
        ious: Mapping[str, float] | None = None,
        unicode: bool = True,
        protocol: Protocol = "blocks",
    ) -> None:
        super().__init__()
        self.store = store
        self.sample: int = sample
        self.ready: Ready | None = None
        self.concept, self.strength = "", 1.0
        self.selection, self.paintings = Selection(), {sample: Painting()}
        self.left: list[str] = []
        self._drawn: Drawn | None = None
        self._before = self._no_marks = self._ended = False
        encoding = sys.__stderr__.encoding if sys.__stderr__ else "ascii"  # Textual draws there
        self.glyphs = UNICODE if unicode else replace(ASCII, encoding=encoding)
        self.server = PaintingServer(command, self)
        self.notice = Notice()
        self.canvas = Canvas(self._select_by_mouse, unicode=unicode, protocol=protocol)
        self._side, self._help = TextPane(self.glyphs, id="side"), TextPane(self.glyphs, id="help")
        self._small = TextPane(self.glyphs, id="small")
        self._crumbs, self._status = Line(self.glyphs, id="crumbs"), Line(self.glyphs, id="status")
        self._effect, self._keys = Line(self.glyphs, id="effect"), Line(self.glyphs, id="keys")
        self._prompt = Prompt(self.notice, dict(ious or {}), self._chosen)

    def compose(self) -> ComposeResult:
        """Where one is, the picture and what was painted, a message, what is selected, what came of it, keys."""
        yield self._small
        yield self._crumbs
        with Horizontal(id="panes"):
            yield self.canvas
            yield self._side
            yield self._help
        yield self.notice
        yield self._status
        yield self._effect
        yield self._prompt
        with Horizontal(id="bottom"):
            yield self._keys

    # Beginning and end

    def on_mount(self) -> None:
        """Start the process, and ask for the first sample."""
        self.end_on_signals(self._tell_what_is_left)
        self.app_resume_signal.subscribe(self, lambda _: self.refresh(layout=True))
        self._small.show(too_small_lines())
        self._help.show(help_lines(self.glyphs, in_pixels=self.canvas.in_pixels))
        self._start()

    async def on_unmount(self) -> None:
        """The process ends with the screen."""
        await self.server.close()

    def _start(self) -> None:
        self._ended = False
        self._wish()
        self.run_worker(self.server.run(), group="server", exclusive=True)

    def quit(self) -> None:
        """End; what is not saved is told with the commands that paint it again."""
        self._tell_what_is_left()
        self.exit()

    def _tell_what_is_left(self) -> None:
        if self.ready is not None:
            self.left += unsaved_lines(self.store, self.ready.layer, self.ready.units, self.paintings)

    # Keys

    @property
    def typed_into(self) -> Widget | None:
        """The line for a concept or a number while it is asked for."""
        return self._prompt.input if self._prompt.asked else None

    # Cells

    def move(self, down: int, right: int, *, extend: bool = False) -> None:
        """Move what the keys move: the cursor, the choice of a concept, the help."""
        if self.has_class("helping"):
            self._help.scroll_lines(down)
        elif self._prompt.asked:
            self._prompt.move(down)
        else:
            self.selection.move(down, right, extend=extend)

    def toggle_cell(self) -> None:
        """Select the cursor's cell, or no longer."""
        self.selection.toggle()

    def back(self) -> None:
        """Leave the most transient thing."""
        if self._prompt.asked:
            self._prompt.stop()
        elif self.has_class("helping"):
            self.toggle_help()
        else:
            self.selection.clear()

    def _select_by_mouse(self, cell: Cell, extend: bool) -> None:
        self.notice.hush()
        if self._prompt.asked:
            return
        if not extend:
            self.selection.clear()
        self.selection.move_to(cell, extend=extend)
        if not extend:
            self.selection.toggle()
        self.update()

    # Painting

    @property
    def painting(self) -> Painting:
        """What is painted on the sample that is shown."""
        return self.paintings.setdefault(self.sample, Painting())

    def why_no_network(self) -> str | None:
        """Why the network can be asked nothing, None where it can."""
        if self._ended:
            return "the network's process has ended; r starts it again"
        return "the network is being loaded" if self.ready is None else None

    def why_not_paint(self) -> str | None:
        """Why nothing can be painted, None where something can."""
        return self.why_no_network() or (None if self.concept else "choose a concept with / first")

    def paint(self, action: Literal["add", "remove"]) -> None:
        """Add the concept to the selected cells, or remove it from them."""
        self.painting.add(PaintEdit(self.concept, action, self.selection.edited, self.strength))
        self._wish()

    def change_strength(self, by: int) -> None:
        """Make the edits that follow weaker or stronger."""
        self.strength = next_strength(self.strength, by)

    def why_not_undo(self) -> str | None:
        """Why nothing can be undone, None where something can."""
        return None if self.painting.edits else "nothing is painted on this sample"

    def undo(self) -> None:
        """Undo the last edit."""
        self.painting.undo()
        self._wish()

    def why_not_redo(self) -> str | None:
        """Why nothing can be redone, None where something can."""
        return None if self.painting.can_redo else "nothing was undone since the last edit"

    def redo(self) -> None:
        """Do again what was undone last."""
        self.painting.redo()
        self._wish()

    def show_sample(self, number: int) -> None:
        """Go to another sample; what is painted on this one is kept."""
        assert self.ready is not None
        if not 0 <= number < self.ready.samples:
            raise NDError(f"there is no sample {number}", f"samples are 0 to {self.ready.samples - 1}")
        self.sample = number
        self._wish()

    def _wish(self) -> None:
        self._before = False
        self.server.wish(Wish(self.sample, self.painting.edits))

    # Looking

    def why_not_before(self) -> str | None:
        """Why there is nothing to compare with, None where there is."""
        return self.why_not_undo() if self._drawn else "there is no picture yet"

    def toggle_before(self) -> None:
        """Show the picture before the edits, or after them again."""
        self._before = not self._before

    def toggle_marks(self) -> None:
        """Hide the cursor and the selection, or show them again."""
        self._no_marks = not self._no_marks

    def toggle_help(self) -> None:
        """Show the keys in place of the picture, or no longer."""
        self.toggle_class("helping")

    # Typing

    def ask_for_concept(self) -> None:
        """Let a concept be chosen."""
        assert self.ready is not None
        self.remove_class("helping")
        self._prompt.ask_for_concept(self.ready.concepts, self.concept)

    def ask_for_sample(self) -> None:
        """Let the number of a sample be typed."""
        self._prompt.ask_for_sample()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Offer what fits."""
        self._prompt.offer()
        self.update()

    def _chosen(self, what: Literal["concept", "sample"], answer: str) -> None:
        if what == "concept":
            self.concept = answer
        elif answer.isdecimal() and len(answer) < 10:
            self.show_sample(int(answer))
        else:
            raise NDError(f"'{answer}' is no number of a sample", "z goes to the next one")
        self.update()

    # Files

    def why_not_save(self) -> str | None:
        """Why nothing can be saved, None where something can."""
        return self.why_no_network() or (None if self._drawn else "there is no picture yet")

    def save(self) -> None:
        """Write the picture and its edits to new files in the current folder."""
        assert self.ready is not None
        self.server.save(new_file_name(Path(), self.store, self.ready.layer, self.sample))

    def when_saved(self, wish: Wish, picture: str, edits: str) -> None:
        """Tell where it lies, and what makes it again."""
        self.paintings.setdefault(wish.number, Painting()).saved = wish.edits
        self.notice.say(f"saved: {picture} and {edits}", f"again: {again(self.store, edits)}" if wish.edits else "")
        self.update()

    def when_not_saved(self, error: NDError) -> None:
        """Tell why."""
        self.notice.say(f"not saved: {error.message}", error.hint)

    # The process

    def why_not_restart(self) -> str | None:
        """Why the process is not started again, None where it can be."""
        return None if self._ended else "the network's process runs"

    def restart(self) -> None:
        """Start the process again; what was painted is painted again."""
        self._start()

    def when_ready(self, ready: Ready) -> None:
        """The network is there."""
        self.ready = ready
        self.selection.fit(ready.map_size)
        if ready.notes:
            self.notice.say("; ".join(ready.notes))
        self.update()

    def when_drawn(self, drawn: Drawn) -> None:
        """Show the picture, unless another sample is shown by now."""
        if drawn.wish.number == self.sample:
            self._drawn = drawn
            self.update()

    def when_refused(self, wish: Wish, error: NDError) -> None:
        """Tell why, and go back to what was drawn last."""
        self.notice.say(error.message, error.hint)
        if self._drawn is not None and self.server.last_wish == self._drawn.wish:
            self.sample = self._drawn.wish.number
            self.painting.refuse(self._drawn.wish.edits)
        self.update()

    def when_ended(self, why: str) -> None:
        """Tell why; the picture stays."""
        self._ended = True
        self.notice.say(f"the network's process has ended: {why}", "r starts it again")
        self.update()

    # The screen

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        super()._display(screen, renderable)
        self.canvas.after_text(written_lines(renderable, self.size.height))

    def before_terminal_is_left(self) -> str:
        """The picture goes with the screen."""
        return self.canvas.removal()

    def on_resize(self, event: events.Resize) -> None:
        """As much as there is room for."""
        self.set_class(is_small(event.size), "small")
        self.set_class(is_narrow(event.size), "narrow")
        self.canvas.forget()
        self.call_after_refresh(self.update)

    def update(self) -> None:
        """Bring all parts of the screen up to date."""
        drawn, edits = self._drawn, self.painting.edits
        at = f"sample {self.sample}"
        where = [self.store.name, self.ready.layer, at] if self.ready else [self.store.name, at]
        self._crumbs.show((self.glyphs.crumb.join(where), "strong"))
        if drawn is not None and self.ready is not None:
            picture = drawn.before if self._before else drawn.picture
            cursor = None if self._no_marks else self.selection.cursor
            edited = self.painting.edited_cells
            self.canvas.show(picture, self.ready.map_size, cursor, self.selection.cells, edited)
        choosing = self._prompt.asked == "concept"
        self.set_class(choosing, "choosing")
        if choosing:
            self._side.show(*self._prompt.lines(self.glyphs))
        else:
            self._side.show(edit_lines(edits, self.painting.can_redo), len(edits))
        self._status.show(*status_line(self.selection, self.concept, self.strength))
        if self._ended:
            effect = "the network's process has ended; r starts it again"
        else:
            effect = effect_line(self.ready, drawn, before=self._before, busy=self.server.busy)
        self._effect.show((effect, "faint"))
        actions = (BY_NAME[name] for name in FOOTER)
        self._keys.show(
            *footer(actions, lambda a: a.why_not(self) is None, self.size.width, unicode=self.glyphs is UNICODE)
        )


def paint_in_terminal(
    store: Path,
    sample: int,
    command: Sequence[str],
    *,
    ious: Mapping[str, float] | None = None,
    unicode: bool = True,
    protocol: Protocol = "blocks",
) -> tuple[list[str], int]:
    """Paint on the samples of ``store`` until the reader quits; ``command`` starts the process that runs the network.

    Returns what is to be told after that, a line each, and the exit code. ``ious``: of each concept's best unit;
    ``protocol``: how the picture is drawn.
    """
    app = PaintingApp(store, sample, command, ious=ious, unicode=unicode, protocol=protocol)
    app.run()
    if app.failure is not None:
        raise app.failure
    return app.left, app.return_code or 0
