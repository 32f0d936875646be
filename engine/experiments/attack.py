"""Images changed until a network takes them for another class, and what that does to the units of a layer.

Bau et al., PNAS 2020; docs/method.md, section 7.7; docs/attack.md. Attacks are made for measuring one's own networks.

::

    with open_classified(request, console) as c:
        attacked = attack(c, c.class_number("bedroom"), source=c.class_number("ski_resort"))
    attacked.reached.mean()          # the share of the images that are taken for the target
    group_changes(attacked)          # of ndissect.engine.experiments.attack_changes
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndissect.engine.experiments.adversarial import (
    Adversarial,
    CarliniWagner,
    ProjectedGradient,
    distances,
    in_8_bits,
)
from ndissect.engine.experiments.attack_images import Chosen, choose
from ndissect.engine.experiments.classified import Classified
from ndissect.engine.experiments.important_units import ImportantUnits, important_units
from ndissect.engine.machine.device import Halving, out_of_memory
from ndissect.engine.networks.capture import Capture
from ndissect.engine.networks.layers import taps_of
from ndissect.engine.networks.pixel_box import PixelBox, find_pixel_box
from ndissect.engine.passes.loader import Batch
from ndissect.store.effects import Classes
from ndissect.store.errors import NDError, WrongUse, first_line

Method = Literal["cw", "pgd"]
#: Images that are attacked unless it is said otherwise; the paper has 1,000.
COUNT = 100
#: Pairs of images that are kept for pictures.
PAIRS = 6
# Images at a time; a backward pass takes several times the memory of a forward pass.
_AT_ONCE = {"cuda": 64, "mps": 16, "cpu": 4}
_TRIED = 4  # images on which it is found what the pixels behind the network's input are


@dataclass(frozen=True)
class Pair:
    """One attacked image: ``before``, ``after`` (3, h, w) float32 in [0, 1], red, green and blue.

    ``number``: its place in the lists of :class:`Attacked`. ``maps_before``, ``maps_after`` (m, h, w) float32: the maps
    of ``units``, those that the target and the image's class need most.
    """

    number: int
    before: npt.NDArray[np.float32]
    after: npt.NDArray[np.float32]
    units: tuple[int, ...]
    maps_before: npt.NDArray[np.float32]
    maps_after: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Attacked:
    """n images on their way to the class ``target``, and the U units of ``layer`` before and after.

    ``source``: the class of all images; None where they are of any. ``how``: the method and its settings, in words;
    ``pixels``: what was changed. ``names``, ``truth``, ``predicted`` (n,): of the images as they were; ``after`` (n,):
    what is predicted in the end. ``reached`` (n,) bool: those that reach the target; ``reached_8bit`` (n,) bool: those
    that still do when their pixels are rounded to 8 bits, None where the input is no image. ``distance`` (n,) float64:
    L2, with pixels in [0, 1]; NaN where the target is not reached. ``peak_before``, ``peak_after`` (n, U) float32: the
    units' peak activations; ``moved`` (n, U) float32: the mean over the map of how far activations moved. An image that
    does not reach the target counts as it was. ``wanted``: how many images were to be attacked; ``interrupt``: what
    ended it before. ``notes``: what the user should know of images and classes.
    """

    network: str
    layer: str
    classes: Classes
    target: int
    source: int | None
    truth_from: Literal["images", "prediction"]
    method: Method
    how: str
    pixels: str
    names: tuple[str, ...]
    truth: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    after: npt.NDArray[np.int64]
    reached: npt.NDArray[np.bool_]
    reached_8bit: npt.NDArray[np.bool_] | None
    distance: npt.NDArray[np.float64]
    peak_before: npt.NDArray[np.float32]
    peak_after: npt.NDArray[np.float32]
    moved: npt.NDArray[np.float32]
    important: ImportantUnits
    pairs: tuple[Pair, ...]
    wanted: int
    notes: tuple[str, ...]
    interrupt: KeyboardInterrupt | None = field(default=None, compare=False, repr=False)


#: Called with the number of an image in the data set, its name, and its pixels (3, h, w) in [0, 1] after the attack.
Keep = Callable[[int, str, npt.NDArray[np.float32]], None]


def attack(
    c: Classified,
    target: int,
    *,
    source: int | None = None,
    count: int = COUNT,
    method: Method = "cw",
    steps: int | None = None,
    confidence: float = 0.0,
    epsilon: float = 8 / 255,
    pairs: int = PAIRS,
    keep: Keep | None = None,
) -> Attacked:
    """Attack ``count`` images of ``c`` that neither are of the class ``target`` nor are taken for it.

    ``source``: only images of this class; they are spread evenly over those that there are. ``method``: ``cw``
    (CarliniWagner) or ``pgd`` (ProjectedGradient), with ``steps``, ``confidence`` and, of PGD, ``epsilon``. ``pairs``:
    so many of the images that reach the target are kept for a picture. ``keep`` gets each of them.

    An interrupt ends it early once an image is done; what is done is returned, with the interrupt. WrongUse where no
    image is left to attack, and where target and source are the same; NDError for a network without gradients.
    """
    if target == source:
        raise WrongUse(
            f"target and source are the same class, {c.classes.names[target]}", "name another --target, or no --source"
        )
    attacking = _method(method, steps, confidence, epsilon)
    chosen = choose(c, target, source, count)
    important = important_units(c, [target, *sorted(set(chosen.truth.values()))])
    attempt = _Attempt(c, target, attacking, chosen, important, pairs, keep)
    interrupt = attempt.run()
    return attempt.result(source, method, interrupt)


def _method(method: Method, steps: int | None, confidence: float, epsilon: float) -> CarliniWagner | ProjectedGradient:
    if confidence < 0:
        raise WrongUse(f"a confidence of {confidence:g} is below 0", "0 or more: how far the target is to lead")
    if steps is not None and steps < 1:
        raise WrongUse(f"an attack of {steps} steps changes nothing", "--steps 1 or more")
    if method == "cw":
        plain = CarliniWagner(confidence=confidence)
        return plain if steps is None else replace(plain, steps=steps)
    if not 0 < epsilon <= 1:
        raise WrongUse(f"an epsilon of {epsilon:g} is not between 0 and 1", "pixels are in [0, 1]: 0.03 is 8 of 255")
    quick = ProjectedGradient(epsilon=epsilon, confidence=confidence)
    return quick if steps is None else replace(quick, steps=steps)


class _Attempt:
    """The images of an attack, batch by batch, and what is known of those that are done."""

    def __init__(
        self,
        c: Classified,
        target: int,
        attacking: CarliniWagner | ProjectedGradient,
        chosen: Chosen,
        important: ImportantUnits,
        pairs: int,
        keep: Keep | None,
    ) -> None:
        self._c, self._target, self._attacking, self._chosen = c, target, attacking, chosen
        self._important, self._most_pairs, self._keep = important, pairs, keep
        self._box: PixelBox | None = None
        self._done: list[_Done] = []
        self._pairs: list[Pair] = []
        device = c.settings.device.type
        self._at_once = Halving(min(c.settings.batch or _AT_ONCE[device], 256), c.progress)

    def run(self) -> KeyboardInterrupt | None:
        """Attack the images; the interrupt that ended it, once one was done."""
        c = self._c
        c.progress.start("attack", len(self._chosen.images))
        try:
            for batch in c.batches(self._chosen.images):
                if len(batch):
                    self._batch(batch)
        except KeyboardInterrupt as interrupt:
            if not self._done:
                raise
            return interrupt
        return None

    def _batch(self, batch: Batch) -> None:
        inputs = self._c.inputs(batch)
        if self._box is None:
            some = batch.pixels[0][:_TRIED]
            self._box = find_pixel_box(
                self._c.network.preprocess, some.cpu(), inputs[: len(some)], self._chosen.least, self._chosen.most
            )
        pixels, box = self._box.pixels(inputs), self._box

        def work(images: slice) -> None:
            try:
                done = self._some(box, pixels[images], batch.images[images])
            except RuntimeError as e:
                if out_of_memory(e):
                    raise torch.OutOfMemoryError(str(e)) from e
                raise NDError(
                    f"{self._c.network.spec} failed on its way back to the pixels: {first_line(e)}",
                    "an attack needs the gradient of every step of its forward; --debug shows the traceback",
                ) from e
            self._take(box, *done)

        self._at_once.run(len(pixels), work)

    def _scores(self, box: PixelBox, pixels: Tensor) -> Tensor:
        return self._c.scores(self._c.network.module(box.inputs(pixels)))

    def _some(self, box: PixelBox, pixels: Tensor, images: Sequence[int]) -> tuple[_Done, Tensor, Tensor]:
        """Some images attacked: what is known of them, their pixels now, and which of them reach the target."""
        target = torch.full((len(pixels),), self._target, device=pixels.device)

        def scores(x: Tensor) -> Tensor:
            return self._scores(box, x)

        if isinstance(self._attacking, CarliniWagner):
            changed: Adversarial = self._attacking(scores, pixels, target)
        else:
            changed = self._attacking(scores, pixels, target, images)
        with torch.no_grad():
            before, predicted = self._look(box, pixels)
            after, then = self._look(box, changed.pixels)
            kept = None if not box.colours else scores(in_8_bits(changed.pixels)).argmax(1) == target
        distance = distances(changed.pixels.cpu().double(), pixels.cpu().double())  # MPS has no float64
        reached = changed.reached & (then == target)  # other sizes of the batch may round otherwise at the border
        done = _Done(
            images=tuple(images),
            predicted=predicted.cpu().numpy(),
            after=then.cpu().numpy(),
            reached=reached.cpu().numpy(),
            reached_8bit=None if kept is None else (kept & reached).cpu().numpy(),
            distance=torch.where(reached.cpu(), distance, torch.nan).numpy(),
            peak_before=before.amax((2, 3)).float().cpu().numpy(),
            peak_after=after.amax((2, 3)).float().cpu().numpy(),
            moved=(after - before).abs().mean((2, 3)).float().cpu().numpy(),
            pairs=tuple(self._pairs_of(box, pixels, changed.pixels, before, after, images, reached.tolist())),
        )
        return done, changed.pixels, reached

    def _look(self, box: PixelBox, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's maps (n, U, h, w) for ``pixels``, and the classes (n,) that are predicted."""
        layer = self._c.layer
        with Capture(self._c.network.module, [layer.name], taps_of([layer])) as capture:
            scores = self._scores(box, pixels)
            return capture[layer.name], scores.argmax(1)

    def _pairs_of(
        self,
        box: PixelBox,
        pixels: Tensor,
        changed: Tensor,
        before: Tensor,
        after: Tensor,
        images: Sequence[int],
        reached: Sequence[bool],
    ) -> Iterator[Pair]:
        """Pairs for pictures, of as many images as are still wanted."""
        start = sum(len(done.images) for done in self._done)
        rows = [i for i, hit in enumerate(reached) if hit][: self._most_pairs - len(self._pairs)]
        for i in rows:
            of_class = self._important.units.get(self._chosen.truth[images[i]], ())
            units = tuple(dict.fromkeys((*self._important.units[self._target], *of_class)))
            was, now = (box.picture(x[i : i + 1])[0].float().cpu().numpy() for x in (pixels, changed))
            maps_before, maps_after = (x[i, list(units)].float().cpu().numpy() for x in (before, after))
            yield Pair(start + i, was, now, units, maps_before, maps_after)

    def _take(self, box: PixelBox, done: _Done, changed: Tensor, reached: Tensor) -> None:
        """``done`` is over, whatever comes after it."""
        if self._keep is not None:
            pictures = box.picture(changed).float().cpu().numpy()
            for image, hit, picture in zip(done.images, reached.tolist(), pictures, strict=True):
                if hit:
                    self._keep(image, self._c.dataset.names[image], picture)
        self._done.append(done)
        self._pairs.extend(done.pairs)
        self._c.progress.advance(len(done.images))

    def result(self, source: int | None, method: Method, interrupt: KeyboardInterrupt | None) -> Attacked:
        """What is known of the images that are done; NDError where none could be read."""
        c, box = self._c, self._box
        if box is None:
            raise NDError("none of the images could be read", "nd data check FOLDER tells what is wrong")
        parts = self._done
        images = [n for done in parts for n in done.images]
        kept = [done.reached_8bit for done in parts if done.reached_8bit is not None]
        joined = {name: np.concatenate([getattr(done, name) for done in parts]) for name in _ARRAYS}
        return Attacked(
            network=c.network.spec,
            layer=c.layer.name,
            classes=c.classes,
            target=self._target,
            source=source,
            truth_from=c.truth_from,
            method=method,
            how=describe(self._attacking),
            pixels=_what_was_changed(box),
            names=tuple(c.dataset.names[n] for n in images),
            truth=np.array([self._chosen.truth[n] for n in images], np.int64),
            reached_8bit=np.concatenate(kept) if kept else None,
            important=self._important,
            pairs=tuple(self._pairs),
            wanted=len(self._chosen.images),
            notes=(*c.notes, *self._chosen.notes),
            interrupt=interrupt,
            **joined,
        )


@dataclass(frozen=True)
class _Done:
    """Attacked images, as of :class:`Attacked`; ``images``: their numbers in the data set."""

    images: tuple[int, ...]
    predicted: npt.NDArray[np.int64]
    after: npt.NDArray[np.int64]
    reached: npt.NDArray[np.bool_]
    reached_8bit: npt.NDArray[np.bool_] | None
    distance: npt.NDArray[np.float64]
    peak_before: npt.NDArray[np.float32]
    peak_after: npt.NDArray[np.float32]
    moved: npt.NDArray[np.float32]
    pairs: tuple[Pair, ...]


_ARRAYS = ("predicted", "after", "reached", "distance", "peak_before", "peak_after", "moved")


def describe(attacking: CarliniWagner | ProjectedGradient) -> str:
    """The method and its settings, in words."""
    lead = f", confidence {attacking.confidence:g}" if attacking.confidence else ""
    if isinstance(attacking, CarliniWagner):
        return f"Carlini-Wagner L2, {attacking.steps} steps for each of {attacking.searches} constants{lead}"
    return f"PGD within L-infinity {attacking.epsilon:.4g}, up to {attacking.steps} steps{lead}"


def _what_was_changed(box: PixelBox) -> str:
    if len(box.colours) == 3:
        return "pixels in [0, 1], at the network's input size"
    if box.colours:
        return "the luminance in [0, 1], at the network's input size"
    return f"the network's input, [0, 1] for the range of each channel over these images, black and white: {box.reason}"
