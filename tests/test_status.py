"""``nd status``: how far the runs are that write a store."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cli
import pytest

from ndissect.store.live import RunWriter, read_run, run_file

LAYERS = (("units", 4), ("deep.pool", 4))
COMMAND = "nd dissect net.py:network --data small -o out.nd.h5"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Path]:
    """The store that a run of this process will write: 120 of 1600 images are done."""
    target = tmp_path / "out.nd.h5"
    with RunWriter(target, COMMAND, LAYERS) as run:
        run.update("tally", 120, 1600, rate=55.0, eta=27.0, step=3, steps=4)
        deadline = time.monotonic() + 60
        while (found := read_run(target)) is None or found.phase != "tally":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield target


def kill(target: Path) -> int:
    """Leave the file of a run whose process has ended; its number."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with RunWriter(target, COMMAND, LAYERS) as run:
        run.update("thresholds", 7, 12, step=1, steps=4)
        record = json.loads(run_file(target).read_bytes())
    changes = {"pid": process.pid, "phase": "thresholds", "done": 7, "total": 12, "step": 1, "steps": 4}
    changes["updated"] = record["started"] + 90
    run_file(target).write_text(json.dumps(record | changes))
    return process.pid


def test_a_run_that_goes_on_is_shown_with_how_far_it_is(running: Path) -> None:
    [row] = cli.rows_of("status", folder=running.parent)
    assert row["store"] == "out.nd.h5"
    assert row["state"] == "running"
    assert row["phase"] == "tally (3/4)"
    assert row["done"] == "120/1600"
    assert row["images/s"] == "55"
    assert "27" in row["left"]
    assert row["process"] == f"{os.getpid()} on {platform.node()}"
    assert cli.rows_of("status", "out.nd.h5", folder=running.parent)[0]["state"] == "running"


def test_a_run_is_described_as_json(running: Path) -> None:
    [run] = cli.json_of("status", folder=running.parent)["runs"]
    assert 0 < run.pop("seconds") < 600
    assert run == {
        "store": "out.nd.h5",
        "state": "running",
        "running": True,
        "phase": "tally",
        "step": 3,
        "steps": 4,
        "done": 120,
        "total": 1600,
        "images_per_s": 55.0,
        "eta_s": 27.0,
        "stopped": None,
        "reason": None,
        "host": platform.node(),
        "pid": os.getpid(),
        "command": COMMAND,
    }


def test_a_run_in_another_folder_is_found_by_the_store_that_it_writes(running: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    [run] = cli.json_of("status", str(running), folder=elsewhere)["runs"]
    assert (run["store"], run["running"]) == (str(running), True)
    assert cli.nd("status", folder=elsewhere).returncode == 1


def test_a_run_that_was_killed_is_shown_as_that_with_the_command_that_goes_on(tmp_path: Path) -> None:
    pid = kill(tmp_path / "out.nd.h5")
    done = cli.nd("status", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    header, row = (line.split("\t") for line in done.stdout.splitlines())
    shown = dict(zip(header, row, strict=True))
    assert (shown["state"], shown["phase"], shown["done"]) == ("killed", "thresholds (1/4)", "7/12")
    assert shown["process"].startswith(f"{pid} on ")
    assert f"out.nd.h5 was killed; the same command goes on: {COMMAND}" in done.stderr
    [run] = cli.json_of("status", folder=tmp_path)["runs"]
    assert (run["running"], run["pid"], run["command"]) == (False, pid, COMMAND)
    assert run["seconds"] == 90, "until it was last seen, however long ago that is"


def test_all_runs_of_a_folder_are_shown_the_last_first(running: Path) -> None:
    kill(running.with_name("other.nd.h5"))
    runs = cli.json_of("status", folder=running.parent)["runs"]
    assert [(r["store"], r["running"]) for r in runs] == [("other.nd.h5", False), ("out.nd.h5", True)]
    [one] = cli.json_of("status", "out.nd.h5", folder=running.parent)["runs"]
    assert one["store"] == "out.nd.h5"


@pytest.mark.parametrize("args", [(), ("out.nd.h5",)])
def test_where_no_run_is_the_code_is_1_and_a_line_says_so(tmp_path: Path, args: tuple[str, ...]) -> None:
    done = cli.nd("status", *args, folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [f"no run writes {args[0] if args else 'a store here'}"]
    listed = cli.nd("status", *args, "--json", folder=tmp_path)
    assert listed.returncode == 1
    assert json.loads(listed.stdout) == {"runs": []}


def test_a_store_that_no_run_writes_any_more_is_called_whole(tmp_path: Path) -> None:
    folder = cli.workplace(tmp_path)
    done = cli.nd("status", "net-small.nd.h5", folder=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == ["no run writes net-small.nd.h5; net-small.nd.h5 is whole"]
