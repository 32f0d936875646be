"""The stores that the terminal UI is tested over, and what they hold."""

from __future__ import annotations

from browsing import units_in, words
from store_factory import dissection

FIRST, SECOND = "features.0", "layer4.1.conv2"
MADE = dissection()
#: A store of more rows than a screen has.
MANY = {"early": (40, (4, 5)), "conv": (300, (3, 3))}
UNITS = units_in(MADE)
OF_FIRST = sorted((u for u in UNITS if u.layer == FIRST), key=lambda u: -u.iou)
BEST = OF_FIRST[0]


def number(line: str) -> int:
    """The unit of a row of the Units table."""
    return int(words(line)[0])
