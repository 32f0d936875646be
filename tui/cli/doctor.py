"""``nd doctor``: what this machine has, and what would go wrong."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ndissect.tui.cli.options import JsonOption


def doctor(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder where stores are kept.")] = Path(),
    json: JsonOption = False,
) -> None:
    """GPU, versions, viewer, terminal, file locking and free disk. Exit code 1 if something would fail."""
    from ndissect.tui.cli import doctor_checks as checks
    from ndissect.tui.cli.output import PrintedColumn, PrintedTable, print_json, print_table

    findings = checks.examine(folder, os.environ)
    if json:
        print_json({"findings": [asdict(f) for f in findings]})
    else:
        rows = [[f.state, f.topic, f.detail] for f in findings]
        hints = [f"{f.topic}: {f.hint}" for f in findings if f.hint and f.state != "ok"]
        print_table(
            PrintedTable(
                [PrintedColumn(""), PrintedColumn("what"), PrintedColumn("found", wraps=True)], rows, notes=hints
            )
        )
    if any(f.state == "fail" for f in findings):
        raise typer.Exit(1)
