"""A file of tensors with a record that tells whether it is what was written, to the bit, and where it belongs.

A digest over the record, every tensor and ``belongs``, which says what of the file is part of, stands in the file's
own header: so a file is replaced as a whole or not at all, and there is no second file that a kill could leave behind.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ndissect.engine.machine.state import State
from ndissect.engine.machine.utf8_path import utf8_path

#: What reading a file that was damaged, or written by something else, may raise.
UNREADABLE = (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError, RecursionError, OverflowError)


_DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.float64: "F64",
}


class Damaged(Exception):
    """A file is not what was written, or lies where another belongs."""


@dataclass(frozen=True)
class Sealed:
    """What a file holds; ``digest``: of all of it."""

    record: dict[str, Any]
    state: State
    digest: str


def write_sealed(path: Path, state: State, record: Mapping[str, Any], belongs: str) -> str:
    """Write ``path``; the digest. OSError where the disk does not take it."""
    on_host = {name: t.detach().to("cpu").contiguous() for name, t in state.items()}
    text = json.dumps(record)
    digest = _digest(text, on_host, belongs)
    _write(path, on_host, {"record": text, "digest": digest})
    return digest


def _write(path: Path, state: State, metadata: Mapping[str, str]) -> None:
    """Write the file ``path`` in the format of safetensors, and no other.

    The library itself writes to a file under a random name first, which a kill would leave beside ``path``.
    """
    header: dict[str, Any] = {"__metadata__": metadata}
    names = sorted(state, key=lambda name: (-state[name].element_size(), name))  # each where its numbers are aligned
    end = 0
    for name in names:
        start, end = end, end + state[name].nbytes
        dtype, shape = _DTYPES[state[name].dtype], list(state[name].shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - no link is followed
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(_bytes(state[name]))


def read_sealed(path: Path, belongs: str) -> Sealed:
    """What was written to ``path``; Damaged where that is not what is there. No link is followed."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):  # a pipe would be waited for
            raise Damaged(path.name)
        with utf8_path(path) as name, safe_open(name, framework="pt") as f:
            about, state = f.metadata(), {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118
        text, digest = about["record"], about["digest"]
        if _digest(text, state, belongs) != digest:
            raise Damaged(path.name)
        return Sealed(dict(json.loads(text)), state, digest)
    except UNREADABLE as e:
        raise Damaged(path.name) from e


def _digest(text: str, state: State, belongs: str) -> str:
    names = sorted(state)
    form = [[name, str(state[name].dtype), list(state[name].shape)] for name in names]
    header = json.dumps([belongs, text, form]).encode()
    digest = hashlib.sha256(len(header).to_bytes(8, "little") + header)
    for name in names:
        digest.update(_bytes(state[name]))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
