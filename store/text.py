"""Text from outside made fit to be shown: a terminal obeys nothing in it, and no letter of it is invisible.

Names of files, layers, concepts and images, what a checkpoint, a run file or a store says of itself, and messages of
libraries that repeat them may hold anything. They stay as they are while the program works with them; what is shown of
them goes through :func:`clean_text`, in JSON through :func:`clean_json`.
"""

from __future__ import annotations

import json
import re

_REPLACED = "\ufffd"
# Runs of what is not plain ASCII; JSON text has line ends of its own.
_ODD = re.compile(r"[^ -~]+")
_ODD_IN_JSON = re.compile(r"[^ -~\n]+")
# By their categories letters, marks and symbols, and nothing is drawn for them: two names may differ in them alone.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_SPACES = frozenset("\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000")
# What ends a line or moves to a column, wherever it is read.
_BREAKS = str.maketrans(dict.fromkeys("\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029", " "))
# Control characters, line separators, and what turns the direction of the text after it.
_CONTROL = dict.fromkeys(
    [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)], _REPLACED
)


def clean_text(text: str) -> str:
    """``text`` as it may be shown, with U+FFFD for each character that a terminal would obey or that nobody would see.

    These are control characters (C0, C1, line ends and tabs too), what turns the direction of text, zero-width
    characters and joiners, soft hyphens, tags and variation selectors, private and unassigned code points, and what is
    no text at all. A byte of a file name that is no UTF-8 is written as ``\\xff``.
    """
    if text.isascii() and text.isprintable():
        return text
    return _ODD.sub(lambda run: run[0] if _harmless(run[0]) else "".join(map(_shown, run[0])), text)


def one_line(text: str) -> str:
    """``text`` as it may be shown in a line of its own: line ends and tabs are spaces."""
    return clean_text(text.translate(_BREAKS)) if not text.isprintable() else clean_text(text)


def clean_lines(text: str) -> str:
    """``text`` as it may be shown where its line ends, tabs and carriage returns are the layout's own."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(part if part in "\n\t\r" else clean_text(part) for part in re.split("([\n\t\r])", text))


def clean_json(text: str) -> str:
    """The JSON ``text`` with escapes for all that :func:`clean_text` replaces: it is read as the same values."""
    return _ODD_IN_JSON.sub(lambda run: run[0] if _harmless(run[0]) else "".join(map(_escaped, run[0])), text)


def without_controls(text: str) -> str:
    """``text`` as stores hold it: without control characters, and what UTF-8 cannot hold as "?"."""
    return text.encode("utf-8", "replace").decode().translate(_CONTROL)


def _harmless(run: str) -> bool:
    # Python calls printable what Unicode's categories call neither Other (Cc, Cf, Cs, Co, Cn) nor Separator.
    return run.isprintable() and not _UNSEEN.search(run)


def _shown(character: str) -> str:
    if _harmless(character) or character in _SPACES:
        return character
    if "\udc80" <= character <= "\udcff":  # how Python keeps a byte of a name that it cannot decode
        return f"\\x{ord(character) - 0xDC00:02x}"
    return _REPLACED


def _escaped(character: str) -> str:
    return character if _harmless(character) or character in _SPACES else json.dumps(character)[1:-1]
