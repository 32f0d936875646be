"""Every action of the terminal UI, in one table: keys, footer, palette, help screen and README are made from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from ndissect.tui.app.app import Browser

A = TypeVar("A")


def _possible(_: object) -> None:
    """Nothing stands against it."""


@dataclass(frozen=True)
class Action(Generic[A]):
    """Something that a key does in the app ``A``.

    ``keys`` are in Textual's names, ``shown`` as people write them. ``short`` is its word in the footer, "" for those
    that are never there; ``does``: what the help says. ``run`` does it, ``why_not`` says why it is impossible here and
    now, None where it is possible. ``takes_message``: where a message is shown, the key takes it away and does no more.
    """

    name: str
    keys: tuple[str, ...]
    shown: str
    short: str
    does: str
    group: str
    run: Callable[[A], object]
    why_not: Callable[[A], str | None] = _possible
    takes_message: bool = False


# fmt: off
ACTIONS: tuple[Action[Browser], ...] = (
    Action("down", ("j", "down"), "j ↓", "", "down one row", "Move",
           lambda app: app.table.move(1)),
    Action("up", ("k", "up"), "k ↑", "", "up one row", "Move",
           lambda app: app.table.move(-1)),
    Action("enter", ("enter", "l", "right", "tab"), "enter l →", "open", "open what the cursor is on", "Move",
           lambda app: app.open_row(), lambda app: app.why_not_open_row()),
    Action("back", ("escape",), "esc", "back", "leave the message, the filter, the page", "Move",
           lambda app: app.back(), takes_message=True),
    Action("out", ("h", "left", "shift+tab"), "h ←", "", "to the table that this one was opened from", "Move",
           lambda app: app.out()),
    Action("first", ("g", "home"), "g", "", "first row", "Move",
           lambda app: app.table.move_to(0)),
    Action("last", ("G", "end"), "G", "", "last row", "Move",
           lambda app: app.table.move_to(len(app.table.rows) - 1, -1)),
    Action("half_down", ("ctrl+d",), "ctrl+d", "", "half a page down", "Move",
           lambda app: app.table.turn_pages(0.5)),
    Action("half_up", ("ctrl+u",), "ctrl+u", "", "half a page up", "Move",
           lambda app: app.table.turn_pages(-0.5)),
    Action("page_down", ("pagedown", "ctrl+f"), "pgdn", "", "a page down", "Move",
           lambda app: app.table.turn_pages(1)),
    Action("page_up", ("pageup", "ctrl+b"), "pgup", "", "a page up", "Move",
           lambda app: app.table.turn_pages(-1)),
    Action("layers", ("1",), "1", "layers", "layers", "Show",
           lambda app: app.navigation.show_root("layers")),
    Action("concepts", ("2",), "2", "concepts", "concepts, and the units that detect them", "Show",
           lambda app: app.navigation.show_root("concepts"), lambda app: app.navigation.nothing_counted()),
    Action("summary", ("3",), "3", "summary", "bars of detectors; again: of one layer or of all", "Show",
           lambda app: app.navigation.show_summary(), lambda app: app.navigation.nothing_counted()),
    Action("stores", ("4",), "4", "stores", "the stores of this folder", "Show",
           lambda app: app.navigation.show_root("stores")),
    Action("classes", ("5",), "5", "classes", "the network's classes, and the units that each needs", "Show",
           lambda app: app.navigation.show_root("classes"), lambda app: app.navigation.no_classes()),
    Action("its_classes", ("a",), "a", "its classes", "classes that need the unit, or that it speaks for", "Show",
           lambda app: app.navigation.show_unit_classes(), lambda app: app.navigation.no_unit_classes()),
    Action("filter", ("slash",), "/", "filter", "filter rows while typing", "Find",
           lambda app: app.filter_bar.begin(), lambda app: app.filter_bar.why_not()),
    Action("next", ("n",), "n", "next", "next row of the last filter; in a unit: next unit", "Find",
           lambda app: app.filter_bar.next()),
    Action("previous", ("N",), "N", "", "the same, backwards", "Find",
           lambda app: app.filter_bar.next(-1)),
    Action("sort", ("s",), "s", "sort", "sort by the next column", "Find",
           lambda app: app.table.sort_by_next_column(), lambda app: app.table.why_not_sort()),
    Action("ascending", ("left_square_bracket",), "[", "", "sort upwards", "Find",
           lambda app: app.table.turn_order(descending=False), lambda app: app.table.why_not_sort()),
    Action("descending", ("right_square_bracket",), "]", "", "sort downwards", "Find",
           lambda app: app.table.turn_order(descending=True), lambda app: app.table.why_not_sort()),
    Action("overlay", ("o",), "o", "images", "draw the unit's top images with its masks", "Look",
           lambda app: app.images.draw(), lambda app: app.images.why_not_draw()),
    Action("viewer", ("O",), "O", "", "the same, with a viewer that you choose", "Look",
           lambda app: app.images.choose_viewer(), lambda app: app.images.why_not_draw()),
    Action("truth", ("t",), "t", "", "draw where the label really is beside each, or not", "Look",
           lambda app: app.images.toggle_truth()),
    Action("preview", ("p",), "p", "preview", "show images inside of the terminal, or no longer", "Look",
           lambda app: app.images.toggle_preview(), lambda app: app.images.why_not_preview()),
    Action("mark", ("space",), "space", "mark", "mark the row, or no longer", "Compare",
           lambda app: app.mark(), lambda app: app.marks.why_not(app.table.item)),
    Action("compare", ("c",), "c", "compare", "compare two marked units, layers or stores", "Compare",
           lambda app: app.compare(), lambda app: app.why_not_compare()),
    Action("ablate", ("A",), "A", "ablate", "ablate the marked units together, in the background", "Compare",
           lambda app: app.ablations.begin(), lambda app: app.ablations.why_not()),
    Action("copy", ("y",), "y", "copy", "copy the row", "Take away",
           lambda app: app.copy_row(), lambda app: app.why_not_copy_row()),
    Action("export", ("e",), "e", "export", "write the table, as filtered and sorted, to a file", "Take away",
           lambda app: app.export_rows(), lambda app: app.why_not_export_rows()),
    Action("reload", ("r",), "r", "", "read the store again", "Program",
           lambda app: app.reload()),
    Action("palette", ("colon", "ctrl+p"), ": ctrl+p", "actions", "find an action by its name", "Program",
           lambda app: app.show_palette()),
    Action("help", ("question_mark",), "?", "help", "all keys, and the filter language", "Program",
           lambda app: app.show_help(), lambda app: app.why_not_show_help()),
    Action("suspend", ("ctrl+z",), "ctrl+z", "", "back to the shell; fg returns", "Program",
           lambda app: app.action_suspend_process()),
    Action("quit", ("q", "ctrl+c", "ctrl+q"), "q ctrl+c", "quit", "quit; nd browse opens here again", "Program",
           lambda app: app.quit()),
)
# fmt: on
BY_NAME = {action.name: action for action in ACTIONS}
#: What the footer shows as far as there is room, the most wanted first.
FOOTER = (
    "help", "quit", "enter", "back", "filter", "sort", "overlay", "mark", "compare", "concepts", "summary", "layers",
    "stores", "classes", "its_classes", "ablate", "preview", "next", "copy", "export", "palette",
)  # fmt: skip
GROUPS = tuple(dict.fromkeys(action.group for action in ACTIONS))
