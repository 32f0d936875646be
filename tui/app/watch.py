"""What happens on disk while a store is browsed: it is replaced, it goes away, a run is still writing it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ndissect.store.live import Run, read_run
from ndissect.tui.app.listing import Column, Item, Listing
from ndissect.tui.app.query import Fields, texts
from ndissect.tui.app.session import Session, Stamp, stamp


@dataclass(frozen=True)
class FilesOnDisk:
    """What lies on disk: the store's stamp, the run that will write it, and the stamp of what that run published."""

    store: Stamp | None
    run: Run | None
    partial: Stamp | None


def files_on_disk(target: Path) -> FilesOnDisk:
    """What lies on disk of the store ``target`` now."""
    run = read_run(target)
    return FilesOnDisk(stamp(target), run, stamp(run.partial) if run and run.partial else None)


def open_session(target: Path, files: FilesOnDisk) -> Session | None:
    """The store at ``target``, else what its run has published; None where the run has published nothing yet.

    Raises NDError where there is neither store nor run, or the file is damaged.
    """
    if files.store is None and files.run is not None:
        return Session(files.run.partial, target) if files.run.partial and files.partial else None
    return Session(target)


def progress(run: Run, session: Session | None) -> str:
    """The run in one line: phase, share done, images a second, time left, and what the tables below are made of."""
    at = f"{100 * run.done // run.total}% of {run.phase}" if run.total else run.phase
    if run.steps:
        at += f" ({run.step}/{run.steps})"
    alive = run.alive
    parts = [at if alive else f"the run stopped at {at}: start it again"]
    if alive and run.rate > 0:
        parts.append(f"{run.rate:.0f} images/s" if run.rate >= 10 else f"{run.rate:.2g} images/s")
    if alive and run.eta is not None:
        parts.append(f"{rough_duration(run.eta)} left")
    if session is not None and session.path == session.target:
        parts.append("this store will be replaced" if alive else "")
    elif session is not None and run.images:
        parts.append(f"counts of {run.images} images so far")
    else:
        parts.append("no counts yet")
    return "  ".join(filter(None, parts))


def rough_duration(seconds: float) -> str:
    """``seconds`` for people: ``45 s``, ``3 min``, ``2 h 05 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def waiting_listing(run: Run | None) -> Listing:
    """The layers of a run that has counted nothing yet, none without a run."""
    layers = run.layers if run else ()
    return Listing(
        name="layers",
        subject="",
        columns=(Column("layer", 10, grows=True), Column("units", 6, right=True)),
        count=len(layers),
        cells=lambda row: (layers[row][0], str(layers[row][1])),
        item=lambda row: Item("layer", layers[row][0]),
        fields=lambda: Fields(words=(texts([name for name, _ in layers]),)),
        empty="the run has not chosen its layers yet",
        copied=lambda row: layers[row][0],
        plain=lambda row: {"layer": layers[row][0], "units": layers[row][1]},
    )
