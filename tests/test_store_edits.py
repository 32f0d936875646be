"""Stores with a bit turned over, a byte changed or a value replaced by an extreme one: valid answers or clear errors.

Every look that ``nd`` offers is taken at each of them, in processes that are bounded in time: see probing.py.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import h5py
import numpy as np
import pytest
from cli import nd, two_lines
from probing import Prober
from store_factory import write_small

#: So many take half a minute. More are a matter of another seed.
FLIPS, EDITS = 200, 100


class Probers:
    """Two processes that look at stores, side by side."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._idle: SimpleQueue[Prober] = SimpleQueue()
        self._all = [Prober().__enter__() for _ in range(2)]
        for one in self._all:
            self._idle.put(one)

    def close(self) -> None:
        for one in self._all:
            one.__exit__()

    def problems(self, stores: Iterator[tuple[str, bytes]]) -> tuple[dict[str, str], int]:
        """What went wrong with which of the stores, and how many were refused in part or as a whole."""

        def one(store: tuple[str, bytes]) -> tuple[str, str, bool]:
            name, data = store
            prober = self._idle.get()
            path = self._folder / f"{self._all.index(prober)}.nd.h5"
            path.write_bytes(data)
            found = prober(path, quick=True)
            self._idle.put(prober)
            return name, found.problem, bool(found.refused)

        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(one, stores))
        return {name: problem for name, problem, _ in found if problem}, sum(refused for *_, refused in found)


@pytest.fixture(scope="module")
def probers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probers]:
    started = Probers(tmp_path_factory.mktemp("looked-at"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    made = {"features.0": (5, (4, 5)), "layer4.1.conv2": (4, (3, 3))}
    return write_small(tmp_path_factory.mktemp("good") / "a.nd.h5", layers=made, evidence=True).read_bytes()


def metadata(data: bytes) -> range:
    """Where in the file the descriptions lie, not the numbers: there a change is felt most."""
    return range(min(len(data), 40_000))


def flipped(good: bytes, seed: int) -> tuple[str, bytes]:
    """``good`` with one bit turned over, or one byte changed; half of them among the descriptions."""
    rng, data = random.Random(seed), bytearray(good)
    at = rng.choice(metadata(good)) if seed % 2 else rng.randrange(len(data))
    data[at] = rng.choice([data[at] ^ (1 << rng.randrange(8)), rng.choice([0, 1, 0x7F, 0x80, 0xFF])])
    return f"seed {seed}, byte {at}", bytes(data)


def test_bits_and_bytes_that_change(good: bytes, probers: Probers) -> None:
    problems, refused = probers.problems(flipped(good, seed) for seed in range(FLIPS))
    assert problems == {}
    assert refused > FLIPS // 20, "the changes were felt"


def edited(good: bytes, folder: Path, seed: int) -> tuple[str, bytes]:
    """``good`` with one dataset or attribute replaced, which the rest of the file knows nothing of."""
    rng = random.Random(seed)
    path = folder / f"{seed}.nd.h5"
    path.write_bytes(good)
    with h5py.File(path, "r+") as f:
        names: list[str] = []
        f.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        name = rng.choice(names)
        if rng.random() < 0.1:
            name = rng.choice(["/", "layers/features.0"])
            key = rng.choice(["grid", "map_size", "module", "encoding-version", "encoding-type"])
            value = rng.choice([0, -1, [1, 1], [65535, 65535], [0, 0], np.nan, b"x" * 5000, b"", "x", [4096, 1024]])
            f[name].attrs[key] = value
            said = f"{name}@{key} = {value!r:.40}"
        else:
            said = f"{name} {_replaced(f, name, rng)}"
    data = path.read_bytes()
    path.unlink()
    return f"seed {seed}: {said}", data


def _replaced(f: h5py.File, name: str, rng: random.Random) -> str:
    """Replace a dataset; what it is replaced by, in words."""
    data = f[name][()]
    kind = np.dtype(np.asarray(data).dtype.str)
    how = rng.choice(["value", "value", "value", "one value", "one value", "type", "shape", "huge", "packed"])
    if how in ("value", "one value"):
        choices: list[object] = [0, -1, 1, 255, 65535, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63)]
        if kind.kind == "f":
            choices = [0.0, -1.0, np.nan, np.inf, -np.inf, 3e38, 1e-300, 1e300]
        elif kind.kind == "S":
            choices = [
                b"",
                b"\xff",
                b"{}",
                b"[",
                b"null",
                b"\x1b[31m",
                b"..",
                b"/",
                "\u202e\ud7ff".encode(),
                b"9" * 300,
            ]
        value = rng.choice(choices)
        del f[name]
        wide = kind if kind.kind == "f" else np.dtype(np.int64) if kind.kind in "iu" else np.dtype("S400")
        with np.errstate(over="ignore"):
            new = np.array(data, dtype=wide)
            if how == "value" or new.ndim == 0 or not new.size:
                new[...] = value
            else:
                new.flat[rng.randrange(new.size)] = value
        f.create_dataset(name, data=new)
        return f"{how} {value!r}"
    del f[name]
    if how == "type":
        new_kind = rng.choice(["f4", "i1", "u8", "S3", "c8", "O", "?", "f2", ">i4"])
        f.create_dataset(name, np.shape(data), h5py.string_dtype() if new_kind == "O" else new_kind)
        return new_kind
    if how == "shape":
        shape = rng.choice([(), (0,), (1,), (*np.shape(data), 1), np.shape(data)[::-1], np.shape(data)[:-1], (3, 0, 2)])
        f.create_dataset(name, data=np.zeros(shape, kind))
        return f"shape {shape}"
    if how == "huge":
        shape = tuple(rng.choice([n, 1 << 40, 1 << 20]) for n in np.shape(data)) or (1 << 30,)
        f.create_dataset(name, shape, kind, chunks=tuple(min(n, 64) or 1 for n in shape), compression="gzip")
        return f"on paper {shape}"
    array = np.asarray(data, kind)
    packing = {"chunks": True, "compression": "gzip", "fletcher32": True} if array.ndim and array.size else {}
    f.create_dataset(name, data=array, **packing)
    return "packed"


def test_values_that_are_replaced(good: bytes, tmp_path: Path, probers: Probers) -> None:
    problems, refused = probers.problems(edited(good, tmp_path, seed) for seed in range(EDITS))
    assert problems == {}
    assert refused > EDITS // 4, "the changes were felt"


def test_commands_say_it_in_two_lines(good: bytes, tmp_path: Path) -> None:
    """The same through real processes, for a few."""
    path = tmp_path / "a.nd.h5"
    commands = (["inspect"], ["inspect", "features.0:0"], ["concepts"], ["report", "-o", "a.html", "--force"])
    for seed in range(6):
        _, data = edited(good, tmp_path, 1000 + seed)
        path.write_bytes(data)
        done = nd(*commands[seed % len(commands)], "-s", str(path), folder=tmp_path, timeout=60)
        assert done.returncode in (0, 1, 2), done.stderr
        if done.returncode:
            two_lines(done.stderr, str(path))
            assert "defect of nd" not in done.stderr
