"""``nd status``: how far the runs are, here and elsewhere, those that were stopped too, and what goes on with them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ndissect.tui.cli.options import JsonOption

if TYPE_CHECKING:
    from ndissect.store.live import Run
    from ndissect.store.paused import Paused

# Seconds between two looks of --watch.
_EVERY = 1.0
# Finished stores that are looked into, the newest first.
_MOST = 200


def status(
    store: Annotated[Path | None, typer.Argument(metavar="[STORE]", help="The store to be. Default: all here.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Also the stores and shards that are finished.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every second, until no run is at work.")] = False,
    json: JsonOption = False,
) -> None:
    """How far the runs are that write a store, here or on another machine, and what goes on with those that stopped.

    A run that was stopped or killed is listed as long as what it has saved lies here. Exit code 1 where no run is at
    work or stopped, whatever else is listed; --watch ends with 0, on Ctrl-C too.
    """
    if watch:
        _watch(store, every, json)
        return
    runs = _runs_now(store)
    _print(runs, _finished(store) if every else None, store, json)
    if not runs:
        raise typer.Exit(1)


# What there is


def _runs_now(store: Path | None) -> list[dict[str, Any]]:
    """The runs that write ``store``, or any store here: those at work and those that were stopped; finished shards."""
    from ndissect.store.live import find_runs, read_run
    from ndissect.store.paused import find_paused, saved_folder

    runs = find_runs(Path()) if store is None else [r for r in [read_run(store)] if r is not None]
    stopped = find_paused(Path() if store is None else store.parent, store)
    at_work = {saved_folder(run.target) for run in runs if run.alive}
    saved = {paused.folder for paused in stopped}
    shown = [_record(run) for run in runs if run.alive or saved_folder(run.target) not in saved]
    return shown + [_record(p) for p in stopped if p.folder not in at_work and not p.whole]


def _record(run: Run | Paused) -> dict[str, Any]:
    """A run as JSON values: as it shows itself while it works, or as it saved itself."""
    from ndissect.store.live import Run

    alive = run.alive
    more: dict[str, Any] = {}
    if isinstance(run, Run):
        store, stopped, reason = run.target, "killed", "killed"
        rate, eta, seconds = run.rate, run.eta, (time.time() if alive else run.updated) - run.started
        host, pid, command = run.host, run.pid, run.command
    else:
        store, stopped, reason = run.folder if run.shard else run.target, "paused", run.reason or "killed"
        rate, eta, seconds = 0.0, None, run.elapsed
        host, pid, command = run.process["host"], run.process["pid"], run.goes_on
        more = {"processes": run.processes}
    return {
        "store": str(store),
        "state": "running" if alive else stopped,
        "running": alive,
        "phase": run.phase,
        "step": run.step,
        "steps": run.steps,
        "done": run.done,
        "total": run.total,
        "images_per_s": round(rate, 2),
        "eta_s": eta,
        "seconds": round(seconds, 1),
        "stopped": None if alive else _moment(run.updated),
        "reason": None if alive else reason,
        "host": host,
        "pid": pid,
        "command": command,
        **more,
    }


def _finished(store: Path | None) -> list[dict[str, Any]]:
    """The stores here, the newest first, and the shards that have ended."""
    from ndissect.store.files import SUFFIX
    from ndissect.store.paused import find_paused

    folder = Path() if store is None else store.parent
    paths = [store] if store is not None else [p for p in folder.glob(f"*{SUFFIX}") if p.is_file()]
    changed = [(p.stat().st_mtime, p) for p in paths if p.is_file()]
    stores = [_store(path, at) for at, path in sorted(changed, reverse=True)[:_MOST]]
    shards = [p for p in find_paused(folder, store) if p.whole]
    return stores + [_whole_shard(shard) for shard in shards]


def _store(path: Path, finished: float) -> dict[str, Any]:
    from ndissect.store.errors import NDError
    from ndissect.store.reader import Store
    from ndissect.tui.tables.origin import origin

    about: dict[str, Any] = {"store": str(path), "state": "finished", "finished": _moment(finished)}
    try:
        with Store(path) as store:
            known = origin(store.provenance)
            run = store.provenance.get("run")
            took = run.get("elapsed") if isinstance(run, dict) else None
            seconds = took if isinstance(took, float) and 0 <= took < 10**11 else None
            about |= {"network": known.network, "data": known.data, "layers": list(store.layer_names)}
            return about | {"seconds": seconds}
    except NDError:
        return about | {"state": "not to be read", "network": "", "data": "", "layers": [], "seconds": None}


def _whole_shard(run: Paused) -> dict[str, Any]:
    about: dict[str, Any] = {"store": str(run.folder), "state": "whole shard", "finished": _moment(run.updated)}
    return about | {"network": "", "data": "", "layers": [], "seconds": round(run.elapsed, 1)}


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).isoformat(timespec="seconds")


# Printing it


def _print(
    runs: Sequence[dict[str, Any]], finished: Sequence[dict[str, Any]] | None, store: Path | None, json: bool
) -> None:
    from ndissect.tui.cli.output import PrintedColumn, PrintedTable, print_json, print_table, tell

    if json:
        print_json(_described(runs, finished))
        return
    if runs:
        columns = [
            PrintedColumn("store"),
            PrintedColumn("state"),
            PrintedColumn("phase"),
            PrintedColumn("done"),
            PrintedColumn("images/s", right=True),
        ]
        columns += [PrintedColumn("left"), PrintedColumn("for"), PrintedColumn("stopped"), PrintedColumn("process")]
        print_table(PrintedTable(columns, [list(_cells(run)) for run in runs]))
    else:
        whole = store is not None and store.exists()
        tell(f"no run writes {store or 'a store here'}" + (f"; {store} is whole" if whole else ""))
    if finished:
        columns = [
            PrintedColumn("store"),
            PrintedColumn("state"),
            PrintedColumn("finished"),
            PrintedColumn("network"),
            PrintedColumn("data"),
        ]
        columns += [PrintedColumn("layers"), PrintedColumn("took")]
        print_table(PrintedTable(columns, [list(_finished_cells(one)) for one in finished]))
    for run in runs:
        if not run["running"]:
            tell(_how_to_go_on(run))


def _described(runs: Sequence[dict[str, Any]], finished: Sequence[dict[str, Any]] | None) -> dict[str, Any]:
    return {"runs": runs} if finished is None else {"runs": runs, "finished": finished}


def _how_to_go_on(run: dict[str, Any]) -> str:
    from ndissect.store.names import retyped

    if run["state"] == "killed":
        return f"{run['store']} was killed; the same command goes on: {retyped(run['command'])}"
    why = "was killed" if run["reason"] == "killed" else f"was stopped ({run['reason']})"
    how = f", by {run['processes']} processes as before" if run["processes"] > 1 else ""
    return f"{run['store']} {why}; what goes on{how}: {run['command'] or 'the same command'}"


def _cells(run: dict[str, Any]) -> tuple[Any, ...]:
    from ndissect.tui.cli.progress import precise_duration

    return (
        run["store"],
        run["state"],
        f"{run['phase']} ({run['step']}/{run['steps']})",
        f"{run['done']}/{run['total']}" if run["total"] else "",
        round(run["images_per_s"]) if run["images_per_s"] else "",
        precise_duration(run["eta_s"]) if run["eta_s"] is not None else "",
        precise_duration(run["seconds"]),
        f"{run['stopped'].replace('T', ' ')}, {run['reason']}" if run["stopped"] else "",
        f"{run['pid']} on {run['host']}",
    )


def _finished_cells(one: dict[str, Any]) -> tuple[Any, ...]:
    from ndissect.tui.cli.progress import precise_duration

    layers, took = one["layers"], one["seconds"]
    named = ", ".join(layers[:3]) + (f" and {len(layers) - 3} more" if len(layers) > 3 else "")
    about = one["store"], one["state"], one["finished"].replace("T", " "), one["network"], one["data"], named
    return (*about, precise_duration(took) if took is not None else "")


# Again and again


def _watch(store: Path | None, every: bool, json: bool) -> None:
    """Print what there is at each change, on a terminal in place, until no run is at work or Ctrl-C."""
    from ndissect.tui.cli.output import emit, json_text, on_terminal

    last: Any = None
    try:
        if on_terminal() and not json:
            _watch_in_place(store, every)
            return
        for runs in _runs_each_second(store):
            seen = [(r["store"], r["state"], r["phase"], r["step"], r["done"]) for r in runs]
            if seen == last:
                continue
            last, finished = seen, _finished(store) if every else None
            if json:
                emit(json_text(_described(runs, finished), one_line=True) + "\n")
            else:
                _print(runs, finished, store, json)
    except KeyboardInterrupt:
        return


def _watch_in_place(store: Path | None, every: bool) -> None:
    from rich.console import Console

    from ndissect.tui.cli.streams import drawn_on

    runs: list[dict[str, Any]] = []
    console = Console(file=drawn_on(sys.stdout))
    with console.screen():
        for runs in _runs_each_second(store):
            console.file.write("\x1b[H\x1b[J")  # no flash, as clearing the whole screen first would make
            _print(runs, None, store, False)
    _print(runs, _finished(store) if every else None, store, False)  # what stays on the terminal


def _runs_each_second(store: Path | None) -> Iterator[list[dict[str, Any]]]:
    """What there is, every second, the last time when no run is at work any more."""
    while True:
        runs = _runs_now(store)
        yield runs
        if not any(run["running"] for run in runs):
            return
        time.sleep(_EVERY)
