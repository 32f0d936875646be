"""Which store is opened, and where in it."""

from __future__ import annotations

import os
from pathlib import Path

from ndissect.store.errors import WrongUse
from ndissect.store.files import SUFFIX, find_store
from ndissect.store.live import find_runs, read_run
from ndissect.store.reader import Store
from ndissect.tui.app.state import Bookmark


def find_target(given: Path | None) -> Path:
    """The store to browse: as ``find_store`` finds it, or the one that a run is writing now.

    Without a name, a run that goes on here is newer than any store. WrongUse where there is neither.
    """
    if given is None and os.environ.get("ND_STORE"):
        given = Path(os.environ["ND_STORE"])
    if given is not None and read_run(given) is not None:
        return given
    folder = given if given is not None and given.is_dir() else Path()
    if given is None or given.is_dir():
        alive = [run for run in find_runs(folder) if run.alive]
        if alive:
            return alive[0].target
    return find_store(given)


def bookmark_named(target: Path, name: str) -> Bookmark:
    """The bookmark of ``LAYER`` or ``LAYER:UNIT``. WrongUse where the store has none of that name."""
    layer, _, number = name.rpartition(":")
    with Store(_readable(target)) as store:
        if name in store.layer_names:
            return Bookmark("layers", 1, name)
        if not layer or not number.isdigit():
            store.layer(name)  # says which layers there are
            raise WrongUse(f"'{name}' names no layer", f"write LAYER or LAYER:UNIT; nd inspect lists {SUFFIX} stores")
        return Bookmark("layers", 2, layer, layer, store.layer(layer).check_unit(int(number)))


def _readable(target: Path) -> Path:
    run = read_run(target)
    return run.partial if not target.exists() and run is not None and run.partial else target
