"""Which units made a network say this of an image (PAMI; docs/method.md, section 7.4).

::

    with open_classified(request, console) as c:
        explanation = explain(c, [Path("kitchen.jpg")])
        explanation = explain(c, images_of(c, "street"), class_name="street")
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndissect.engine.experiments.classified import Classified, open_classified
from ndissect.engine.experiments.contributions import (
    Answer,
    Question,
    by_ablation,
    by_gradient,
    in_closed_form,
    running,
)
from ndissect.engine.experiments.effect_request import EffectRequest
from ndissect.engine.experiments.explanation import Closeup, ExplainedImage, Explanation, How, MeanOfImages
from ndissect.engine.experiments.named_images import OF_DATA, check_named, number_in, read_image
from ndissect.engine.machine.console import Console
from ndissect.engine.networks.linear_head import EXACT, LinearHead, find_linear_head
from ndissect.engine.networks.tail import Tail
from ndissect.engine.passes.forward import prepared
from ndissect.store.errors import NDError, WrongUse

#: An image file, or the number of an image of the data set.
Source = Path | int
# Images of which pictures can be drawn: a figure has a row for each.
_CLOSEUPS = 6


def explain(
    c: Classified,
    images: Sequence[Source],
    *,
    class_name: str | None = None,
    versus: str | None = None,
    fast: bool = False,
    max_pixels: int | None = None,
) -> Explanation:
    """What each unit of the layer adds to the score of a class in ``images``, in their mean where they are several.

    ``images``: files, and numbers of images of ``c.dataset``. ``class_name``: the class, by default that which the
    network predicts for each image; ``versus``: a class whose score is taken away. ``fast``: activation times gradient,
    in one pass, where the head is not linear an approximation. ``max_pixels`` of a file. WrongUse for a class that is
    none, and for one that is held against itself; NDError for an image that cannot be read and a network that fails.
    """
    question = Question(
        None if class_name is None else c.class_number(class_name), None if versus is None else c.class_number(versus)
    )
    if question.wanted is not None and question.wanted == question.versus:
        raise WrongUse(f"--class and --versus are both {c.classes.names[question.wanted]}", "name two classes")
    if not images:
        raise WrongUse("no image to explain", "name one, or a class with images")
    explained: list[ExplainedImage] = []
    closeups: list[Closeup] = []
    mean = MeanOfImages(len(images))
    with contextlib.ExitStack() as stack:
        method: _Method | None = None
        for batch in _read(c, images, max_pixels):
            if method is None:
                method = _Method(c, batch.inputs, question, len(images), fast=fast)
                stack.callback(method.close)
            answer = method(batch.inputs)
            explained += _explained(c, batch, answer, question)
            mean.add(answer.contributions.numpy())
            kept = zip(batch.pixels, answer.contributions.numpy(), answer.maps.numpy(), strict=True)
            closeups += [Closeup(*one) for one in itertools.islice(kept, _CLOSEUPS - len(closeups))]
    if method is None:
        raise NDError("no image could be read", "nd data check says why")
    contributions, low, high = mean.mean()
    exact = method.how == "linear head" and max(image.gap for image in explained) <= EXACT
    return Explanation(
        network=c.network.spec,
        layer=c.layer.name,
        classes=c.classes,
        images=tuple(explained),
        versus=-1 if question.versus is None else question.versus,
        how=method.how,
        reason=method.reason,
        exact=exact,
        contributions=contributions,
        low=low,
        high=high,
        closeups=tuple(closeups),
        notes=c.notes,
    )


def explain_named(
    request: EffectRequest,
    names: Sequence[str],
    console: Console,
    *,
    class_name: str | None = None,
    versus: str | None = None,
    fast: bool = False,
) -> Explanation:
    """:func:`explain` of images that a user names: files, ``data:NAME``, or none for all images of ``class_name``.

    WrongUse and NDError as of :func:`open_classified` and :func:`explain`.
    """
    check_named(names)
    files = names and not any(name.startswith(OF_DATA) for name in names)
    if files and request.images is not None:
        raise WrongUse(
            "--images are the images of classes, and others are named", f"name images of them as {OF_DATA}NAME, or none"
        )
    if files:
        read_image(
            Path(names[0]), request.options.max_pixels
        )  # what is wrong with it is told before a network is loaded
        request = replace(request, images=names[0])  # the data need not be there
    with open_classified(request, console) as c:
        images: list[Source] = [
            number_in(c.dataset, name.removeprefix(OF_DATA)) if name.startswith(OF_DATA) else Path(name)
            for name in names
        ]
        if not names and class_name is not None:
            images = [*images_of(c, class_name)]
        max_pixels = request.options.max_pixels
        explanation = explain(c, images, class_name=class_name, versus=versus, fast=fast, max_pixels=max_pixels)
        if names and c.truth_from == "prediction":
            # The last note says that predictions stand for the images' classes, which matters to images of a class.
            return replace(explanation, notes=c.notes[:-1])
        return explanation


def images_of(c: Classified, class_name: str) -> list[int]:
    """The numbers of the images of a class; where images say no class, of those that the network predicts to be of it.

    WrongUse where there are none.
    """
    wanted = c.class_number(class_name)
    if c.truth_from == "images":
        numbers = [i for i in c.images if c.truth[i] == wanted]
    else:
        numbers = []
        c.progress.start("predicting", len(c.images))
        for batch in c.batches(c.images):
            inputs = c.inputs(batch)
            with running(c, inputs), torch.no_grad():
                truth = c.truth_of(batch.images, c.scores(c.network.module(inputs)))
            numbers += [i for i, k in zip(batch.images, truth.tolist(), strict=True) if k == wanted]
            c.progress.advance(len(batch.images))
    if not numbers:
        what = "is of the class" if c.truth_from == "images" else "is predicted as"
        raise WrongUse(
            f"no image of {c.dataset.name} {what} {c.classes.names[wanted]}", "name images, or --images with some of it"
        )
    return numbers


@dataclass(frozen=True)
class _Batch:
    """Some images: names, classes by the data (-1: unknown), (H, W, 3) uint8 pixels, and the network's input."""

    names: list[str]
    truth: list[int]
    pixels: list[npt.NDArray[np.uint8]]
    inputs: Tensor


def _read(c: Classified, images: Sequence[Source], max_pixels: int | None) -> Iterator[_Batch]:
    """The images in their order: files one by one, as their sizes differ, those of the data set in its batches."""
    for of_data, some in itertools.groupby(images, lambda image: not isinstance(image, Path)):
        if of_data:
            yield from _read_data(c, [int(image) for image in some if not isinstance(image, Path)])
        else:
            for path in some:
                assert isinstance(path, Path)
                pixels = read_image(path, max_pixels)
                tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
                (inputs,) = prepared(c.network, [tensor], c.settings.device)
                yield _Batch([str(path)], [-1], [pixels], inputs)


def _read_data(c: Classified, numbers: list[int]) -> Iterator[_Batch]:
    known = c.truth_from == "images"
    for batch in c.batches(numbers):
        if batch.images:
            pixels = [image.permute(1, 2, 0).cpu().numpy() for tensor in batch.pixels for image in tensor]
            names = [f"{OF_DATA}{c.dataset.names[i]}" for i in batch.images]
            truth = [int(c.truth[i]) if known else -1 for i in batch.images]
            yield _Batch(names, truth, pixels, c.inputs(batch))


class _Method:
    """The way to contributions that suits the network, tried on its first input of each size; ``how`` it is, and the
    ``reason`` why it is no quicker one. To be closed."""

    def __init__(self, c: Classified, inputs: Tensor, question: Question, images: int, *, fast: bool) -> None:
        self._c, self._question = c, question
        self._open = contextlib.ExitStack()
        self._head: LinearHead | None = None
        self._tail: Tail | None = None
        self._size: tuple[int, ...] = ()
        self.how: How = "gradient" if fast else "linear head"
        self.reason = ""
        if not fast:
            self._try(inputs)
        what = "explaining" if self._tail is None else "setting units to zero"
        c.progress.start(what, images * c.layer.units)
        c.progress.counts = "contributions"

    def __call__(self, inputs: Tensor) -> Answer:
        """What is to be told of some images."""
        if self.how != "gradient" and tuple(inputs.shape[1:]) != self._size:
            self._try(inputs)
        if self._tail is not None:
            answer = by_ablation(self._c, self._tail, inputs, self._question, self._c.progress.advance)
            if not self._tail.alone:
                self.how, self.reason = "network", self._tail.reason
            return answer
        if self._head is not None:
            answer = in_closed_form(self._c, self._head, inputs, self._question)
        else:
            answer = by_gradient(self._c, inputs, self._question)
        self._c.progress.advance(len(inputs) * self._c.layer.units)
        return answer

    def _try(self, inputs: Tensor) -> None:
        """Find out which way suits inputs of this size: a head may have a weight for every place."""
        self._open.close()
        self._size, self._tail, self._head = tuple(inputs.shape[1:]), None, _head_of(self._c, inputs)
        if self._head is None:
            self._tail = self._open.enter_context(Tail(self._c.network.module, self._c.tap))
            self.how = "network" if self.how == "network" else "tail"

    def close(self) -> None:
        """Take the hooks off the network."""
        self._open.close()


def _head_of(c: Classified, inputs: Tensor) -> LinearHead | None:
    """The linear head behind the layer, tried on the first image, its mirror image and a fainter one."""
    tried = torch.cat([inputs[:2], inputs[:1].flip(-1), inputs[:1] / 2])
    with running(c, tried):
        return find_linear_head(c.network, c.tap, tried)


def _explained(c: Classified, batch: _Batch, answer: Answer, question: Question) -> list[ExplainedImage]:
    """What is told of each image of a batch; WrongUse where its class would be held against itself."""
    if not bool(torch.isfinite(answer.scores).all()):
        raise NDError(
            f"{c.network.spec} gives scores that are no numbers (NaN or infinite) for {batch.names[0]}",
            "nothing can be told of them: look at the network's weights and its input",
        )
    scores, predicted = answer.scores.double(), answer.scores.argmax(1)
    value = question.value(scores, answer.classes)
    nan = torch.full_like(value, torch.nan)
    bias = nan if answer.bias is None else answer.bias
    largest = scores.abs().amax(1).clamp_min(torch.finfo(torch.float64).tiny)
    gap = (answer.contributions.sum(1) + bias - value).abs() / largest
    told = []
    for i, name in enumerate(batch.names):
        image = ExplainedImage(
            name,
            batch.truth[i],
            int(predicted[i]),
            int(answer.classes[i]),
            float(value[i]),
            float(bias[i]),
            float(gap[i]),
        )
        if image.explained == question.versus:
            raise WrongUse(
                f"{name} is predicted as {c.classes.names[image.explained]} itself, and --versus names that class",
                "name another, or say with --class what is explained",
            )
        told.append(image)
    return told
