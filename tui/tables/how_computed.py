"""How what is told of a network without some units was computed, in words: the same in every table."""

from __future__ import annotations

_WORDS = {
    "linear head": "exact, in closed form (linear head)",
    "tail": "exact, by running what follows the layer",
    "network": "exact, by running the whole network",
    "gradient": "approximate: activation times gradient",
}


def how_computed(how: str, reason: str = "") -> str:
    """``how`` as tables say it, with the ``reason`` why it was not done in a quicker way, "" for none.

    What a store of a newer version says stays as it is.
    """
    return _WORDS.get(how, how) + (f" ({reason})" if reason else "")
