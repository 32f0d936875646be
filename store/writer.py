"""A dissection -> one HDF5 file, as FORMAT.md says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ndissect.store import limits
from ndissect.store.disk import Disk
from ndissect.store.errors import NDError
from ndissect.store.files import atomic
from ndissect.store.hdf5 import member_name
from ndissect.store.limits import Limit, check_plan
from ndissect.store.model import Dissection, ImageTable, Layer
from ndissect.store.text import without_controls

#: What this program writes. The first number changes when older readers would misread the file.
VERSION = "1.1"


def write_store(path: Path, dissection: Dissection) -> None:
    """Write ``dissection`` to ``path``, whole or not at all; NDError beyond the limits, and where the disk refuses."""
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


def _tag(group: h5py.Group, kind: str) -> h5py.Group:
    _text(group, "encoding-type", kind)
    _text(group, "encoding-version", VERSION)
    return group


def _encoded(values: Sequence[str]) -> npt.NDArray[np.bytes_]:
    # Strings of one length, not HDF5's variable-length ones: over a damaged heap of those the library loops for ever.
    # A name may hold bytes that are not UTF-8 (they come from file systems): keep it readable, never fail on it.
    encoded = [without_controls(v).encode() for v in values]
    longest = max((len(v) for v in encoded), default=0)
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(longest, 1)))


def _text(group: h5py.Group, name: str, value: str) -> None:
    data = _encoded([value])
    group.attrs.create(name, data[0], dtype=data.dtype)


def _strings(group: h5py.Group, name: str, values: Sequence[str]) -> None:
    data = _encoded(values)
    group.create_dataset(name, data=data, dtype=data.dtype)


def _json(group: h5py.Group, name: str, value: Any, limit: Limit) -> None:
    data = _encoded([json.dumps(value, ensure_ascii=False)])
    if data.dtype.itemsize > limit.most:
        what = f"the {name} takes {data.dtype.itemsize:,} {limit.things}, a store holds {limit.most:,}"
        raise NDError(what, "dissect fewer layers at a time")
    group.create_dataset(name, data=data[0], dtype=data.dtype)


def _write(f: h5py.File, d: Dissection) -> None:
    _tag(f, "ndissect-store")
    _json(f, "provenance", d.provenance, limits.PROVENANCE)
    _json(f, "protocol", d.protocol.to_json(), limits.PROTOCOL)
    _strings(f, "groups", d.groups)
    if d.grid is not None:
        f.attrs["grid"] = np.array(d.grid, np.int64)

    c = _tag(f.create_group("concepts"), "ndissect-concepts")
    c["number"], c["category"] = d.concepts.number.astype(np.int32), d.concepts.category.astype(np.int32)
    _strings(c, "name", d.concepts.name)
    _strings(c, "categories", d.concepts.categories)
    c["area"], c["images"] = d.concept_counts.area, d.concept_counts.images

    if d.blocks is not None:
        blocks = _tag(f.create_group("blocks"), "ndissect-blocks")
        blocks["images"], blocks["concept_area"] = d.blocks.images, d.blocks.concept_area
    if d.images is not None:
        _write_images(_tag(f.create_group("images"), "ndissect-images"), d.images)
    layers = _tag(f.create_group("layers"), "ndissect-layers")
    _strings(f, "layer_names", [layer.name for layer in d.layers])
    for layer in d.layers:
        _write_layer(_tag(layers.create_group(member_name(without_controls(layer.name))), "ndissect-layer"), layer)


def _write_images(g: h5py.Group, images: ImageTable) -> None:
    g["index"] = images.index
    _strings(g, "name", images.name)
    _strings(g, "split", images.split)
    g["thumbnails"] = np.frombuffer(b"".join(images.thumbnail), np.uint8)
    g["thumbnail_end"] = np.cumsum([len(jpeg) for jpeg in images.thumbnail], dtype=np.int64)
    # Read an image at a time and mostly flat colour: one compressed chunk an image. Everything else is contiguous.
    maps = images.label_maps
    chunk = (1, *maps.shape[1:]) if maps.size else None
    g.create_dataset("label_maps", data=maps, chunks=chunk, compression="gzip" if chunk else None, shuffle=bool(chunk))
    g["image_labels"] = images.image_labels


def _smallest(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | npt.NDArray[np.uint32]:
    return counts.astype(np.uint32) if counts.size and counts.max() < 2**32 else counts


def _write_layer(g: h5py.Group, layer: Layer) -> None:
    _text(g, "module", layer.module)
    if layer.map_size is not None:
        g.attrs["map_size"] = np.array(layer.map_size, np.int64)
    s = layer.statistics
    g["threshold"], g["dead"], g["nan"], g["inf"] = s.threshold, s.dead.astype(np.uint8), s.nan, s.inf
    g["minimum"], g["maximum"] = s.minimum, s.maximum

    best = _tag(g.create_group("best"), "ndissect-best")
    best["concept"], best["intersection"], best["area"] = layer.best.concept, layer.best.intersection, layer.best.area
    if layer.counts is not None:
        counts = _tag(g.create_group("counts"), "ndissect-counts")
        counts["intersection"] = _smallest(layer.counts.intersection)
        counts["area"], counts["area_in_category"] = layer.counts.area, layer.counts.area_in_category
    if layer.top is not None:
        top = _tag(g.create_group("top"), "ndissect-top")
        top["image"], top["peak"], top["map"] = layer.top.image, layer.top.peak, layer.top.maps
    if layer.axes is not None:
        for name, axis in zip(("rows", "columns"), layer.axes, strict=True):
            a = _tag(g.create_group(name), "ndissect-axis")
            a["position"], a["cell"], a["weight"] = axis.positions, axis.cell, axis.weight
    if layer.evidence is not None:
        evidence = _tag(g.create_group("evidence"), "ndissect-evidence")
        for name, values in vars(layer.evidence).items():
            evidence[name] = values
    if layer.leading is not None:
        leading = _tag(g.create_group("leading"), "ndissect-leading")
        leading["concept"], leading["intersection"] = layer.leading.concept, _smallest(layer.leading.intersection)
        leading["area"] = _smallest(layer.leading.area)
    if layer.null is not None:
        null = _tag(g.create_group("null"), "ndissect-null")
        for name, values in vars(layer.null).items():
            null[name] = values
