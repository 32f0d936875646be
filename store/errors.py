"""The one error that users see: what failed and why, and what to do about it."""

from __future__ import annotations


class NDError(Exception):
    """A failure that the user can act on.

    ``message`` says what failed, where and why; ``hint`` says what to do next (may be empty). The command line
    prints the two as two lines and exits with ``exit_code``; a traceback appears only with ``--debug``.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class WrongUse(NDError):
    """The command itself is at fault: an unknown layer, a bad option, a name that does not exist. Exit code 2."""

    exit_code = 2


class NotReplaced(WrongUse):
    """A file is there already, and nobody agreed that it may be replaced."""


def first_line(error: BaseException) -> str:
    """What ``error`` says in one line: the first of its message, or its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def nearest(name: str, known: list[str], n: int = 4) -> list[str]:
    """The up to ``n`` entries of ``known`` that look most like ``name``, best first."""
    import difflib  # noqa: PLC0415 - only a mistake needs it, and every look-up imports this module

    lower = {k.lower(): k for k in reversed(known)}
    matches = [lower[m] for m in difflib.get_close_matches(name.lower(), list(lower), n, 0.5)]
    for k in known:
        if name.lower() in k.lower() and k not in matches:
            matches.append(k)
    return matches[:n]
