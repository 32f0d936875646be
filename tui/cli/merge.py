"""``nd merge``: the shards of a run, put together."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated

import typer

from ndissect.engine.run.options import Options
from ndissect.tui.cli.options import ForceOption, JsonOption
from ndissect.tui.cli.run_options import takes_options

_SHARD = re.compile(r"(?P<target>.+)\.shard-\d+-of-\d+")


@takes_options(
    only="device workers memory max_pixels",
    first="shards path data device workers memory max_pixels",
    texts={"device": "Where to count: auto, cpu, cuda.", "workers": "Threads that read labels; 0 chooses."},
)
def merge(
    options: Options,
    shards: Annotated[
        list[Path], typer.Argument(metavar="STORE | SHARD...", help="The store to be, or its shards one by one.")
    ],
    path: Annotated[
        Path | None, typer.Option("--output", "-o", help="The store. Default: as the shards were made for.")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", "-d", help="The data set, where it has moved since.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the shards.")] = False,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Put the shards of one dissection together (nd dissect --shard i/n): the store that one process would write."""
    from ndissect.store.files import check_writable, human_bytes
    from ndissect.tui.cli import output
    from ndissect.tui.cli.console import TerminalConsole
    from ndissect.tui.cli.store_summary import print_summary

    began = time.time()
    folders, target = _folders(shards)
    target = path or target
    check_writable(target, 0)
    output.confirm_replace(target, force)
    from ndissect.engine.run.merged_store import merge_to_store

    merge_to_store(folders, target, options, TerminalConsole(), data=data, keep=keep)
    size = human_bytes(target.stat().st_size)
    output.tell(f"{target} ({size}) of {len(folders)} shards in {time.time() - began:.1f} s")
    print_summary(target, json)


def _folders(given: list[Path]) -> tuple[list[Path], Path]:
    """The shards' folders, and the store that they were made for."""
    from ndissect.store.errors import WrongUse

    if len(given) == 1 and not _SHARD.fullmatch(given[0].name):
        target = given[0]
        folders = sorted(p for p in target.parent.glob(f"{_escaped(target.name)}.shard-*-of-*") if p.is_dir())
        if not folders:
            raise WrongUse(f"there are no shards of {target}", "nd dissect --shard 1/8 -o STORE makes the first of 8")
        return folders, target
    for folder in given:
        if not _SHARD.fullmatch(folder.name):
            raise WrongUse(f"{folder} is no shard", "shards are called STORE.shard-1-of-8 and so on")
    name = _SHARD.fullmatch(given[0].name)
    assert name is not None
    return given, given[0].with_name(name["target"])


def _escaped(name: str) -> str:
    return re.sub(r"([*?\[\]])", r"[\1]", name)
