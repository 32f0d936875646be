"""``nd status``: how far the runs are, here and elsewhere."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ndissect.tui.cli.options import JsonOption


def status(
    store: Annotated[Path | None, typer.Argument(metavar="[STORE]", help="The store to be. Default: all here.")] = None,
    json: JsonOption = False,
) -> None:
    """How far the runs are that write a store, here or on another machine. Exit code 1 where none is."""
    from ndissect.store.live import find_runs, read_run
    from ndissect.store.names import retyped
    from ndissect.tui.cli.output import Column, Table, print_json, print_table, tell

    runs = find_runs(Path()) if store is None else [r for r in [read_run(store)] if r is not None]
    described = [_describe(run) for run in runs]
    if json:
        print_json({"runs": described})
    elif described:
        columns = [Column("store"), Column("state"), Column("phase"), Column("done"), Column("images/s", right=True)]
        columns += [Column("left"), Column("for"), Column("process")]
        print_table(Table(columns, [list(_cells(d)) for d in described]))
        for run in runs:
            if not run.alive:
                tell(f"{run.target} was killed; the same command goes on: {retyped(run.command)}")
    else:
        whole = store is not None and store.exists()
        tell(f"no run writes {store or 'a store here'}" + (f"; {store} is whole" if whole else ""))
    if not runs:
        raise typer.Exit(1)


def _describe(run: Any) -> dict[str, Any]:
    return {
        "store": str(run.target),
        "running": run.alive,
        "phase": run.phase,
        "step": run.step,
        "steps": run.steps,
        "done": run.done,
        "total": run.total,
        "images_per_s": round(run.rate, 2),
        "eta_s": run.eta,
        "seconds": round((time.time() if run.alive else run.updated) - run.started, 1),
        "host": run.host,
        "pid": run.pid,
        "command": run.command,
    }


def _cells(d: dict[str, Any]) -> tuple[Any, ...]:
    from ndissect.tui.cli.progress import duration

    return (
        d["store"],
        "running" if d["running"] else "killed",
        f"{d['phase']} ({d['step']}/{d['steps']})",
        f"{d['done']}/{d['total']}" if d["total"] else "",
        round(d["images_per_s"]) if d["images_per_s"] else "",
        duration(d["eta_s"]) if d["eta_s"] is not None else "",
        duration(d["seconds"]),
        f"{d['pid']} on {d['host']}",
    )
