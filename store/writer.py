"""A dissection -> one HDF5 file, as FORMAT.md says."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ndissect.store import limits, parts
from ndissect.store.disk import Disk
from ndissect.store.errors import NDError
from ndissect.store.files import atomic
from ndissect.store.hdf5 import member_name
from ndissect.store.limits import Limit, check_plan
from ndissect.store.model import Dissection, Layer
from ndissect.store.parts import LAYER_KINDS, VERSION, Group
from ndissect.store.text import without_controls

# How hard label maps are compressed.
_LEVEL = 4


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


def _write(f: h5py.File, d: Dissection) -> None:
    _tag(f, parts.ROOT)
    _json(f, "provenance", d.provenance, limits.PROVENANCE)
    _json(f, "protocol", d.protocol.to_json(), limits.PROTOCOL)
    _strings(f, "groups", d.groups)
    if d.grid is not None:
        f.attrs["grid"] = np.array(d.grid, np.int64)
    _write_group(f, parts.CONCEPTS, d)
    if d.blocks is not None:
        _write_group(f, parts.BY_BLOCK, d)
        if d.blocks.concept_images is not None:
            _write_group(f, parts.IMAGES_BY_BLOCK, d)
    if d.images is not None:
        thumbnails = d.images.thumbnail
        made = {
            "thumbnails": np.frombuffer(b"".join(thumbnails), np.uint8),
            "thumbnail_end": np.cumsum([len(jpeg) for jpeg in thumbnails], dtype=np.int64),
        }
        _write_group(f, parts.IMAGES, d, made=made)
    layers = _tag(f.create_group(parts.LAYERS.name), parts.LAYERS)
    _strings(f, "layer_names", [layer.name for layer in d.layers])
    for layer in d.layers:
        _write_layer(layers, layer)


def _write_layer(layers: h5py.Group, layer: Layer) -> None:
    g = _tag(layers.create_group(member_name(without_controls(layer.name))), parts.LAYER, LAYER_KINDS[layer.judged_on])
    _text(g, "module", layer.module)
    if layer.map_size is not None:
        g.attrs["map_size"] = np.array(layer.map_size, np.int64)
    _write_parts(g, parts.LAYER, layer)
    _write_group(g, parts.BEST, layer)
    if layer.counts is not None:
        _write_group(g, parts.COUNTS, layer)
    if layer.top is not None:
        _write_group(g, parts.TOP, layer)
    if layer.axes is not None:
        for axis_group, axis in zip((parts.ROWS, parts.COLUMNS), layer.axes, strict=True):
            _write_group(g, axis_group, axis)
    if layer.evidence is not None:
        _write_group(g, parts.EVIDENCE, layer)
    if layer.leading is not None:
        _write_group(g, parts.LEADING, layer)
    if layer.null is not None:
        _write_group(g, parts.NULL, layer)


def _write_group(parent: h5py.Group, group: Group, source: object, made: Mapping[str, Any] | None = None) -> None:
    _write_parts(_tag(parent.create_group(group.name), group), group, source, made)


def _write_parts(g: h5py.Group, group: Group, source: object, made: Mapping[str, Any] | None = None) -> None:
    """The parts of ``group`` from the fields of ``source``, or, by their names on disk, from ``made``."""
    for part in group.parts:
        values = attrgetter(part.field)(source) if part.field else (made or {})[part.name]
        if part.dtype == "string":
            _strings(g, part.name, values)
            continue
        data = _smallest(values) if part.dtype == "uint32 or int64" else np.asarray(values, part.dtype)
        if part.packed and data.size:
            _write_packed(g, part.name, data)
        else:
            g.create_dataset(part.name, data=data)


def _write_packed(g: h5py.Group, name: str, data: npt.NDArray[Any]) -> None:
    """One compressed chunk for each row: rows are read one at a time, and are mostly flat colour.

    Rows are compressed here, by several threads, as HDF5 would do it with one.
    """
    chunk = (1, *data.shape[1:])
    dataset = g.create_dataset(
        name, data.shape, data.dtype, chunks=chunk, compression="gzip", compression_opts=_LEVEL, shuffle=True
    )
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for row, packed in enumerate(pool.map(_pack, data)):
            dataset.id.write_direct_chunk((row, *(0 for _ in chunk[1:])), packed)


def _pack(row: npt.NDArray[Any]) -> bytes:
    """A row as HDF5's filters leave it: the first byte of all values, then the second, and so on; then deflated."""
    return zlib.compress(np.ascontiguousarray(row).view(np.uint8).reshape(row.size, -1).T.tobytes(), _LEVEL)


def _tag(g: h5py.Group, group: Group, kind: str | None = None) -> h5py.Group:
    _text(g, "encoding-type", kind or group.kind)
    _text(g, "encoding-version", VERSION)
    return g


def _smallest(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | npt.NDArray[np.uint32]:
    return counts.astype(np.uint32) if counts.size and counts.max() < 2**32 else counts


def _strings(group: h5py.Group, name: str, values: Sequence[str]) -> None:
    data = _encoded(values)
    group.create_dataset(name, data=data, dtype=data.dtype)


def _text(group: h5py.Group, name: str, value: str) -> None:
    data = _encoded([value])
    group.attrs.create(name, data[0], dtype=data.dtype)


def _json(group: h5py.Group, name: str, value: Any, limit: Limit) -> None:
    data = _encoded([json.dumps(value, ensure_ascii=False)])
    if data.dtype.itemsize > limit.most:
        what = f"the {name} takes {data.dtype.itemsize:,} {limit.things}, a store holds {limit.most:,}"
        raise NDError(what, "dissect fewer layers at a time")
    group.create_dataset(name, data=data[0], dtype=data.dtype)


def _encoded(values: Sequence[str]) -> npt.NDArray[np.bytes_]:
    # Strings of one length, not HDF5's variable-length ones: over a damaged heap of those the library loops for ever.
    # A name may hold bytes that are not UTF-8 (they come from file systems): keep it readable, never fail on it.
    encoded = [without_controls(v).encode() for v in values]
    longest = max((len(v) for v in encoded), default=0)
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(longest, 1)))
