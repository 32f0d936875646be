"""Weights from a file: tensors only, never code; which set of them was taken, and what was left unread."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ndissect.engine.checkpoints.arrays import StoredArray
from ndissect.engine.checkpoints.files import read_contents, read_tensors
from ndissect.engine.checkpoints.limits import LARGEST, Limit, check_keys, limit_of
from ndissect.engine.checkpoints.refusals import holds_code, refused
from ndissect.engine.checkpoints.safetensors_file import looks_like_safetensors, read_safetensors
from ndissect.engine.checkpoints.sets import WeightSet, choose_set
from ndissect.engine.checkpoints.shards import check_total, is_index, read_index
from ndissect.engine.checkpoints.values import OddTensor, StoredTensor, Unread
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.regular import open_regular


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a weights file and where in it they were: ``key`` is "" or e.g. ``state_dict``.

    ``others``: the keys of other sets of weights in the file. ``unread``: what was not read of it, with its class.
    """

    state: dict[str, Tensor]
    key: str
    sha256: str
    others: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


def load_state(path: Path) -> dict[str, Tensor]:
    """The state dict in ``path`` (.safetensors, .pt, .pth, ...), on the CPU, without its wrappers.

    Raises NDError where the file is missing, truncated, no checkpoint, or holds its weights in objects of its own.
    """
    return read_checkpoint(path).state


def read_checkpoint(path: Path, max_bytes: int | None = None, *, key: str | None = None) -> Checkpoint:
    """The tensors of ``path`` and their provenance; errors as ``load_state``.

    ``path`` may be the index of several files; ``sha256`` is then of their names and sums. ``max_bytes``: what they may
    take in memory; by default 16 GB, and 8 times what the file has. ``key``: which set of weights, by its name or the
    names on the way to it; WrongUse where there is none of that name.
    """
    try:
        with open_regular(path) as file:
            limit = limit_of(file, path, max_bytes)
            head = file.read(64)
            if is_index(head, path):
                return _from_index(path, max_bytes, key)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if looks_like_safetensors(head):
                return _from_safetensors(path, head, limit, digest, key)
            file.seek(0)
            contents = read_contents(file, head, limit)
            chosen = choose_set(contents.data, path, key)
            check_keys(chosen.entries, path)
            state = read_tensors(contents, _readable(chosen, path))
            return Checkpoint(state, chosen.key, digest, chosen.others, chosen.unread)
    except OSError as error:
        inside = "Name the file in it: model.safetensors, or its .index.json"
        hint = inside if path.is_dir() else "Check the path given to --weights"
        raise NDError(f"cannot read the weights {path}: {error.strerror}", hint) from error


def whole_number(path: Path, names: Sequence[str]) -> int | None:
    """The number that a checkpoint keeps under the first of ``names`` that it has, beside its weights; None for none.

    None too for a file that cannot be read, which whoever wants its weights will be told.
    """
    try:
        with open_regular(path) as file:
            head = file.read(64)
            file.seek(0)
            if looks_like_safetensors(head):
                return None
            data = read_contents(file, head, limit_of(file, path, None)).data
    except (NDError, OSError):
        return None
    held = [data[name] for name in names if name in data] if isinstance(data, dict) else []
    return next((number for number in held if type(number) is int), None)


def _from_index(path: Path, max_bytes: int | None, key: str | None) -> Checkpoint:
    """The weights of all files that the index at ``path`` lists."""
    listed = read_index(path)
    check_total(path, list(listed), LARGEST if max_bytes is None else max_bytes)
    state: dict[str, Tensor] = {}
    digest = hashlib.sha256()
    for file, names in listed.items():
        part = read_checkpoint(path.parent / file, max_bytes, key=key)
        lacking = [name for name in names if name not in part.state]
        if lacking:
            raise NDError(
                f"{path.parent / file} lacks weights that {path.name} lists: {', '.join(lacking[:6])}",
                "Copy or download the weights again",
            )
        state |= {name: part.state[name] for name in names}
        digest.update(f"{file}\0{part.sha256}\0".encode("utf-8", "surrogatepass"))
    return Checkpoint(state, "", digest.hexdigest())


def _from_safetensors(path: Path, head: bytes, limit: Limit, digest: str, key: str | None) -> Checkpoint:
    if key is not None:
        raise WrongUse(f"{path} holds no set of weights '{key}': safetensors has one set", "leave --weights-key out")
    return Checkpoint(read_safetensors(path, head, limit), "", digest)


def _readable(chosen: WeightSet, path: Path) -> dict[str, StoredTensor | StoredArray]:
    """The tensors of a set; NDError where one of them is of another kind, or may be in an object."""
    for name, value in chosen.entries.items():
        if isinstance(value, OddTensor):
            raise refused(path, f"{name}, {value.kind}")
        if isinstance(value, Unread) and value.tensors:
            raise holds_code(path, value.name)
    return {name: value for name, value in chosen.entries.items() if isinstance(value, StoredTensor | StoredArray)}
