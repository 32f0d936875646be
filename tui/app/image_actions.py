"""The actions of the group Look: pictures of a unit's top images, outside of the terminal and in it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from ndissect.store.errors import NDError
from ndissect.tui.app import pictures
from ndissect.tui.app.help import viewers_listing
from ndissect.tui.app.listing import Item
from ndissect.tui.app.panes import Panes
from ndissect.tui.pictures import viewer as viewers
from ndissect.tui.pictures.glyphs import UNICODE

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image
    from textual.widget import Widget


class Looking(Panes):
    """Panes that show pictures. ``paths`` are those that no viewer could show."""

    def __init__(self, unicode: bool = True) -> None:
        super().__init__(unicode)
        self.paths: list[Path] = []
        self._truth = False
        self._busy = False
        self.viewers: list[viewers.Viewer] = []
        self._image: Callable[[Image], Widget] | None = None
        self._previewed: tuple[Item | None, int, int] = (None, 0, 0)

    def unit_here(self) -> Item | None:
        """The unit that the reader is at: under the cursor, or the one whose page this is."""
        if not self.covers and self.depth == 2:
            return self._levels[1].item
        item = self.table.item
        return item if item.kind == "unit" else None

    def why_not_overlay(self) -> str | None:
        unit, session = self.unit_here(), self.session
        if unit is None or session is None:
            return "go to a unit first (enter opens the layer)"
        if not session.view(unit.layer).has_top:
            return "this store holds no top images: dissect the network to see them"
        return "a picture is being drawn" if self._busy else None

    why_not_viewer = why_not_overlay

    def do_overlay(self) -> None:
        self.show_pictures(viewers.find_viewer(os.environ))

    def do_viewer(self) -> None:
        self.viewers = list(viewers.available_viewers(os.environ))
        self.cover(viewers_listing(self.viewers))

    def do_truth(self) -> None:
        self._truth = not self._truth
        self.say(f"pictures are drawn {'with' if self._truth else 'without'} where the label really is; o draws")

    def show_pictures(self, viewer: viewers.Viewer) -> None:
        unit = self.unit_here()
        assert unit is not None
        self._busy = True
        self.say(f"drawing {unit.layer}:{unit.unit} ...")
        self.run_worker(self._draw_and_show(viewer, unit), group="pictures")

    async def _draw_and_show(self, viewer: viewers.Viewer, unit: Item) -> None:
        """Draw beside the UI, then show: beside it too, or instead of it where the viewer needs the terminal."""
        assert self.session is not None
        view = self.session.view(unit.layer)
        try:
            path = await asyncio.to_thread(pictures.draw, view, unit.unit, truth=self._truth)
            if viewer.kind == "terminal":
                with self.aside():
                    said = pictures.show_in_terminal(viewer, path)
            elif viewer.kind == "window":
                said = await asyncio.to_thread(viewers.run_viewer, viewer, path)
            else:
                self.paths.append(path)
                self.to_clipboard(str(path))
                said = f"no image viewer was found: the path is copied, and printed when nd ends\n{path}"
            if said:
                self.say(said)
        except NDError as e:
            self.say(e.message, e.hint)
        finally:
            self._busy = False

    def why_not_preview(self) -> str | None:
        if self.glyphs is not UNICODE:
            return "images need a terminal with Unicode; o opens a viewer"
        return None if self._image is not None else self.why_not_overlay()

    def begin_preview(self) -> None:
        """Show images in the terminal from now on. NDError where the extra is not installed.

        The library asks the terminal what it can draw: while the UI runs, it must be suspended.
        """
        from ndissect.tui.app.preview import image_widget  # noqa: PLC0415 - most readers never ask for it

        self._image = image_widget()
        self._picture.display = True

    def do_preview(self) -> None:
        """Show the images of the unit that the cursor is on below the tables, or no longer."""
        if self._image is None:
            with self.aside():
                self.begin_preview()
        else:
            self._picture.display = not self._picture.display
        self.call_after_refresh(self.illustrate)

    def illustrate(self) -> None:
        """Bring the preview up to date, beside the UI."""
        unit, size = self.unit_here(), self._picture.size
        wanted = (unit, size.width, size.height)
        if not self._picture.display or unit is None or self.session is None or not size or wanted == self._previewed:
            return
        self._previewed = wanted
        self.run_worker(self._illustrate(unit, size.width, size.height), group="preview", exclusive=True)

    async def _illustrate(self, unit: Item, width: int, height: int) -> None:
        from ndissect.tui.app.preview import strip_of_images  # noqa: PLC0415 - as above

        assert self.session is not None and self._image is not None
        try:
            view = self.session.view(unit.layer)
            drawn = await asyncio.to_thread(strip_of_images, view, unit.unit, width, height)
        except NDError as e:
            self.say(e.message, e.hint)
            return
        await self._picture.remove_children()
        widget = self._image(drawn)
        widget.styles.width, widget.styles.height = "auto", height
        await self._picture.mount(widget)
