"""The first half of a dissection: images go through the network, and what thresholds and masks need is gathered.

One pass as a rule. Where the thresholds take more memory than there is, all images go through two or three times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ndissect.engine.data.samples import LabelledSamples
from ndissect.engine.passes.loader import Batch
from ndissect.engine.run.announce import plan_passes
from ndissect.engine.run.begin import Run
from ndissect.engine.run.gatherer import FiringImages
from ndissect.engine.run.publishing import Publisher
from ndissect.engine.run.restore import restore_gatherer


def gather(run: Run, publisher: Publisher | None = None) -> None:
    """Gather all that the thresholds, the top images and, where memory allows, the masks need, in all processes."""
    for number in range(max(run.start.phase, 0), run.gatherer.passes):  # none where the tally had begun
        gather_pass(run, number, publisher)
        for quantile in run.gatherer.quantiles:
            if number < quantile.passes:
                quantile.end_pass(run.ranks)


def gather_pass(run: Run, number: int = 0, publisher: Publisher | None = None) -> None:
    """Pass ``number``, from 0, over this process's images: the first gathers all, others for the thresholds alone."""
    p, gatherer, images = run.forward_pass, run.gatherer, run.images
    plan_passes(run, number)
    done = restore_gatherer(run) if run.start.phase == number else 0
    p.progress.start(
        "thresholds" if gatherer.passes == 1 else f"thresholds {number + 1}/{gatherer.passes}", len(images), done
    )
    for batch in p.batches(images[done:], skip_bad=p.settings.skip_bad):
        if number == 0:
            _gather_all(run, batch)
        else:
            p.forward.run(batch, together=lambda maps, _: gatherer.take_values(number, maps))
        done += len(batch) + len(batch.bad)
        p.progress.advance(len(batch) + len(batch.bad))
        run.saver.save(number, done, gatherer.state)
        if number == 0 and publisher and done < len(images):
            publisher.gathered()
    run.saver.save(number, done, gatherer.state, now=run.ranks.size > 1)  # the others may get further than this


def _gather_all(run: Run, batch: Batch) -> None:
    """Gather everything of one batch: its maps, then its labels, and what may fire with them."""
    p, gatherer = run.forward_pass, run.gatherer
    firing: list[FiringImages] = []

    def take(maps: Sequence[Tensor], images: slice) -> None:
        layers = gatherer.take(maps, batch.images[images])
        if layers is not None:
            firing.append((images, layers))

    pictures: dict[int, Tensor] = {}
    dataset = p.loader.dataset

    def look(output: Any, images: slice) -> None:
        if isinstance(dataset, LabelledSamples):
            pictures[images.start] = dataset.pictures(output)  # by place: a piece that did not fit comes again

    p.forward.run(batch, together=take, outputs=look)
    if pictures:
        batch = p.labelled(batch, [pictures[start] for start in sorted(pictures)])
    with p.clock.during("labels", p.device):
        gatherer.add_labels(batch, batch.labels.to(p.device), firing)
