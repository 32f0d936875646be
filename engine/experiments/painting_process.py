"""A painter in a process of its own, which is asked by lines of JSON: ``nd paint STORE --serve --layer LAYER``.

What asks it needs neither torch nor the network. It writes one line on the standard output when it is ready, and then
reads a line on the standard input, and answers by one line, until it is told to quit or the input ends. What the
network's own code prints goes to the standard error.

Ready::

    {"ready": true, "store": "x.nd.h5", "layer": "layer4", "concepts": ["tree", ...], "map_size": [h, w],
     "picture_size": [H, W], "samples": 10000, "units": 20, "notes": [...]}

Asked, and answered::

    {"do": "sample", "number": 17}      {"sample": 17, "picture": PNG}
    {"do": "paint", "edits": [EDIT, ...], "label": true}
                                        {"picture": PNG, "changed_inside": 96, "pixels_inside": 96,
                                         "changed_outside": 0, "pixels_outside": 928, "largest_outside": 0,
                                         "concepts": [{"concept": "tree", "before": 0, "after": 96}, ...]}
    {"do": "save", "path": "x.png", "force": false}
                                        {"saved": "x.png", "edits": "x.json"}
    {"do": "quit"}                      {"quit": true}

PNG: the picture as a PNG file in base64. EDIT: ``{"concept": "tree", "action": "add" or "remove", "cells": [[row,
column], ...], "strength": 1.0}``, cells of the layer's map, counted from 0. The edits of a command are all edits of the
current sample in their order: to undo one, ask without it. ``"label": false`` leaves out the labeller, which can take
longer than the picture; ``concepts`` is empty then. ``save`` writes the picture that was answered last, and beside it
the edits (:mod:`ndissect.engine.experiments.edits`), which `nd paint STORE --edits x.json -o y.png` makes again.

A command that fails is answered by ``{"error": MESSAGE, "hint": HINT}``, and the next one is read. So is the first
line where the painter cannot be opened, with which the process ends; its exit code is that of any command of nd.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from ndissect.engine.experiments.edits import Edit, EditList, write_edits
from ndissect.engine.experiments.generated import GeneratorRequest
from ndissect.engine.experiments.paint import UNITS, Painter, Picture, open_painter
from ndissect.engine.experiments.picture_files import check_new, png_of, write_picture
from ndissect.engine.machine.console import Console
from ndissect.store.errors import NDError, WrongUse, first_line

Answer = dict[str, Any]


def serve(request: GeneratorRequest, console: Console, units: int = UNITS) -> None:
    """Answer what is asked on the standard input, until its end; errors of opening the painter are raised as well."""
    with _own_output() as output:
        try:
            with open_painter(request, console, units) as painter:
                server = PaintingServer(painter)
                _say(output, server.ready())
                for line in sys.stdin:
                    if line.strip():
                        _say(output, server.answer(line))
                    if server.ended:
                        break
                    server.get_ahead()
        except NDError as e:
            _say(output, _error(e))
            raise


class PaintingServer:
    """Answers commands by a painter. ``ended``: it was told to quit."""

    def __init__(self, painter: Painter) -> None:
        self.ended = False
        self._painter = painter
        self._picture: Picture | None = None
        self._edits: tuple[Edit, ...] = ()
        self._commands: Mapping[str, Callable[[Mapping[str, Any]], Answer]] = {
            "sample": self._sample,
            "paint": self._paint,
            "save": self._save,
            "quit": self._quit,
        }

    def ready(self) -> Answer:
        """What is said first."""
        painter = self._painter
        return {
            "ready": True,
            "store": str(painter.generated.store),
            "layer": painter.layer,
            "concepts": list(painter.concepts),
            "map_size": list(painter.map_size),
            "picture_size": list(painter.picture_size),
            "samples": painter.generated.count,
            "units": painter.units,
            "notes": list(painter.generated.notes),
        }

    def answer(self, line: str) -> Answer:
        """The answer to a line."""
        try:
            try:
                command = json.loads(line)
            except (ValueError, RecursionError) as e:
                raise WrongUse(f"the line is no JSON: {first_line(e)}", "write an object in one line") from e
            do = command.get("do") if isinstance(command, dict) else None
            if not isinstance(do, str) or do not in self._commands:
                raise WrongUse(f"{do!r:.40} is no command", f"there are {', '.join(self._commands)}")
            return self._commands[do](command)
        except NDError as e:
            return _error(e)
        except Exception as e:  # of the network's code: the painter goes on
            return {"error": f"{type(e).__name__}: {first_line(e)}", "hint": "nd paint --debug shows where it fails"}

    def get_ahead(self) -> None:
        """Do, while nothing is asked, what the first edit would wait for."""
        if self._painter.number is not None:
            with contextlib.suppress(Exception):  # the edit says it
                self._painter.prepare()

    def _sample(self, command: Mapping[str, Any]) -> Answer:
        number = command.get("number")
        if type(number) is not int:
            raise WrongUse(f"the number of a sample is {number!r:.40}", "it is a whole number")
        self._picture, self._edits = self._painter.sample(number), ()
        return {"sample": number, "picture": _text(self._picture)}

    def _paint(self, command: Mapping[str, Any]) -> Answer:
        edits = command.get("edits")
        if not isinstance(edits, list):
            raise WrongUse("the command has no list of edits", 'write {"do": "paint", "edits": []}')
        read = tuple(map(Edit.from_json, edits))
        painted = self._painter.paint(read, label=command.get("label") is not False)
        self._picture, self._edits = painted.picture, read
        return {"picture": _text(painted.picture), **painted.to_json()}

    def _save(self, command: Mapping[str, Any]) -> Answer:
        name, force = command.get("path"), command.get("force") is True
        if not isinstance(name, str) or not name:
            raise WrongUse("the command names no file", 'write {"do": "save", "path": "x.png"}')
        if self._picture is None:
            raise WrongUse("there is no picture yet", "choose a sample first")
        path = Path(name)
        edits = path.with_suffix(".json")
        if path == edits:
            raise WrongUse(f"{path} is no name of a picture", "name it x.png")
        for file in (path, edits):
            check_new(file, force=force)
        painter = self._painter
        write_picture(path, self._picture)
        write_edits(edits, EditList(self._edits, painter.number, painter.layer, painter.units))
        return {"saved": str(path), "edits": str(edits)}

    def _quit(self, command: Mapping[str, Any]) -> Answer:
        del command
        self.ended = True
        return {"quit": True}


@contextlib.contextmanager
def _own_output() -> Iterator[TextIO]:
    """The standard output for the answers alone: what else is printed there goes to the standard error meanwhile."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as output:
        os.dup2(2, 1)
        try:
            yield output
        finally:
            sys.stdout.flush()
            with contextlib.suppress(OSError):  # nobody reads it any more
                output.flush()
            os.dup2(output.fileno(), 1)


def _say(output: TextIO, answer: Answer) -> None:
    output.write(json.dumps(answer) + "\n")
    output.flush()


def _error(error: NDError) -> Answer:
    return {"error": error.message, "hint": error.hint}


def _text(picture: Picture) -> str:
    return base64.b64encode(png_of(picture)).decode("ascii")
