"""``nd status``: runs that were stopped, how to go on with them, what is finished, and watching."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cli
import faults
import pytest
from cli import wait_until
from faults import nd_in, numbers

from ndissect.store import paused
from ndissect.store.live import RunWriter

OUT, STATE = "out.nd.h5", ".out.nd.h5.saved"
RUN = ("dissect", "slow.py:network", "-d", "small", "-l", "first", "-b", "2", "--top", "3", "--null", "0", "-o", OUT)


def stop(folder: Path, *args: str, by: signal.Signals = signal.SIGINT, at: str = "6") -> None:
    assert faults.stopped(folder, *args, by=by, STOP_AT=at).returncode in (128 + by, -by)


@pytest.fixture(scope="module")
def stopped(stoppable_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that Ctrl-C ended half-way."""
    folder = Path(shutil.copytree(stoppable_inputs, tmp_path_factory.mktemp("stopped"), dirs_exist_ok=True))
    stop(folder, *RUN, "--restart")
    return folder


@pytest.fixture
def folder(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "work"))


def edit(path: Path, **changes: Any) -> None:
    """Change a record as somebody who knows how: its digest fits."""
    record = json.loads(path.read_text())
    kind = record.pop("encoding-type")
    for name in ("encoding-version", "digest"):
        record.pop(name)
    path.write_bytes(paused._encode(kind, record | changes))


def test_a_run_that_was_stopped_is_listed_with_the_command_that_goes_on(stopped: Path) -> None:
    done = cli.nd("status", folder=stopped)
    assert done.returncode == 0, done.stderr
    header, row = (line.split("\t") for line in done.stdout.splitlines())
    shown = dict(zip(header, row, strict=True))
    assert (shown["store"], shown["state"], shown["done"]) == (OUT, "paused", "12/24")
    assert shown["phase"] == "thresholds (1/2)"
    assert shown["stopped"].startswith(time.strftime("20"))
    assert shown["stopped"].endswith(", Ctrl-C")
    goes_on = shlex.join(["nd", *RUN])
    assert f"{OUT} was stopped (Ctrl-C); what goes on: {goes_on}" in done.stderr, "--restart would throw it away"
    for args in ((OUT,), (str(stopped / OUT),)):
        [one] = cli.json_of("status", *args, folder=stopped)["runs"]
        assert (one["state"], one["running"], one["done"], one["total"]) == ("paused", False, 12, 24)
        assert one["command"] == goes_on
        assert one["reason"] == "Ctrl-C"
        assert one["stopped"]


def test_from_another_folder_the_command_says_where(stopped: Path, tmp_path: Path) -> None:
    [one] = cli.json_of("status", str(stopped / OUT), folder=tmp_path)["runs"]
    assert one["command"] == f"cd {shlex.quote(str(stopped))} && {shlex.join(['nd', *RUN])}"


def test_the_command_that_is_shown_goes_on(folder: Path) -> None:
    edit(folder / STATE / "run.json", folder=str(folder))
    [one] = cli.json_of("status", folder=folder)["runs"]
    done = nd_in(folder, *shlex.split(one["command"])[1:])
    assert done.returncode == 0, done.stderr
    assert "going on after 12 of 24 images" in done.stderr
    assert cli.nd("status", folder=folder).returncode == 1


def test_the_hint_of_a_run_that_began_anew_does_not_begin_anew(stoppable_inputs: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(stoppable_inputs, tmp_path / "work"))
    done = faults.stopped(folder, *RUN, "--restart", STOP_AT="6")
    assert f"go on: {shlex.join(['nd', *RUN])}\n" in done.stderr
    [one] = cli.json_of("status", folder=folder)["runs"]
    assert one["reason"] == "SIGTERM"


def test_a_run_that_was_killed_is_paused_where_it_last_saved(folder: Path) -> None:
    stop(folder, *RUN, by=signal.SIGKILL, at="3")
    [one] = cli.json_of("status", folder=folder)["runs"]
    assert (one["state"], one["reason"], one["done"]) == ("paused", "killed", 12)
    done = cli.nd("status", folder=folder)
    assert len(done.stdout.splitlines()) == 2, "its run file and what it saved are of one run"
    assert "out.nd.h5 was killed; what goes on: nd dissect" in done.stderr


def test_while_a_run_is_at_work_it_is_no_paused_one(folder: Path) -> None:
    with faults.held(folder, *RUN, STOP_AT="3") as command:
        [one] = cli.json_of("status", folder=folder)["runs"]
        assert (one["state"], one["running"]) == ("running", True)
    assert command.end().returncode == 0


def test_shards_are_listed_at_work_stopped_and_with_all_when_they_are_whole(folder: Path) -> None:
    shard = "out.nd.h5.shard-1-of-2"
    stop(folder, *RUN, "--shard", "1/2", at="3")
    rows = {row["store"]: row for row in cli.rows_of("status", folder=folder)}
    assert rows[shard]["state"] == "paused"
    assert rows[shard]["done"] == "6/12"
    with faults.held(folder, *RUN, "--shard", "1/2", STOP_AT="2") as command:
        states = {run["store"]: run["state"] for run in cli.json_of("status", OUT, folder=folder)["runs"]}
        assert states == {OUT: "paused", shard: "running"}
    assert command.end().returncode == 0
    found = cli.json_of("status", "--all", folder=folder)
    assert [run["store"] for run in found["runs"]] == [OUT]
    assert [(one["store"], one["state"]) for one in found["finished"]] == [(shard, "whole shard")]


def test_all_lists_the_stores_that_are_finished(tmp_path: Path) -> None:
    folder = cli.workplace(tmp_path)
    (folder / "broken.nd.h5").write_bytes(b"no store")
    done = cli.nd("status", "--all", folder=folder)
    assert done.returncode == 1, "no run is at work or stopped"
    assert "no run writes a store here" in done.stderr
    header, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    found = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert found["net-small.nd.h5"]["state"] == "finished"
    assert found["net-small.nd.h5"]["network"] == "net"
    assert found["net-small.nd.h5"]["data"] == "small"
    assert found["net-small.nd.h5"]["layers"] == "units, deep.pool"
    assert found["net-small.nd.h5"]["took"].endswith(" s")
    assert found["broken.nd.h5"]["state"] == "not to be read"
    assert "no store" not in done.stdout


def test_it_imports_no_torch(folder: Path) -> None:
    code = "import sys; sys.argv = ['nd', 'status', '--all']\nfrom ndissect.tui.cli.main import main\n"
    code += "try: main()\nexcept SystemExit: print([m for m in ('torch', 'textual', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


# What anybody may have written

HOSTILE: dict[str, dict[str, Any]] = {
    "another program": {"run.json": {"command": ["rm", "-rf", "/"]}},
    "no list": {"run.json": {"command": "nd dissect"}},
    "another store": {"run.json": {"target": "../../x"}},
    "another name": {"run.json": {"target": "other.nd.h5"}},
    "a name of nothing": {"run.json": {"target": ".."}},
    "a key of nothing": {"run.json": {"key": []}},
    "a shard that it is not": {"run.json": {"key": {"processes": 1, "shard": "1/2"}}},
    "a moment without end": {"status.json": {"updated": 1e300}},
    "a moment of NaN": {"status.json": {"updated": float("nan")}},
    "images below 0": {"status.json": {"done": -3}},
    "images in words": {"status.json": {"total": "all"}},
    "images without end": {"status.json": {"total": 10**400}},
    "a reason of numbers": {"status.json": {"reason": 3}},
    "no process": {"status.json": {"process": {}}},
    "a process below 0": {"status.json": {"process": {"pid": -1, "host": "x", "machine": "", "began": 0}}},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_record_that_no_run_has_written_is_none(case: str, folder: Path) -> None:
    for name, changes in HOSTILE[case].items():
        edit(folder / STATE / name, **changes)
    done = cli.nd("status", folder=folder)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert done.stderr == "no run writes a store here\n"


def test_what_is_shown_is_quoted_and_has_no_control_characters(folder: Path) -> None:
    words = ["nd", "dissect", "x; rm -rf ~", "\x1b]52;c;aGk=\x07", "$(reboot)", "a\nb"]
    edit(folder / STATE / "run.json", command=words, folder="/tmp/$(reboot)")
    edit(folder / STATE / "status.json", reason="\x1b[2J gone", phase="\x9b31m\x07tally")
    done = cli.nd("status", folder=folder)
    assert done.returncode == 0, done.stderr
    for text in (done.stdout, done.stderr, cli.nd("status", "--json", folder=folder).stdout):
        assert not any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in text)
    assert "cd '/tmp/$(reboot)' && nd dissect 'x; rm -rf ~'" in done.stderr
    assert "'$(reboot)'" in done.stderr


@pytest.mark.parametrize("name", ["run.json", "status.json"])
@pytest.mark.parametrize("kind", ["link", "pipe", "large", "deep", "folder"])
def test_only_small_files_are_read_and_no_link_is_followed(name: str, kind: str, folder: Path) -> None:
    path = folder / STATE / name
    there = path.read_bytes()
    path.unlink()
    if kind == "link":
        (folder / "elsewhere").write_bytes(there)
        path.symlink_to(folder / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "large":
        path.write_bytes(there + b" " * (5 << 20))
    elif kind == "deep":
        path.write_bytes(b"[" * 100_000)
    else:
        path.mkdir()
    done = cli.nd("status", folder=folder, timeout=20)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr


def test_a_link_in_place_of_the_folder_is_no_run(folder: Path) -> None:
    (folder / STATE).rename(folder / "elsewhere")
    (folder / STATE).symlink_to("elsewhere")
    assert cli.nd("status", folder=folder).returncode == 1


# Watching


def test_watching_a_pipe_prints_each_change_until_the_run_has_ended(tmp_path: Path) -> None:
    target = tmp_path / OUT
    with RunWriter(target, "nd dissect", [("first", 6)]) as run:
        run.update("thresholds", 2, 24, step=1, steps=2)
        with (tmp_path / "seen").open("w") as seen:
            watching = subprocess.Popen(
                [str(cli.ND), "status", "--watch", "--json"], cwd=tmp_path, env=cli.environment(tmp_path), stdout=seen
            )
        wait_until(lambda: '"done": 2' in (tmp_path / "seen").read_text())
        run.update("thresholds", 8, 24, step=1, steps=2)
        wait_until(lambda: '"done": 8' in (tmp_path / "seen").read_text())
        assert watching.poll() is None
    assert watching.wait(30) == 0
    values = [json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()]
    done = [value["runs"][0]["done"] for value in values if value["runs"]]
    assert done[-1] == 8
    assert values[-1] == {"runs": []}
    assert all(a != b for a, b in itertools.pairwise(values))


def test_watching_on_a_terminal_draws_in_place_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    with (
        RunWriter(tmp_path / OUT, "nd dissect", [("first", 6)]) as run,
        cli.Terminal("status", "--watch", folder=tmp_path) as terminal,
    ):
        run.update("thresholds", 2, 24, step=1, steps=2)
        terminal.wait_for("2/24")
        run.update("thresholds", 8, 24, step=1, steps=2)
        terminal.wait_for("8/24")
        terminal.type("\x03")
        terminal.process.wait(20)
    assert terminal.code == 0
    assert "\x1b[H\x1b[J" in terminal.raw
    assert terminal.raw.rstrip().endswith(("\x1b[?1049l", "\x1b[?25h")), "the screen is the shell's again"


def test_the_counts_of_a_run_that_was_watched_and_listed_are_those_of_any_other(
    stoppable_inputs: Path, folder: Path
) -> None:
    assert cli.nd("status", "--all", "--watch", folder=folder).returncode == 0
    assert nd_in(folder, *RUN).returncode == 0
    found = numbers(folder / OUT)
    assert nd_in(folder, *RUN, "--force").returncode == 0
    assert numbers(folder / OUT) == found
