"""Where a reader was in each store, so that `nd browse` opens there again."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import platformdirs

from ndissect.store.errors import NDError
from ndissect.store.files import atomic, own_folder
from ndissect.store.regular import read_regular

#: What the table on the left can show.
ROOTS = ("layers", "concepts", "summary", "stores", "classes")
# Stores of which bookmarks are kept; those looked at longest ago are forgotten.
_MOST_STORES = 200
# Of a file that this program wrote; every number in it is smaller than the other.
_MOST_BYTES, _LARGEST = 1 << 20, 1 << 31


@dataclass(frozen=True)
class Bookmark:
    """A reader's position in a store: the table on the left, how many tables deep, and the cursor in each.

    ``layer``: of the left table's cursor, or that the summary is of; ``concept`` (its number), ``category``,
    ``output`` (a class): likewise.
    """

    root: str = "layers"
    depth: int = 0
    layer: str = ""
    unit_layer: str = ""
    unit: int = -1
    concept: int = -1
    category: str = ""
    output: int = -1


def _file() -> Path:
    return Path(platformdirs.user_state_dir("ndissect", appauthor=False)) / "browse.json"


def _bookmarks() -> dict[str, Any]:
    """The bookmark of each store as the file has it; of a file that cannot be read: none."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        bookmarks = json.loads(read_regular(_file(), _MOST_BYTES).decode("utf-8"))
        if isinstance(bookmarks, dict):
            return bookmarks
    return {}


def last_bookmark(store: Path) -> Bookmark | None:
    """Where the reader of ``store`` was last, if that is known."""
    written = _bookmarks().get(str(store.absolute()))
    if not isinstance(written, dict):
        return None
    with contextlib.suppress(TypeError, AttributeError):
        bookmark = Bookmark(**written)
        values = asdict(bookmark)
        whole = all(abs(value) < _LARGEST for value in values.values() if isinstance(value, int))
        if whole and all(type(value) is type(getattr(Bookmark(), name)) for name, value in values.items()):
            return bookmark if bookmark.root in ROOTS and 0 <= bookmark.depth <= 2 else None
    return None


def remember(store: Path, bookmark: Bookmark) -> None:
    """Keep ``bookmark`` for the next time. Where nothing can be written, nothing is kept."""
    bookmarks = _bookmarks()
    bookmarks.pop(str(store.absolute()), None)
    bookmarks[str(store.absolute())] = asdict(bookmark)
    text = json.dumps(dict(list(bookmarks.items())[-_MOST_STORES:]), indent=1)
    with contextlib.suppress(OSError, NDError):
        own_folder(_file().parent, 0o700)
        with atomic(_file()) as part:
            part.write_text(text, encoding="utf-8")
