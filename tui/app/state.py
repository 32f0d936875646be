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
ROOTS = ("layers", "concepts", "summary", "stores")
# Stores whose places are kept; the ones looked at longest ago are forgotten.
_KEPT = 200
# Of a file that this program wrote; every number in it is smaller than the other.
_MOST_BYTES, _LARGEST = 1 << 20, 1 << 31


@dataclass(frozen=True)
class Bookmark:
    """A place in a store: which table is on the left, how many tables deep the reader is, and at what in each.

    ``layer``: of the left table's cursor, or that the summary is of; ``concept`` (its number), ``category``: likewise.
    """

    root: str = "layers"
    depth: int = 0
    layer: str = ""
    unit_layer: str = ""
    unit: int = -1
    concept: int = -1
    category: str = ""


def _file() -> Path:
    return Path(platformdirs.user_state_dir("ndissect", appauthor=False)) / "browse.json"


def _all() -> dict[str, Any]:
    """Every place that is kept; a file that cannot be read keeps none."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = json.loads(read_regular(_file(), _MOST_BYTES).decode("utf-8"))
        if isinstance(found, dict):
            return found
    return {}


def last_bookmark(store: Path) -> Bookmark | None:
    """Where the reader of ``store`` was last, if that is known."""
    kept = _all().get(str(store.absolute()))
    if not isinstance(kept, dict):
        return None
    with contextlib.suppress(TypeError, AttributeError):
        place = Bookmark(**kept)
        values = asdict(place)
        whole = all(abs(value) < _LARGEST for value in values.values() if isinstance(value, int))
        if whole and all(type(value) is type(getattr(Bookmark(), name)) for name, value in values.items()):
            return place if place.root in ROOTS and 0 <= place.depth <= 2 else None
    return None


def remember(store: Path, place: Bookmark) -> None:
    """Keep ``place`` for the next time; where nothing can be written, nothing is kept."""
    kept = _all()
    kept.pop(str(store.absolute()), None)
    kept[str(store.absolute())] = asdict(place)
    text = json.dumps(dict(list(kept.items())[-_KEPT:]), indent=1)
    with contextlib.suppress(OSError, NDError):
        own_folder(_file().parent, 0o700)
        with atomic(_file()) as part:
            part.write_text(text, encoding="utf-8")
