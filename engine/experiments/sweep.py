"""Several quantiles from one forward pass (PAMI 2018; method.md 7.3).

The pass gathers with the loosest quantile. The thresholds of stricter ones lie within its tails, and what may fire at
them within what it kept, so that each is as exact as in a dissection of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.machine.device import exact_arithmetic
from ndissect.engine.machine.memory import Budget
from ndissect.engine.machine.progress import Phase, Progress
from ndissect.engine.machine.ranks import ALONE
from ndissect.engine.measures.quantile import merged
from ndissect.engine.networks.layers import LayerInfo
from ndissect.engine.networks.resolve import Network
from ndissect.engine.run.conclusion import conclude
from ndissect.engine.run.count_pass import CountPass
from ndissect.engine.run.dissect import Run
from ndissect.engine.run.gather_pass import DataSummary
from ndissect.engine.run.settings import Settings
from ndissect.store.errors import NDError
from ndissect.store.files import human_bytes
from ndissect.store.marks import Mark
from ndissect.store.model import Dissection
from ndissect.store.protocol import Protocol

# The counts of all quantiles may take this share of the memory; what is less than so much anyway is not counted.
_SHARE = 0.5
_LITTLE = 64 << 20


@dataclass(frozen=True)
class Sweep:
    """One dissection for each quantile, the loosest first: counts, thresholds and labels, without images or a null.

    ``survey``: of the data; ``seconds``: by what was done; ``passes``: forward passes over the data, of which the
    second, if there is one, may be of a part of it; ``marks``: of the network (ndissect.engine.examination.examine).
    """

    dissections: tuple[Dissection, ...]
    survey: DataSummary
    seconds: dict[str, float]
    passes: float
    marks: tuple[Mark, ...]


def sweep(
    network: Network,
    dataset: ConceptDataset,
    layers: Sequence[LayerInfo],
    protocols: Sequence[Protocol],
    settings: Settings,
    progress: Progress,
) -> Sweep:
    """Dissect ``layers`` under ``protocols``, which differ in nothing but their quantile (and so in their name).

    Images in which what may fire at the loosest quantile does not fit ``settings.memory`` go through the network a
    second time, for all quantiles at once. NDError where the thresholds, or the counts, do not fit; else as in a
    dissection.
    """
    exact_arithmetic()
    protocols = sorted(protocols, key=lambda p: p.q, reverse=True)
    counted = 8 * sum(layer.units or 0 for layer in layers) * (len(dataset.concepts) + 1) * len(protocols)
    settings = replace(settings, top=1, evidence=False, null=0, memory=_left(settings, counted, len(protocols)))
    run = Run(network, dataset, layers, protocols[0], settings, progress, None, None, ALONE)
    run.demand_one_pass("give more --memory, leave out the loosest quantile, or take fewer layers at a time")
    with run.on_device():
        run.gather()
        countings, again = _count(run, protocols)
    survey = run.gathering.reading.survey(dataset.names)
    found = [replace(conclude(countings.pop(0), {}), protocol=p) for p in protocols]
    return Sweep(tuple(found), survey, run.clock.seconds(), 1 + again / max(len(run.mine), 1), run.examined.marks)


def _left(settings: Settings, counted: int, quantiles: int) -> Budget:
    """What ``counted`` bytes of counts, on the device that counts, leave of the memory; NDError for more than half."""
    memory, device = settings.memory, settings.device
    on_host = device.type in ("cpu", "mps")
    whole = memory.host if on_host else memory.gpu
    taken = max(counted - _LITTLE, 0)
    if taken > _SHARE * whole:
        need = human_bytes(int(taken / _SHARE))
        raise NDError(
            f"the counts of {quantiles} quantiles take {human_bytes(counted)}, at most half of --memory {memory}",
            f"give --memory {need} or more, fewer quantiles, or fewer layers at a time",
        )
    return Budget(memory.host - taken * on_host, memory.gpu - taken * (not on_host))


def _count(run: Run, protocols: Sequence[Protocol]) -> tuple[list[CountPass], int]:
    """What fires at each quantile, and how many images went through the network a second time for it."""
    g, progress, clock = run.gathering, run.progress, run.clock
    with clock.during("thresholds"):
        by_layer = [[merged([state], p.q) for p in protocols] for state in (q.state() for q in g.quantiles)]
    tops = [top.result() for top in g.tops]
    countings = [
        CountPass(run.loader, run.geometries, statistics, tops, run.forward.counting, clock, progress)
        for statistics in zip(*by_layer, strict=True)
    ]
    kept, bad = g.kept.images(), {number for number, _ in g.reading.bad}
    missing = [image for image in run.mine if image not in kept and image not in bad]
    ahead = [Phase("tally", len(kept))] * bool(kept) + [Phase("tally", len(missing), forward=True)] * bool(missing)
    progress.plan([Phase("thresholds", len(run.mine), forward=True), *ahead])
    run.note_left_out(len(missing))
    if kept:
        progress.start("tally", len(kept))
        _count_kept(run, countings)
    if missing:
        progress.start("tally", len(missing))
        with run.forward.captured() as capture:
            for batch in run.batches(missing, skip_bad=False):  # all of them could be read before
                run.forward.run(capture, batch, [counting.consumer(batch) for counting in countings])
                progress.advance(len(batch))
    return countings, len(missing)


def _count_kept(run: Run, countings: Sequence[CountPass]) -> None:
    """Count each kept piece at every quantile, and let go of it; its labels are read once."""
    pieces = run.gathering.kept.pieces
    read = run.loader.read_labels([piece.images for piece in pieces if piece.labels is None])
    while pieces:
        piece = pieces.pop(0)
        if piece.labels is None:
            with run.clock.during("labels"):
                piece.labels = next(read)
        for counting in countings:
            counting.count_pieces([piece], tell=False)
        run.progress.advance(len(piece.images))
