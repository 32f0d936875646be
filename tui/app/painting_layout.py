"""Where the parts of the painting screen stand, and what is left out where the terminal is small."""

from __future__ import annotations

from textual.geometry import Size

from ndissect.tui.app.painting_panes import TextLine
from ndissect.tui.app.style_sheet import CSS

#: Columns and lines below which nothing is shown but that.
SMALLEST = (34, 12)
# Columns of what stands beside the picture, and of a terminal that has room for both.
_SIDE, _BOTH = 28, 64

#: The style sheet; ``is_small``, ``is_narrow``, the help and the choice of a concept are classes in it.
PAINTING_CSS = f"""{CSS}
    #status, #effect {{ height: 1; }}
    #side {{ width: {_SIDE}; height: 1fr; }}
    #canvas {{ width: 1fr; height: 1fr; }}
    #help {{ width: 1fr; height: 1fr; display: none; }}
    #small {{ display: none; height: 1fr; }}
    .small #panes, .small Line, .small #bottom, .small #query, .small #notice {{ display: none; }}
    .small #small {{ display: block; }}
    .helping #canvas, .helping #side {{ display: none; }}
    .helping #help {{ display: block; }}
    .narrow #side {{ display: none; }}
    .narrow.choosing #side {{ display: block; width: 1fr; }}
    .narrow.choosing #canvas {{ display: none; }}
    """


def is_small(size: Size) -> bool:
    """Whether a terminal of ``size`` has no room for the screen."""
    return size.width < SMALLEST[0] or size.height < SMALLEST[1]


def is_narrow(size: Size) -> bool:
    """Whether a terminal of ``size`` has no room beside the picture."""
    return size.width < _BOTH


def too_small_lines() -> list[TextLine]:
    """What is shown where there is no room."""
    lines = ("the terminal is too small:", f"{SMALLEST[0]} x {SMALLEST[1]} is the least", "q quits")
    return [[(line, "")] for line in lines]
