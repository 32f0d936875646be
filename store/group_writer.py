"""A group of a store written with its parts, as ndissect.store.parts lists them."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ndissect.store.errors import NDError
from ndissect.store.limits import Limit
from ndissect.store.parts import VERSION, Group
from ndissect.store.text import without_controls

# How hard label maps are compressed.
_LEVEL = 4


def write_group(
    parent: h5py.Group, group: Group, source: object, made: Mapping[str, Any] | None = None, version: str = VERSION
) -> None:
    """``group`` in ``parent``, with its parts as :func:`write_parts` writes them."""
    write_parts(tag(parent.create_group(group.name), group, version=version), group, source, made)


def write_parts(g: h5py.Group, group: Group, source: object, made: Mapping[str, Any] | None = None) -> None:
    """The parts of ``group`` from the fields of ``source``, or, by their names on disk, from ``made``."""
    for part in group.parts:
        values = attrgetter(part.field)(source) if part.field else (made or {})[part.name]
        if part.dtype == "string":
            if part.axes:
                strings(g, part.name, values)
            else:
                _string(g, part.name, values)
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


def tag(g: h5py.Group, group: Group, kind: str | None = None, version: str = VERSION) -> h5py.Group:
    """``g``, which now says that it is ``group``, or of the encoding-type ``kind``, of this format version."""
    text_attribute(g, "encoding-type", kind or group.kind)
    text_attribute(g, "encoding-version", version)
    return g


def _smallest(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | npt.NDArray[np.uint32]:
    return counts.astype(np.uint32) if counts.size and counts.max() < 2**32 else counts


def strings(group: h5py.Group, name: str, values: Sequence[str]) -> None:
    """The dataset ``name`` of strings, all as long as the longest."""
    data = _encoded(values)
    group.create_dataset(name, data=data, dtype=data.dtype)


def text_attribute(group: h5py.Group, name: str, value: str) -> None:
    """The attribute ``name``, a string; one that is there is replaced."""
    data = _encoded([value])
    group.attrs.create(name, data[0], dtype=data.dtype)


def json_text(name: str, value: Any, limit: Limit) -> str:
    """``value`` as JSON; NDError, which calls it ``name``, where it is longer than a store holds."""
    text = json.dumps(value, ensure_ascii=False)
    size = len(without_controls(text).encode())
    if size > limit.most:
        what = f"the {name} takes {size:,} {limit.things}, a store holds {limit.most:,}"
        raise NDError(what, "dissect fewer layers at a time")
    return text


def _string(group: h5py.Group, name: str, value: str) -> None:
    data = _encoded([value])
    group.create_dataset(name, data=data[0], dtype=data.dtype)


def _encoded(values: Sequence[str]) -> npt.NDArray[np.bytes_]:
    # Strings of one length, not HDF5's variable-length ones: over a damaged heap of those the library loops for ever.
    # A name may hold bytes that are not UTF-8 (they come from file systems): keep it readable, never fail on it.
    encoded = [without_controls(v).encode() for v in values]
    longest = max((len(v) for v in encoded), default=0)
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(longest, 1)))
