"""Options that several commands share."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer


def _help(context: typer.Context, wanted: bool) -> None:
    if wanted:
        print(context.get_help())
        raise typer.Exit


# Typer's own --help is no plain flag: for its sake alone every command would import pydantic, and take 60 ms more.
HelpOption = Annotated[
    bool, typer.Option("--help", "-h", is_eager=True, callback=_help, help="Show this message and exit.")
]
StoreOption = Annotated[
    Path | None,
    typer.Option("--store", "-s", help="The store to read. Default: $ND_STORE, else the newest *.nd.h5 here."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", "-n", min=0, help="Rows to print; 0 is all. Default: what fits a terminal, else all."),
]
#: Also a field of ndissect.engine.run.options.
MAX_PIXELS = typer.Option(
    metavar="N", min=1, help="Pixels that an image, or its label maps together, may have. Default: 50 million."
)
MaxPixelsOption = Annotated[int | None, MAX_PIXELS]
FormatOption = Annotated[
    str | None, typer.Option("--format", metavar="FORMAT", help="The format of the data, where a folder fits several.")
]
ForceOption = Annotated[bool, typer.Option("--force", "-f", help="Replace a file that exists.")]


def complete_layer(ctx: typer.Context, incomplete: str) -> list[str]:
    """The layers of the store that begin with what was typed; none where there is no store to read."""
    from ndissect.store.errors import NDError
    from ndissect.store.files import find_store
    from ndissect.store.reader import Store

    given = ctx.params.get("store")
    with contextlib.suppress(NDError), Store(find_store(Path(given) if given else None)) as store:
        return [name for name in store.layer_names if name.startswith(incomplete)]
    return []
