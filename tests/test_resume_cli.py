"""``nd dissect`` stopped, killed, on a full disk or started twice: the same command goes on, to the same counts."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import cli
import faults
import pytest
from cli import wait_until
from faults import Ended, held, nd_in, numbers, stopped

OUT, STATE = "out.nd.h5", ".out.nd.h5.saved"
# Forward passes: one looks at the layers, then there are 12 batches a pass.
RUN = ("dissect", "slow.py:network", "-d", "small", "-l", "first", "-l", "second", "-b", "2", "--top", "3", "-o", OUT)
MIDDLE = {"STOP_AT": "6"}


@pytest.fixture(scope="module")
def whole(stoppable_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The numbers of a run that nothing disturbs."""
    folder = Path(shutil.copytree(stoppable_inputs, tmp_path_factory.mktemp("whole"), dirs_exist_ok=True))
    done = nd_in(folder, *RUN)
    assert done.returncode == 0, done.stderr
    assert STATE not in cli.files_in(folder)
    return numbers(folder / OUT)


@pytest.fixture
def folder(stoppable_inputs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stoppable_inputs, tmp_path, dirs_exist_ok=True))


def goes_on(folder: Path, whole: dict[str, bytes], said: str, *args: str) -> None:
    """Run the command again: it must say where it goes on, and end as if nothing had happened."""
    done = nd_in(folder, *(args or RUN))
    assert done.returncode == 0, done.stderr
    assert said in done.stderr
    assert numbers(folder / OUT) == whole
    assert not (folder / STATE).exists()


# Signals

STOPS = {
    "ctrl-c": (signal.SIGINT, (), "6", "note: going on after 12 of 24 images"),
    "SIGTERM": (signal.SIGTERM, (), "11", "note: going on after 22 of 24 images"),
    "a lost connection": (signal.SIGHUP, (), "1", "note: going on after 2 of 24 images"),
    "in the second of several passes": (signal.SIGTERM, ("--memory", "100"), "17", "going on after 10 of 24 images"),
    "in the tally after them": (signal.SIGTERM, ("--memory", "100"), "41", "going on with the tally, after 10 of 24"),
    "in the second pass": (signal.SIGINT, ("--memory", "30k"), "15", "going on with the tally, after "),
}


@pytest.mark.parametrize("stop", STOPS)
def test_a_signal_saves_what_was_counted_and_the_same_command_goes_on(
    stop: str, folder: Path, stoppable_inputs: Path, tmp_path: Path
) -> None:
    number, memory, at, said = STOPS[stop]
    quantile = ("--quantile", "1/9") if stop == "in the second pass" else ()
    args = (*RUN, *quantile, *memory)
    done = nd_in(folder, *RUN, *quantile)
    assert done.returncode == 0, done.stderr
    expected = numbers(folder / OUT)
    (folder / OUT).unlink()
    done = stopped(folder, *args, by=number, STOP_AT=at)
    assert done.returncode == 128 + number
    assert done.stdout == ""
    assert not (folder / OUT).exists()
    by = "" if number == signal.SIGINT else f" by {number.name}"
    cli.two_lines(
        "\n".join(done.stderr.splitlines()[-2:]),
        f"nd: stopped{by}; what was counted is saved",
        f"go on: nd {' '.join(args)}",
    )
    assert ("Ctrl-C again stops at once" in done.stderr) == (number == signal.SIGINT)
    goes_on(folder, expected, said, *args)


def test_a_second_ctrl_c_does_not_wait_for_anything(folder: Path) -> None:
    with cli.Terminal(*RUN, folder=folder, env=MIDDLE) as terminal:
        wait_until((folder / "here").exists)
        terminal.type("\x03")
        terminal.wait_for("saving what was counted; Ctrl-C again stops at once")
        terminal.type("\x03")  # the batch never ends
    assert terminal.code == 130
    assert "nd: stopped; nothing was written" in terminal.text
    assert not (folder / STATE).exists()


def test_the_real_command_killed_after_a_stop_goes_on_where_it_stopped(folder: Path, whole: dict[str, bytes]) -> None:
    """Batch systems: SIGTERM when the time is up, and SIGKILL after that, or at any other moment."""
    for at, number, code in (("6", signal.SIGTERM, 143), ("3", signal.SIGKILL, -9)):
        process = subprocess.Popen(
            [str(cli.ND), *RUN],
            cwd=folder,
            env=cli.environment(folder, {"STOP_AT": at}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until((folder / "here").exists)
        process.send_signal(number)
        (folder / "here").unlink()
        _, err = process.communicate(timeout=60)
        assert process.returncode == code, err
    assert "going on after 12 of 24 images" in err
    assert (folder / ".out.nd.h5.run").exists(), "a kill leaves it; the next run takes it over"
    goes_on(folder, whole, "note: going on after 12 of 24 images")
    assert not [name for name in cli.files_in(folder) if name.startswith(".")]


# Other work


@pytest.fixture
def unfinished(folder: Path) -> Path:
    assert stopped(folder, *RUN, **MIDDLE).returncode == 143
    return folder


def other_data(folder: Path) -> tuple[str, ...]:
    index = folder / "small" / "index.csv"
    index.write_text("\n".join(index.read_text().splitlines()[:-1]) + "\n")
    return RUN


def other_code(folder: Path) -> tuple[str, ...]:
    with (folder / "slow.py").open("a") as f:
        f.write("\n# the forward pass may be another one\n")
    return RUN


def other_weights(folder: Path) -> tuple[str, ...]:
    net = folder / "net.py"
    net.write_text(net.read_text().replace("manual_seed(3)", "manual_seed(4)"))
    return RUN


OTHER: dict[str, Callable[[Path], tuple[str, ...]]] = {
    "layers: first, second then, first, relu, second now": lambda folder: (*RUN, "-l", "relu"),
    "top images: 3 then, 5 now": lambda folder: (*RUN, "--top", "5"),
    "protocol q: ": lambda folder: (*RUN, "--quantile", "0.3"),
    "protocol name: netdissect then, lite now": lambda folder: (*RUN, "-p", "lite"),
    "precision: fp32 then, bf16 now": lambda folder: (*RUN, "--precision", "bf16"),
    "network weights: ": other_weights,
    "network code: ": other_code,
    "data images: 24 then, 23 now": other_data,
}


def test_other_work_than_was_saved_is_refused_and_what_differs_is_named(unfinished: Path, tmp_path: Path) -> None:
    before = cli.files_in(unfinished)
    for number, (differs, change) in enumerate(OTHER.items()):
        folder = Path(
            shutil.copytree(unfinished, tmp_path / f"other-{number}", ignore=shutil.ignore_patterns("other-*"))
        )
        done = nd_in(folder, *change(folder))
        assert done.returncode == 2, (differs, done.stderr)
        assert done.stdout == ""
        what = "an unfinished run to out.nd.h5 was of other work: "
        cli.two_lines("\n".join(done.stderr.splitlines()[-2:]), what, differs, "--restart", "-o")
        assert cli.files_in(folder) == before, "what was saved is still there"


def test_restart_throws_away_what_was_saved(unfinished: Path, whole: dict[str, bytes]) -> None:
    done = nd_in(unfinished, *RUN, "--restart")
    assert done.returncode == 0, done.stderr
    assert "going on" not in done.stderr
    assert numbers(unfinished / OUT) == whole
    assert not (unfinished / STATE).exists()


def test_restart_with_other_work_that_is_killed_leaves_no_state_of_the_first(
    unfinished: Path, whole: dict[str, bytes]
) -> None:
    other = (*RUN, "--quantile", "0.3")
    with held(unfinished, *other, "--restart", **MIDDLE) as command:
        command.signal(signal.SIGKILL)
    assert command.end().returncode == -9
    done = nd_in(unfinished, *RUN)
    assert done.returncode == 0, done.stderr
    assert "going on" not in done.stderr
    assert numbers(unfinished / OUT) == whole


# Two runs


def test_a_second_run_to_the_same_output_is_refused_and_harms_nothing(folder: Path, whole: dict[str, bytes]) -> None:
    busy = "another run is writing to out.nd.h5"
    with held(folder, *RUN, **MIDDLE) as first:
        # It has not saved anything yet: its folder holds its lock alone.
        for args in (RUN, (*RUN, "--restart"), (*RUN, "--force"), (*RUN, "--quantile", "0.3")):
            done = nd_in(folder, *args)
            assert (done.returncode, done.stdout) == (1, "")
            cli.two_lines("\n".join(done.stderr.splitlines()[-2:]), busy, "Wait until it ends")
        first.signal(signal.SIGTERM)
    done = first.end()
    assert done.returncode == 143
    assert "what was counted is saved" in done.stderr
    goes_on(folder, whole, "going on after 12 of 24 images")


# The disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB, called ``disk``."""
    path = tmp_path / "disk"
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "nd-test", str(path)], capture_output=True)
    if done.returncode:
        pytest.skip("only root can make a disk")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill(disk: Path, left: int) -> Path:
    """Fill ``disk`` up but for ``left`` kB; the file that does."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as f:
        while True:
            f.write(bytes(4096))
    with filler.open("rb+") as f:
        f.truncate(filler.stat().st_size - left * 1024)
    return filler


ON_DISK = (*RUN[:-1], f"disk/{OUT}")


def full_error(done: Ended) -> str:
    """Assert the failure of a full disk: the last two lines."""
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    last = "\n".join(done.stderr.splitlines()[-2:])
    cli.two_lines(last, "free some space")
    return last


@pytest.mark.parametrize(
    ("stage", "left"), [*(("saving", n) for n in (0, 4, 16)), *(("writing", n) for n in (0, 4, 16))]
)
def test_a_disk_that_is_full_is_a_clear_error_and_with_space_the_same_command_finishes(
    stage: str, left: int, folder: Path, disk: Path, whole: dict[str, bytes]
) -> None:
    with held(folder, *ON_DISK, **MIDDLE) as command:
        filler = fill(disk, left)
        if stage == "saving":
            command.signal(signal.SIGTERM)
    done = command.end()
    assert ("cannot save to" if stage == "saving" else "cannot write disk/out.nd.h5") in full_error(done)
    assert not (disk / OUT).exists()
    full = nd_in(folder, *ON_DISK)  # it is told before anything is counted
    assert "the store needs about" in full_error(full)
    filler.unlink()
    done = nd_in(folder, *ON_DISK)
    assert done.returncode == 0, done.stderr
    assert numbers(disk / OUT) == whole
    assert [p.name for p in disk.iterdir()] == [OUT]


@pytest.mark.parametrize("size", [4, 12, 24, 48, 72])
@pytest.mark.parametrize("form", ["one pass", "second pass", "radix"])
def test_a_disk_that_fills_up_at_any_stage_loses_nothing_that_was_saved(
    form: str, size: int, stoppable_inputs: Path, disk: Path
) -> None:
    """The engine alone, which saves after every batch: from nothing that fits, not even the key, to nearly all."""
    memory = {"one pass": faults.ONE_PASS, "second pass": faults.SECOND_PASS, "radix": faults.RADIX}[form]
    work = faults.Work(stoppable_inputs, disk, memory, pause=0.0)
    filler = fill(disk, size)
    run = faults.finish(work)
    assert run.code == 1, run.told[-1]
    assert "free some space" in run.told[-1].text, run.told[-1]
    assert not work.store.exists()
    told = [t.text for t in run.all("note") if "cannot save to" in t.text]
    assert told or size == 72
    assert all("the disk is full; the run goes on, but a kill would lose" in t for t in told), told
    filler.unlink()
    again = faults.finish(work)
    assert again.code == 0, again.told[-1]
    saved = run.all("saved")
    assert bool(again.all("loaded")) == bool(saved)
    filled = numbers(work.store)
    work.store.unlink()
    assert faults.finish(work).code == 0
    assert numbers(work.store) == filled


@pytest.mark.parametrize("largest", [4_000, 20_000, 50_000])
def test_files_that_may_not_grow_are_a_clear_error(largest: int, folder: Path, whole: dict[str, bytes]) -> None:
    """A quota, as users have it on clusters: the disk has room, and files cannot be written all the same."""
    done = nd_in(folder, *RUN, largest=largest)
    assert "cannot write out.nd.h5: File too large" in full_error(done)
    assert not (folder / OUT).exists()
    assert nd_in(folder, *RUN).returncode == 0
    assert numbers(folder / OUT) == whole


# When it has ended

NO_TORCH = 'raise RuntimeError("torch was imported")\n'


def test_a_run_that_has_ended_says_so_at_once_and_imports_nothing_heavy(folder: Path) -> None:
    run = ("dissect", "torchvision:squeezenet1_1@none", "-l", "features.0", *RUN[2:4], "-o", OUT)
    assert nd_in(folder, *run).returncode == 0
    made = (folder / OUT).stat().st_mtime_ns
    site = folder / "site"
    site.mkdir()
    (site / "torch.py").write_text(NO_TORCH)
    env = {"PYTHONPATH": str(site)}
    again = cli.nd(*run, folder=folder, env=env)
    assert again.returncode == 0, again.stderr
    assert "out.nd.h5 holds this dissection already, nothing was run; --force runs it again" in again.stderr
    assert again.stdout.startswith("layer\t")
    assert (folder / OUT).stat().st_mtime_ns == made
    other = cli.nd(*run[:-2], folder=folder, env=env)  # without a name: the one that is there is found
    assert "out.nd.h5 holds this dissection already" in other.stderr
    fresh = cli.nd(*run, "--force", folder=folder, env=env)
    assert "torch was imported" in fresh.stderr, "the torch of this test is the one that a run would import"


def test_a_network_of_one_s_own_is_the_same_only_with_the_same_weights_and_code(folder: Path) -> None:
    assert nd_in(folder, *RUN).returncode == 0
    made = (folder / OUT).stat().st_mtime_ns
    again = nd_in(folder, *RUN)
    assert again.returncode == 0, again.stderr
    assert "out.nd.h5 holds this dissection already" in again.stderr
    assert (folder / OUT).stat().st_mtime_ns == made
    code = (folder / "slow.py").read_text()
    (folder / "slow.py").write_text(code + "\n# another version\n")
    changed = nd_in(folder, *RUN)
    assert changed.returncode == 2
    assert "out.nd.h5 exists" in changed.stderr
    (folder / "slow.py").write_text(code)
    net = (folder / "net.py").read_text()
    assert "manual_seed(3)" in net
    (folder / "net.py").write_text(net.replace("manual_seed(3)", "manual_seed(4)"))  # a module that slow.py imports
    assert "out.nd.h5 exists" in nd_in(folder, *RUN).stderr
