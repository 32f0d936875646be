"""Printing: tables for people, tab-separated lines for pipes, JSON for programs."""

from __future__ import annotations

import json
import math
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ndissect.store.errors import NDError, NotReplaced
from ndissect.store.text import clean_json, clean_text, one_line
from ndissect.tui.cli.streams import drawn_on
from ndissect.tui.tables.fitting import fitting, width_of

# Lines that stand around a table: title, header, notes and the next prompt.
_AROUND = 14


@dataclass(frozen=True)
class PrintedColumn:
    """A column: its title, how a terminal shows a value, and on which side. Pipes get the plain value.

    ``terminal_only``: an ornament, left out of pipes and where a terminal is too narrow; ``drop``: left out of a
    terminal that is too narrow for all, those with the highest first, 0 never; ``parts``: titles of the columns that
    pipes get, one for each of the values that a row has here; ``wraps``: long text that may go on in the next line.
    """

    title: str
    show: Callable[[Any], str] = str
    right: bool = False
    terminal_only: bool = False
    drop: int = 0
    parts: tuple[str, ...] = ()
    wraps: bool = False


@dataclass(frozen=True)
class PrintedTable:
    """A table to print; ``title``: a line above it, or several; ``notes`` stand below it; pipes get neither.

    It may have no column.
    """

    columns: Sequence[PrintedColumn]
    rows: Sequence[Sequence[Any]]
    title: str | Sequence[str] = ""
    notes: Sequence[str] = field(default_factory=list)


def on_terminal() -> bool:
    """Whether a person reads the output."""
    return sys.stdout.isatty()


def emit(text: str) -> None:
    """Write ``text`` to the standard output now, cleaned, its line ends and tabs as they are.

    Nobody may read it any more (head, less, a terminal that is gone); NDError where it cannot be written for another
    reason, such as to a file on a full disk.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as e:
        raise NDError(f"cannot write to the standard output: {e.strerror}", "write to another place") from e


def rows_to_print(limit: int | None, json: bool, notes: int = 0) -> int | None:
    """How many rows of a long table to print, None for all: ``limit`` (0 is all), else what a terminal holds.

    ``notes``: how many more lines stand below it than below most tables.
    """
    if limit is not None:
        return limit or None
    return max(10, shutil.get_terminal_size().lines - _AROUND) - notes if on_terminal() and not json else None


def emit_line(text: str) -> None:
    """Write ``text``, a path say, as a line of the standard output: of whatever it holds, in one line."""
    emit(f"{one_line(text)}\n")


def print_json(value: Any) -> None:
    """``value`` as JSON on the standard output."""
    emit(json_text(value) + "\n")


def json_text(value: Any, *, one_line: bool = False) -> str:
    """``value`` as JSON, indented for a person unless ``one_line``; NaN becomes null, as JSON has none.

    What a terminal would obey is escaped, and read again as it was.
    """
    indent = 2 if on_terminal() and not one_line else None
    return clean_json(json.dumps(_jsonable(value), ensure_ascii=not _unicode(), indent=indent))


def _unicode() -> bool:
    return (sys.stdout.encoding or "").lower().startswith("utf")


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def print_table(table: PrintedTable, *, notes_in_logs: bool = False) -> None:
    """The table, drawn on a terminal, else as tab-separated lines with a header.

    Its title and notes are no part of what goes into a pipe. Notes that tell of a mark (ndissect.store.marks) are told
    beside it, and title and all notes with ``notes_in_logs``, as a log should have them.
    """
    from ndissect.store.marks import MARKED

    if on_terminal():
        _draw(table)
        return
    columns = [(i, c) for i, c in enumerate(table.columns) if not c.terminal_only]
    lines = [[_plain(title) for _, c in columns for title in c.parts or (c.title,)]]
    lines += [[_plain(v) for i, c in columns for v in (row[i] if c.parts else (row[i],))] for row in table.rows]
    emit("".join("\t".join(line) + "\n" for line in lines))
    if notes_in_logs:
        for title in _titles(table):
            tell(title)
    for note in table.notes:
        if notes_in_logs or note.startswith(MARKED):
            tell(note)


def _titles(table: PrintedTable) -> list[str]:
    """The lines above a table."""
    return [line for line in ((table.title,) if isinstance(table.title, str) else table.title) if line]


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return clean_text(" ".join(str(value).split()))


_GAP = 2


def _draw(table: PrintedTable) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(file=drawn_on(sys.stdout), highlight=False)
    cells = [
        [Text(one_line(c.title)) for c in table.columns],
        *(
            [Text("" if v is None else one_line(c.show(v))) for v, c in zip(row, table.columns, strict=True)]
            for row in table.rows
        ),
    ]
    widths = [max(row[i].cell_len for row in cells) for i in range(len(table.columns))]
    for title in _titles(table):
        console.print(Text(_broken(one_line(title), console.width), "italic"), soft_wrap=True)
    stacks = _stacks(table.columns, widths, console.width) if table.columns else []
    for columns in stacks:
        _draw_columns(console, table.columns, cells, columns)
    shown = {i for columns in stacks for i in columns}
    left_out = [c.title for i, c in enumerate(table.columns) if c.drop and i not in shown]
    wider = [f"in wider terminals and in pipes: {', '.join(left_out)}"] if left_out else []
    for note in (*wider, *table.notes):
        console.print(Text(one_line(note)))


def _stacks(columns: Sequence[PrintedColumn], widths: Sequence[int], room: int) -> list[list[int]]:
    """The columns of each table that is drawn in ``room`` characters.

    There is one table where that is wide enough without ornaments and without the columns that may go. Otherwise there
    are several with all columns but the ornaments, and each repeats the first column. Nothing is cut: a reader came
    for labels and IoUs.
    """

    def fits(some: list[int]) -> bool:
        return width_of(widths, some, _GAP) <= room

    ornament = max((c.drop for c in columns), default=0) + 1  # goes before all others
    fewer = fitting(widths, [ornament if c.terminal_only else c.drop for c in columns], room, _GAP)
    if fits(fewer):
        return [fewer]
    shown = [i for i, c in enumerate(columns) if not c.terminal_only]
    if any(columns[i].wraps for i in shown):
        return [shown]
    stacks = [shown[:1]]
    for i in shown[1:]:
        if len(stacks[-1]) > 1 and not fits([*stacks[-1], i]):
            stacks.append(shown[:1])
        stacks[-1].append(i)
    return stacks


def _draw_columns(
    console: Any, columns: Sequence[PrintedColumn], cells: Sequence[Sequence[Any]], shown: list[int]
) -> None:
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    wrapping = any(columns[i].wraps for i in shown)
    for i in shown:
        side: Literal["left", "right"] = "right" if columns[i].right else "left"
        drawn.add_column(cells[0][i], justify=side, overflow="fold", no_wrap=wrapping and not columns[i].wraps)
    for row in cells[1:]:
        drawn.add_row(*(row[i] for i in shown))
    console.print(drawn)


def tell(text: str = "") -> None:
    """A line for people on the standard error, so that pipes stay clean; a terminal breaks it between words."""
    text = one_line(text)
    print(_broken(text, shutil.get_terminal_size().columns) if sys.stderr.isatty() else text, file=sys.stderr)


def _broken(text: str, width: int) -> str:
    """``text`` in lines of at most ``width``, broken between words; a longer word, such as a path, stays whole."""
    if len(text) <= width:
        return text
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def bar(iou: float, width: int = 12) -> str:
    """``iou`` as a bar, ``width`` characters for FULL_IOU and above."""
    from ndissect.tui.pictures.glyphs import ASCII, FULL_IOU, UNICODE

    return (UNICODE if _unicode() else ASCII).bar(iou / FULL_IOU, width)


def count(value: int) -> str:
    """A count; none at all is a dot, which leaves the others to be seen."""
    return str(value) if value else "·" if _unicode() else "."


def confirm_replace(path: Path, force: bool) -> None:
    """Agree on replacing ``path`` if it exists: by ``--force``, by asking a person, or not at all (NotReplaced)."""
    if force or not path.exists():
        return
    if sys.stdin.isatty() and sys.stderr.isatty():
        sys.stderr.write(one_line(f"{path} exists. Replace it? [y/N] "))
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
        raise NotReplaced(f"{path} is kept", "choose another name with -o/--output")
    raise NotReplaced(f"{path} exists", "--force replaces it, -o/--output writes elsewhere")
