"""``nd dissect``: layers of a network over labelled images into a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ndissect.engine.run.options import Options
from ndissect.tui.cli.options import ForceOption, JsonOption
from ndissect.tui.cli.run_options import takes_options


@takes_options(first="network layers all_convs data output force restart shard")
def dissect(
    options: Options,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The store. Default: NETWORK-DATA.nd.h5 here.")
    ] = None,
    force: ForceOption = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start anew: throw away what an unfinished run has saved.")
    ] = False,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Part I of N of the images alone, for nd merge: job arrays.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no summary of the layers.")] = False,
    json: JsonOption = False,
) -> None:
    """Dissect layers of a network over labelled images into a store. Without arguments: the bundled demo."""
    from ndissect.engine.run.to_store import dissect_to_store
    from ndissect.tui.cli.console import TerminalConsole
    from ndissect.tui.cli.store_summary import print_summary

    console = TerminalConsole()
    written = dissect_to_store(options, console, output=output, force=force, restart=restart, shard=shard)
    if written is None or quiet:
        return
    if written.before:
        console.tell(f"{written.path} holds this dissection already, nothing was run; --force runs it again")
    print_summary(written.path, json)
