"""Files whose names are no UTF-8, for libraries that take no other."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def utf8_path(path: Path) -> Iterator[str]:
    """A name of the file ``path`` that is UTF-8, to open it by within the block; OSError where it cannot be opened."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        number = os.open(path, os.O_RDONLY)
        try:
            yield f"/proc/self/fd/{number}"
        finally:
            os.close(number)
    else:
        yield str(path)
