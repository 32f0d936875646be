"""Names of classes as people type them: ``kitchen`` is ``kitchen-s``, ``street`` is ``/s/street``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

_FOLDER = re.compile("/[a-z]/")


def plain_name(name: str) -> str:
    """``name`` without case, without Places' letter folder and Broden's ending, ``_`` and ``-`` as blanks."""
    name = _FOLDER.sub("", name.casefold(), count=1) if name.startswith("/") else name.casefold()
    return name.removesuffix("-s").replace("_", " ").replace("-", " ").strip()


def matching_classes(names: Sequence[str], wanted: str) -> list[int]:
    """The numbers of the classes that are called ``wanted``, or if none is begin so; * and ? stand for any letters.

    A number is that class where none is called so.
    """
    pattern, plain = plain_name(wanted), [plain_name(name) for name in names]
    same = [k for k, name in enumerate(plain) if name == pattern]
    if same:
        return same
    if wanted.isdecimal():
        return [int(wanted)] if int(wanted) < len(names) else []
    if any(c in pattern for c in "*?"):
        pattern = pattern.replace("[", "[[]")
        return [k for k, name in enumerate(plain) if fnmatchcase(name, pattern)]
    return [k for k, name in enumerate(plain) if name.startswith(pattern)]
