"""``nd browse``: the terminal UI."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ndissect.store.errors import NDError, WrongUse
from ndissect.tui.cli.options import HelpOption
from ndissect.tui.cli.output import emit_line


# Typer imports pydantic, a fifth of the time until the first screen, for every parameter that is no plain flag. So
# STORE, LAYER and -s are read here.
def browse(
    context: typer.Context,
    preview: Annotated[
        bool, typer.Option("--preview", help="Show images inside of the terminal from the start; p does it later.")
    ] = False,
    help_: HelpOption = False,
) -> None:
    """Browse a store by keyboard: layers, units, concepts, IoUs, top images.

    STORE is a file or a folder, also given as -s STORE. Default: $ND_STORE, else the store that a run is writing here,
    else the newest *.nd.h5 here. It opens at LAYER or LAYER:UNIT, for example layer4:107, else where it was left.
    """
    path, name = _arguments(context.args)
    check_terminal("nd browse", "nd inspect LAYER prints tables to a pipe")
    # Textual paints at most so often a second; at its default of 60 a key would wait for up to 16 ms.
    os.environ.setdefault("TEXTUAL_FPS", "250")
    # numpy's linear algebra, which nothing here uses, would start a thread for it, and that one spin for 0.1 s.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from ndissect.tui.app.app import Browser
    from ndissect.tui.app.start import bookmark_named, find_target

    target = find_target(path)
    bookmark = bookmark_named(target, name) if name else None
    unicode = (sys.stderr.encoding or "").lower().replace("-", "").startswith("utf")
    app = Browser(target, bookmark, unicode=unicode, preview=preview)
    app.run()
    for picture in app.images.unseen:
        emit_line(str(picture))
    if app.ablations.left_running:
        emit_line(app.ablations.left_running)
    if app.failure is not None:
        raise app.failure
    if app.return_code:
        raise typer.Exit(app.return_code)


def _arguments(words: list[str]) -> tuple[Path | None, str]:
    """The store and the layer or unit that the command line names, None and "" where it names none."""
    store, name, waiting = None, "", iter(words)
    for word in waiting:
        option, sign, value = word.partition("=")
        if word == "--":
            continue
        if option in ("-s", "--store"):
            file = value if sign else next(waiting, "")
            if not file:
                raise WrongUse(f"{option} needs a file after it", "nd browse -s FILE [LAYER[:UNIT]]")
            store = Path(file)
        elif word.startswith("-") and not Path(word).exists():
            raise WrongUse(f"there is no option {word}", "nd browse --help lists what there is")
        elif store is None and (word.endswith((".h5", ".hdf5")) or os.sep in word or Path(word).exists()):
            store = Path(word)
        elif not name:
            name = word
        else:
            raise WrongUse(f"'{word}' is one word too many", "nd browse [STORE] [LAYER[:UNIT]]")
    return store, name


def check_terminal(command: str, otherwise: str) -> None:
    """WrongUse where there is no terminal to open ``command`` in; ``otherwise``: what to do without one. NDError where
    the terminal cannot move its cursor."""
    if not (sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()):
        raise WrongUse(f"{command} needs a terminal, and this is none", otherwise)
    if os.environ.get("TERM", "dumb") in ("dumb", "unknown", ""):
        raise NDError(
            f"{command} moves the cursor, which TERM={os.environ.get('TERM', '')} cannot",
            f"{otherwise.replace(' to a pipe', ' on any terminal')}; or set TERM, say to xterm-256color",
        )
