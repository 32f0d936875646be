"""What a run has counted so far, on the disk, so that the same command goes on after a kill.

A hidden folder beside the store holds ``run.json``, which says by contents what the run is of; a file for each phase
of each process, replaced as a whole; and the pieces of what may fire (ndissect.engine.kept), written once. Nothing is
pickled. The folder goes when the store is whole.
"""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ndissect.engine.cells import Cells
from ndissect.engine.data.alone import alone
from ndissect.engine.kept import Kept, Piece
from ndissect.engine.state import State
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.files import atomic, hidden, remedy

_KIND, _VERSION = "ndissect-saved-run", "1"
_RESTART = "--restart throws away what was saved; -o names another output"
_SHOWN = 60
_KEY = "run.json"
# What reading a file that was damaged, or written by something else, may raise.
_UNREADABLE = (OSError, SafetensorError, ValueError, KeyError, TypeError)


def saved_folder(target: Path) -> Path:
    """Where a run that will write ``target`` saves itself: ``.<name>.saved`` beside it."""
    return hidden(target, "saved")


class Saved:
    """The saved state of the run that writes ``target``; ``key``: JSON values that tell what it is of.

    ``process``: which of several this one is; ``room``: bytes that the store will take on the same disk.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], process: int = 0, room: int = 0) -> None:
        self.folder, self._key, self._process, self.room = folder, json.loads(json.dumps(key)), process, room
        self._parts: list[str] = []

    @contextlib.contextmanager
    def held(self, *, restart: bool = False) -> Iterator[None]:
        """Hold the folder for this run, made where it is missing; it stays where something was saved.

        WrongUse where it is of other work, NDError where another run holds it. ``restart``: throw away what is there.
        """
        busy = f"another run is writing to {self.folder.parent / self._target_name()}"
        with contextlib.ExitStack() as stack:
            try:
                self.folder.mkdir(exist_ok=True)
                stack.enter_context(alone(self.folder / "lock", busy))
                if restart or not self._key_file.exists():  # without the key nothing says what the rest is of
                    self.clear()
            except OSError as e:
                why = e.strerror or e
                raise NDError(f"cannot use the folder {self.folder}: {why}", "-o names another output") from e
            stack.callback(self._tidy)  # while it is held: the folder of a run that goes on is not ours to remove
            self._check()
            yield

    def _target_name(self) -> str:
        return self.folder.name.removeprefix(".").removesuffix(".saved")

    def _check(self) -> None:
        """WrongUse where what was saved is of other work than ``key``."""
        there = read_key(self.folder)
        if there is None:
            return
        differ = differences(there, self._key)
        if differ:
            what = f"an unfinished run to {self._target_name()} was of other work: {differ}"
            raise WrongUse(what, _RESTART)

    def phases(self) -> list[int]:
        """The phases that this process has saved."""
        names = (p.name.split(".") for p in self.folder.glob(f"{self._process}.phase*.safetensors"))
        return sorted(int(n[1].removeprefix("phase")) for n in names if n[1].removeprefix("phase").isdigit())

    def load(self, phase: int) -> tuple[dict[str, Any], State] | None:
        """The record and the tensors of ``phase``, None where none can be read."""
        try:
            return _load(self._file(phase))
        except _UNREADABLE:
            return None

    def save(self, phase: int, record: Mapping[str, Any], state: State, kept: Kept | None = None) -> None:
        """Replace what is saved of ``phase``; NDError where the disk does not take it, and the old state stays."""
        if self._process == 0 and not self._key_file.exists():
            whole = {"encoding-type": _KIND, "encoding-version": _VERSION, "key": self._key}
            with _saving(self._key_file) as part:
                part.write_text(json.dumps(whole), encoding="utf-8")
        fresh = [piece for piece in kept.pieces if not piece.saved] if kept else []
        parts = list(self._parts)
        if fresh:
            parts.append(f"{self._process}.kept{len(parts)}.safetensors")
            _store(self.folder / parts[-1], _tensors(fresh), {"images": [piece.images for piece in fresh]})
        _store(self._file(phase), state, {**record, "parts": parts})
        self._parts = parts
        for piece in fresh:
            piece.saved = True

    def pieces(self, record: Mapping[str, Any]) -> Iterator[Piece]:
        """What may fire, as it was saved with ``record``, part after part."""
        self._parts = [str(name) for name in record["parts"]]
        for name in self._parts:
            yield from load_pieces(self.folder / name)

    def clear(self) -> None:
        """Throw away everything that was saved."""
        for path in self.folder.iterdir():
            if path.name != "lock":
                path.unlink()
        self._parts = []

    def remove(self) -> None:
        """The run is over: nothing of it need be saved any more."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _key_file(self) -> Path:
        return self.folder / _KEY

    def _file(self, phase: int) -> Path:
        return self.folder / f"{self._process}.phase{phase}.safetensors"

    def _tidy(self) -> None:
        """Remove the folder again where nothing was saved."""
        with contextlib.suppress(OSError):
            if {path.name for path in self.folder.iterdir()} <= {"lock"}:
                self.remove()


def read_key(folder: Path) -> dict[str, Any] | None:
    """What the run saved in ``folder`` is of; None where there is none, NDError where that cannot be read."""
    try:
        whole = json.loads((folder / _KEY).read_text(encoding="utf-8"))
        if (whole["encoding-type"], whole["encoding-version"]) != (_KIND, _VERSION):
            raise ValueError
        return dict(whole["key"])
    except FileNotFoundError:
        return None
    except _UNREADABLE as e:
        raise NDError(f"what was saved in {folder} cannot be read", _RESTART) from e


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In words what differs: ``layers: layer3 then, layer4 now``; "" where nothing does."""
    said = []
    for name in dict.fromkeys([*saved, *now]):
        a, b = saved.get(name), now.get(name)
        if a == b:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            inner = [n for n in dict.fromkeys([*a, *b]) if a.get(n) != b.get(n)]
            said += [f"{name} {n}: {_short(a.get(n))} then, {_short(b.get(n))} now" for n in inner]
        else:
            said.append(f"{name}: {_short(a)} then, {_short(b)} now")
    return "; ".join(said)


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def load_pieces(path: Path) -> list[Piece]:
    """The pieces of one file; NDError where it cannot be read."""
    try:
        record, tensors = _load(path)
        return [
            Piece([int(i) for i in images], _layers(tensors, number), saved=True)
            for number, images in enumerate(record["images"])
        ]
    except _UNREADABLE as e:
        raise NDError(f"what was saved in {path.parent} cannot be read: {e}", _RESTART) from e


def _tensors(pieces: list[Piece]) -> State:
    found: State = {}
    for number, piece in enumerate(pieces):
        for i, layer in enumerate(piece.layers):
            if isinstance(layer, Cells):
                found[f"{number}.{i}.index"], found[f"{number}.{i}.corners"] = layer.index, layer.corners
                found[f"{number}.{i}.shape"] = torch.tensor(layer.shape)
            else:
                found[f"{number}.{i}.maps"] = layer
    return found


def _layers(tensors: State, number: int) -> list[Cells | Tensor]:
    layers: list[Cells | Tensor] = []
    while True:
        name = f"{number}.{len(layers)}"
        if f"{name}.maps" in tensors:
            layers.append(tensors[f"{name}.maps"])
        elif f"{name}.index" in tensors:
            a, b, c, d = tensors[f"{name}.shape"].tolist()
            layers.append(Cells((a, b, c, d), tensors[f"{name}.index"], tensors[f"{name}.corners"]))
        else:
            return layers


# Files


def _load(path: Path) -> tuple[dict[str, Any], State]:
    with safe_open(str(path), framework="pt") as f:
        return json.loads(f.metadata()["record"]), {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118


def _store(path: Path, state: State, record: Mapping[str, Any]) -> None:
    on_host = {name: t.detach().to("cpu").contiguous() for name, t in state.items()}
    with _saving(path) as part:
        try:
            save_file(on_host, str(part), {"record": json.dumps(record)})
        except SafetensorError as e:  # a failure of the disk, in the words of another language
            full = "os error 28" in str(e) or "No space" in str(e)
            raise OSError(errno.ENOSPC if full else errno.EIO, str(e)) from e


@contextlib.contextmanager
def _saving(path: Path) -> Iterator[Path]:
    """A path whose file replaces ``path``; NDError where the disk does not take it."""
    try:
        with atomic(path) as part:
            yield part
    except NDError as e:
        cause = e.__cause__ if isinstance(e.__cause__, OSError) else None
        why = cause.strerror if cause else e.message
        if cause and cause.errno == errno.ENOSPC:
            why = "the disk is full"
        hint = remedy(cause or OSError(), "choose another output with -o")
        raise NDError(f"cannot save to {path.parent}: {why}", hint) from e
