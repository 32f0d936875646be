"""Stores that are small on the disk and large in memory, or that take for ever: each within what HDF5 allows.

``BOMBS``: by name, what turns a small store into one, and words of the error that must refuse it. None: it is to be
shown like any other store, in bounded time.
"""

from __future__ import annotations

import io
import json
import math
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from store_factory import GRID, IMAGES, write_small

Change = Callable[[h5py.File], object]
LAYER = "layers/features.0/"
UNITS = 9


def bomb(path: Path, change: Change) -> Path:
    """A small store at ``path``, made into a bomb."""
    write_small(path, evidence=True, effects=True)
    with h5py.File(path, "r+") as f:
        change(f)
    return path


def effects(f: h5py.File, splits: int, ablations: int, classes: int) -> None:
    """Effects of so many ablations in so many splits, of so many classes."""
    f["classes"].pop("name")
    f["classes"].create_dataset("name", (classes,), "S1", chunks=(classes,), compression="gzip")[...] = b"x"
    shape = (splits, ablations, classes)
    for name in ("hits_without", "false_without"):
        packed(f, f"{LAYER}effects/{name}", shape, "u4")
    for name in ("score_without", "low", "high"):
        packed(f, f"{LAYER}effects/{name}", shape, "f4")
    for name in ("images", "hits", "false", "score"):
        packed(f, f"{LAYER}effects/{name}", (splits, classes), "f4" if name == "score" else "u4")
    packed(f, LAYER + "effects/splits", (splits,), "S1")
    dataset(f, LAYER + "effects/unit", np.arange(ablations), chunks=True, compression="gzip")
    dataset(f, LAYER + "effects/unit_end", np.arange(1, ablations + 1), chunks=True, compression="gzip", shuffle=True)
    for name in ("head", "effects"):
        f["layers/layer4.1.conv2"].pop(name)
    packed(f, LAYER + "head/weight", (classes, UNITS), "f4")
    packed(f, LAYER + "head/bias", (classes,), "f4")


def packed(
    f: h5py.File, name: str, shape: tuple[int, ...], dtype: object, chunk: tuple[int, ...] = (), byte: int = 0
) -> None:
    """A dataset in place of ``name`` all of whose bytes are ``byte``, every chunk there, packed a thousand to one."""
    if name in f:
        del f[name]
    kind = np.dtype(dtype)
    chunk = chunk or _chunk(shape, kind.itemsize)
    made = f.create_dataset(name, shape, kind, chunks=chunk, compression="gzip", compression_opts=9)
    raw = deflated(chunk, kind, byte)
    for at in np.ndindex(*(-(-n // c) for n, c in zip(shape, chunk, strict=True))):
        made.id.write_direct_chunk(tuple(i * c for i, c in zip(at, chunk, strict=True)), raw)


def _chunk(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """As large a chunk as a reader takes, so that it is the size of the whole that is looked at."""
    room, chunk = (1 << 20) // itemsize, []
    for n in reversed(shape):
        chunk.insert(0, max(1, min(n, room)))
        room //= chunk[0]
    return tuple(chunk)


def deflated(chunk: tuple[int, ...], kind: np.dtype, byte: int = 0) -> bytes:
    return zlib.compress(bytes([byte]) * (math.prod(chunk) * kind.itemsize), 9)


def dataset(f: h5py.File, name: str, data: object, **options: object) -> None:
    """``data`` in place of the dataset ``name``."""
    if name in f:
        del f[name]
    f.create_dataset(name, data=data, **options)


def thumbnails(f: h5py.File, jpeg: bytes) -> None:
    """All thumbnails are ``jpeg``."""
    dataset(f, "images/thumbnails", np.frombuffer(jpeg * IMAGES, np.uint8))
    dataset(f, "images/thumbnail_end", np.arange(1, IMAGES + 1) * len(jpeg))


def baseline(size: tuple[int, int] = (24, 20), **options: object) -> bytes:
    """A JPEG of ``size`` (width, height)."""
    out = io.BytesIO()
    Image.new("RGB", size, (200, 90, 30)).save(out, "JPEG", **options)
    return out.getvalue()


def claiming(width: int, height: int) -> bytes:
    """A small JPEG whose header claims another size."""
    data = baseline()
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def many_scans(scans: int, size: tuple[int, int] = (1000, 1000)) -> bytes:
    """A progressive JPEG whose last scan comes again and again: each goes over the whole picture."""
    data = baseline(size, progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def scans_of_a_baseline(scans: int) -> bytes:
    """A baseline JPEG whose scan comes again and again."""
    data = baseline()
    at = data.index(b"\xff\xda")
    return data[:at] + data[at:-2] * scans + data[-2:]


def coarse(f: h5py.File, grid: tuple[int, int]) -> None:
    """Everything on another label grid."""
    f.attrs["grid"] = np.array(grid)
    packed(f, "images/label_maps", (IMAGES, 1, *grid), "u2", (1, 1, *grid))
    for layer in f["layers"].values():
        for name, size in zip(("rows", "columns"), grid, strict=True):
            for part in ("cell", "weight"):
                dataset(f, f"{layer.name}/{name}/{part}", np.zeros(size, np.int64 if part == "cell" else np.float32))


def top(f: h5py.File, count: int) -> None:
    """``count`` top images a unit."""
    packed(f, LAYER + "top/image", (UNITS, count), "i4")
    packed(f, LAYER + "top/peak", (UNITS, count), "f4")
    packed(f, LAYER + "top/map", (UNITS, count, 4, 5), "f4")


def concepts(f: h5py.File, count: int) -> None:
    """``count`` concepts."""
    number = np.arange(1, count + 1, dtype=np.int32)
    dataset(f, "concepts/number", number, chunks=(min(count, 1 << 17),), compression="gzip", shuffle=True)
    packed(f, "concepts/name", (count,), "S8")
    packed(f, "concepts/category", (count,), "i4")
    packed(f, "concepts/area", (1, count), "i8")
    packed(f, "concepts/images", (1, count), "i8")
    for layer in f["layers"].values():
        for name in ("concept", "intersection", "area"):
            layer[f"best/{name}"][...] = -1 if name == "concept" else 0
        for name in ("counts", "evidence", "leading", "null"):
            del layer[name]
    del f["blocks"]


def counts(f: h5py.File, groups: int, concepts: int) -> None:
    """All counts of a layer."""
    made = f[LAYER].create_group("counts")
    for name, value in f["concepts"].attrs.items():
        made.attrs[name] = value
    made.attrs["encoding-type"] = np.bytes_("ndissect-counts")
    packed(f, LAYER + "counts/intersection", (groups, UNITS, concepts), "i8")
    packed(f, LAYER + "counts/area", (groups, UNITS), "i8")
    packed(f, LAYER + "counts/area_in_category", (groups, UNITS, 6), "i8")


def categories(f: h5py.File, count: int) -> None:
    """``count`` categories."""
    packed(f, "concepts/categories", (count,), "S8")
    for name in ("concept", "intersection", "area"):
        packed(f, f"{LAYER}best/{name}", (UNITS, count), "i4", byte=255 * (name == "concept"))


def units(f: h5py.File, count: int, layer: str = LAYER) -> None:
    """``count`` units in a layer."""
    for name in ("concept", "intersection", "area"):
        packed(f, f"{layer}best/{name}", (count, 6), "i4", byte=255 * (name == "concept"))
    for name, kind in (("threshold", "f8"), ("dead", "u1"), ("nan", "i4"), ("inf", "i4")):
        packed(f, layer + name, (count,), kind)
    for name in ("minimum", "maximum"):
        packed(f, layer + name, (count,), "f4")
    for name in ("counts", "top", "evidence", "leading", "null", "head", "effects"):
        del f[layer + name]


def layers(f: h5py.File, count: int, each: int) -> None:
    """``count`` layers of ``each`` units that are all one group of the file."""
    units(f, each)
    for i in range(count):
        f[f"layers/l{i}"] = f["layers/features.0"]
    dataset(f, "layer_names", np.array([f"l{i}".encode() for i in range(count)]))


def provenance(f: h5py.File, text: str) -> None:
    """Another provenance."""
    dataset(f, "provenance", np.bytes_(text))


def nested(depth: int) -> str:
    """A provenance that is a list in a list in ..."""
    return json.dumps({"command": 0}).replace("0", "[" * depth + "]" * depth)


def one_string(f: h5py.File, name: str, length: int) -> None:
    """One string of ``length`` zeros in place of a scalar; a scalar cannot be packed, so it is a hole in the file."""
    del f[name]
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    kind = h5py.h5t.py_create(np.dtype(f"S{length}"))
    h5py.h5d.create(f.id, name.encode(), kind, h5py.h5s.create(h5py.h5s.SCALAR), plist)


def many_links(f: h5py.File) -> None:
    for i in range(30_000):
        f[f"l{i}"] = h5py.SoftLink("/nowhere")


def many_attributes(f: h5py.File) -> None:
    for i in range(3_000):
        f.attrs[f"a{i}"] = i


def groups_in_themselves(f: h5py.File) -> None:
    for name in ("layers", "concepts", "images"):
        f[name]["again"] = f["/"]
        f["/"][f"{name} again"] = f[name]


def huge_chunk(f: h5py.File, name: str, width: int) -> None:
    """A small dataset in one chunk that is far larger than it."""
    shape, kind = f[name].shape, f[name].dtype
    del f[name]
    chunk = (*shape[:-1], width)
    made = f.create_dataset(
        name, shape, kind, chunks=chunk, maxshape=(*shape[:-1], None), compression="gzip", compression_opts=9
    )
    made.id.write_direct_chunk((0,) * len(shape), deflated(chunk, kind))


def tiny_chunks(f: h5py.File) -> None:
    """Two million chunks of one value, of which a few thousand are there."""
    concepts(f, 65_535)
    dataset(f, "groups", np.array([f"g{i}".encode() for i in range(32)]))
    for name in ("area", "images"):
        del f[f"concepts/{name}"]
        made = f.create_dataset(f"concepts/{name}", (32, 65_535), "i8", chunks=(1, 1), compression="gzip")
        raw = zlib.compress(bytes(8), 9)
        for i in range(2000):
            made.id.write_direct_chunk((i % 32, i), raw)


MUCH, DAMAGED = "too much to take in", "is damaged"
BOMBS: dict[str, tuple[Change, str | None]] = {
    "60 million image groups": (lambda f: packed(f, "groups", (60_000_000,), "S1"), "60,000,000 image groups"),
    "names of 100 MB": (lambda f: packed(f, "concepts/name", (9,), "S100000000", (1,)), MUCH),
    "names of 4 MB": (lambda f: packed(f, "concepts/name", (9,), "S4000000", (1,)), MUCH),
    "image names of 100 MB": (lambda f: packed(f, "images/name", (IMAGES,), "S100000000", (1,)), MUCH),
    "65,535 names of 1,000 bytes": (
        lambda f: (concepts(f, 65_535), packed(f, "concepts/name", (65_535,), "S1000")),
        "bytes of names",
    ),
    "a grid of 10,000 x 10,000": (lambda f: coarse(f, (10_000, 10_000)), "@grid has 10,000 pixels on a side"),
    "a grid of 4,000 x 4,000": (lambda f: coarse(f, (4_000, 4_000)), "@grid has 16,000,000 pixels"),
    "the largest grid": (lambda f: coarse(f, (2048, 2048)), None),
    "200,000 top images a unit": (lambda f: top(f, 200_000), "200,000 top images a unit"),
    "3 million layers": (lambda f: packed(f, "layer_names", (3_000_000,), "S20"), "3,000,000 layers"),
    "5 million concepts": (lambda f: concepts(f, 5_000_000), "5,000,000 concepts"),
    "a million categories": (lambda f: categories(f, 1_000_000), "1,000,000 categories"),
    "20 million units": (lambda f: units(f, 20_000_000), "20,000,000 units"),
    "1,000 layers that are one": (lambda f: layers(f, 1000, 20_000), "units"),
    "layers that are one": (lambda f: layers(f, 200, 100), None),
    "20,000 label maps an image": (
        lambda f: packed(f, "images/label_maps", (IMAGES, 20_000, *GRID), "u2"),
        "20,000 label maps an image",
    ),
    "label maps in one chunk": (
        lambda f: packed(f, "images/label_maps", (IMAGES, 200, *GRID), "u8", (IMAGES, 200, *GRID)),
        None,
    ),
    "label maps in a million chunks": (
        lambda f: (
            coarse(f, (2000, 2000)),
            packed(f, "images/label_maps", (IMAGES, 1, 2000, 2000), "u2", (1, 1, 1999, 1)),
        ),
        "4,000 chunks an image",
    ),
    "10 million labels an image": (
        lambda f: packed(f, "images/image_labels", (IMAGES, 10_000_000), "u2"),
        "10,000,000 image labels an image",
    ),
    "50 million images": (lambda f: packed(f, "images/index", (50_000_000,), "i8"), "50,000,000 images"),
    "a million wrong pairings": (
        lambda f: [packed(f, f"{LAYER}null/{n}", (1_000_000, UNITS), "i4") for n in f[LAYER + "null"]],
        "1,000,000 wrong pairings",
    ),
    "counts that unpack to 150 MB": (
        lambda f: (
            concepts(f, 65_535),
            dataset(f, "groups", np.array([f"g{i}".encode() for i in range(32)])),
            packed(f, "concepts/area", (32, 65_535), "i8"),
            packed(f, "concepts/images", (32, 65_535), "i8"),
            counts(f, 32, 65_535),
        ),
        None,
    ),
    "one chunk of 400 MB": (lambda f: huge_chunk(f, LAYER + "best/area", 5_600_000), "bytes a chunk"),
    "a chunk of label maps of 400 MB": (lambda f: huge_chunk(f, "images/label_maps", 700_000), "bytes of label maps"),
    "millions of chunks": (tiny_chunks, "chunks"),
    "3 million classes": (lambda f: packed(f, "classes/name", (3_000_000,), "S4"), "3,000,000 classes"),
    "30,000 ablations of 1,000 classes": (
        lambda f: effects(f, 2, 30_000, 1_000),
        "60,000,000 effects (splits x ablations x classes)",
    ),
    "3 million ablations": (
        lambda f: packed(f, LAYER + "effects/hits_without", (2, 3_000_000, 5), "u4"),
        "3,000,000 ablations",
    ),
    "a head of 60,000 classes": (lambda f: effects(f, 1, 9, 60_000), None),
    "an origin of 300 MB": (
        lambda f: one_string(f, LAYER + "effects/origin", 300_000_000),
        "300,000,000 bytes of JSON",
    ),
    "a provenance of 300 MB": (lambda f: one_string(f, "provenance", 300_000_000), "300,000,000 bytes of JSON"),
    "a protocol of 300 MB": (lambda f: one_string(f, "protocol", 300_000_000), "300,000,000 bytes of JSON"),
    "a provenance of 4 MB of lists": (lambda f: provenance(f, f'{{"a": [{"[]," * 1_300_000}[]]}}'), None),
    "a provenance nested 900 deep": (lambda f: provenance(f, nested(900)), "levels of JSON"),
    "30,000 links": (many_links, None),
    "3,000 attributes": (many_attributes, None),
    "groups in themselves": (groups_in_themselves, None),
    "a module's name of 60 kB": (
        lambda f: f["layers/features.0"].attrs.__setitem__("module", np.bytes_(b"x" * 60_000)),
        "@module has 60,000 bytes a name",
    ),
    "a progressive thumbnail of 3,000 scans": (
        lambda f: thumbnails(f, many_scans(3_000)),
        "no small JPEG",
    ),
    "a progressive thumbnail": (lambda f: thumbnails(f, baseline(progressive=True)), "no small JPEG"),
    "a baseline thumbnail of 3,000 scans": (lambda f: thumbnails(f, scans_of_a_baseline(300)), "no small JPEG"),
    "a thumbnail of 65,500 x 65,500": (lambda f: thumbnails(f, claiming(65_500, 65_500)), "no small JPEG"),
    "a thumbnail of 2,000 x 2,000": (lambda f: thumbnails(f, baseline((2000, 2000))), "no small JPEG"),
    "a thumbnail of 300 MB": (
        lambda f: (
            packed(f, "images/thumbnails", (300_000_000,), "u1"),
            dataset(f, "images/thumbnail_end", np.arange(1, IMAGES + 1) * 25_000_000),
        ),
        MUCH,
    ),
}
