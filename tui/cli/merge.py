"""``nd merge``: the shards of a run, put together."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ndissect.tui.cli.network_options import MemoryOption
from ndissect.tui.cli.options import ForceOption, JsonOption, MaxPixelsOption

_SHARD = re.compile(r"(?P<target>.+)\.shard-\d+-of-\d+")


def merge(
    shards: Annotated[
        list[Path], typer.Argument(metavar="STORE | SHARD...", help="The store to be, or its shards one by one.")
    ],
    path: Annotated[
        Path | None, typer.Option("--output", "-o", help="The store. Default: as the shards were made for.")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", "-d", help="The data set, where it has moved since.")] = None,
    device: Annotated[str, typer.Option(help="Where to count: auto, cpu, cuda.")] = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Threads that read labels; 0 chooses.")] = 0,
    memory: MemoryOption = None,
    max_pixels: MaxPixelsOption = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the shards.")] = False,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Put the shards of one dissection together (nd dissect --shard i/n): the store that one process would write."""
    from ndissect.store.files import check_writable, human_bytes
    from ndissect.tui.cli import finished, output
    from ndissect.tui.cli.output import tell

    began = time.time()
    folders, target = _folders(shards)
    target = path or target
    check_writable(target, 0)
    output.confirm_replace(target, force)
    from dataclasses import replace

    from ndissect.engine.data.formats import open_dataset
    from ndissect.engine.machine.device import choose_device
    from ndissect.engine.machine.memory import budget
    from ndissect.engine.run.merge import merge as put_together
    from ndissect.engine.run.merge import open_shards
    from ndissect.engine.run.provenance import skipped
    from ndissect.store.writer import write_store
    from ndissect.tui.cli.job import command
    from ndissect.tui.cli.progress import show_progress

    found = open_shards(folders)
    about: dict[str, Any] = found[0].about["provenance"]
    where = data or Path(about["data"]["path"])
    dataset = open_dataset(where, lambda text: tell(f"note: {text}"), max_pixels)
    with show_progress() as progress:
        on = choose_device(device)
        dissection, survey, seconds = put_together(
            found, dataset, device=on, workers=workers, progress=progress, memory=budget(memory, on)
        )
    runs = [dict(shard.about["provenance"]["run"]) for shard in found]
    about["data"] |= {
        "used": survey.images,
        "skipped": skipped(survey),
        "content_digest": survey.digest,
    }
    took = sum(float(run["elapsed"]) for run in runs) + time.time() - began
    marks = [mark for shard in found for mark in shard.about["provenance"].get("marks", [])]
    about["marks"] = [mark for i, mark in enumerate(marks) if mark not in marks[:i]]
    about["run"] |= {"shards": runs, "merged_by": command(), "seconds": seconds, "elapsed": round(took, 3)}
    write_store(target, replace(dissection, provenance=about))
    if not keep:
        for shard in found:
            shard.saved.remove()
    size = human_bytes(target.stat().st_size)
    tell(f"{target} ({size}) of {len(found)} shards in {time.time() - began:.1f} s")
    finished.summary(target, json)


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
