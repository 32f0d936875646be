"""The top images of the unit that the reader is at: in a viewer outside of the screen, and below the tables."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from textual.containers import Horizontal

from ndissect.tui.app import pictures
from ndissect.tui.app.covers import Cover
from ndissect.tui.app.help import viewers_listing
from ndissect.tui.app.listing import Item
from ndissect.tui.app.messages import Notice
from ndissect.tui.app.navigation import Navigation
from ndissect.tui.app.terminal import copy_to_clipboard, lent
from ndissect.tui.pictures import viewer as viewers

if TYPE_CHECKING:
    from PIL.Image import Image
    from textual.widget import Widget

    #: Makes the widget that shows an image.
    ImageWidget = Callable[[Image], Widget]


class ImagePane(Horizontal):
    """Shows images below the tables, by ``image_widget``; None where the reader has not asked for that yet.

    ``unicode`` says whether the terminal can show images. ``unseen`` are the files that no viewer could show.
    """

    def __init__(
        self, navigation: Navigation, notice: Notice, *, unicode: bool, image_widget: ImageWidget | None
    ) -> None:
        super().__init__(id="picture")
        self.image_widget = image_widget
        self.display = image_widget is not None
        self.unseen: list[Path] = []
        self._navigation = navigation
        self._notice = notice
        self._unicode = unicode
        self._with_truth = False
        self._busy = False
        self._shown: tuple[Item | None, int, int] = (None, 0, 0)

    # In a viewer

    def why_not_draw(self) -> str | None:
        """Why no picture of a unit can be drawn, None where one can."""
        unit, session = self._navigation.panes.unit_here, self._navigation.session
        if unit is None or session is None:
            return "go to a unit first (enter opens the layer)"
        if not session.view(unit.layer).has_top:
            return "this store holds no top images: dissect the network to see them"
        return "a picture is being drawn" if self._busy else None

    def draw(self, viewer: viewers.Viewer | None = None) -> None:
        """Draw the unit's top images and show them with ``viewer``, or else with the best one."""
        unit = self._navigation.panes.unit_here
        assert unit is not None
        viewer = viewer or viewers.find_viewer(os.environ)
        self._busy = True
        self._notice.say(f"drawing {unit.layer}:{unit.unit} ...")
        self.run_worker(self._draw_and_show(viewer, unit), group="pictures")

    def choose_viewer(self) -> None:
        """Show the viewers that there are; enter draws for one."""
        available = list(viewers.available_viewers(os.environ))

        def draw_for(item: Item) -> None:
            self._navigation.panes.uncover()
            self.draw(available[item.unit])

        self._navigation.panes.show_cover(Cover(viewers_listing(available), draw_for, opens_when_filtered=True))

    def toggle_truth(self) -> None:
        """Draw where the label really is beside each image, or no longer."""
        self._with_truth = not self._with_truth
        how = "with" if self._with_truth else "without"
        self._notice.say(f"pictures are drawn {how} where the label really is; o draws")

    async def _draw_and_show(self, viewer: viewers.Viewer, unit: Item) -> None:
        """Draw beside the UI, then show: beside it too, or instead of it where the viewer needs the terminal."""
        assert self._navigation.session is not None
        view = self._navigation.session.view(unit.layer)
        try:
            with self._notice.telling_errors():
                path = await asyncio.to_thread(pictures.draw, view, unit.unit, truth=self._with_truth)
                message = await self._show(viewer, path)
                if message:
                    self._notice.say(message)
        finally:
            self._busy = False

    async def _show(self, viewer: viewers.Viewer, path: Path) -> str:
        """Show the picture ``path``, and return what to tell of it. Raises NDError where the viewer fails."""
        if viewer.kind == "terminal":
            with lent(self.app):
                return pictures.show_in_terminal(viewer, path)
        if viewer.kind == "window":
            return await asyncio.to_thread(viewers.run_viewer, viewer, path)
        self.unseen.append(path)
        copy_to_clipboard(self.app, str(path))
        return f"no image viewer was found: the path is copied, and printed when nd ends\n{path}"

    # Below the tables

    def why_not_preview(self) -> str | None:
        """Why images cannot be shown below the tables, None where they can."""
        if not self._unicode:
            return "images need a terminal with Unicode; o opens a viewer"
        return None if self.image_widget is not None else self.why_not_draw()

    def toggle_preview(self) -> None:
        """Show the images of the unit that the reader is at below the tables, or no longer. May raise NDError."""
        if self.image_widget is None:
            from ndissect.tui.app.preview import image_widget  # noqa: PLC0415 - most readers never ask for it

            with lent(self.app):  # the library asks the terminal what it can draw
                self.image_widget = image_widget()
            self.display = True
        else:
            self.display = not self.display
        self.call_after_refresh(self.follow)

    def follow(self) -> None:
        """Show the images of the unit that the reader is at now, where they are shown below the tables."""
        unit, size = self._navigation.panes.unit_here, self.size
        wanted = (unit, size.width, size.height)
        if not self.display or unit is None or self._navigation.session is None or not size or wanted == self._shown:
            return
        self._shown = wanted
        self.run_worker(self._preview(unit, size.width, size.height), group="preview", exclusive=True)

    async def _preview(self, unit: Item, width: int, height: int) -> None:
        from ndissect.tui.app.preview import strip_of_images  # noqa: PLC0415 - as above

        assert self._navigation.session is not None and self.image_widget is not None
        with self._notice.telling_errors():
            view = self._navigation.session.view(unit.layer)
            images = await asyncio.to_thread(strip_of_images, view, unit.unit, width, height)
            await self.remove_children()
            widget = self.image_widget(images)
            widget.styles.width, widget.styles.height = "auto", height
            await self.mount(widget)
