"""Batches read by processes of their own: decoding that does not wait for the interpreter, nor lets others wait for it.

Whichever process is free reads the next batch, into shared memory; batches are handed over in order. There are tasks as
long as there is memory that no batch uses. What goes through pipes is small.

Why not the DataLoader of torch: each of its workers imports torch, and its batches go through /dev/shm, which is small
in containers. Nor TorchCodec or nvImageCodec: they decode photographs, but much of the work here is label maps, areas
and presence.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from multiprocessing.connection import Connection, wait
from types import FunctionType
from typing import Any

from ndissect.engine.data.batch_reader import BatchArrays, BatchReader
from ndissect.engine.data.dataset import ConceptDataset, is_mapped
from ndissect.engine.data.decoding_messages import Answer, Begun, Failed, Job, Read, Task
from ndissect.engine.data.shared_arrays import OnMap, SharedArrays, new_memory
from ndissect.engine.machine.torchrun import processes_here
from ndissect.store.errors import NDError

# Fewer images are decoded by threads in the time that processes take to start, fewer processes are no faster.
_FEW_IMAGES, _FEW_PROCESSES = 512, 3
# Batches that may lie in memory beside those that are being read, and what all of them may take.
_SPARE, _MOST_BYTES = 3, 2 << 30
# Signals that end the main process, which ends the others.
_NOT_THEIRS = {getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)}
# The libraries under numpy would start a thread for each core, in every process.
_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
# Modules that another process finds without a user's paths.
_FINDABLE = frozenset({"ndissect", "numpy", *sys.stdlib_module_names}) - {"__main__"}
_MODULE = "ndissect.engine.data.decoding_process"


class CannotStart(Exception):
    """There can be no such processes here, or not for this data set."""


class _RaisedThere(Exception):
    """Where an error was raised in the other process: the cause of the same error here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


@dataclass(frozen=True)
class Delivered:
    """A batch whose arrays lie in shared memory until ``release`` is called: then others take their place."""

    arrays: BatchArrays
    release: Callable[[], None]


def default_workers() -> int:
    """How many threads or processes decode where nobody says: one a core, of many cores one less, at most 16.

    Runs that ``torchrun`` started on this machine share the cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    mine = max(1, cores // processes_here())
    return min(16, mine - 1 if mine >= 8 else mine)


def processes_that_fit(dataset: ConceptDataset, images: int, size: int, workers: int) -> int:
    """Of ``workers`` processes as many as have a batch of ``size`` to read, and memory to read it into; at least 1."""
    batches = -(-images // size)
    memory = _MOST_BYTES // max(1, size * dataset.largest) - _SPARE
    return max(1, min(workers, batches, memory))


def processes_of_use(dataset: ConceptDataset, images: int, size: int, workers: int) -> int:
    """How many processes should read so many images in batches of ``size``; 0 where threads are as fast."""
    if images < _FEW_IMAGES or is_mapped(dataset):
        return 0
    count = processes_that_fit(dataset, images, size, workers)
    return count if count >= _FEW_PROCESSES else 0


class DecodingProcesses:
    """``count`` processes that read ``images`` in batches of ``size``.

    ``on_map``: told where shared memory is mapped in this process. CannotStart where the system has no such processes,
    and where another process could not have the data set.
    """

    def __init__(
        self, reader: BatchReader, images: Sequence[int], size: int, count: int, on_map: OnMap | None = None
    ) -> None:
        self._job = Job(reader, list(images), size)
        self._processes: dict[Connection, subprocess.Popen[bytes]] = {}
        self._begun: dict[Connection, int] = {}
        self._memory_of: dict[int, int] = {}
        self._results: dict[int, Read | Failed] = {}
        job = _pickled(self._job)
        try:
            with contextlib.ExitStack() as stack:
                self._start(stack, job, count, on_map)
                self._open = stack.pop_all()
        except (OSError, EOFError) as error:
            raise CannotStart(str(error)) from error

    def _start(self, stack: contextlib.ExitStack, job: bytes, count: int, on_map: OnMap | None) -> None:
        job_file = _memory_file(stack)
        _write(job_file, job)
        files = [_memory_file(stack) for _ in range(count + _SPARE)]
        self._memory = [SharedArrays(file, on_map) for file in files]
        for memory in self._memory:
            stack.callback(memory.unmap)
        self._free = deque(range(len(files)))
        tasks, self._tasks = _pipe(stack)
        lifeline, _ = _pipe(stack)  # the processes end when nobody has the other end of it
        for _ in range(count):
            connection, process = _start_process(stack, [tasks, lifeline, job_file, *files])
            self._processes[connection] = process
        self._ask()
        next(iter(self._processes)).recv()  # that one has started

    def batches(self) -> Generator[Delivered, None, None]:
        """All batches in order. Afterwards, and when it is closed, the processes are gone.

        NDError where a process ends before its time, or has not the memory; any other error that was raised there.
        """
        with self._open:
            for number in range(self._job.batches):
                yield self._receive(number)

    def _ask(self) -> None:
        """Give out as many tasks as there is memory for."""
        while self._free and len(self._memory_of) < self._job.batches:
            task = Task(len(self._memory_of), self._free.popleft())
            self._memory_of[task.number] = task.memory
            task.give(self._tasks)

    def _receive(self, number: int) -> Delivered:
        while number not in self._results:
            for connection in wait(list(self._processes)):
                assert isinstance(connection, Connection)
                self._hear(connection, number)
        result, memory = self._results.pop(number), self._memory_of[number]
        if isinstance(result, Failed):
            raise result.error from _RaisedThere(result.trace)
        return Delivered(result.arrays(self._memory[memory]), partial(self._release, memory))

    def _hear(self, connection: Connection, waited_for: int) -> None:
        """Take one message; NDError where the process has ended."""
        try:
            said = connection.recv()
        except (EOFError, OSError) as error:  # between two messages, or in one
            raise self._ended(self._processes[connection], self._begun.get(connection, waited_for)) from error
        if isinstance(said, Begun):
            self._begun[connection] = said.number
        elif isinstance(said, Answer):
            self._results[said.number] = said.result

    def _release(self, memory: int) -> None:
        self._free.append(memory)
        self._ask()

    def _ended(self, process: subprocess.Popen[bytes], number: int) -> NDError:
        try:
            code = process.wait(10)
        except subprocess.TimeoutExpired:  # it says nothing any more, and yet it runs
            process.kill()
            code = process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        images = self._job.batch(number)
        return NDError(
            f"a process that decodes images {how} while it read images {images[0]} to {images[-1]}",
            "if memory was short, give fewer --workers; the same command goes on from what was saved",
        )


class _Findable(pickle.Pickler):
    """Refuses what another process could not import: a data set of a user's own code."""

    def reducer_override(self, item: Any) -> Any:
        module = item.__module__ if isinstance(item, (type, FunctionType)) else type(item).__module__
        if str(module).partition(".")[0] not in _FINDABLE:
            raise pickle.PicklingError(f"{module} may not be found by another process")
        return NotImplemented


def _pickled(job: Job) -> bytes:
    written = BytesIO()
    try:
        _Findable(written, pickle.HIGHEST_PROTOCOL).dump(job)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise CannotStart(str(error)) from error
    return written.getvalue()


def _memory_file(stack: contextlib.ExitStack) -> int:
    file = new_memory()
    stack.callback(os.close, file)
    return file


def _write(file: int, data: bytes) -> None:
    with open(file, "wb", closefd=False) as stream:
        stream.write(data)


def _pipe(stack: contextlib.ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        stack.callback(os.close, end)
    return ends


def _start_process(stack: contextlib.ExitStack, files: Sequence[int]) -> tuple[Connection, subprocess.Popen[bytes]]:
    """A process that is gone when ``stack`` is closed, and where it answers."""
    if getattr(sys, "frozen", False) or not sys.executable:  # a program that is no interpreter
        raise OSError("there is no Python to start")
    ours, theirs = socket.socketpair()
    connection = stack.enter_context(Connection(ours.detach()))
    passed = [theirs.fileno(), *files]
    # -P: a numpy.py in the folder where nd was started is not meant. Else as this process finds its modules.
    flags = ["-P", *(["-E"] if sys.flags.ignore_environment else []), *(["-s"] if sys.flags.no_user_site else [])]
    with theirs, _blocked_signals():
        process = subprocess.Popen(
            [sys.executable, *flags, "-m", _MODULE, *map(str, passed)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # what goes wrong there is sent
            env={**os.environ, **_ONE_THREAD},
            pass_fds=passed,
        )
        stack.callback(_end, process)
    return connection, process


@contextlib.contextmanager
def _blocked_signals() -> Iterator[None]:
    """Processes that are started in the block do not get the signals that end the main one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_THEIRS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(process: subprocess.Popen[bytes]) -> None:
    """It has nothing that could be lost."""
    process.kill()
    process.wait()
