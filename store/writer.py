"""A dissection -> one HDF5 file, as FORMAT.md says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ndissect.store import limits, parts
from ndissect.store.concept_effects import ConceptEffects, EffectPictures
from ndissect.store.disk import Disk
from ndissect.store.effects import Classes, Effects, Head
from ndissect.store.files import atomic
from ndissect.store.group_writer import json_text, tag, text_attribute, write_group, write_parts
from ndissect.store.hdf5 import member_name
from ndissect.store.limits import check_plan
from ndissect.store.model import Dissection, Layer
from ndissect.store.parts import LAYER_KINDS, VERSION
from ndissect.store.scores import Best
from ndissect.store.text import without_controls


def write_store(path: Path, dissection: Dissection) -> None:
    """Write ``dissection`` to ``path``, whole or not at all; NDError beyond the limits, and where the disk refuses.

    What comes with it at no cost is no reason to fail: classes whose names are beyond the limits are left out, with all
    heads and effects, and so is a head that is too large or has a weight that is not finite.
    """
    _check(dissection)
    with atomic(path) as part, part.open("wb+", buffering=0) as raw:
        disk = Disk(raw.fileno())
        with h5py.File(disk, "w") as f:
            _write(f, dissection)
        disk.check()


def estimated_size(
    units: Sequence[int], map_sizes: Sequence[tuple[int, int]], concepts: int, top: int, images: int
) -> int:
    """About how many bytes a store will take, rounded up, before anything is counted."""
    # Counts of the train and the val images; what is by image block of 18 leading concepts; the null and the evidence.
    counts = sum(8 * u * concepts + 4_000 * u for u in units) + 300 * concepts
    maps = sum(4 * u * top * h * w for u, (h, w) in zip(units, map_sizes, strict=True))
    distinct = min(images, sum(units) * top)
    return counts + maps + 25_000 * distinct + 1_000_000


def _check(d: Dissection) -> None:
    """Refuse what no reader would take in."""
    check_plan(
        layers=[layer.name for layer in d.layers],
        units=[len(layer.best.concept) for layer in d.layers],
        map_sizes=[layer.map_size for layer in d.layers if layer.map_size],
        concepts=d.concepts,
        grid=d.grid or (0, 0),
        top=max((layer.top.image.shape[1] for layer in d.layers if layer.top), default=0),
        images=d.images.name if d.images else (),
    )
    for layer in d.layers:
        if layer.effects is not None:
            check_size(layer.effects)
        if layer.concept_effects is not None:
            check_concept_effects(layer.concept_effects)
        if layer.ious is not None:
            limits.check_concept_values(layer.ious.shape)


def _write(f: h5py.File, d: Dissection) -> None:
    tag(f, parts.ROOT)
    made: dict[str, Any] = {
        "provenance": json_text("provenance", d.provenance, limits.PROVENANCE),
        "protocol": json_text("protocol", d.protocol.to_json(), limits.PROTOCOL),
        "layer_names": [layer.name for layer in d.layers],
    }
    write_parts(f, parts.ROOT, d, made)
    if d.grid is not None:
        f.attrs["grid"] = np.array(d.grid, np.int64)
    write_group(f, parts.CONCEPTS, d)
    if d.blocks is not None:
        write_group(f, parts.BY_BLOCK, d)
        if d.blocks.concept_images is not None:
            write_group(f, parts.IMAGES_BY_BLOCK, d)
    classes = d.classes if d.classes and limits.fits_classes(d.classes.names) else None
    if classes is not None:
        write_group(f, parts.CLASSES, classes)
    if d.images is not None:
        thumbnails = d.images.thumbnail
        made = {
            "thumbnails": np.frombuffer(b"".join(thumbnails), np.uint8),
            "thumbnail_end": np.cumsum([len(jpeg) for jpeg in thumbnails], dtype=np.int64),
        }
        write_group(f, parts.IMAGES, d, made=made)
    layers = tag(f.create_group(parts.LAYERS.name), parts.LAYERS)
    for layer in d.layers:
        _write_layer(layers, layer, classes)


def _write_layer(layers: h5py.Group, layer: Layer, classes: Classes | None) -> None:
    g = tag(layers.create_group(member_name(without_controls(layer.name))), parts.LAYER, LAYER_KINDS[layer.judged_on])
    text_attribute(g, "module", layer.module)
    if layer.map_size is not None:
        g.attrs["map_size"] = np.array(layer.map_size, np.int64)
    write_parts(g, parts.LAYER, layer)
    if layer.ious is None:
        write_group(g, parts.BEST, layer)
    else:
        write_group(g, parts.BEST, replace(layer, best=_unknown(layer.best)))
        write_group(g, parts.IOUS, layer)
    if layer.counts is not None:
        write_group(g, parts.COUNTS, layer)
    if layer.top is not None:
        write_group(g, parts.TOP, layer)
    if layer.axes is not None:
        for axis_group, axis in zip((parts.ROWS, parts.COLUMNS), layer.axes, strict=True):
            write_group(g, axis_group, axis)
    if layer.evidence is not None:
        write_group(g, parts.EVIDENCE, layer)
    if layer.leading is not None:
        write_group(g, parts.LEADING, layer)
    if layer.null is not None:
        write_group(g, parts.NULL, layer)
    if classes is not None:
        if layer.head is not None and _fits(layer.head):
            write_group(g, parts.HEAD, layer)
        if layer.effects is not None:
            write_effects(g, layer.effects)
    if layer.concept_effects is not None:
        write_concept_effects(g, layer.concept_effects)
    if layer.effect_pictures is not None:
        write_effect_pictures(g, layer.effect_pictures)


def _unknown(best: Best) -> Best:
    """No best concepts, and no counts: what a program sees that does not know of IoUs without counts."""
    nothing = np.zeros(best.concept.shape, np.int64)
    return Best(np.full(best.concept.shape, -1, np.int32), nothing, nothing, np.zeros(best.concept.shape))


def _fits(head: Head) -> bool:
    """Whether a reader takes the head in."""
    finite = np.isfinite(head.weight).all() and np.isfinite(head.bias).all()
    return head.weight.size <= limits.HEAD.most and bool(finite)


def check_size(effects: Effects) -> None:
    """Raise WrongUse where these are more than a store may hold."""
    limits.check_effects(len(effects.splits), [len(units) for units in effects.units], effects.images.shape[-1])


def write_effects(layer: h5py.Group, effects: Effects, version: str = VERSION) -> None:
    """The group of ``effects`` in that of its layer."""
    made = {
        "origin": json_text("origin of the effects", dict(effects.origin), limits.ORIGIN),
        "unit": [unit for units in effects.units for unit in units],
        "unit_end": np.cumsum([len(units) for units in effects.units], dtype=np.int64),
    }
    write_group(layer, parts.EFFECTS, effects, made, version)


def check_concept_effects(effects: ConceptEffects) -> None:
    """Raise WrongUse where these are more than a store may hold."""
    limits.check_concept_values(effects.after.shape, effects.coefficients.shape)
    limits.check_names([effects.how], limits.NAME, "how effects were measured")


def write_concept_effects(layer: h5py.Group, effects: ConceptEffects, version: str = VERSION) -> None:
    """The group of ``effects`` in that of its layer."""
    some = len(effects.coefficient_concepts) > 0
    made = {"coefficient": effects.coefficients if some else np.zeros((0, layer["threshold"].size))}
    write_group(layer, parts.CONCEPT_EFFECTS, effects, made, version)


def write_effect_pictures(layer: h5py.Group, pictures: EffectPictures, version: str = VERSION) -> None:
    """The group of ``pictures`` in that of its layer."""
    each = [jpeg for pair in pictures.pairs for jpeg in pair]
    made = {
        "pictures": np.frombuffer(b"".join(each), np.uint8),
        "picture_end": np.cumsum([len(jpeg) for jpeg in each], dtype=np.int64).reshape(-1, 2),
    }
    write_group(layer, parts.EFFECT_PICTURES, pictures, made, version)
