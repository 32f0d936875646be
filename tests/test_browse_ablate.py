"""Marked units ablated by the real ``nd ablate`` in the background, over the store of a real run."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import cli
from browsing import Visit

from ndissect.store.reader import Store
from ndissect.tui.app.state import Bookmark


def test_marked_units_are_ablated_by_nd_and_shown(tmp_path: Path) -> None:
    store = cli.workplace(tmp_path) / "net-small.nd.h5"
    with (
        mock.patch("ndissect.tui.app.app._WATCH", 0.1),
        Visit(store, Bookmark("layers", 1, "units"), env=cli.environment(tmp_path)) as visit,
    ):
        visit.press("space", "space", "A")
        assert "/net.py, which the store names: A again runs it" in visit.notice
        marked = sorted(item.unit for item in visit.app.marks.units)
        visit.press("A")
        visit.wait(lambda: "failed" in visit.notice or "classes without" in visit.crumbs, 120)
        assert "classes without units:" in visit.crumbs, visit.text
        assert "by prediction alone" in visit.info
        with Store(store) as now:
            effects = now.layer("units").effects
            assert effects is not None
            assert tuple(marked) in effects.units
        visit.press("escape", "5")
        assert visit.app.navigation.root == "classes"
