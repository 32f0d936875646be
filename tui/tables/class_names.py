"""Names of classes as people type them: ``kitchen`` is ``kitchen-s``, ``street`` is ``/s/street``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from ndissect.store.errors import WrongUse, nearest

_FOLDER = re.compile("/[a-z]/")


def plain_name(name: str) -> str:
    """``name`` without case, without Places' letter folder and Broden's ending, ``_`` and ``-`` as blanks."""
    name = _FOLDER.sub("", name.casefold(), count=1) if name.startswith("/") else name.casefold()
    return name.removesuffix("-s").replace("_", " ").replace("-", " ").strip()


def match_classes(names: Sequence[str], pattern: str | None) -> list[int]:
    """The numbers of the classes whose names match ``pattern``; of all, where none is given.

    A name that equals the pattern is the only match, then a number; else a pattern with ``*`` or ``?`` is a glob, and
    any other text is looked for inside names. WrongUse for a pattern that matches none.
    """
    if pattern is None:
        return list(range(len(names)))
    wanted, plain = plain_name(pattern), [plain_name(name) for name in names]
    same = [k for k, name in enumerate(plain) if name == wanted]
    if same:
        return same
    if pattern.isdecimal() and len(pattern) < 10 and int(pattern) < len(names):
        return [int(pattern)]
    is_glob = any(c in wanted for c in "*?")
    glob = wanted.replace("[", "[[]")
    matching = [k for k, name in enumerate(plain) if (fnmatchcase(name, glob) if is_glob else wanted in name)]
    if not matching:
        close = nearest(pattern, list(names))
        raise WrongUse(
            f"no class matches '{pattern}'", f"nearest: {', '.join(close)}" if close else "nd classes lists them all"
        )
    return matching
