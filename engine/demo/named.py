"""The folder of a data set by the name that a user types: the demo's own, a downloaded one, or any folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ndissect.engine.data.formats import find_dataset


def find_named(name: str | None, progress: Callable[[int, int], None] | None = None) -> Path:
    """The folder of the data set ``name``. None and ``demo`` name the demo's, which is drawn on first use.

    A folder called ``demo`` in the current folder is taken before the demo's. ``progress`` is called with (images
    drawn, images in all). WrongUse where there is no such data set.
    """
    if name is None or (name == "demo" and not os.path.isdir(name)):  # noqa: PTH112 - as in find_dataset
        from ndissect.engine.demo import scenes  # noqa: PLC0415 - other data sets need nothing that draws

        return scenes.ensure(progress=progress)
    return find_dataset(name)
