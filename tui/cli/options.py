"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

StoreOption = Annotated[
    Path | None,
    typer.Option("--store", "-s", help="The store to read. Default: $ND_STORE, else the newest *.nd.h5 here."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", "-n", min=0, help="Rows to print; 0 is all. Default: 20 on a terminal, else all."),
]
ForceOption = Annotated[bool, typer.Option("--force", "-f", help="Replace a file that exists.")]
