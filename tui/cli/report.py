"""``nd report``: a store as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ndissect.tui.cli.options import ForceOption, StoreOption, complete_layer


def report(
    layer: Annotated[
        list[str] | None,
        typer.Argument(metavar="[LAYER]...", help="Only these layers. Default: all.", autocompletion=complete_layer),
    ] = None,
    store: StoreOption = None,
    to: Annotated[Path | None, typer.Option("--output", "-o", help="The page. Default: STORE.html here.")] = None,
    top: Annotated[int, typer.Option("--top", "-n", min=0, help="Images of a unit.")] = 5,
    units: Annotated[
        str,
        typer.Option(
            metavar="all|detectors|N", help="The units with images: all, detectors, or the N best of each layer."
        ),
    ] = "detectors",
    force: ForceOption = False,
) -> None:
    """Write a store as one HTML page: summary, bar charts, a table of all units, top images. Nothing else is needed.

    The page has no other files, asks the network for nothing, and can be mailed, archived or printed.
    """
    from ndissect.store.files import SUFFIX, atomic, check_writable, find_store, human_bytes
    from ndissect.store.names import safe_name
    from ndissect.store.reader import Store
    from ndissect.tui.cli.output import confirm_replace, emit_line, tell
    from ndissect.tui.cli.progress import show_progress
    from ndissect.tui.reports import report as page

    with Store(find_store(store)) as opened:
        views = [opened.layer(name) for name in dict.fromkeys(layer or opened.layer_names)]
        chosen = [page.pictured(view, units) for view in views]
        path = to or Path(safe_name(opened.path.name.removesuffix(SUFFIX), ".html"))
        confirm_replace(path, force)
        pictures = top * sum(len(some) for some in chosen)
        check_writable(path, pictures * page.BYTES_AN_IMAGE + (1 << 20))
        with atomic(path) as part, part.open("w", encoding="utf-8") as file, show_progress() as progress:
            progress.start("drawing", pictures)
            file.writelines(page.pages(opened, views, chosen, top, progress.advance))
    emit_line(str(path))
    pictured = sum(len(some) for some in chosen) if top else 0
    tell(f"{human_bytes(path.stat().st_size)}: {sum(view.units for view in views):,} units, images of {pictured:,}")
