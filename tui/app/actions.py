"""Every action of the terminal UI, in one table: keys, footer, palette, help screen and README are made from it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Action:
    """Something that a key does.

    ``name`` is the method ``do_<name>`` of the app and, where an action can be impossible, ``why_not_<name>``;
    ``keys`` in Textual's names; ``shown``: the keys as people write them; ``short``: its word in the footer, "" for
    those that are never there; ``does``: what the help says.
    """

    name: str
    keys: tuple[str, ...]
    shown: str
    short: str
    does: str
    group: str


ACTIONS = (
    Action("down", ("j", "down"), "j ↓", "", "down one row", "Move"),
    Action("up", ("k", "up"), "k ↑", "", "up one row", "Move"),
    Action("enter", ("enter", "l", "right", "tab"), "enter l →", "open", "open what the cursor is on", "Move"),
    Action("back", ("escape",), "esc", "back", "leave the message, the filter, the page", "Move"),
    Action("out", ("h", "left", "shift+tab"), "h ←", "", "to the table that this one was opened from", "Move"),
    Action("first", ("g", "home"), "g", "", "first row", "Move"),
    Action("last", ("G", "end"), "G", "", "last row", "Move"),
    Action("half_down", ("ctrl+d",), "ctrl+d", "", "half a page down", "Move"),
    Action("half_up", ("ctrl+u",), "ctrl+u", "", "half a page up", "Move"),
    Action("page_down", ("pagedown", "ctrl+f"), "pgdn", "", "a page down", "Move"),
    Action("page_up", ("pageup", "ctrl+b"), "pgup", "", "a page up", "Move"),
    Action("layers", ("1",), "1", "layers", "layers", "Show"),
    Action("concepts", ("2",), "2", "concepts", "concepts, and the units that detect them", "Show"),
    Action(
        "summary",
        ("3",),
        "3",
        "summary",
        "bars of detectors; again: of one layer or of all",
        "Show",
    ),
    Action("stores", ("4",), "4", "stores", "the stores of this folder", "Show"),
    Action("filter", ("slash",), "/", "filter", "filter rows while typing", "Find"),
    Action("next", ("n",), "n", "next", "next row of the last filter; in a unit: next unit", "Find"),
    Action("previous", ("N",), "N", "", "the same, backwards", "Find"),
    Action("sort", ("s",), "s", "sort", "sort by the next column", "Find"),
    Action("ascending", ("left_square_bracket",), "[", "", "sort upwards", "Find"),
    Action("descending", ("right_square_bracket",), "]", "", "sort downwards", "Find"),
    Action("overlay", ("o",), "o", "images", "draw the unit's top images with its masks", "Look"),
    Action("viewer", ("O",), "O", "", "the same, with a viewer that you choose", "Look"),
    Action("truth", ("t",), "t", "", "draw where the label really is beside each, or not", "Look"),
    Action("preview", ("p",), "p", "preview", "show images inside of the terminal, or no longer", "Look"),
    Action("mark", ("space",), "space", "mark", "mark the row, or no longer", "Compare"),
    Action("compare", ("c",), "c", "compare", "compare two marked units, layers or stores", "Compare"),
    Action("copy", ("y",), "y", "copy", "copy the row", "Take away"),
    Action("export", ("e",), "e", "export", "write the table, as filtered and sorted, to a file", "Take away"),
    Action("reload", ("r",), "r", "", "read the store again", "Program"),
    Action("palette", ("colon", "ctrl+p"), ": ctrl+p", "actions", "find an action by its name", "Program"),
    Action("help", ("question_mark",), "?", "help", "all keys, and the filter language", "Program"),
    Action("suspend", ("ctrl+z",), "ctrl+z", "", "back to the shell; fg returns", "Program"),
    Action("quit", ("q", "ctrl+c", "ctrl+q"), "q ctrl+c", "quit", "quit; nd browse opens here again", "Program"),
)
BY_NAME = {action.name: action for action in ACTIONS}
#: What the footer shows as far as there is room, the most wanted first.
FOOTER = (
    "help", "quit", "enter", "back", "filter", "sort", "overlay", "mark", "compare", "concepts", "summary", "layers",
    "stores", "preview", "next", "copy", "export", "palette",
)  # fmt: skip
GROUPS = tuple(dict.fromkeys(action.group for action in ACTIONS))


def key_table() -> str:
    """The actions as the README lists them, a table in Markdown."""
    lines = ["| key | does |", "|---|---|"]
    for group in GROUPS:
        lines += [f"| `{a.shown}` | {a.does} |" for a in ACTIONS if a.group == group]
    return "\n".join(lines)
