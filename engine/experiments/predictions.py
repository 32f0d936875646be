"""What a network predicts without sets of a layer's units, from one forward pass over the images.

::

    predictions = predict_without(c, [(3,), (7,), (3, 7)], c.images)
    predictions.predicted      # (N, 3) int32: the class of each image without unit 3, without 7, without both

Where the scores are linear in the maps of the layer, those without a set follow in closed form. Elsewhere what follows
the layer runs again for each set, from the maps of the one pass.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndissect.engine.experiments.classified import Classified
from ndissect.engine.experiments.closed_form import ClosedForm
from ndissect.engine.experiments.saved_predictions import How, PredictionsSoFar, SavedPredictions
from ndissect.engine.experiments.stand_ins import StandIns
from ndissect.engine.machine.device import Halving, computing, out_of_memory, too_large
from ndissect.engine.networks.capture import Capture
from ndissect.engine.networks.linear_head import find_linear_head
from ndissect.engine.networks.tail import Tail
from ndissect.engine.passes.forward import failures_of
from ndissect.store.effects import By
from ndissect.store.errors import NDError, WrongUse

# Images on which it is tried whether the scores are linear in the maps.
_TRIED = 4
# Predicts the images of a batch, by its inputs and their numbers.
_Predict = Callable[[Tensor, list[int]], None]


@dataclass(frozen=True)
class Predictions:
    """What a network predicts for N images with all units of a layer, and without each of E sets of them.

    ``images`` (N,) int64: their numbers in the data set, in the order asked for, without those that could not be read;
    ``truth`` (N,) int32: their classes; ``plain`` (N,) int32: the classes predicted with all units; ``plain_score``
    (N,) float32: the score of each image's own class. ``predicted`` (N, E) int32 and ``score`` (N, E) float32: the same
    without each of ``sets``, in whose place stands what ``by`` says. ``how``: what was run; ``reason``: why the whole
    network, where it was.
    """

    sets: tuple[tuple[int, ...], ...]
    by: By
    images: npt.NDArray[np.int64]
    truth: npt.NDArray[np.int32]
    plain: npt.NDArray[np.int32]
    plain_score: npt.NDArray[np.float32]
    predicted: npt.NDArray[np.int32]
    score: npt.NDArray[np.float32]
    how: How
    reason: str = ""


def predict_without(
    c: Classified,
    sets: Sequence[tuple[int, ...]],
    images: Sequence[int],
    by: By = "zero",
    *,
    saved: SavedPredictions | None = None,
    phase: str = "ablation",
) -> Predictions:
    """What ``c.network`` predicts for ``images`` without each of ``sets`` of units of ``c.layer``.

    ``by``: what stands in the place of a unit (ndissect.engine.experiments.stand_ins). ``saved``: where predictions are
    kept now and then, and those of an earlier try taken from. ``phase``: how the progress calls it. The result does not
    depend on the size of the batches. WrongUse for a unit that the layer does not have, for no images, and for a single
    one that is to be resampled.
    """
    _demand(c, sets, images, by)
    units = tuple(tuple(sorted(set(some))) for some in sets)
    so_far = PredictionsSoFar(len(images), len(units), len(c.classes.names), saved)
    work = _Work(c, units, list(images), by, so_far, phase)
    with torch.no_grad(), computing(c.settings.precision, c.settings.device), failures_of(c.network):
        try:
            work.run()
        except RuntimeError as e:
            if out_of_memory(e):
                most = work.at_once.size
                full = f"{c.settings.device} has not enough memory for {most} images at a time"
                raise NDError(full, f"--batch-size {max(1, most // 4)} takes fewer") from e
            raise
    return work.result()


def _demand(c: Classified, sets: Sequence[tuple[int, ...]], images: Sequence[int], by: By) -> None:
    """WrongUse where there is nothing to take away, or nothing to look at."""
    if not images:
        raise WrongUse("there are no images to predict", "name other images: --images")
    for some in sets:
        outside = [u for u in some if not 0 <= u < c.layer.units]
        if outside:
            raise WrongUse(
                f"{c.layer.name} has no unit {outside[0]}", f"its {c.layer.units} units are 0 to {c.layer.units - 1}"
            )
        if not some:
            raise WrongUse("a set without units takes nothing away", "name a unit for each set")
    if by == "resample" and len(images) < 2:
        raise WrongUse("a single image has no other one to take a map of", "--by zero or --by mean, or more images")


class _Work:
    """The images as they go through the network, batch after batch."""

    def __init__(
        self,
        c: Classified,
        sets: tuple[tuple[int, ...], ...],
        images: list[int],
        by: By,
        so_far: PredictionsSoFar,
        phase: str,
    ) -> None:
        self._c, self._sets, self._images, self._by, self._so_far, self._phase = c, sets, images, by, so_far, phase
        self._stand_ins = StandIns(c, images, by)
        self._order = [images[place] for place in self._stand_ins.order]
        self._row = {image: row for row, image in enumerate(self._order)}
        self._left = 0  # predictions that are still to be made
        self._began = time.monotonic()
        self._made = 0
        self._how: How = "linear head"
        self._reason = ""
        #: How many images, and copies of them, fit the device.
        self.at_once = Halving(c.at_once, c.progress)

    def run(self) -> None:
        """Predict all images that are not over yet."""
        c, so_far, order = self._c, self._so_far, self._order
        self._how, self._reason = so_far.restore(self._how, self._reason)
        if so_far.done:
            c.progress.note(f"going on after {so_far.done} of {len(order)} images")
        if so_far.done == len(order):
            return
        self._stand_ins.begin([*order[: so_far.done][::-1], *order[so_far.done :][::-1]])
        # Of each image there is a prediction for each set, and one with all units where there is no set.
        each = max(len(self._sets), 1)
        self._left = (len(order) - so_far.done) * each
        c.progress.start(self._phase, len(order) * each, so_far.done * each)
        c.progress.counts = "predictions"
        self._began = time.monotonic()
        with contextlib.ExitStack() as stack:
            predict: _Predict | None = None
            for batch in c.batches(order[so_far.done :]):
                if len(batch):
                    inputs = c.inputs(batch)
                    predict = predict or self._way(inputs, stack)
                    self._predict(predict, inputs, batch.images)
                so_far.done += len(batch) + len(batch.bad)
                self._save()
        so_far.keep(self._how, self._reason)

    def result(self) -> Predictions:
        """What was predicted, in the order in which the images were asked for."""
        so_far = self._so_far
        rows = np.array([self._row[image] for image in self._images], np.int64)
        rows = rows[so_far.plain[rows] >= 0]
        if not len(rows):
            raise NDError("no image could be read", "`nd data check` says what is wrong with them")
        if self._by == "resample" and len(rows) < 2:  # it has had its own map in the place of its own map
            raise NDError("one image alone could be read: there is no other to take a map of", "--by zero or --by mean")
        images = np.array(self._order, np.int64)[rows]
        return Predictions(
            sets=self._sets,
            by=self._by,
            images=images,
            truth=so_far.truth[rows],
            plain=so_far.plain[rows],
            plain_score=so_far.plain_score[rows],
            predicted=so_far.predicted[rows],
            score=so_far.score[rows],
            how=self._how,
            reason=self._reason,
        )

    def _predict(self, predict: _Predict, inputs: Tensor, images: list[int]) -> None:
        """Predict the images of a batch, as many at a time as fit the device."""
        start = 0
        while start < len(images):
            size, made, previous = self.at_once.size, self._made, self._stand_ins.previous
            some = slice(start, start + size)
            try:
                predict(inputs[some], images[some])
            except Exception as e:  # of the network's code
                if not out_of_memory(e):
                    raise
                if size == 1:
                    raise too_large() from e
            else:
                start = some.stop
                continue
            self._stand_ins.previous = previous
            self._advance(made - self._made)
            self.at_once.halve(size)

    def _way(self, inputs: Tensor, stack: contextlib.ExitStack) -> _Predict:
        """How predictions are made, by what the scores of a first batch depend on; what is set up is undone with
        ``stack``."""
        c = self._c
        tried = inputs[:_TRIED] if len(inputs) > 1 else torch.cat([inputs, inputs.flip(-1)])
        head = find_linear_head(c.network, c.tap, tried)
        if head is not None:
            form = ClosedForm(head, self._sets, c.settings.device)
            capture = stack.enter_context(Capture(c.network.module, [c.layer.name], {c.layer.name: c.tap}))
            return partial(self._in_closed_form, form, capture)
        return partial(self._by_tail, stack.enter_context(Tail(c.network.module, c.tap)))

    def _in_closed_form(self, form: ClosedForm, capture: Capture, inputs: Tensor, images: list[int]) -> None:
        c = self._c
        scores = c.scores(c.network.module(inputs))
        maps = capture[c.layer.name]
        truth = self._take_plain(images, scores)
        predicted, own = form.predict(scores, maps, self._stand_ins.of(maps), truth)
        self._take(images, predicted, own)
        self._advance(max(predicted.numel(), len(images)))

    def _by_tail(self, tail: Tail, inputs: Tensor, images: list[int]) -> None:
        """Run what follows the layer for each set; for several at once where the images are few."""
        c, n = self._c, len(images)
        predicted, own = (a.to(c.settings.device) for a in self._so_far.of(self._rows(images)))
        todo = [row for row, unknown in enumerate((predicted < 0).any(0).tolist()) if unknown]
        at_once = max(1, min(self.at_once.size // n, len(todo)))
        scores = c.scores(tail.start(inputs.repeat(at_once, 1, 1, 1) if at_once > 1 else inputs))[:n]
        self._ran(tail)
        maps = tail.maps[:n]
        stand_in, truth = self._stand_ins.of(maps), self._take_plain(images, scores)
        alike = (maps == stand_in).flatten(2).all(2).all(0).tolist()
        same = [row for row in todo if all(alike[u] for u in self._sets[row])]
        predicted[:, same] = scores.argmax(1).int()[:, None]
        own[:, same] = scores.gather(1, truth[:, None])
        self._advance(n * (max(len(self._sets), 1) - len(todo) + len(same)))
        todo = sorted(set(todo) - set(same))
        for start in range(0, len(todo), at_once):
            rows = todo[start : start + at_once]
            without = c.scores(tail.run(partial(_edited, stand_in, n, [self._sets[row] for row in rows])))
            without = without.view(at_once, n, -1)[: len(rows)]
            self._ran(tail)
            predicted[:, rows] = without.argmax(2).int().t()
            own[:, rows] = without.gather(2, truth[None, :, None].expand(len(rows), -1, 1))[..., 0].t()
            self._advance(n * len(rows))
            if self._so_far.due or c.settings.stop() is not None:
                self._take(images, predicted, own)
                self._save()
        self._take(images, predicted, own)

    def _ran(self, tail: Tail) -> None:
        self._how, self._reason = ("tail", "") if tail.alone else ("network", tail.reason)

    def _rows(self, images: Sequence[int]) -> list[int]:
        return [self._row[image] for image in images]

    def _take_plain(self, images: Sequence[int], scores: Tensor) -> Tensor:
        """Take what is predicted with all units; (n,) int64: the classes of the images."""
        if torch.isnan(scores).any():
            raise NDError(
                f"{self._c.network.spec} gives scores that are no numbers (NaN)", "look at its weights and input"
            )
        truth = self._c.truth_of(images, scores).to(scores.device)
        rows, so_far = self._rows(images), self._so_far
        so_far.truth[rows] = truth.cpu().numpy()
        so_far.plain[rows] = scores.argmax(1).cpu().numpy()
        so_far.plain_score[rows] = scores.gather(1, truth[:, None])[:, 0].float().cpu().numpy()
        return truth

    def _take(self, images: Sequence[int], predicted: Tensor, own: Tensor) -> None:
        rows, so_far = self._rows(images), self._so_far
        so_far.predicted[rows] = predicted.cpu().numpy()
        so_far.score[rows] = own.float().cpu().numpy()

    def _advance(self, made: int) -> None:
        """Tell that so many predictions are made, and when the rest will be."""
        self._made += made
        pace = (time.monotonic() - self._began) / max(self._made, 1)
        self._c.progress.left = pace * max(self._left - self._made, 0)
        self._c.progress.advance(made)

    def _save(self) -> None:
        """Save what is predicted if it is time, or the run was told to end, which it does here."""
        stop = self._c.settings.stop()
        self._so_far.save(self._how, self._reason, now=stop is not None)
        if stop is not None:
            raise stop


def _edited(stand_in: Tensor, n: int, sets: Sequence[tuple[int, ...]], maps: Tensor) -> Tensor:
    """``maps`` (S * n, U, h, w), of which the first n images are without the first of ``sets``, and so on."""
    changed = maps.clone()
    for i, units in enumerate(sets):
        changed[i * n : (i + 1) * n, list(units)] = stand_in[:, list(units)].to(maps.dtype)
    return changed
