"""The pages about the program name files that are there, and rooms as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/ablate.md",
    "docs/ablation_curves.md",
    "docs/ace.md",
    "docs/architecture.md",
    "docs/attack.md",
    "docs/classes.md",
    "docs/data.md",
    "docs/insert.md",
    "docs/labellers.md",
    "docs/layers.md",
    "docs/method.md",
    "docs/paint.md",
    "docs/painting.md",
    "docs/performance.md",
    "docs/remove.md",
    "docs/weights.md",
    "docs/why.md",
)
#: Where a path may begin that a page writes without saying so.
BASES = ("", "engine", "store", "tui", "tests")


def missing(page: Path) -> list[str]:
    """The paths of this project's files, in backticks or as links, that lead nowhere."""
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:[a-z_]+/)+[A-Za-z_0-9]+\.(?:py|md|js))`", text)
    linked = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    wrong = [name for name in named if not any((ROOT / base / name).exists() for base in BASES)]
    return wrong + [link for link in linked if not (page.parent / link).exists()]


@pytest.mark.parametrize("name", PAGES)
def test_files_that_a_page_names_are_there(name: str) -> None:
    allowed = {"models/net.py", "path/file.py", "tui/cli/NAME.py"}  # a user's own, and one that is still to be written
    assert [path for path in missing(ROOT / name) if path not in allowed] == []


@pytest.mark.parametrize("name", PAGES)
def test_no_figure_is_left_to_be_filled_in(name: str) -> None:
    assert re.findall(r"TODO\w*", (ROOT / name).read_text(encoding="utf-8")) == []


def test_the_map_lists_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = re.findall(r"^  ([a-z]+)/ ", page, re.M)
    rooms = [p.parent.name for top in ("engine", "tui") for p in (ROOT / top).glob("*/__init__.py")]
    assert sorted(listed) == sorted(rooms)


def test_a_path_that_leads_nowhere_is_seen(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("`run/nowhere.py` and [a page](none.md), `run/dissect.py`", encoding="utf-8")
    assert missing(tmp_path / "page.md") == ["run/nowhere.py", "none.md"]
