"""Dissections in this process that are stopped after some batches and go on, as the command does it.

paused = Pausing(faults.write_inputs(folder))
with pytest.raises(Pause):
    paused.run(folder / "out.nd.h5", stop_after=6)
digest(paused.run(folder / "out.nd.h5"))
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import faults
import numpy as np
import torch

from ndissect.engine.data.formats import open_dataset
from ndissect.engine.machine.memory import Budget
from ndissect.engine.machine.progress import Progress
from ndissect.engine.machine.sealed import read_sealed, write_sealed
from ndissect.engine.networks.layers import list_layers
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.run.dissect import dissect
from ndissect.engine.run.provenance import identity
from ndissect.engine.run.saved_run import SavedRun
from ndissect.engine.run.settings import Outcome, Settings
from ndissect.store.paused import saved_folder
from ndissect.store.protocol import make_protocol


class Pause(KeyboardInterrupt):
    """What ends a run that was told to stop."""


@dataclass
class Notes(Progress):
    """What a run says in words, and the phases that it starts."""

    told: list[str] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.told.append(text)

    def start(self, phase: str, total: int, done: int = 0) -> None:
        self.phases.append(phase)


class Pausing:
    """The network and the data of ``inputs`` (tests/faults.py), loaded once."""

    def __init__(self, inputs: Path) -> None:
        torch.set_num_threads(1)
        self.network = load_network(f"{inputs / 'net.py'}:network")
        self.dataset = open_dataset(inputs / "small")
        infos = list_layers(self.network, (32, 32))
        self.layers = [info for info in infos if info.name in faults.LAYERS]
        self.protocol = make_protocol(q="1/9")

    def run(
        self,
        target: Path,
        *,
        stop_after: int | None = None,
        memory: int = faults.ONE_PASS,
        null: int | None = 2,
        save_every: float = 0.0,
        restart: bool = False,
        notes: Progress | None = None,
    ) -> Outcome:
        """A run to ``target`` that goes on from what is saved; Pause after so many batches. It writes no store."""
        batches = iter(range(10**6))

        def stop() -> BaseException | None:
            return Pause("Ctrl-C") if stop_after is not None and next(batches) >= stop_after - 1 else None

        settings = Settings(
            batch=faults.BATCH,
            workers=1,
            top=3,
            skip_bad=True,
            memory=Budget(memory, memory),
            save_every=save_every,
            null=null,
            stop=stop,
        )
        saved = self.saved(target, settings)
        given = self.network, self.dataset, self.layers, self.protocol, settings, notes or Notes()
        with saved.held(restart=restart):
            outcome = dissect(*given, saved=saved)
            saved.remove()
        return outcome

    def saved(self, target: Path, settings: Settings) -> SavedRun:
        """Where a run to ``target`` saves itself."""
        key = identity(self.network, self.dataset, faults.LAYERS, self.protocol, settings) | {"processes": 1}
        return SavedRun(saved_folder(target), key, target=target, command=["nd", "dissect", "-o", target.name])

    def belongs(self, name: str, null: int | None = 2) -> str:
        """What the file ``name`` of a state is part of (ndissect.engine.machine.sealed)."""
        return self.saved(Path("out.nd.h5"), Settings(top=3, null=null))._belongs(name)


def digest(outcome: Outcome) -> str:
    """Of everything that was counted, and of what was read."""
    found = hashlib.sha256(outcome.survey.digest.encode())
    for name, value in _flat("", outcome.dissection):
        found.update(name.encode())
        found.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return found.hexdigest()


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if is_dataclass(value):
        for f in fields(value):
            if f.name != "provenance":
                yield from _flat(f"{name}.{f.name}", getattr(value, f.name))
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _flat(f"{name}.{key}", one)
    elif isinstance(value, (list, tuple)):
        for i, one in enumerate(value):
            yield from _flat(f"{name}.{i}", one)
    else:
        yield name, value


def edit_sealed(path: Path, belongs: str, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> None:
    """Change the record and the tensors of a file of a state as somebody who knows how: the digest fits."""
    there = read_sealed(path, belongs)
    record, state = there.record, {name: t.clone() for name, t in there.state.items()}
    change(record, state)
    path.unlink()
    write_sealed(path, state, record, belongs)
