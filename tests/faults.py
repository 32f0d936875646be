"""Dissections in processes of their own, to be killed at any moment.

A fork server has torch imported, so that such a process takes a moment to start, not seconds:

    with Running(Work(folder, data, spec)) as run:
        run.until(7)  # the seventh thing that it tells
        run.kill()
    run.told, run.code

``nd_in`` runs the whole command line in such a process, ``run_ranks`` a dissection in several that count together.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import cli
import h5py
import numpy as np
from broden_factory import Concept, Picture, write_broden
from networks_factory import EXACT, write_network

GRID, IMAGES, BATCH = 16, 24, 2
LAYERS = ("first", "second")
#: Memory with which all that may fire is kept; a part of it; the thresholds of one layer; not even those.
ONE_PASS, SECOND_PASS, MIXED, RADIX = 1 << 30, 30_000, 12_000, 100

_PROCESSES = multiprocessing.get_context("forkserver")
# Starting a process looks which others have ended, and reads an exit code that can be read only once: two threads at
# it, and one of them takes the code for 255.
_EXIT_CODES = threading.Lock()
_PROCESSES.set_forkserver_preload(
    [
        "ndissect.engine.run.execution",
        "ndissect.engine.run.merged_store",
        "ndissect.engine.run.to_store",
        "ndissect.store.live",
        "ndissect.store.writer",
        "ndissect.tui.cli.console",
        "ndissect.tui.cli.dissect",
        "ndissect.tui.cli.inspect",
        "ndissect.tui.cli.main",
        "ndissect.tui.cli.merge",
        "ndissect.tui.cli.status",
        "ndissect.tui.cli.progress",
        "ndissect.tui.cli.store_summary",
        "ndissect.tui.tables.views",
        "torch.distributed.distributed_c10d",
    ]
)


def write_inputs(folder: Path, images: int = IMAGES) -> Path:
    """``folder`` with the data set ``small`` and the network ``net.py:network``, whose activations are exact."""
    rng = np.random.default_rng(4)
    pictures = [
        Picture(
            maps={
                "object": rng.choice([0, 3, 4], (GRID, GRID)).astype(np.uint16),
                "part": rng.choice([0, 0, 9], (GRID, GRID)).astype(np.uint16),
            },
            labels={"scene": [11] if i % 3 == 0 else []},
        )
        for i in range(images)
    ]
    concepts = [Concept(3, "tree"), Concept(4, "car"), Concept(9, "wheel", "part"), Concept(11, "street-s", "scene")]
    write_broden(folder / "small", pictures, concepts, grid=(GRID, GRID))
    write_network(folder, EXACT)
    return folder


def numbers(store: Path) -> dict[str, bytes]:
    """Every array and attribute of a store, and the digest of the images that it was counted of; not its history."""
    found: dict[str, bytes] = {}

    def keep(name: str, item: Any) -> None:
        for key, value in item.attrs.items():
            found[f"{name}@{key}"] = np.asarray(value).tobytes()
        if isinstance(item, h5py.Dataset) and name != "provenance":
            found[name] = np.asarray(item[()]).tobytes()

    with h5py.File(store) as file:
        file.visititems(keep)
        keep("", file)
        provenance = bytes(file["provenance"][()])
    found["content digest"] = provenance.partition(b'"content_digest": "')[2][:32]
    assert len(found["content digest"]) == 32
    assert len(found) > 30
    return found


# Of a network that stops at the forward pass STOP_AT for as long as a file is there, which it makes: a place to be
# killed, or to look around. Of several processes each has a file of its own.
STOPPING = f"""
import os, time
from pathlib import Path

from net import network as whole


def network():
    made, transform = whole()
    calls, here = iter(range(10**6)), Path("here" + os.environ.get("RANK", ""))
    # One call looks at the layers, some try the network: STOP_AT counts those of the run, from 1.
    at = int(os.environ.get("STOP_AT", -1)) + {cli.EXAMINED}

    def wait(*given):
        if next(calls) == at and "STOP_AT" in os.environ:
            here.touch()
            while here.exists():
                time.sleep(0.01)

    made.first.register_forward_hook(wait)
    return made, transform
"""


# Processes


@dataclass(frozen=True)
class Told:
    """What a dissection tells of itself: ``what`` happened in ``phase``, ``done`` images into it."""

    what: str
    phase: str
    done: int = 0
    text: str = ""


@dataclass(frozen=True)
class Work:
    """A dissection of the inputs in ``folder``; its state and its store ``out.nd.h5`` go to ``target``.

    ``pause``: seconds after each batch; ``die_at``: the sync to disk, of all that it makes, at which it kills itself;
    ``stay``: it never ends by itself, but waits to be killed once its store is written; ``rank`` of ``size`` processes
    that meet at ``port``.
    """

    inputs: Path
    target: Path
    memory: int = ONE_PASS
    pause: float = 0.01
    save_every: float = 0.0
    die_at: int | None = None
    stay: bool = False
    rank: int = 0
    size: int = 1
    port: int = 0

    @property
    def store(self) -> Path:
        """What it writes."""
        return self.target / "out.nd.h5"

    @property
    def state(self) -> Path:
        """Where it saves itself."""
        return self.target / ".out.nd.h5.saved"


class Running:
    """A process that does ``work`` from ``with`` on, and is gone at its end."""

    def __init__(self, work: Work) -> None:
        self._theirs: Connection
        self._ours, self._theirs = _PROCESSES.Pipe(duplex=False)
        self.told: list[Told] = []
        self.process = _PROCESSES.Process(target=_dissect, args=(work, self._theirs))

    def __enter__(self) -> Running:
        with _EXIT_CODES:
            self.process.start()
        self._theirs.close()
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            self.process.kill()
        self.until(None)
        wait([self.process.sentinel], 60)
        self._ours.close()

    @property
    def code(self) -> int:
        """The exit code, -9 after a kill."""
        with _EXIT_CODES:
            code = self.process.exitcode
        assert code is not None
        return code

    def until(self, count: int | Callable[[Told], bool] | None) -> bool:
        """Listen until it has told so much, or of what is looked for; False where it ended before that."""
        while True:
            if isinstance(count, int) and len(self.told) >= count:
                return True
            try:
                if not self._ours.poll(60):
                    raise TimeoutError(str(self.told[-3:]))
                self.told.append(self._ours.recv())
            except (EOFError, OSError):
                return False
            if callable(count) and count(self.told[-1]):
                return True

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()

    def all(self, what: str) -> list[Told]:
        """Everything of one kind that it told."""
        return [t for t in self.told if t.what == what]


def finish(work: Work) -> Running:
    """``work`` done to its end, whichever that is."""
    with Running(work) as running:
        pass
    return running


@contextlib.contextmanager
def _killed_at(sync: int | None) -> Iterator[None]:
    """Kill this process at its ``sync``-th call of fsync: the even ones come before a file gets its name."""
    calls, fsync = iter(range(10**9)), os.fsync

    def counted(fd: Any) -> None:
        if next(calls) == sync:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.001)  # a slow disk: kills meet it at work
        fsync(fd)

    os.fsync = counted
    try:
        yield
    finally:
        os.fsync = fsync


def _dissect(work: Work, told: Connection) -> None:
    """What such a process does: the engine's part of ``nd dissect``, saving itself all the time."""
    import torch

    from ndissect.engine.data.formats import open_dataset
    from ndissect.engine.machine.memory import Budget
    from ndissect.engine.machine.progress import Progress
    from ndissect.engine.machine.ranks import join
    from ndissect.engine.networks.layers import list_layers
    from ndissect.engine.networks.resolve import load_network
    from ndissect.engine.run.dissect import dissect
    from ndissect.engine.run.provenance import identity
    from ndissect.engine.run.saved_run import SavedRun
    from ndissect.engine.run.settings import Settings
    from ndissect.store.errors import NDError
    from ndissect.store.paused import saved_folder
    from ndissect.store.protocol import make_protocol
    from ndissect.store.writer import write_store

    class Telling(Progress):
        phase, done, tallies = "", 0, 0

        def start(self, phase: str, total: int, done: int = 0) -> None:
            self.tallies += phase == "tally"
            self.phase, self.done = f"{phase} {self.tallies}" if phase == "tally" else phase, done
            told.send(Told("start", self.phase, done))

        def advance(self, images: int) -> None:
            self.done += images
            told.send(Told("advance", self.phase, self.done))
            time.sleep(work.pause)

        def note(self, text: str) -> None:
            told.send(Told("note", self.phase, self.done, text))

    class Watched(SavedRun):
        def save(self, phase: int, record: Mapping[str, Any], *rest: Any) -> None:
            told.send(Told("saving", str(phase), record["done"]))
            super().save(phase, record, *rest)
            told.send(Told("saved", str(phase), record["done"]))

        def load(self, phase: int) -> Any:
            found = super().load(phase)
            if found is not None:
                told.send(Told("loaded", str(phase), found[0]["done"]))
            return found

    torch.set_num_threads(1)
    if work.size > 1:
        os.environ.update(rank_environment(work.rank, work.size, work.port))
    progress = Telling()
    try:
        network, dataset = load_network(f"{work.inputs / 'net.py'}:network"), open_dataset(work.inputs / "small")
        layers = [i for i in list_layers(network, (32, 32)) if i.name in LAYERS]
        settings = Settings(
            batch=BATCH,
            workers=1,
            top=3,
            skip_bad=True,
            memory=Budget(work.memory, work.memory),
            save_every=work.save_every,
            null=2,
        )
        protocol = make_protocol(q="1/9")
        with _killed_at(work.die_at), join(30) as ranks, contextlib.ExitStack() as stack:
            key = identity(network, dataset, LAYERS, protocol, settings) | {"processes": work.size}
            saved = Watched(saved_folder(work.store), key, work.rank)
            if work.rank == 0:
                stack.enter_context(saved.held())
            ranks.gather(None)
            outcome = dissect(network, dataset, layers, protocol, settings, progress, saved=saved, ranks=ranks)
            if outcome.dissection is not None:
                about = {"content_digest": outcome.survey.digest}
                write_store(work.store, replace(outcome.dissection, provenance=about))
            if work.stay:
                told.send(Told("staying", progress.phase))
                signal.pause()
            if outcome.dissection is not None:
                saved.remove()
    except NDError as e:
        told.send(Told("error", progress.phase, progress.done, f"{e.message}\n{e.hint}"))
        sys.exit(1)
    told.send(Told("end", ""))


# The command line


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


class Command:
    """``nd args`` in ``folder`` in a process of the fork server.

    ``env``: more of the environment; ``largest``: bytes that a file may have.
    """

    def __init__(
        self, *args: str, folder: Path, env: Mapping[str, str] | None = None, largest: int | None = None
    ) -> None:
        self._said = [folder / f".{name}-{time.monotonic_ns()}" for name in ("stdout", "stderr")]
        self.process = _PROCESSES.Process(target=_nd, args=(args, folder, dict(env or {}), self._said, largest))
        with _EXIT_CODES:
            self.process.start()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    @property
    def stderr(self) -> str:
        """What it has said so far."""
        return self._said[1].read_text("utf-8") if self._said[1].exists() else ""

    @property
    def code(self) -> int | None:
        """The exit code, None while it runs."""
        with _EXIT_CODES:
            return self.process.exitcode

    def end(self, timeout: float = 60) -> Ended:
        """Wait for its end."""
        wait([self.process.sentinel], timeout)
        code = self.code
        if code is None:
            self.process.kill()
            raise TimeoutError(self.stderr)
        out, err = (path.read_text("utf-8") for path in self._said)
        for path in self._said:
            path.unlink()
        return Ended(code, out, err)


@contextlib.contextmanager
def held(folder: Path, *args: str, **env: str) -> Iterator[Command]:
    """``nd args`` while it stands in a forward pass of :data:`STOPPING`'s network; it goes on after the block."""
    command, here = Command(*args, folder=folder, env=env), folder / "here"
    cli.wait_until(lambda: here.exists() or command.code is not None)
    assert here.exists(), command.stderr
    try:
        yield command
    finally:
        here.unlink()


def stopped(folder: Path, *args: str, by: signal.Signals = signal.SIGTERM, **env: str) -> Ended:
    """``nd args`` that got a signal in such a forward pass."""
    with held(folder, *args, **env) as command:
        command.signal(by)
    return command.end()


def nd_in(folder: Path, *args: str, timeout: float = 60, **more: Any) -> Ended:
    """``nd args`` in ``folder``, run to its end."""
    return Command(*args, folder=folder, **more).end(timeout)


def _nd(args: Sequence[str], folder: Path, env: Mapping[str, str], said: Sequence[Path], largest: int | None) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in enumerate(said, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644), number)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb"), encoding="utf-8", line_buffering=True)
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb"), encoding="utf-8", line_buffering=True)
    os.chdir(folder)
    environment = cli.environment(folder, env)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["nd", *args]
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    import torch

    from ndissect.tui.cli.main import main

    torch.set_num_threads(1)
    main()


# Several processes that count together


def free_port() -> int:
    """A port at which ranks can meet."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def rank_environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun tells each of the processes that it starts."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def run_ranks(work: Work, size: int) -> list[Work]:
    """The same work for ``size`` processes."""
    port = free_port()
    return [replace(work, rank=rank, size=size, port=port) for rank in range(size)]


def finish_together(works: Sequence[Work]) -> list[Running]:
    """All of ``works`` done at once, to their ends."""
    with contextlib.ExitStack() as stack:
        return [stack.enter_context(Running(work)) for work in works]
