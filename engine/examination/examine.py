"""What must hold of a network before it is dissected, tried on the first images: a few passes of one or two of them.

It computes the same twice and whichever images are beside one (ndissect.engine.examination.repeatable); its layers'
maps lie where the labels are, or their place is known (ndissect.engine.geometry.map_alignment); they rest on weights
that were given (ndissect.engine.examination.left_out). What does not hold is refused, or marked in what comes of the
run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ndissect.engine.data.dataset import at_once
from ndissect.engine.examination.faults import Fault, refuse
from ndissect.engine.examination.left_out import check_weights
from ndissect.engine.examination.repeatable import SAME, check_again, check_repeatable
from ndissect.engine.geometry.extents import trace_extents
from ndissect.engine.geometry.layer_geometry import ONE_VALUE, LayerGeometry, layer_geometries
from ndissect.engine.geometry.map_alignment import MapAlignment, Responses, align_map
from ndissect.engine.geometry.responses import BANDS, respond
from ndissect.engine.machine.progress import Progress
from ndissect.engine.machine.ranks import ALONE, Ranks
from ndissect.engine.networks.generators import LatentInput
from ndissect.engine.networks.layers import LayerInfo
from ndissect.engine.passes.forward import Forward
from ndissect.engine.passes.loader import Loader, image_tensor
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.marks import Mark

# Images that are looked at for a second one.
_LOOKED_AT = 16


@dataclass(frozen=True)
class Examination:
    """The layers with how their maps lie on the label grid; what to be told; what is marked instead of refused."""

    geometries: tuple[LayerGeometry, ...]
    notes: tuple[str, ...]
    marks: tuple[Mark, ...]

    @property
    def crops(self) -> dict[str, tuple[slice, slice]]:
        """By layer, the rows and columns of its maps that lie on the image, where that is not all of them."""
        return {p.name: p.kept for p in self.geometries if p.kept is not None}


def examine(
    forward: Forward,
    loader: Loader,
    layers: Sequence[LayerInfo],
    progress: Progress,
    ranks: Ranks = ALONE,
    *,
    anyway: bool = False,
    skip_bad: bool = False,
) -> Examination:
    """Examine the layers that ``forward`` captures, its network being on its device, on the first images.

    ``forward`` then gives the part of their maps that lies on the image; ``progress`` is told of what is unusual.
    NDError for what does not hold, unless ``anyway``; in all of several processes alike.
    """

    def look() -> Examination:
        return _examine(forward, loader, layers, anyway=anyway, skip_bad=skip_bad)

    examined = look() if ranks.size == 1 else _agreed(look, ranks)
    forward.crops = examined.crops
    for note in (*examined.notes, *(f"{mark.layer} {mark.sentence}" for mark in examined.marks)):
        progress.note(note)
    return examined


def _agreed(look: Callable[[], Examination], ranks: Ranks) -> Examination:
    """What the first process says; where any process refuses, all do, so that none waits for it."""
    examined: Examination | None = None
    error: NDError | None = None
    try:
        examined = look()
    except NDError as e:
        error = e
    said = ranks.gather(None if error is None else (isinstance(error, WrongUse), error.message, error.hint))
    if error is not None:
        raise error
    others = [s for s in said if s is not None]
    if others:
        wrong, message, hint = others[0]
        raise (WrongUse if wrong else NDError)(message, hint)
    return cast(Examination, ranks.gather(examined)[0])


def _examine(
    forward: Forward, loader: Loader, layers: Sequence[LayerInfo], *, anyway: bool, skip_bad: bool
) -> Examination:
    first = loader.first(skip_bad=skip_bad)
    network = forward.network
    module, placed = network.module, [layer.name for layer in layers if layer.map_size != ONE_VALUE]
    with forward.captured():
        if isinstance(network.preprocess, LatentInput):
            return _examine_generator(forward, loader, layers, first, anyway=anyway)
        faults = _repeats(forward, first, second_image(loader, first))
        faults += check_weights(forward.maps, module, network.left_out, first, forward.taps)
        # Images are run together only where they are known to change nothing of each other.
        room = min(forward.batch.size, at_once(loader.dataset, BANDS + 1)) > BANDS
        responses = _responses(forward, first, placed, together=room and not faults)
    inputs = forward.inputs([first], slice(0, 1))
    extents = trace_extents(module, inputs, placed, forward.taps)
    size = (int(inputs.shape[-2]), int(inputs.shape[-1]))
    alignments = {
        layer.name: align_map(extents[layer.name], responses[layer.name], layer.map_size, size)
        for layer in layers
        if layer.map_size is not None and layer.name in placed and layer.name in responses
    }
    misplaced = {name: f"has maps that do not lie on the image: {p.fault}" for name, p in alignments.items() if p.fault}
    if misplaced:
        faults.append(Fault("placement", misplaced, _PLACED))
    if not anyway:
        refuse(faults)
    geometries = layer_geometries(forward.network, inputs, layers, loader.protocol, loader.grid, alignments)
    return Examination(tuple(geometries), _notes(alignments), tuple(mark for fault in faults for mark in fault.marks()))


def _examine_generator(
    forward: Forward, loader: Loader, layers: Sequence[LayerInfo], first: Tensor, *, anyway: bool
) -> Examination:
    """The same of a network that draws its images: the maps lie on what is drawn, not on what it is given."""
    network = forward.network
    assert isinstance(network.preprocess, LatentInput)
    second = second_image(loader, first, network.preprocess.opposite(first))
    faults = _repeats(forward, first, second, network.preprocess.opposite(second))
    faults += check_weights(forward.maps, network.module, network.left_out, first, forward.taps)
    if not anyway:
        refuse(faults)
        _demand_same_pictures(forward, first, second)
    drawn = layer_geometries(network, forward.inputs([first], slice(0, 1)), layers, loader.protocol, loader.grid)
    return Examination(tuple(drawn), (), tuple(mark for fault in faults for mark in fault.marks()))


def _demand_same_pictures(forward: Forward, first: Tensor, second: Tensor) -> None:
    """NDError where a picture is another when it is drawn again, or beside another sample.

    What layers behind the last one that is dissected do is seen in the picture alone.
    """
    assert isinstance(forward.network.preprocess, LatentInput)
    neighbours = [second, forward.network.preprocess.opposite(second)]
    if forward.batch.size == 1:
        neighbours = []
    drawn = [forward.output([first, *neighbours[:n]])[:1] for n in (1, 1)]
    drawn += [forward.output([first, other])[:1] for other in neighbours[1:]]
    spread = max(float(drawn[0].std()), 1e-30)
    for what, other in zip(("drawn again", "drawn beside another sample"), drawn[1:], strict=False):
        if not float((drawn[0] - other).abs().max()) <= SAME * spread:
            raise NDError(
                f"{forward.network.spec} does not draw the same picture of the same latents: {what}, it differs",
                "a picture may depend on its own latents alone: no batch statistics, no dropout; --anyway goes on",
            )


_PLACED = "leave it to the factory's transform to resize the image, to a size that the network need not pad or crop"


def _responses(forward: Forward, first: Tensor, names: Sequence[str], *, together: bool) -> Mapping[str, Responses]:
    """Where changes of the image come back in each of some layers; nothing where it is too small for them."""
    if min(first.shape[-2:]) < 2 * BANDS or not names:
        return {}
    try:
        responses = respond(forward.maps, first, names, together=together)
    except torch.OutOfMemoryError:  # as it is said of several images alone
        responses = respond(forward.maps, first, names)
    return cast(Mapping[str, Responses], responses)


def _repeats(forward: Forward, first: Tensor, second: Tensor, opposite: Tensor | None = None) -> list[Fault]:
    try:
        return check_repeatable(forward.maps, forward.network.module, (first, second), opposite)
    except torch.OutOfMemoryError:
        pass
    except NDError:
        if forward.batch.size > 1:
            raise
    # One image at a time, as the run will take them: because it was asked for, or because no two fit the device.
    return check_again(forward.maps, first)


def second_image(loader: Loader, first: Tensor, opposite: Tensor | None = None) -> Tensor:
    """Another of the first images, of the size of ``first``; where there is none, ``opposite``, or its negative."""
    for index in range(min(len(loader.dataset), _LOOKED_AT)):
        with contextlib.suppress(NDError):
            image = image_tensor(loader.read_own(index))
            if image.shape == first.shape and not torch.equal(image, first):
                return image
    return 255 - first if opposite is None else opposite


def _notes(alignments: Mapping[str, MapAlignment]) -> tuple[str, ...]:
    """What is to be told of where maps lie, the layers with the same words together."""
    by_text: dict[str, list[str]] = {}
    for name, alignment in alignments.items():
        if alignment.note:
            by_text.setdefault(alignment.note, []).append(name)
    return tuple(f"{', '.join(names)}: {text}" for text, names in by_text.items())
