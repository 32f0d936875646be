"""A request for a store: what was asked for, what is there already, and what is left behind where it is stopped."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndissect.engine.machine import torchrun
from ndissect.engine.machine.console import Console
from ndissect.engine.run.existing import find_existing
from ndissect.engine.run.network_loader import network_loader
from ndissect.engine.run.options import Options, with_demo_defaults
from ndissect.store.protocol import Protocol

if TYPE_CHECKING:
    from ndissect.engine.run.saved_run import SavedRun


@dataclass(frozen=True)
class Written:
    """The store ``path`` of a dissection; ``before``: it was there already, and nothing was run."""

    path: Path
    before: bool = False


class Request:
    """One request on its way to a store; ``saved``: what it has counted, once that is kept on the disk.

    The rest of it is described at :func:`ndissect.engine.run.to_store.dissect_to_store`.
    """

    def __init__(
        self, options: Options, console: Console, output: Path | None, force: bool, restart: bool, shard: str | None
    ) -> None:
        options = with_demo_defaults(options)
        self.options, self.console = options, console
        self.output, self.force, self.restart, self.shard = output, force, restart, shard
        self.started = time.time()
        self.protocol = options.make_protocol()
        self.load = network_loader(options)
        self.saved: SavedRun | None = None
        self._agreed: Path | None = None

    def as_generator(self) -> Protocol:
        """The protocol for a network that draws its images, whether or not that was asked for."""
        self.options = replace(self.options, generator=True)
        return self.options.make_protocol()

    def existing(self, asked: dict[str, Any]) -> Path | None:
        """The store that holds what is asked for already; None where there is none, or where it is to be run again."""
        if self.force or self.shard:
            return None
        return find_existing(self.output, asked, marked=self.options.anyway)

    def already(self, there: Path) -> Written | None:
        """The store ``there`` for the process that speaks for all."""
        return Written(there, before=True) if torchrun.is_first() else None

    def confirm_output(self) -> None:
        """Agree on replacing the output where it was named; NotReplaced where it is not to be."""
        if self.output is not None:
            self.confirm(self.output)

    def confirm(self, path: Path) -> None:
        """Agree once on replacing the store ``path``; NotReplaced where it is not to be."""
        if not (self.shard or self.force or path == self._agreed):
            self.console.confirm_replace(path)
            self._agreed = path

    def left_behind(self) -> tuple[str, str]:
        """What there is of a run that was stopped, and what to do."""
        again = shlex.join(self.console.goes_on)
        if self.saved is not None and self.saved.phases():
            how = " (started as before: by as many processes)" if torchrun.processes() > 1 else ""
            return "what was counted is saved", f"go on: {again}{how}"
        return "nothing was written", f"start again: {again}"
