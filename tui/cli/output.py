"""Printing: tables for people, tab-separated lines for pipes, JSON for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ndissect.store.errors import WrongUse

#: Rows of a table on a terminal when no limit is given.
TERMINAL_ROWS = 20


@dataclass(frozen=True)
class Column:
    """A column: its title, how a terminal shows a value, and on which side. Pipes get the plain value."""

    title: str
    show: Callable[[Any], str] = str
    right: bool = False
    terminal_only: bool = False


@dataclass(frozen=True)
class Table:
    """A table to print; ``notes`` stand below it on a terminal and are left out of pipes."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    title: str = ""
    notes: Sequence[str] = field(default_factory=list)


def on_terminal() -> bool:
    """Whether a person reads the output."""
    return sys.stdout.isatty()


def print_json(value: Any) -> None:
    """``value`` as JSON on the standard output."""
    sys.stdout.write(json_text(value) + "\n")


def json_text(value: Any) -> str:
    """``value`` as JSON, indented for a person; NaN becomes null, as JSON has none."""
    text: str = json.dumps(_clean(value), ensure_ascii=False, indent=2 if on_terminal() else None)
    return text


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def print_table(table: Table) -> None:
    """The table, drawn on a terminal, else as tab-separated lines with a header."""
    if on_terminal():
        _draw(table)
        return
    columns = [i for i, c in enumerate(table.columns) if not c.terminal_only]
    lines = [[table.columns[i].title for i in columns]]
    lines += [[_plain(row[i]) for i in columns] for row in table.rows]
    sys.stdout.write("".join("\t".join(line) + "\n" for line in lines))


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return " ".join(str(value).split())


def _draw(table: Table) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console()
    drawn = RichTable(
        title=Text(table.title) if table.title else None,
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for column in table.columns:
        drawn.add_column(
            Text(column.title), justify="right" if column.right else "left", overflow="ellipsis", no_wrap=True
        )
    for row in table.rows:
        drawn.add_row(
            *("" if v is None else Text(column.show(v)) for v, column in zip(row, table.columns, strict=True))
        )
    console.print(drawn)
    for note in table.notes:
        console.print(Text(note))


def tell(text: str = "") -> None:
    """A line for people on the standard error, so that pipes stay clean."""
    print(text, file=sys.stderr)


def number(value: float) -> str:
    """A float in four significant digits for a terminal; ``-`` for NaN."""
    return "-" if math.isnan(value) else f"{value:.4g}"


def iou(value: float) -> str:
    """An IoU as a terminal shows it."""
    return "-" if math.isnan(value) else f"{value:.4f}"


def bar(value: float, width: int = 12, full: float = 0.4) -> str:
    """``value`` as a bar of eighths of a character, ``width`` characters for ``full`` and above."""
    eighths = round(max(0.0, min(value / full, 1.0)) * width * 8) if not math.isnan(value) else 0
    if not (sys.stdout.encoding or "").lower().startswith("utf"):
        return "#" * (eighths // 8)
    return "█" * (eighths // 8) + ("", *"▏▎▍▌▋▊▉")[eighths % 8]


def confirm_replace(path: Path, force: bool) -> None:
    """Agree on replacing ``path`` if it exists: by ``--force``, by asking a person, or not at all (WrongUse)."""
    if force or not path.exists():
        return
    if sys.stdin.isatty() and sys.stderr.isatty():
        tell(f"{path} exists. Replace it? [y/N] ")
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
        raise WrongUse(f"{path} is kept", "choose another name with -o/--output")
    raise WrongUse(f"{path} exists", "--force replaces it, -o/--output writes elsewhere")
