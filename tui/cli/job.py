"""A dissection with all that it takes, ready to be run: as a whole, as a shard, or beside other processes."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndissect.store.errors import NDError
from ndissect.store.files import human_bytes
from ndissect.store.names import quoted
from ndissect.store.protocol import Protocol
from ndissect.tui.cli.output import tell

if TYPE_CHECKING:
    from ndissect.engine.data.dataset import ConceptDataset
    from ndissect.engine.geometry.layer_geometry import LayerGeometry
    from ndissect.engine.machine.ranks import Ranks
    from ndissect.engine.networks.layers import LayerInfo
    from ndissect.engine.networks.resolve import Network
    from ndissect.engine.run.drift import Drift
    from ndissect.engine.run.merge import Shard
    from ndissect.engine.run.publishing import Publish
    from ndissect.engine.run.saved_run import SavedRun
    from ndissect.engine.run.settings import Outcome, Settings
    from ndissect.store.live import RunWriter
    from ndissect.store.model import Dissection

# Seconds from which the final report names what was done.
_SHOWN = 0.05


def command() -> str:
    """The command line as it was typed, ready to be typed again."""
    return shlex.join(["nd", *sys.argv[1:]])


def going_on() -> list[str]:
    """The words of the command that goes on with this one: as it was typed, but for what throws away what was saved."""
    return ["nd", *(word for word in sys.argv[1:] if word != "--restart")]


@dataclass(frozen=True)
class Job:
    """What is dissected, how, and where it goes; ``politely``: a block in which a signal waits for the next saving.

    ``drift``: what its precision changes; ``needed``: bytes that the store will take, about; ``asked``: what finds it
    again; ``started``: seconds since the epoch.
    """

    path: Path
    network: Network
    dataset: ConceptDataset
    layers: Sequence[LayerInfo]
    protocol: Protocol
    settings: Settings
    ranks: Ranks
    saved: SavedRun
    drift: Sequence[Drift]
    needed: int
    asked: dict[str, Any]
    started: float
    politely: Callable[[], AbstractContextManager[None]]

    def run(self) -> Path:
        """The store, written."""
        from ndissect.engine.run.dissect import dissect
        from ndissect.store.live import RunWriter
        from ndissect.store.writer import write_store
        from ndissect.tui.cli.progress import LiveProgress, show_progress

        names = [(layer.name, layer.units or 0) for layer in self.layers]
        with RunWriter(self.path, command(), names, room=self.needed, note=lambda text: tell(f"note: {text}")) as live:
            with show_progress() as shown, self.politely():
                progress = LiveProgress(shown, live)
                publish = self._publishing(live) if self.ranks.size == 1 else None
                outcome = dissect(
                    *(self.network, self.dataset, self.layers, self.protocol, self.settings, progress, publish),
                    saved=self.saved,
                    ranks=self.ranks,
                )
            assert outcome.dissection is not None
            progress.busy("writing")
            live.make_room()
            since = time.perf_counter()
            try:
                write_store(self.path, replace(outcome.dissection, provenance=self._record(outcome)))
            except NDError as e:
                if self.saved.phases():
                    e.hint += "; what was counted is saved: the same command goes on"
                raise
            outcome.seconds["write"] = round(time.perf_counter() - since, 3)
        self.saved.remove()
        self._tell_end(self.path, outcome)
        return self.path

    def run_beside(self) -> None:
        """The part of a process that is not the first of several."""
        from ndissect.engine.machine.progress import Progress
        from ndissect.engine.run.dissect import dissect

        with self.politely():
            dissect(
                *(self.network, self.dataset, self.layers, self.protocol, self.settings, Progress()),
                saved=self.saved,
                ranks=self.ranks,
            )

    def run_shard(self, shard: Shard) -> None:
        """One part of the images, left for ``nd merge``; nothing where it is whole already."""
        from ndissect.engine.geometry.layer_geometry import geometries_json
        from ndissect.engine.run.dissect import gather_part
        from ndissect.tui.cli.progress import show_progress

        def record(outcome: Outcome, geometries: Sequence[LayerGeometry]) -> dict[str, Any]:
            return {
                "places": geometries_json(geometries),
                "top": self.settings.top,
                "null": self.settings.null,
                "provenance": self._record(outcome),
            }

        if self.saved.whole():
            tell(f"{self.saved.folder} is whole already; nd merge puts the shards together")
            return
        with show_progress() as shown, self.politely():
            outcome = gather_part(
                *(self.network, self.dataset, self.layers, self.protocol, self.settings, shown),
                saved=self.saved,
                part=shard.part(len(self.dataset)),
                record=record,
            )
        self._tell_end(self.saved.folder, outcome)
        tell(f"when all are there: nd merge {quoted(self.path)}")

    def _record(self, outcome: Outcome) -> dict[str, Any]:
        """Where the numbers come from."""
        from ndissect.engine.run.provenance import provenance

        how = provenance(self.network, self.dataset, outcome, self.settings, command(), self.started)
        how["run"] |= {"elapsed": round(outcome.before + time.time() - self.started, 3)}
        how["run"] |= {"processes": self.ranks.size, "drift": [d.to_json() for d in self.drift]}
        return how | {"asked": self.asked}

    def _publishing(self, live: RunWriter) -> Publish:
        """Shows results so far with what a title needs of their origin; the rest of it is known at the end."""
        network, dataset = self.network, self.dataset
        origin = {
            "command": command(),
            "network": {"spec": network.spec, "name": network.name},
            "data": {"name": dataset.name, "path": str(dataset.root), "images": len(dataset)},
        }

        def publish(dissection: Dissection, images: int) -> None:
            live.publish(replace(dissection, provenance={**origin, **dissection.provenance}), images)

        return publish

    def _tell_end(self, path: Path, outcome: Outcome) -> None:
        """Where the time went, and what it took."""
        from ndissect.engine.machine.memory import high_water

        size = sum(p.stat().st_size for p in path.iterdir()) if path.is_dir() else path.stat().st_size
        whole = outcome.before + time.time() - self.started
        parts = ", ".join(f"{what} {s:.1f} s" for what, s in outcome.seconds.items() if s >= _SHOWN)
        tell(f"{path} ({human_bytes(size)}) in {whole:.1f} s: {parts}")
        peak = high_water(self.settings.device)
        gpu = f", {human_bytes(peak.gpu)} on the GPU" if peak.gpu else ""
        passes = f"{outcome.passes:.3g} forward pass{'es' * (outcome.passes != 1)}"
        tell(f"{outcome.survey.images} images, {passes}, at most {human_bytes(peak.host)} of memory{gpu}")
        for name, why in outcome.survey.skipped:
            tell(f"skipped {name}: {why}")
