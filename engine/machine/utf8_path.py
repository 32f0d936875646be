"""Files whose paths are no UTF-8, for libraries that take no other."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def utf8_path(path: Path) -> Iterator[str]:
    """A UTF-8 path of the file ``path``, to open it by within the block; OSError where it cannot be opened.

    It can be written by that path too, as long as the file's own name is UTF-8.
    """
    if _is_utf8(str(path)):
        yield str(path)
        return
    in_folder = _is_utf8(path.name)
    number = os.open(path.parent if in_folder else path, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{number}/{path.name}" if in_folder else f"/proc/self/fd/{number}"
    finally:
        os.close(number)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
