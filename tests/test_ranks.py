"""One dissection by several processes, or in shards by several jobs: the counts of one process, bit for bit."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cli
import faults
import pytest
from cli import wait_until
from faults import (
    Command,
    Ended,
    Running,
    Work,
    finish,
    finish_together,
    held,
    nd_in,
    numbers,
    run_ranks,
    stopped,
)

from ndissect.engine.machine import torchrun as torchrun_says

FORMS = {
    "one pass": faults.ONE_PASS,
    "second pass": 22_000,  # some images of each
    "one layer in one pass": faults.MIXED,
    "radix": faults.RADIX,
}
OUT = "out.nd.h5"
RUN = ("dissect", "slow.py:network", "-d", "small", "-l", "first", "-l", "second", "-b", "2", "--top", "3", "-o", OUT)


@pytest.fixture(scope="module")
def alone(stoppable_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The numbers of one process."""
    work = Work(stoppable_inputs, tmp_path_factory.mktemp("alone"), pause=0.0)
    assert finish(work).code == 0
    return numbers(work.store)


# Ranks


@pytest.mark.parametrize(
    ("form", "size"), [*((form, 2) for form in FORMS), ("second pass", 3), ("one layer in one pass", 3)]
)
def test_ranks_count_what_one_process_counts(
    form: str, size: int, stoppable_inputs: Path, tmp_path: Path, alone: dict[str, bytes]
) -> None:
    work = Work(stoppable_inputs, tmp_path, FORMS[form], pause=0.0)
    runs = finish_together(run_ranks(work, size))
    assert [run.code for run in runs] == [0] * size, [run.told[-1] for run in runs]
    phases = [t.phase for t in runs[0].all("start")]
    expected = {
        "one pass": ["thresholds", "tally 1"],
        "second pass": ["thresholds", "tally 1", "tally 2"],
        "one layer in one pass": ["thresholds 1/3", "thresholds 2/3", "thresholds 3/3", "tally 1"],
        "radix": ["thresholds 1/3", "thresholds 2/3", "thresholds 3/3", "tally 1"],
    }
    assert phases == expected[form]
    assert numbers(work.store) == alone
    assert [p.name for p in tmp_path.iterdir()] == [OUT]


def test_ranks_with_unequal_memory_make_equal_passes(
    stoppable_inputs: Path, tmp_path: Path, alone: dict[str, bytes]
) -> None:
    work = Work(stoppable_inputs, tmp_path, pause=0.0)
    first, second = run_ranks(work, 2)
    runs = finish_together([first, replace(second, memory=faults.RADIX)])
    assert [run.code for run in runs] == [0, 0], [run.told[-1] for run in runs]
    assert numbers(work.store) == alone


def test_more_ranks_than_images(tmp_path: Path) -> None:
    inputs = faults.write_inputs(tmp_path / "few", images=2)
    work = Work(inputs, tmp_path / "few", pause=0.0)
    assert finish(work).code == 0
    expected = numbers(work.store)
    runs = finish_together(run_ranks(work, 3))
    assert [run.code for run in runs] == [0, 0, 0], [run.told[-1] for run in runs]
    assert numbers(work.store) == expected


def told_to_the_end(runs: list[Running]) -> None:
    """Those that went on while another died must say so, and what to do."""
    for run in runs:
        assert run.code == 1, run.told[-1]
        assert "another process of this run ended before its time" in run.told[-1].text
        assert "the same command goes on from what was saved" in run.told[-1].text


# The form, the rank that dies, and after what it has told: a saving of a phase, so many images into it.
DEATHS = [
    ("one pass", 0, "0", 6),
    ("one pass", 1, "0", 12),
    ("second pass", 1, "1", 4),
    ("one layer in one pass", 1, "1", 6),
    ("one layer in one pass", 0, "3", 6),
    ("radix", 0, "2", 4),
]


@pytest.mark.parametrize(("form", "dies", "phase", "done"), DEATHS)
def test_a_rank_that_dies_stops_the_others_and_the_same_command_goes_on(
    form: str, dies: int, phase: str, done: int, stoppable_inputs: Path, tmp_path: Path, alone: dict[str, bytes]
) -> None:
    work = Work(stoppable_inputs, tmp_path, FORMS[form])
    with contextlib.ExitStack() as stack:
        runs = [stack.enter_context(Running(one)) for one in run_ranks(work, 2)]
        assert runs[dies].until(lambda t: (t.what, t.phase) == ("saved", phase) and t.done >= done), runs[dies].told
        runs[dies].kill()
        killed = time.monotonic()
        runs[1 - dies].until(None)
        assert time.monotonic() - killed < 20, "not after the half hour that the slowest may take"
    assert runs[dies].code == -9
    told_to_the_end([runs[1 - dies]])
    assert not work.store.exists()
    again = finish_together(run_ranks(work, 2))
    assert [run.code for run in again] == [0, 0], [run.told[-1] for run in again]
    assert numbers(work.store) == alone
    phases = {int(run.all("loaded")[-1].phase) for run in again}
    assert phases in ({int(phase)}, {int(phase) - 1}), "they meet in one phase: the last that both have saved"
    loaded = again[dies].all("loaded")[-1]
    assert loaded.phase != phase or loaded.done >= done


def test_all_ranks_killed_at_random_moments_go_on_to_identical_counts(
    stoppable_inputs: Path, tmp_path: Path, alone: dict[str, bytes]
) -> None:
    """As a job is killed: each process somewhere else."""
    chance, resumed = random.Random(3), 0
    for number, form in enumerate(FORMS):
        target = tmp_path / str(number)
        target.mkdir()
        work = Work(stoppable_inputs, target, FORMS[form])
        with contextlib.ExitStack() as stack:
            # However busy the machine, none of them ends before it is killed.
            runs = [stack.enter_context(Running(replace(one, stay=True))) for one in run_ranks(work, 2)]
            runs[0].until(chance.randrange(8, 32))
            for run in chance.sample(runs, 2):
                run.process.join(chance.random() * 0.05)
                run.kill()
        codes = {run.code for run in runs}
        assert -9 in codes
        assert codes <= {-9, 1}, "the one that lived longer may have noticed"
        again = finish_together(run_ranks(work, 2))
        assert [run.code for run in again] == [0, 0], [run.told[-1] for run in again]
        assert numbers(work.store) == alone
        resumed += bool(again[0].all("loaded"))
    assert resumed >= 2


# Ranks of the command line


@pytest.fixture
def folder(stoppable_inputs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stoppable_inputs, tmp_path, dirs_exist_ok=True))


@pytest.fixture(scope="module")
def whole(stoppable_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The numbers of one ``nd dissect``."""
    folder = Path(shutil.copytree(stoppable_inputs, tmp_path_factory.mktemp("whole"), dirs_exist_ok=True))
    done = nd_in(folder, *RUN)
    assert done.returncode == 0, done.stderr
    return numbers(folder / OUT)


def commands(folder: Path, size: int, *args: str, **env: str) -> list[Command]:
    """The command by ``size`` processes."""
    port = faults.free_port()
    return [Command(*args, folder=folder, env=faults.rank_environment(r, size, port) | env) for r in range(size)]


def by_ranks(folder: Path, size: int, *args: str) -> list[Ended]:
    return [command.end() for command in commands(folder, size, *args)]


def wait_for(*paths: Path) -> None:
    wait_until(lambda: all(path.exists() for path in paths))


def test_one_of_two_processes_speaks_and_writes_what_one_writes(folder: Path, whole: dict[str, bytes]) -> None:
    first, second = by_ranks(folder, 2, *RUN)
    assert (first.returncode, second.returncode) == (0, 0), (first.stderr, second.stderr)
    assert "on cpu, 2 processes" in first.stderr
    assert first.stdout.startswith("layer\t")
    assert (second.stdout, second.stderr) == ("", "")
    assert numbers(folder / OUT) == whole
    first, second = by_ranks(folder, 2, *RUN)
    assert "holds this dissection already" in first.stderr
    assert first.stdout.startswith("layer\t")
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")


def test_what_two_processes_have_saved_is_refused_by_one(folder: Path, whole: dict[str, bytes]) -> None:
    """Batch systems signal every process, and torchrun those that it has started: most hear of it twice."""
    running = commands(folder, 2, *RUN, STOP_AT="4")
    here = [folder / "here0", folder / "here1"]
    wait_for(*here)
    for _ in range(2):
        for command in running:
            command.signal(signal.SIGTERM)
        time.sleep(0.05)
    for path in here:
        path.unlink()
    for done in (command.end() for command in running):
        assert done.returncode == 143, done.stderr
        last = "\n".join(done.stderr.splitlines()[-2:])
        cli.two_lines(last, "stopped by SIGTERM; what was counted is saved", "by as many processes")
    alone = nd_in(folder, *RUN)
    assert alone.returncode == 2
    cli.two_lines("\n".join(alone.stderr.splitlines()[-2:]), "processes: 2 then, 1 now", "--restart")
    three = by_ranks(folder, 3, *RUN)
    assert [done.returncode for done in three] == [2, 1, 1], three
    assert "processes: 2 then, 3 now" in three[0].stderr
    first, second = by_ranks(folder, 2, *RUN)
    assert (first.returncode, second.returncode) == (0, 0), (first.stderr, second.stderr)
    assert "going on after 8 of 12 images" in first.stderr
    assert numbers(folder / OUT) == whole


def test_a_second_torchrun_to_the_same_output_is_refused(folder: Path, whole: dict[str, bytes]) -> None:
    running = commands(folder, 2, *RUN, STOP_AT="4")
    here = [folder / "here0", folder / "here1"]
    wait_for(*here)
    for done, said in zip(by_ranks(folder, 2, *RUN), ("another run is writing to", "another process"), strict=True):
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    for path in here:
        path.unlink()
    assert [command.end().returncode for command in running] == [0, 0]
    assert numbers(folder / OUT) == whole


@contextlib.contextmanager
def torchrun(folder: Path, *args: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """The real ``nd`` by two processes of the real torchrun; what it says goes to the file ``said``."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(cli.ND)]
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [*start, *args],
            cwd=folder,
            env=cli.environment(folder, {"OMP_NUM_THREADS": "1", **env}),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            text=True,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            process.wait(60)


def test_torchrun_stops_when_a_rank_is_killed_and_the_same_command_finishes(
    folder: Path, whole: dict[str, bytes]
) -> None:
    (folder / "who.py").write_text(
        "import os\nfrom pathlib import Path\nPath('pid' + os.environ['RANK']).write_text(str(os.getpid()))\n"
        "from slow import network\n"
    )
    args = ("dissect", "who.py:network", *RUN[2:])
    with torchrun(folder, *args, STOP_AT="4") as process:
        here = [folder / "here0", folder / "here1"]
        wait_for(*here)
        subprocess.run(["kill", "-9", (folder / "pid1").read_text()], check=True)
        wait_until(lambda: "signal SIGTERM" in (folder / "said").read_text())
        here[0].unlink()
        assert process.wait(40) == 1
    here[1].unlink()
    said = (folder / "said").read_text()
    assert "nd: stopped by SIGTERM; what was counted is saved" in said
    assert "go on: nd dissect who.py:network" in said
    assert not (folder / OUT).exists()
    with torchrun(folder, *args) as process:
        assert process.wait(60) == 0, (folder / "said").read_text()
    assert numbers(folder / OUT) == whole
    assert [name for name in cli.files_in(folder) if name.startswith(".")] == []


# Shards


def shard(folder: Path, which: str, *more: str) -> Ended:
    done = nd_in(folder, *RUN, "--shard", which, *more)
    assert done.returncode == 0, done.stderr
    return done


def name(which: str) -> str:
    return f"{OUT}.shard-{which.replace('/', '-of-')}"


@pytest.fixture(scope="module")
def sharded(stoppable_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of one dissection, and some that do not belong to it."""
    folder = Path(shutil.copytree(stoppable_inputs, tmp_path_factory.mktemp("sharded"), dirs_exist_ok=True))
    for which in ("2/3", "3/3", "1/3"):
        done = shard(folder, which)
        assert f"when all are there: nd merge {OUT}" in done.stderr
        assert not (folder / OUT).exists()
    shard(folder, "2/2")
    shard(folder, "1/1", "--quantile", "0.3")
    return folder


THREE = ("1/3", "2/3", "3/3")


@pytest.fixture
def shards(sharded: Path, tmp_path: Path) -> Path:
    """A copy of them."""
    return Path(shutil.copytree(sharded, tmp_path, dirs_exist_ok=True))


@pytest.mark.parametrize("order", itertools.permutations(THREE), ids="-".join)
def test_shards_in_any_order_are_what_one_process_counts(
    order: tuple[str, ...], sharded: Path, whole: dict[str, bytes]
) -> None:
    store = f"{''.join(which[0] for which in order)}.nd.h5"
    done = nd_in(sharded, "merge", *(name(which) for which in order), "--keep", "-o", store)
    assert done.returncode == 0, done.stderr
    assert numbers(sharded / store) == whole


def test_merging_takes_the_shards_that_are_there_and_removes_them(shards: Path, whole: dict[str, bytes]) -> None:
    for odd in ("2/2", "1/1"):
        shutil.rmtree(shards / name(odd))
    done = nd_in(shards, "merge", OUT, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["store"] == OUT
    assert numbers(shards / OUT) == whole
    assert list(shards.glob("*.shard-*")) == []


def test_more_shards_than_images(tmp_path: Path) -> None:
    faults.write_inputs(tmp_path, images=2)
    (tmp_path / "slow.py").write_text(faults.STOPPING)
    for which in THREE:
        shard(tmp_path, which)
    assert nd_in(tmp_path, "merge", OUT).returncode == 0
    merged = numbers(tmp_path / OUT)
    assert nd_in(tmp_path, *RUN, "--force").returncode == 0
    assert numbers(tmp_path / OUT) == merged


def test_a_shard_that_is_whole_is_not_run_again(shards: Path) -> None:
    made = {p.name: p.stat().st_mtime_ns for p in (shards / name("1/3")).glob("*.safetensors")}
    done = shard(shards, "1/3")
    assert f"{name('1/3')} is whole already; nd merge puts the shards together" in done.stderr
    assert {p.name: p.stat().st_mtime_ns for p in (shards / name("1/3")).glob("*.safetensors")} == made


WRONG = {
    "one is missing": (("1/3", "3/3"), 2, ("of 3 shards these are missing: 2",)),
    "one twice": (("1/3", "2/3", "3/3", "2/3"), 2, ("shard 2/3 was given twice",)),
    "two cuts": (("1/3", "2/2"), 2, (f"{name('2/2')} is a part of 2, {name('1/3')} of 3",)),
    "two cuts, as many": (("1/3", "2/2", "3/3"), 2, ("is a part of 2",)),
    "of another dissection": (("1/3", "2/3", "1/1"), 2, (f"{name('1/1')} is of another dissection", "protocol q")),
}


@pytest.mark.parametrize("case", WRONG)
def test_shards_that_do_not_belong_together_are_refused(case: str, sharded: Path) -> None:
    which, code, said = WRONG[case]
    done = nd_in(sharded, "merge", *(name(one) for one in which), "-o", "wrong.nd.h5")
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    for words in said:
        assert words in done.stderr
    assert done.stderr.startswith("nd: ")
    assert "Traceback" not in done.stderr
    assert not (sharded / "wrong.nd.h5").exists()
    assert all((sharded / name(one)).exists() for one in which)


def test_a_folder_without_a_shard_and_a_store_without_shards_are_refused(folder: Path) -> None:
    cli.failed(wrong(folder, OUT), 2, f"there are no shards of {OUT}", "--shard 1/8")
    (folder / name("1/3")).mkdir()
    cli.failed(wrong(folder, name("1/3")), 2, f"{name('1/3')} is no shard")
    cli.failed(wrong(folder, "small", "slow.py"), 2, "small is no shard")
    cli.failed(nd(folder, *RUN, "--shard", "4/3"), 2, "--shard '4/3' is no part", "1/8")


def wrong(folder: Path, *shards: str) -> subprocess.CompletedProcess[str]:
    return nd(folder, "merge", *shards)


def nd(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    done = nd_in(folder, *args)
    return subprocess.CompletedProcess(args, done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("file", ["0.phase0.safetensors", "0.kept0.safetensors", "run.json"])
def test_a_damaged_shard_is_refused(file: str, shards: Path) -> None:
    path = shards / name("2/3") / file
    path.write_bytes(path.read_bytes()[:-40])
    done = nd(shards, "merge", *(name(one) for one in THREE))
    cli.failed(done, 1, f"{name('2/3')} cannot be read")
    assert not (shards / OUT).exists()


def test_shards_of_data_that_has_changed_since_are_refused(shards: Path) -> None:
    index = shards / "small" / "index.csv"
    index.write_text("\n".join(index.read_text().splitlines()[:-1]) + "\n")
    cli.failed(nd(shards, "merge", *(name(one) for one in THREE)), 1, "small is not the data set", "--data")


def test_an_unfinished_shard_is_refused_and_goes_on(folder: Path, whole: dict[str, bytes]) -> None:
    shard(folder, "1/2")
    with held(folder, *RUN, "--shard", "2/2", STOP_AT="4") as command:
        busy = nd_in(folder, *RUN, "--shard", "2/2")
        assert busy.returncode == 1
        assert f"another run is writing to {name('2/2')}" in busy.stderr
        command.signal(signal.SIGTERM)
    assert command.end().returncode == 143
    cli.failed(nd(folder, "merge", OUT), 1, "shard 2/2 in", "has not ended", "goes on where it stopped")
    done = shard(folder, "2/2")
    assert "going on after 8 of 12 images" in done.stderr
    assert nd_in(folder, "merge", OUT).returncode == 0
    assert numbers(folder / OUT) == whole


def test_a_shard_with_too_little_memory_is_refused_and_made_with_more(folder: Path, whole: dict[str, bytes]) -> None:
    def refused(memory: str, *said: str) -> None:
        done = nd_in(folder, *RUN, "--shard", "1/2", "--memory", memory)
        assert (done.returncode, done.stdout) == (1, "")
        cli.two_lines("\n".join(done.stderr.splitlines()[-2:]), *said, "more --memory", "fewer layers")

    refused("100", "the thresholds of these layers need", "--memory is 100 B")
    first = stopped(folder, *RUN, "--shard", "1/2", "--memory", "2k", STOP_AT="6")
    assert first.returncode == 143, "it has saved that it left images out"
    refused("2k", "what may fire does not fit --memory")
    for which in ("1/2", "2/2"):
        shard(folder, which)
    assert nd_in(folder, "merge", OUT).returncode == 0
    assert numbers(folder / OUT) == whole


@pytest.mark.parametrize(
    ("environment", "first", "processes", "local"),
    [
        ({}, True, 1, 0),
        ({"RANK": "1"}, True, 1, 0),
        ({"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "here"}, True, 1, 0),
        ({"WORLD_SIZE": "4", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "here"}, True, 4, 0),
        ({"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "MASTER_ADDR": "here"}, False, 4, 1),
        ({"WORLD_SIZE": "4", "RANK": "3"}, True, 1, 0),
        ({"WORLD_SIZE": "many", "RANK": "0", "MASTER_ADDR": "here"}, True, 1, 0),
    ],
)
def test_what_torchrun_says_of_a_process(
    environment: dict[str, str],
    first: bool,
    processes: int,
    local: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (torchrun_says.is_first(), torchrun_says.processes(), torchrun_says.local_rank()) == (
        first,
        processes,
        local,
    )


def test_whether_a_process_is_the_first_is_asked_without_torch() -> None:
    code = "import sys; from ndissect.engine.machine import torchrun; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_shards_and_torchrun_are_one_or_the_other(folder: Path) -> None:
    for done in by_ranks(folder, 2, *RUN, "--shard", "1/2"):
        assert done.returncode == 2
        cli.two_lines(done.stderr, "--shard cuts the work into jobs of their own", "use one of them")


# What is found of the network before it is run

DRAWING = """
import torch
from net import network as whole


def network():
    made, transform = whole()
    made.second.register_forward_hook(lambda m, given, out: out + torch.rand_like(out))
    return made, transform
"""


def test_a_network_that_is_refused_ends_every_rank_and_none_waits(stoppable_inputs: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(stoppable_inputs, tmp_path, dirs_exist_ok=True))
    (folder / "drawing.py").write_text(DRAWING)
    run = ("dissect", "drawing.py:network", *RUN[2:])
    for done in by_ranks(folder, 2, *run):
        assert done.returncode == 1
        assert "the layer second does not compute the same twice" in done.stderr
    first, second = by_ranks(folder, 2, *run, "--anyway")
    assert (first.returncode, second.returncode) == (0, 0), (first.stderr, second.stderr)
    assert "MARKED: second does not compute the same twice" in first.stderr
    (folder / OUT).unlink()
    for which in ("1/2", "2/2"):
        assert nd_in(folder, *run, "--shard", which).returncode == 1
        assert nd_in(folder, *run, "--shard", which, "--anyway").returncode == 0
    assert "MARKED: second does not compute the same twice" in nd_in(folder, "merge", OUT).stderr
