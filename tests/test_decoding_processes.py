"""Processes that decode: what they import, what happens when they or the main process end, and that none is left."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cli
import faults
import numpy as np
import pytest
import torch
from broden_factory import Concept, Picture, write_broden

from ndissect.engine.data.broden import Broden
from ndissect.engine.data.decoding_processes import CannotStart, default_workers, processes_of_use
from ndissect.engine.data.formats import open_dataset
from ndissect.engine.data.pack import pack
from ndissect.engine.data.subset import Subset
from ndissect.engine.machine.progress import Progress
from ndissect.engine.networks.layers import list_layers
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.passes.loader import Batch, DecodeIn, Loader
from ndissect.engine.run.dissect import dissect
from ndissect.engine.run.settings import Settings
from ndissect.store.errors import NDError
from ndissect.store.protocol import make_protocol
from ndissect.store.writer import write_store

GRID = 16
CONCEPTS = [Concept(3, "tree"), Concept(4, "car"), Concept(9, "wheel", "part"), Concept(11, "street-s", "scene")]


def decoders(of: int | None = None) -> list[int]:
    """The processes that decode for process ``of``, for this one without."""
    found = []
    for task in Path(f"/proc/{of or os.getpid()}/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has ended
            for child in (task / "children").read_text().split():
                with contextlib.suppress(OSError):
                    if b"decoding_process" in Path(f"/proc/{child}/cmdline").read_bytes():
                        found.append(int(child))
    return found


def runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(autouse=True)
def none_is_left() -> Iterator[None]:
    before = decoders()  # of a test that failed
    yield
    assert decoders() == before


def mixed(folder: Path, images: int = 40) -> Path:
    """Images of two sizes, in runs, with as many label maps as it pleases, and image-level labels."""
    rng = np.random.default_rng(7)
    pictures = []
    for i in range(images):
        maps = [rng.choice([0, 3, 4], (GRID, GRID)).astype(np.uint16) for _ in range([1, 0, 2, 5][i % 4])]
        height = 300 if i // 7 % 2 else 32
        pixels = rng.integers(0, 256, (height, 32, 3), np.uint8)
        pictures.append(Picture({"object": maps} if maps else {}, {"scene": [11] if i % 3 == 0 else []}, pixels=pixels))
    return write_broden(folder, pictures, CONCEPTS, grid=(GRID, GRID))


@pytest.fixture
def data(tmp_path: Path) -> Broden:
    found = open_dataset(mixed(tmp_path / "mixed"))
    assert isinstance(found, Broden)
    return found


def loader(data: Broden, workers: int = 2, decode_in: DecodeIn = "processes") -> Loader:
    return Loader(data, make_protocol(), workers, decode_in=decode_in)


# The same batches


def equal(a: Batch, b: Batch) -> None:
    assert (a.images, a.digest, len(a.pixels)) == (b.images, b.digest, len(b.pixels))
    assert [(n, str(e), type(e)) for n, e in a.bad] == [(n, str(e), type(e)) for n, e in b.bad]
    for ours, theirs in zip((*a.pixels, *vars(a.labels).values()), (*b.pixels, *vars(b.labels).values()), strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("size", [1, 3, 7, 64])
@pytest.mark.parametrize("workers", [1, 3])
def test_threads_processes_and_packs_give_the_same_batches(
    data: Broden, size: int, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ND_CACHE", str(tmp_path / "cache"))
    pack(data)
    packed = open_dataset(data.root)
    assert not isinstance(packed, Broden)
    data.image_path(9).write_bytes(b"no picture")
    order = [*range(len(data)), 3, 2, 1]
    threads, processes = (
        list(loader(data, workers, how).batches(order, size, skip_bad=True)) for how in ("threads", "processes")
    )
    assert [b.images for b in threads] != []
    assert len(threads) == len(processes) == -(-len(order) // size)
    for a, b in zip(threads, processes, strict=True):
        equal(a, b)
    unspoilt = [i for i in order if i != 9]
    ours = list(loader(data, workers).batches(unspoilt, size, skip_bad=False))
    for dataset in (packed, Subset(packed, range(len(data)))):
        theirs = list(Loader(dataset, make_protocol(), workers).batches(unspoilt, size, skip_bad=False))
        for a, b in zip(ours, theirs, strict=True):
            equal(a, b)


def test_a_batch_stays_as_it_is_while_others_are_read(data: Broden) -> None:
    read = loader(data).batches(range(len(data)), 2, skip_bad=False)
    first = next(read)
    before = [tensor.clone() for tensor in (*first.pixels, *vars(first.labels).values())]
    assert sum(1 for _ in read) == 19
    after = (*first.pixels, *vars(first.labels).values())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_jpegs_that_a_gpu_would_decode_are_sent_as_they_are(data: Broden) -> None:
    device = torch.device("cpu")
    ways: tuple[DecodeIn, ...] = ("threads", "processes")
    found = [
        list(Loader(data, make_protocol(), 2, jpeg_on=device, decode_in=how).batches(range(20), 3, skip_bad=False))
        for how in ways
    ]
    for a, b in zip(*found, strict=True):
        equal(a, b)


@pytest.mark.parametrize("memory", [faults.ONE_PASS, faults.MIXED])
def test_a_dissection_is_the_same_whoever_decodes(memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ND_CACHE", str(tmp_path / "cache"))
    faults.write_inputs(tmp_path)
    network, dataset = load_network(f"{tmp_path / 'net.py'}:network"), open_dataset(tmp_path / "small")
    layers = [layer for layer in list_layers(network, (32, 32)) if layer.name in faults.LAYERS]
    protocol, found = make_protocol(q="1/9"), []

    def count(how: DecodeIn, data: object) -> None:
        settings = Settings(batch=5, workers=3, top=3, null=2, decode_in=how)
        settings = replace(settings, memory=type(settings.memory)(memory, memory))
        outcome = dissect(network, data, layers, protocol, settings, Progress())  # type: ignore[arg-type]
        assert outcome.dissection is not None
        store = tmp_path / f"{len(found)}.nd.h5"
        write_store(store, replace(outcome.dissection, provenance={"content_digest": outcome.survey.digest}))
        found.append(faults.numbers(store))

    count("threads", dataset)
    count("processes", dataset)
    assert isinstance(dataset, Broden)
    pack(dataset)
    packed = open_dataset(tmp_path / "small")
    assert not isinstance(packed, Broden)
    count("auto", packed)
    assert found[0] == found[1] == found[2]


# Who decodes


def test_processes_are_used_where_they_are_faster(
    data: Broden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert processes_of_use(data, 10_000, 64, 8) == 8
    assert processes_of_use(data, 10_000, 64, 2) == 0, "the main process works too"
    assert processes_of_use(data, 100, 8, 8) == 0, "they take a while to start"
    assert processes_of_use(data, 600, 150, 8) == 4, "each has a batch"
    assert processes_of_use(Subset(data, range(9)), 10_000, 64, 8) == 8
    with monkeypatch.context() as changed:
        changed.setitem(vars(data), "largest", 100 << 20)
        assert processes_of_use(data, 10_000, 5, 8) == 0, "their batches would fill the memory"
    monkeypatch.setenv("ND_CACHE", str(tmp_path / "cache"))
    pack(data)
    packed = open_dataset(data.root)
    assert processes_of_use(packed, 10_000, 64, 8) == processes_of_use(Subset(packed, range(9)), 10_000, 64, 8) == 0


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 2), (4, 4), (8, 7), (16, 15), (17, 16), (64, 16)])
def test_of_many_cores_one_is_left_to_the_network(cores: int, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert default_workers() == workers
    for name, value in faults.rank_environment(0, 4, 1).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert default_workers() <= max(1, cores // 2), "two runs share them"


class Users(Broden):
    """A data set of a user's own code, which another process would not find."""


def test_a_data_set_that_no_other_process_could_have_is_read_by_threads(data: Broden) -> None:
    for users in (Users(data.root), Subset(Users(data.root), range(len(data)))):
        with pytest.raises(CannotStart):
            list(Loader(users, make_protocol(), 2, decode_in="processes").batches(range(9), 4, skip_bad=False))
        many = list(range(len(data))) * 20
        read = Loader(users, make_protocol(), 4).batches(many, 8, skip_bad=False)
        assert next(read).images == list(range(8))
        assert decoders() == []
        read.close()


def test_without_shared_memory_threads_decode(data: Broden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    read = loader(data, 4, "auto").batches(list(range(len(data))) * 20, 8, skip_bad=False)
    assert next(read).images == list(range(8))
    assert decoders() == []
    read.close()


# Alone with what they need


def test_they_import_no_torch_and_nothing_from_where_nd_was_started(
    data: Broden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for name in ("numpy", "PIL", "pickle", "mmap", "engine", "store", "ndissect", "threading", "sitecustomize"):
        (here / f"{name}.py").write_text(f"open({str(here / 'imported')!r}, 'w').close()\nraise SystemExit(1)\n")
    monkeypatch.chdir(here)
    shared = set(Path("/dev/shm").iterdir())
    read = loader(data).batches(range(len(data)), 2, skip_bad=False)
    assert [next(read).images[0] for _ in range(3)] == [0, 2, 4]
    found = decoders()
    assert len(found) == 2

    def mapped() -> list[str]:
        return [Path(f"/proc/{process}/maps").read_text() for process in found]

    cli.wait_until(lambda: all("numpy" in maps for maps in mapped()))  # both have started
    assert any("memfd:nd-batch" in maps for maps in mapped()), "one of them may have read all so far"
    assert not any("libtorch" in maps or "/dev/shm" in maps for maps in mapped())
    assert set(Path("/dev/shm").iterdir()) == shared
    read.close()
    assert not (here / "imported").exists()


def test_larger_images_may_be_read_there_too(tmp_path: Path) -> None:
    folder = mixed(tmp_path / "large")
    few = open_dataset(folder, max_pixels=1000)
    with pytest.raises(NDError, match="--max-pixels"):
        list(Loader(few, make_protocol(), 2, decode_in="processes").batches(range(40), 8, skip_bad=False))


# Ends


def test_files_are_closed_and_memory_is_given_back(data: Broden) -> None:
    list(loader(data).batches(range(9), 2, skip_bad=False))

    gc.collect()  # what errors of other tests have in their frames

    def held() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), Path("/proc/self/maps").read_text().count("nd-batch")

    before = held()
    for _ in range(3):
        list(loader(data).batches(range(9), 2, skip_bad=False))
        read = loader(data).batches(range(9), 2, skip_bad=False)
        next(read)
        read.close()
    assert held() == before
    assert before[1] == 0


@pytest.mark.parametrize("kind", [KeyboardInterrupt, NDError, ZeroDivisionError])
def test_an_error_of_who_reads_ends_them(data: Broden, kind: type[BaseException]) -> None:
    with pytest.raises(kind), contextlib.closing(loader(data).batches(range(40), 2, skip_bad=False)) as read:
        for _ in read:
            assert len(decoders()) == 2
            raise kind("enough")


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGBUS, signal.SIGSEGV])
def test_one_that_is_killed_is_an_error_that_says_what_to_do(data: Broden, by: signal.Signals) -> None:
    read = loader(data).batches(range(40), 2, skip_bad=False)
    next(read)
    os.kill(decoders()[1], by)
    with pytest.raises(NDError) as raised:
        list(read)
    assert f"was killed by signal {by.value} while it read images " in raised.value.message
    assert "fewer --workers" in raised.value.hint


def test_signals_that_end_the_main_process_are_not_theirs(data: Broden) -> None:
    read = loader(data).batches(range(40), 2, skip_bad=False)
    next(read)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        for process in decoders():
            os.kill(process, number)
    assert sum(len(batch) for batch in read) == 38


def test_an_error_that_is_none_of_an_image_comes_back_with_where_it_was_raised(data: Broden) -> None:
    data._known = None  # type: ignore[assignment]
    with pytest.raises(TypeError, match="NoneType") as raised:
        list(loader(data).batches(range(40), 2, skip_bad=False))
    assert "check_label" in str(raised.value.__cause__)
    assert "Traceback" in str(raised.value.__cause__)


def test_memory_that_is_not_there_is_an_error_that_says_what_to_do(data: Broden) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512 << 10, before[1]))
    try:
        with pytest.raises(NDError, match="no memory for a batch of decoded images, 1 MB") as raised:
            list(loader(data).batches(range(40), 2, skip_bad=False))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "--batch-size" in raised.value.hint


# The whole command

OUT = "out.nd.h5"
IMAGES = 600
RUN = (
    *("dissect", "slow.py:network", "-d", "small", "-l", "first", "-b", "8", "--workers", "3"),
    *("--top", "3", "--null", "0", "-o", OUT),
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    faults.write_inputs(folder, IMAGES)
    (folder / "slow.py").write_text(faults.STOPPING)
    return folder


def gone(processes: list[int]) -> Callable[[], bool]:
    return lambda: not any(map(runs, processes))


@pytest.mark.parametrize(
    ("by", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)]
)
def test_however_the_command_ends_no_process_is_left(inputs: Path, by: signal.Signals, code: int) -> None:
    with faults.held(inputs, *RUN, "--restart", STOP_AT="3") as command:
        found = decoders(command.process.pid)
        assert len(found) == 3
        command.signal(by)
        if by == signal.SIGKILL:
            cli.wait_until(gone(found), 10)
    done = command.end()
    assert done.returncode == code, done.stderr
    cli.wait_until(gone(found), 10)
    assert not (inputs / OUT).exists()


def test_ctrl_c_on_a_terminal_reaches_all_and_ends_all(inputs: Path) -> None:
    here = inputs / "here"
    with cli.Terminal(*RUN, "--restart", folder=inputs, env={"STOP_AT": "3"}) as terminal:
        while not here.exists():
            terminal._read()
        found = decoders(terminal.process.pid)
        assert len(found) == 3
        terminal.type("\x03")
        time.sleep(0.2)
        assert all(map(runs, found)), "the batches on the way are still read"
        here.unlink()
        terminal.wait_for("go on: nd")
    assert terminal.code == 130
    assert "Traceback" not in terminal.text
    assert gone(found)()


def test_after_one_was_killed_the_same_command_goes_on_to_the_same_counts(inputs: Path) -> None:
    done = faults.nd_in(inputs, *RUN, "--restart")
    assert done.returncode == 0, done.stderr
    whole = faults.numbers(inputs / OUT)
    (inputs / OUT).unlink()

    assert faults.stopped(inputs, *RUN, "--restart", STOP_AT="4").returncode == 143
    with faults.held(inputs, *RUN, STOP_AT="8") as command:
        found = decoders(command.process.pid)
        os.kill(found[0], signal.SIGKILL)
    done = command.end()
    assert done.returncode == 1
    cli.two_lines("\n".join(done.stderr.splitlines()[-2:]), "was killed by signal 9", "the same command goes on")
    cli.wait_until(gone(found), 10)

    done = faults.nd_in(inputs, *RUN)
    assert done.returncode == 0, done.stderr
    assert "note: going on after" in done.stderr
    assert faults.numbers(inputs / OUT) == whole
    (inputs / OUT).unlink()
    done = faults.nd_in(inputs, *RUN[:-2], "--workers", "1", "-o", OUT)
    assert done.returncode == 0, done.stderr
    assert faults.numbers(inputs / OUT) == whole, "as threads count"
