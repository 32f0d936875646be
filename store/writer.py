"""A dissection -> one HDF5 file, as FORMAT.md says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from ndissect.store.files import atomic, write_failed
from ndissect.store.hdf5 import clean_text, member_name
from ndissect.store.model import Dissection, ImageTable, Layer

#: What this program writes. The first number changes when older readers would misread the file.
VERSION = "1.0"


def write_store(path: Path, dissection: Dissection) -> None:
    """Write ``dissection`` to ``path``, whole or not at all; NDError where the disk refuses."""
    try:
        with atomic(path) as part, h5py.File(part, "w") as f:
            _write(f, dissection)
    except (OSError, RuntimeError) as e:  # HDF5 raises either, depending on where the disk refused
        raise write_failed(path, e) from e


def estimated_size(
    units: Sequence[int], map_sizes: Sequence[tuple[int, int]], concepts: int, top: int, images: int
) -> int:
    """About how many bytes a store will take, rounded up, before anything is counted."""
    counts = sum(4 * u * concepts + 200 * u for u in units)
    maps = sum(4 * u * top * h * w for u, (h, w) in zip(units, map_sizes, strict=True))
    distinct = min(images, sum(units) * top)
    return counts + maps + 25_000 * distinct + 1_000_000


def _tag(group: h5py.Group, kind: str) -> h5py.Group:
    group.attrs["encoding-type"] = kind
    group.attrs["encoding-version"] = VERSION
    return group


def _strings(group: h5py.Group, name: str, values: Sequence[str]) -> None:
    # A name may hold bytes that are not UTF-8 (they come from file systems): keep it readable, never fail on it.
    clean = [clean_text(v) for v in values]
    group.create_dataset(name, data=np.array(clean, object), dtype=h5py.string_dtype(), shape=(len(clean),))


def _write(f: h5py.File, d: Dissection) -> None:
    _tag(f, "ndissect-store")
    provenance = clean_text(json.dumps(d.provenance, ensure_ascii=False))
    f.create_dataset("provenance", data=provenance, dtype=h5py.string_dtype())
    f.create_dataset("protocol", data=json.dumps(d.protocol.to_json()), dtype=h5py.string_dtype())
    _strings(f, "groups", d.groups)
    if d.grid is not None:
        f.attrs["grid"] = np.array(d.grid, np.int64)

    c = _tag(f.create_group("concepts"), "ndissect-concepts")
    c["number"], c["category"] = d.concepts.number.astype(np.int32), d.concepts.category.astype(np.int32)
    _strings(c, "name", d.concepts.name)
    _strings(c, "categories", d.concepts.categories)
    c["area"], c["images"] = d.concept_counts.area, d.concept_counts.images

    if d.images is not None:
        _write_images(_tag(f.create_group("images"), "ndissect-images"), d.images)
    layers = _tag(f.create_group("layers"), "ndissect-layers")
    _strings(f, "layer_names", [layer.name for layer in d.layers])
    for layer in d.layers:
        _write_layer(_tag(layers.create_group(member_name(clean_text(layer.name))), "ndissect-layer"), layer)


def _write_images(g: h5py.Group, images: ImageTable) -> None:
    g["index"] = images.index
    _strings(g, "name", images.name)
    _strings(g, "split", images.split)
    jpegs = g.create_dataset("thumbnail", (len(images.thumbnail),), dtype=h5py.vlen_dtype(np.uint8))
    for row, jpeg in enumerate(images.thumbnail):
        jpegs[row] = np.frombuffer(jpeg, np.uint8)
    # Read an image at a time and mostly flat colour: one compressed chunk an image. Everything else is contiguous.
    maps = images.label_maps
    chunk = (1, *maps.shape[1:]) if maps.size else None
    g.create_dataset("label_maps", data=maps, chunks=chunk, compression="gzip" if chunk else None, shuffle=bool(chunk))
    g["image_labels"] = images.image_labels


def _smallest(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | npt.NDArray[np.uint32]:
    return counts.astype(np.uint32) if counts.size and counts.max() < 2**32 else counts


def _write_layer(g: h5py.Group, layer: Layer) -> None:
    g.attrs["module"] = clean_text(layer.module)
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
