"""One dissection, from a network and labelled images to counts: examine, gather, count, conclude.

One forward pass gathers thresholds, top images and what may fire (ndissect.engine.run.gather_pass); the tally then
counts what does (ndissect.engine.run.count_pass).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.examination.examine import Examination
from ndissect.engine.geometry.layer_geometry import LayerGeometry
from ndissect.engine.machine.progress import Progress
from ndissect.engine.machine.ranks import ALONE, Ranks
from ndissect.engine.machine.state import under
from ndissect.engine.networks.layers import LayerInfo
from ndissect.engine.networks.resolve import Network
from ndissect.engine.run.begin import Run, begin, demand_one_pass
from ndissect.engine.run.conclusion import conclude
from ndissect.engine.run.count_pass import count
from ndissect.engine.run.forward_pass import open_pass
from ndissect.engine.run.gather_pass import gather, gather_pass
from ndissect.engine.run.outputs import OUTPUTS, find_outputs, with_outputs
from ndissect.engine.run.publishing import Publish, Publisher
from ndissect.engine.run.resume import find_start
from ndissect.engine.run.saved_run import SavedRun
from ndissect.engine.run.settings import Outcome, Settings
from ndissect.store.errors import NDError
from ndissect.store.model import Dissection
from ndissect.store.protocol import Protocol


def dissect(
    network: Network,
    dataset: ConceptDataset,
    layers: Sequence[LayerInfo],
    protocol: Protocol,
    settings: Settings,
    progress: Progress,
    publish: Publish | None = None,
    *,
    saved: SavedRun | None = None,
    ranks: Ranks = ALONE,
    examination: Examination | None = None,
) -> Outcome:
    """Dissect ``layers`` of ``network`` over ``dataset`` (docs/method.md, sections 3 to 5), exactly.

    ``publish`` is handed what is known now and then; ``saved``: where what was counted is kept, and gone on from;
    ``ranks``: the processes that share the work, of which the first returns the dissection; ``examination``: of the
    same layers, made before (ndissect.engine.run.forward_pass.open_pass). NDError for unreadable
    images, layers that change their shape, networks that fail; what ``settings.stop`` gives and KeyboardInterrupt pass
    through.
    """
    start = find_start(saved, ranks, progress, len(dataset))
    with open_pass(
        network,
        dataset,
        layers,
        protocol,
        settings,
        progress,
        ranks=ranks,
        seconds=start.seconds,
        examination=examination,
    ) as examined:
        outputs = find_outputs(examined)
        run = begin(examined, start, saved=saved, ranks=ranks)
        publisher = Publisher(publish, examined, run.gatherer) if publish else None
        gather(run, publisher)
        tally = count(run, publisher)
        peaks = run.gatherer.peaks if all(ranks.gather(run.gatherer.peaks is not None)) else None
        if peaks:
            peaks.shared(ranks)
        dissection = with_outputs(conclude(tally.counter, {}, peaks), outputs) if ranks.rank == 0 else None
        again = len(tally.missing) / max(len(run.images), 1)
        return _outcome(run, dissection, passes=run.gatherer.passes + again)


def gather_part(
    network: Network,
    dataset: ConceptDataset,
    layers: Sequence[LayerInfo],
    protocol: Protocol,
    settings: Settings,
    progress: Progress,
    *,
    saved: SavedRun,
    part: range,
    record: Callable[[Outcome, Sequence[LayerGeometry]], dict[str, Any]],
) -> Outcome:
    """The first half of a dissection for the images ``part``, left in ``saved`` for :func:`engine.run.merge.merge`.

    ``record``: what is to be saved beside it. NDError where the thresholds would take more than one forward pass, or
    what may fire more memory than there is.
    """
    start = find_start(saved, ALONE, progress, len(dataset))
    with open_pass(network, dataset, layers, protocol, settings, progress, seconds=start.seconds) as examined:
        outputs = find_outputs(examined)
        run = begin(examined, start, saved=saved, part=part)
        demand_one_pass(run, "give more --memory, or dissect fewer layers at a time")
        gather_pass(run)
        if run.gatherer.candidates.full:
            saved.clear()  # what it left out is lost: with more memory it has to begin anew
            raise NDError(
                "what may fire does not fit --memory: it must all be kept for nd merge",
                "give more --memory, or dissect fewer layers at a time",
            )
        outcome = _outcome(run, None, passes=1)
        whole = run.saver.record(0, len(run.images))
        whole |= {"complete": record(outcome, examined.geometries), "status": whole["status"] | {"whole": True}}
        state = run.gatherer.state() | under(OUTPUTS, outputs.state())
        saved.save(0, whole, state, run.gatherer.candidates)
        return outcome


def _outcome(run: Run, dissection: Dissection | None, *, passes: float) -> Outcome:
    p = run.forward_pass
    return Outcome(
        dissection,
        survey=run.gatherer.survey.summary(p.loader.dataset.names, run.ranks),
        seconds=p.clock.seconds(),
        passes=passes,
        batch=p.forward.batch.size,
        before=run.start.elapsed,
        notes=p.examination.notes,
        marks=p.examination.marks,
    )
