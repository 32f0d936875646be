"""A run shows how far it is and what it knows so far, to other processes, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cli
import pytest
from cli import wait_until
from hypothesis import given, settings
from hypothesis import strategies as st
from store_factory import dissection
from test_publishing import Slow

from ndissect.engine.machine.progress import Phase
from ndissect.engine.run.live_progress import LiveProgress
from ndissect.store.files import atomic, being_written
from ndissect.store.live import Run, RunWriter, find_runs, partial_file, read_run, run_file
from ndissect.store.reader import Store

LAYERS = (("units", 4), ("deep.pool", 4))


def shown(target: Path) -> Run:
    found = read_run(target)
    assert found is not None
    return found


# The time left


class Clock:
    """Stands in for the time, so that rates are exact."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("ndissect.engine.run.live_progress.time.monotonic", lambda: self.now)


class Recorder(RunWriter):
    """Keeps what it is told."""

    def __init__(self, target: Path) -> None:
        super().__init__(target, "nd dissect", LAYERS)
        self.said: dict[str, Any] = {}

    def update(self, phase: str, done: int = 0, total: int = 0, **more: Any) -> None:
        self.said = {"phase": phase, "done": done, "total": total, **more}


def test_the_time_left_is_that_of_this_phase_and_of_those_to_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, live = Clock(monkeypatch), Recorder(tmp_path / "a.nd.h5")
    shown = Slow()
    progress = LiveProgress(shown, live)
    both = [Phase("thresholds", 100, forward=True)] * 2
    progress.plan([Phase("read", 100), *both, Phase("images"), Phase("tally", 100, forward=True)])

    def after(seconds: float, images: int) -> tuple[Any, ...]:
        clock.now += seconds
        progress.advance(images)
        return tuple(live.said[k] for k in ("phase", "done", "rate", "eta", "step", "steps"))

    progress.start("reading", 100)
    assert after(1, 50) == ("read", 50, 50.0, None, 1, 6), "how fast the network is, nobody knows yet"
    progress.start("thresholds 1/2", 100)
    assert live.said["eta"] is None
    assert after(10, 25) == ("thresholds", 25, 2.5, 30.0 + 80.0, 2, 6)
    assert after(30, 75) == ("thresholds", 100, 2.5, 80.0, 2, 6)
    progress.start("thresholds 2/2", 100)
    assert live.said["eta"] == 80.0
    assert after(100, 50) == ("thresholds", 50, 0.5, 100.0 + 200.0, 3, 6)
    progress.busy("images")
    assert (live.said["phase"], live.said["total"], live.said["eta"]) == ("images", 0, 200.0)
    progress.start("tally", 100)
    live.write_seconds = 7.0
    assert after(10, 50) == ("tally", 50, 5.0, 10.0 + 7.0, 5, 6)
    progress.busy("writing")
    assert (live.said["phase"], live.said["eta"], live.said["step"]) == ("writing", 7.0, 6)
    assert shown.told == ["reading", "thresholds 1/2", "thresholds 2/2", "images", "tally", "writing"]


# The two files


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "net-small.nd.h5"


def test_a_run_is_seen_from_its_first_moment_to_its_end(target: Path) -> None:
    began = time.time()
    with RunWriter(target, "nd dissect x", LAYERS) as live:
        first = shown(target)
        assert (first.target, first.pid, first.command, first.layers) == (target, os.getpid(), "nd dissect x", LAYERS)
        assert first.host == platform.node()
        assert began - 1 <= first.started <= first.updated <= time.time()
        assert (first.images, first.partial, first.alive) == (0, None, True)
        live.update("tally", 5, 12, rate=2.5, eta=2.8, step=3, steps=5)
        wait_until(lambda: shown(target).step == 3)
        found = shown(target)
        assert (found.phase, found.done, found.total, found.rate, found.eta) == ("tally", 5, 12, 2.5, 2.8)
        given = dissection()
        live.publish(given, 5)
        wait_until(lambda: shown(target).images == 5)
        found = shown(target)
        assert found.partial == partial_file(target)
        with Store(found.partial) as store:
            assert store.layer_names == tuple(layer.name for layer in given.layers)
        assert [r.target for r in find_runs(target.parent)] == [target]
        assert cli.files_in(target.parent) == {run_file(target).name, partial_file(target).name}
        live.make_room()
        assert shown(target).partial is None
    assert cli.files_in(target.parent) == set()
    assert read_run(target) is None
    assert find_runs(target.parent) == []


@pytest.mark.alone
def test_the_file_is_written_once_a_second_and_at_each_phase_not_at_each_image(target: Path) -> None:
    with RunWriter(target, "nd", ()) as live:
        written = set()
        end = time.monotonic() + 2.5
        done = 0
        while time.monotonic() < end:
            done += 1
            live.update("tally", done, 10**9)
            written.add(run_file(target).stat().st_ino)
            written.add(shown(target).updated)
        assert done > 100
        assert 4 <= len(written) <= 12
        live.update("writing")
        wait_until(lambda: shown(target).phase == "writing", 0.9)


@pytest.mark.alone
def test_an_update_costs_next_to_nothing(target: Path) -> None:
    with RunWriter(target, "nd", ()) as live:
        began = time.perf_counter()
        for n in range(2000):
            live.update("read", n, 2000, rate=1.0, step=1, steps=5)
        assert (time.perf_counter() - began) / 2000 < 2e-4


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_whatever_ends_the_run_takes_the_files_away(target: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), RunWriter(target, "nd", ()) as live:
        live.publish(dissection(), 1)
        assert partial_file(target).exists()
        raise error
    assert cli.files_in(target.parent) == set()


NAME = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=80).filter(
    lambda name: name not in (".", "..")
)


@settings(max_examples=40, deadline=None)
@given(name=NAME, command=st.text(), layer=st.text(max_size=300), units=st.integers(0, 10**9))
def test_names_of_any_script_come_back_without_what_a_terminal_would_obey(
    tmp_path_factory: pytest.TempPathFactory, name: str, command: str, layer: str, units: int
) -> None:
    if len(os.fsencode(name)) > 255:
        return
    target = tmp_path_factory.mktemp("names") / name
    with RunWriter(target, command, [(layer, units)]):
        found = shown(target)
        assert found.target == target
        assert [r.target for r in find_runs(target.parent)] == [target]
        for text, original in ((found.command, command), (found.layers[0][0], layer)):
            assert len(text) == len(original)
            assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in text)
        assert found.layers[0][1] == units


def test_names_that_are_long_or_no_utf8_have_files_of_their_own(tmp_path: Path) -> None:
    long = [tmp_path / ("n" * 240 + end) for end in ("a.nd.h5", "b.nd.h5")]
    odd = tmp_path / os.fsdecode(b"na\xffme.nd.h5")
    files = [f(t) for t in (*long, odd) for f in (run_file, partial_file)]
    assert len(set(files)) == 6
    for target in (*long, odd):
        with RunWriter(target, "nd", ()) as live:
            live.publish(dissection(), 1)
            found = shown(target)
            assert (found.target, found.partial) == (target, partial_file(target))
            assert [r.target for r in find_runs(tmp_path)] == [target]
    assert cli.files_in(tmp_path) == set()


def test_the_runs_of_a_folder_newest_first(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "z.nd.h5", "nd", ()), RunWriter(tmp_path / "a.nd.h5", "nd", ()):
        (tmp_path / ".other.run").write_text("not ours")
        (tmp_path / "shown.run").write_bytes(run_file(tmp_path / "a.nd.h5").read_bytes())
        assert [r.target.name for r in find_runs(tmp_path)] == ["a.nd.h5", "z.nd.h5"]
    assert find_runs(tmp_path / "gone") == []
    assert find_runs(tmp_path / ".other.run") == []


# Files that nobody vouches for


def record(target: Path) -> dict[str, Any]:
    with RunWriter(target, "nd dissect", LAYERS):
        found: dict[str, Any] = json.loads(run_file(target).read_bytes())
    return found


DAMAGE: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"\x89HDF\r\n",
    "no UTF-8": b'{"pid": "\xff"}',
    "a list": b"[1, 2]",
    "null": b"null",
    "nothing in it": b"{}",
    "deep": b"[" * 200_000,
    "endless digits": b'{"pid": ' + b"9" * 100_000 + b"}",
    "huge": b" " * (1 << 21) + b"{}",
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_file_that_is_damaged_is_no_run(target: Path, name: str) -> None:
    run_file(target).write_bytes(DAMAGE[name])
    assert read_run(target) is None
    assert find_runs(target.parent) == []


HOSTILE: list[tuple[str, Any]] = [
    *((key, value) for key in ("pid", "done", "total", "step", "images", "began") for value in (-1, 1.5, "1", True)),
    *(("pid", value) for value in (0, 1 << 31, 1 << 64)),
    *((key, value) for key in ("started", "updated", "rate", "eta") for value in (-1, "x", 1e300, [])),
    *((key, float(value)) for key in ("started", "rate", "eta") for value in ("nan", "inf")),
    *((key, value) for key in ("command", "phase", "host", "machine") for value in (None, 1, ["x"])),
    *(("layers", value) for value in (None, {}, "ab", [["a"]], [["a", -1]], [[1, 1]], [["a", 1, 1]], ["ab"], [7])),
    *(("target", v) for v in ("", ".", "..", "/etc/passwd", "../net-small.nd.h5", "x", None, "net-small.nd.h5\0")),
    ("encoding-type", "ndissect-store"),
    ("encoding-version", "2.0"),
]


def test_a_record_that_no_run_writes_is_no_run(target: Path) -> None:
    good = record(target)
    for key, value in HOSTILE:
        run_file(target).write_text(json.dumps({**good, key: value}))
        assert read_run(target) is None, (key, value)
    for key in good:
        run_file(target).write_text(json.dumps({k: v for k, v in good.items() if k != key}))
        assert read_run(target) is None, key
    more = {"later": [1], "eta": None, "phase": "a\x1b[2Jb", "done": 9, "total": 4, "encoding-version": "1.7"}
    run_file(target).write_text(json.dumps({**good, **more}))
    found = shown(target)
    assert (found.eta, found.phase, found.done) == (None, "a\ufffd[2Jb", 4)


def test_what_is_no_plain_file_is_no_run_and_holds_nobody_up(target: Path) -> None:
    os.mkfifo(run_file(target))
    assert read_run(target) is None
    run_file(target).unlink()
    run_file(target).mkdir()
    descriptors = len(list(Path("/dev/fd").iterdir()))
    for _ in range(20):
        assert read_run(target) is None
    assert len(list(Path("/dev/fd").iterdir())) == descriptors
    partial_file(target).mkdir()
    run_file(target).rmdir()
    run_file(target).write_text(json.dumps(record_of(target)))
    found = shown(target)
    assert found.partial is None


def record_of(target: Path) -> dict[str, Any]:
    """The record of a run for another target, moved to this one."""
    return {**record(target.with_name("other.nd.h5")), "target": target.name}


# Whether it goes on


def changed(target: Path, **changes: Any) -> Run:
    """The run of this process, with what its file says changed."""
    run_file(target).write_text(json.dumps({**record_of(target), **changes}))
    return shown(target)


def test_a_run_is_dead_once_its_process_is(target: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert changed(target, pid=process.pid, began=0).alive
        if Path("/proc/self/stat").exists():
            assert not changed(target, pid=process.pid).alive, "another process has that number now"
    finally:
        process.kill()
    if Path("/proc/self/stat").exists():
        wait_until(lambda: not changed(target, pid=process.pid, began=0).alive)  # a zombie runs no more
    process.communicate()
    assert not changed(target, pid=process.pid, began=0).alive
    assert changed(target).alive
    assert changed(target, pid=1, began=0).alive, "another user's, perhaps"


@pytest.mark.parametrize("key", ["host", "machine"])
def test_on_another_machine_boot_or_container_a_run_is_dead_after_a_minute_of_silence(target: Path, key: str) -> None:
    now = time.time()
    assert changed(target, **{key: "elsewhere", "pid": 2**31 - 1, "updated": now - 30}).alive
    assert not changed(target, **{key: "elsewhere", "updated": now - 61}).alive


# When it cannot be written, and when two write


def test_a_folder_that_goes_away_stops_no_run(tmp_path: Path) -> None:
    notes: list[str] = []
    folder = tmp_path / "there"
    folder.mkdir()
    with RunWriter(folder / "a.nd.h5", "nd", (), note=notes.append) as live:
        folder.rename(tmp_path / "elsewhere")
        live.publish(dissection(), 1)
        live.publish(dissection(), 2)
        live.update("tally", 3, 4)
    assert len(notes) == 1
    assert "nd browse cannot show this run" in notes[0]
    assert "No such file" in notes[0]
    with RunWriter(folder / "b.nd.h5", "nd", (), note=notes.append) as live:
        live.update("read", 1, 2)
    assert len(notes) == 2
    assert not folder.exists()


def test_results_so_far_never_take_the_place_that_the_store_needs(target: Path) -> None:
    notes: list[str] = []
    free = shutil.disk_usage(target.parent).free
    with RunWriter(target, "nd", (), room=free, note=notes.append) as live:
        live.publish(dissection(), 1)
        assert cli.files_in(target.parent) == set(), "given up: what is there would not go on"
    assert len(notes) == 1
    assert "too little room" in notes[0]


def test_of_two_runs_to_one_store_the_later_is_shown_and_neither_harms_the_other(target: Path) -> None:
    with RunWriter(target, "earlier", ()) as earlier:
        earlier.publish(dissection(), 1)
        with RunWriter(target, "later", ()) as later:
            # What the earlier one was writing at that moment may still come; the later one then writes again.
            wait_until(lambda: shown(target).command == "later")
            assert not partial_file(target).exists(), "what the earlier run knew is not what this one counts"
            later.publish(dissection(), 7)
            published = partial_file(target).read_bytes()
            for n in range(3):
                earlier.update("tally", n, 9, step=n)
                earlier.publish(dissection(seed=5), n)
                earlier.make_room()
            time.sleep(1.2)
            assert shown(target).command == "later"
            assert partial_file(target).read_bytes() == published
        wait_until(lambda: read_run(target) is not None)
        assert shown(target).command == "earlier"
    assert cli.files_in(target.parent) == set()


def test_the_end_of_an_earlier_run_leaves_the_later_ones_files(target: Path) -> None:
    earlier, later = RunWriter(target, "earlier", ()), RunWriter(target, "later", ())
    with later:
        with earlier:
            later.publish(dissection(), 7)
        assert shown(target).command == "later"
        assert shown(target).partial is not None
    assert cli.files_in(target.parent) == set()


@pytest.mark.parametrize("name", ["a.nd.h5", f"{'network-' * 8}data.nd.h5", f"{'ü' * 110}.nd.h5"])
def test_the_files_of_a_run_are_written_under_names_of_their_own(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    files = (target, run_file(target), partial_file(target))
    parts = {being_written(path, 7) for path in files}
    assert len(parts | set(files)) == 6
    for path in parts:
        path.touch()  # short enough for a file system


def test_a_new_run_removes_what_a_killed_one_left(target: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    changed(target, pid=process.pid)
    partial_file(target).write_bytes(b"left")
    for path in (target, run_file(target), partial_file(target)):
        with atomic(path) as part:
            part.touch()
            left = part.with_name(part.name.replace(f".{os.getpid()}.", f".{process.pid}."))
        path.unlink()
        left.touch()
    changed(target, pid=process.pid)
    (target.parent / f".somebody.nd.h5.{process.pid}.part").touch()
    with RunWriter(target, "nd", ()):
        assert cli.files_in(target.parent) == {run_file(target).name, f".somebody.nd.h5.{process.pid}.part"}
