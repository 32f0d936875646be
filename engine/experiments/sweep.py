"""Several quantiles from one forward pass (Zhou et al., PAMI 2018; docs/method.md, section 7.3).

The pass gathers with the loosest quantile. The thresholds of stricter ones lie within its tails, and what may fire at
them within what it kept, so that each is as exact as in a dissection of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.machine.memory import Budget
from ndissect.engine.machine.progress import Phase, Progress
from ndissect.engine.measures.label_store import LabelStore
from ndissect.engine.measures.quantile import merged
from ndissect.engine.networks.layers import LayerInfo
from ndissect.engine.networks.resolve import Network
from ndissect.engine.run.announce import note_second_pass
from ndissect.engine.run.begin import Run, begin, demand_one_pass
from ndissect.engine.run.conclusion import conclude
from ndissect.engine.run.data_survey import DataSummary
from ndissect.engine.run.forward_pass import open_pass
from ndissect.engine.run.gather_pass import gather
from ndissect.engine.run.mask_counter import MaskCounter
from ndissect.engine.run.resume import Start
from ndissect.engine.run.settings import Settings
from ndissect.store.errors import NDError
from ndissect.store.files import human_bytes
from ndissect.store.marks import Mark
from ndissect.store.model import Dissection
from ndissect.store.protocol import Protocol

# The counts of all quantiles may take this share of the memory, or 64 MiB if that is more.
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
    protocols = sorted(protocols, key=lambda p: p.q, reverse=True)
    counted = 8 * sum(layer.units or 0 for layer in layers) * (len(dataset.concepts) + 1) * len(protocols)
    settings = replace(settings, top=1, evidence=False, null=0, memory=_left(settings, counted, len(protocols)))
    with open_pass(network, dataset, layers, protocols[0], settings, progress) as examined:
        run = begin(examined, Start())
        demand_one_pass(run, "give more --memory, leave out the loosest quantile, or take fewer layers at a time")
        gather(run)
        counters, again = _count(run, protocols)
    return Sweep(
        dissections=tuple(replace(conclude(counters.pop(0), {}), protocol=p) for p in protocols),
        survey=run.gatherer.survey.summary(dataset.names),
        seconds=examined.clock.seconds(),
        passes=1 + again / max(len(run.images), 1),
        marks=examined.examination.marks,
    )


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


def _count(run: Run, protocols: Sequence[Protocol]) -> tuple[list[MaskCounter], int]:
    """What fires at each quantile, and how many images went through the network a second time for it."""
    p, gatherer = run.forward_pass, run.gatherer
    with p.clock.during("thresholds"):
        states = [quantile.state() for quantile in gatherer.quantiles]
        by_protocol = [[merged([state], protocol.q) for state in states] for protocol in protocols]
    tops = [top.result() for top in gatherer.tops]
    counters = [
        MaskCounter(p.loader, p.geometries, statistics, tops, p.device, p.clock, p.progress)
        for statistics in by_protocol
    ]
    kept, bad = gatherer.candidates.images(), {number for number, _ in gatherer.survey.bad}
    missing = [image for image in run.images if image not in kept and image not in bad]
    ahead = [Phase("tally", len(kept))] * bool(kept) + [Phase("tally", len(missing), forward=True)] * bool(missing)
    p.progress.plan([Phase("thresholds", len(run.images), forward=True), *ahead])
    note_second_pass(run, len(missing))
    if kept:
        p.progress.start("tally", len(kept))
        _count_kept(run, counters)
    if missing:
        p.progress.start("tally", len(missing))
        for batch in p.batches(missing):  # all of them could be read before
            p.forward.run(batch, [counter.consumer(batch) for counter in counters])
            p.progress.advance(len(batch))
    return counters, len(missing)


def _count_kept(run: Run, counters: Sequence[MaskCounter]) -> None:
    """Count each batch of candidates at every quantile, and let go of it; its labels are read once."""
    p, candidates = run.forward_pass, run.gatherer.candidates
    batches, labelled = candidates.batches, candidates.labelled
    read = p.loader.read_labels([] if labelled else [batch.images for batch in batches])
    while batches:
        batch, labels = batches.pop(0), candidates.labels
        if not labelled:
            with p.clock.during("labels"):
                labels = LabelStore()
                labels.add(batch.images, next(read))
        for counter in counters:
            counter.count_candidates([batch], labels, tell=False)
        p.progress.advance(len(batch.images))
    candidates.clear()
