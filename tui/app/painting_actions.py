"""Every action of the painting screen, in one table: keys, footer, help and documentation are made from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ndissect.tui.app.actions import Action

if TYPE_CHECKING:
    from ndissect.tui.app.painting import PaintingApp

# fmt: off
PAINTING_ACTIONS: tuple[Action[PaintingApp], ...] = (
    Action("up", ("k", "up"), "k ↑", "", "the cursor up one cell of the layer's map", "Cells",
           lambda app: app.move(-1, 0)),
    Action("down", ("j", "down"), "j ↓", "", "down one cell", "Cells",
           lambda app: app.move(1, 0)),
    Action("left", ("h", "left"), "h ←", "", "left one cell", "Cells",
           lambda app: app.move(0, -1)),
    Action("right", ("l", "right"), "l →", "", "right one cell", "Cells",
           lambda app: app.move(0, 1)),
    Action("extend_up", ("K", "shift+up"), "K shift+↑", "", "select a rectangle, upwards; the mouse drags one", "Cells",
           lambda app: app.move(-1, 0, extend=True)),
    Action("extend_down", ("J", "shift+down"), "J shift+↓", "", "the same, downwards", "Cells",
           lambda app: app.move(1, 0, extend=True)),
    Action("extend_left", ("H", "shift+left"), "H shift+←", "", "the same, to the left", "Cells",
           lambda app: app.move(0, -1, extend=True)),
    Action("extend_right", ("L", "shift+right"), "L shift+→", "", "the same, to the right", "Cells",
           lambda app: app.move(0, 1, extend=True)),
    Action("toggle", ("space",), "space", "select", "select the cursor's cell, or no longer", "Cells",
           lambda app: app.toggle_cell()),
    Action("back", ("escape",), "esc", "", "leave the message, the help; select nothing", "Cells",
           lambda app: app.back(), takes_message=True),
    Action("concept", ("slash",), "/", "concept", "choose a concept, filtered while typing", "Paint",
           lambda app: app.ask_for_concept(), lambda app: app.why_no_network()),
    Action("add", ("plus", "equals_sign"), "+ =", "add", "add the concept to the selected cells", "Paint",
           lambda app: app.paint("add"), lambda app: app.why_not_paint()),
    Action("remove", ("minus",), "-", "remove", "remove the concept from the selected cells", "Paint",
           lambda app: app.paint("remove"), lambda app: app.why_not_paint()),
    Action("weaker", ("less_than_sign", "comma"), "< ,", "", "the next edits weaker", "Paint",
           lambda app: app.change_strength(-1)),
    Action("stronger", ("greater_than_sign", "full_stop"), "> .", "strength", "the next edits stronger", "Paint",
           lambda app: app.change_strength(1)),
    Action("undo", ("u",), "u", "undo", "undo the last edit", "Paint",
           lambda app: app.undo(), lambda app: app.why_not_undo()),
    Action("redo", ("U", "ctrl+r"), "U ctrl+r", "", "do it again", "Paint",
           lambda app: app.redo(), lambda app: app.why_not_redo()),
    Action("before", ("b",), "b", "before", "show the picture before the edits, or after them again", "Look",
           lambda app: app.toggle_before(), lambda app: app.why_not_before()),
    Action("marks", ("m",), "m", "", "hide the cursor and the selection, or show them again", "Look",
           lambda app: app.toggle_marks()),
    Action("next", ("z",), "z", "sample", "the next sample; edits of each are kept", "Look",
           lambda app: app.show_sample(app.sample + 1), lambda app: app.why_no_network()),
    Action("previous", ("Z",), "Z", "", "the sample before", "Look",
           lambda app: app.show_sample(app.sample - 1), lambda app: app.why_no_network()),
    Action("number", ("colon",), ":", "", "the sample whose number is typed", "Look",
           lambda app: app.ask_for_sample(), lambda app: app.why_no_network()),
    Action("save", ("s",), "s", "save", "save the picture, and its edits beside it", "Program",
           lambda app: app.save(), lambda app: app.why_not_save()),
    Action("restart", ("r",), "r", "", "start the network's process again after it ended", "Program",
           lambda app: app.restart(), lambda app: app.why_not_restart()),
    Action("help", ("question_mark",), "?", "help", "these keys", "Program",
           lambda app: app.toggle_help()),
    Action("suspend", ("ctrl+z",), "ctrl+z", "", "back to the shell; fg returns", "Program",
           lambda app: app.action_suspend_process()),
    Action("quit", ("q", "ctrl+c", "ctrl+q"), "q ctrl+c", "quit", "quit; edits that are not saved are told", "Program",
           lambda app: app.quit()),
)
# fmt: on
BY_NAME = {action.name: action for action in PAINTING_ACTIONS}
#: What the footer shows as far as there is room, the most wanted first.
FOOTER = (
    "help", "quit", "concept", "add", "remove", "undo", "toggle", "save", "next", "before", "stronger",
)  # fmt: skip
GROUPS = tuple(dict.fromkeys(action.group for action in PAINTING_ACTIONS))
