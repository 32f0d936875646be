"""What the main process and those that decode for it say to each other."""

from __future__ import annotations

import os
import pickle
import struct
import traceback
from dataclasses import dataclass

from ndissect.engine.data.batch_reader import BatchArrays, BatchReader
from ndissect.engine.data.label_arrays import LabelArrays
from ndissect.engine.data.shared_arrays import Placed, SharedArrays
from ndissect.store.errors import NDError

_TASK = struct.Struct("<qq")


@dataclass(frozen=True)
class Job:
    """What all processes get as they start: batch k is of ``images[k * size : (k + 1) * size]``."""

    reader: BatchReader
    images: list[int]
    size: int

    @property
    def batches(self) -> int:
        """How many there are."""
        return -(-len(self.images) // self.size)

    def batch(self, number: int) -> list[int]:
        """The images of batch ``number``."""
        return self.images[number * self.size : (number + 1) * self.size]


@dataclass(frozen=True)
class Task:
    """Read batch ``number`` into the memory ``memory``. Whichever process is free takes the next one from a pipe."""

    number: int
    memory: int

    def give(self, pipe: int) -> None:
        """Put it into ``pipe``, in one piece."""
        os.write(pipe, _TASK.pack(self.number, self.memory))

    @classmethod
    def take(cls, pipe: int) -> Task | None:
        """The next one in ``pipe``; None where nobody will put any there."""
        taken = os.read(pipe, _TASK.size)
        return cls(*_TASK.unpack(taken)) if taken else None


@dataclass(frozen=True)
class Ready:
    """The process has the job."""


@dataclass(frozen=True)
class Begun:
    """The process has taken batch ``number``."""

    number: int


@dataclass(frozen=True)
class Read:
    """A batch that was read: BatchArrays whose arrays lie in shared memory, at the places ``placed``.

    ``pixels``: so many of them are pixels, the others are the labels; ``bytes``: of the memory.
    """

    images: list[int]
    bad: list[tuple[int, NDError]]
    digests: list[int]
    placed: list[Placed]
    pixels: int
    bytes: int

    @classmethod
    def into(cls, memory: SharedArrays, reader: BatchReader, images: list[int]) -> Read:
        """Read these images into ``memory``."""
        memory.clear()
        batch = reader.read_batch(images, memory.empty)
        for array in vars(batch.labels).values():
            memory.put(array)
        return cls(batch.images, batch.bad, batch.digests, memory.placed, len(batch.pixels), memory.bytes)

    def arrays(self, memory: SharedArrays) -> BatchArrays:
        """The batch, whose arrays lie in ``memory``."""
        memory.map(self.bytes)
        views = [memory.view(place) for place in self.placed]
        labels = LabelArrays(*views[self.pixels :])
        return BatchArrays(self.images, self.bad, views[: self.pixels], labels, self.digests)


@dataclass(frozen=True)
class Failed:
    """An error that is not of a single image; ``trace``: where it was raised."""

    error: Exception
    trace: str

    @classmethod
    def by(cls, error: Exception) -> Failed:
        """The answer that says so, whatever ``error`` is."""
        trace = "".join(traceback.format_exception(error))
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # an error that cannot be sent: its text can
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return cls(error, trace)


@dataclass(frozen=True)
class Answer:
    """What became of batch ``number``."""

    number: int
    result: Read | Failed
