"""A run of the real ``nd dissect``, watched from outside: how far it is, and what it knows so far."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cli
import numpy as np
import pytest
from cli import wait_until
from test_live import LAYERS, shown
from test_publishing import by_hand

from ndissect.store.live import Run, partial_file, read_run, run_file
from ndissect.store.reader import Store

# The whole of it: nd dissect, watched from outside

# Results so far are handed out from the first images on, also where a busy machine takes long to make them.
SLOW = f"""
import os, time
from net import network as whole

from ndissect.engine.run import publishing

publishing._SHARE = 1e9
allowance = publishing.Allowance
publishing.Allowance = lambda total, every: allowance(total, 0.0)


def network():
    made, transform = whole()
    calls = iter(range(1000))

    def wait(*given):
        if next(calls) > {cli.EXAMINED}:  # the first looks at the layers, the next try the network
            time.sleep(float(os.environ["PAUSE"]))

    made.units.register_forward_hook(wait)
    return made, transform
"""
ARGS = ("dissect", "slow.py:network", "--data", "small", "-l", "units", "-l", "deep.pool", "--quantile", "0.2")
ARGS += ("-b", "1", "-o", "out.nd.h5")


def start(folder: Path, pause: float) -> subprocess.Popen[str]:
    (folder / "slow.py").write_text(SLOW)
    return subprocess.Popen(
        [str(cli.ND), *ARGS],
        cwd=folder,
        env=cli.environment(folder, {"PAUSE": str(pause)}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@dataclass
class Watched:
    """What was seen of a run: its states, copies of its partial stores by the images they cover, and its end."""

    folder: Path
    runs: list[Run]
    partial: dict[int, Path]
    ended: float
    code: int
    err: str


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = cli.write_inputs(tmp_path_factory.mktemp("watched") / "work")
    copies = tmp_path_factory.mktemp("copies")
    target = folder / "out.nd.h5"
    runs: list[Run] = []
    partial: dict[int, Path] = {}
    process = start(folder, 0.6)
    while process.poll() is None:
        found = read_run(target)
        if found is not None and (not runs or found != runs[-1]):
            runs.append(found)
            if found.partial is not None:
                with contextlib.suppress(FileNotFoundError):  # the run has just ended
                    copy = Path(shutil.copy(found.partial, copies / "copy.h5"))
                    # The store is there a moment before the run tells how many images it is of.
                    with Store(copy) as store:
                        images = store.provenance["partial"]["images"]
                    partial[images] = copy.rename(copies / f"{images}.h5")
        time.sleep(0.02)
    yield Watched(folder, runs, partial, time.time(), process.returncode, process.communicate()[1])


@pytest.mark.alone
def test_a_run_tells_its_phases_its_rate_and_when_it_ends(watched: Watched) -> None:
    assert watched.code == 0, watched.err
    steps = [(r.step, r.phase) for r in watched.runs if r.steps]
    assert steps == sorted(steps, key=lambda s: s[0])
    order = [(1, "thresholds"), (2, "images"), (3, "tally"), (4, "writing")]
    assert {(1, "thresholds")} <= set(steps) <= set(order)
    assert {r.steps for r in watched.runs} - {0} == {4}
    assert {r.layers for r in watched.runs} == {LAYERS}
    assert {r.command for r in watched.runs} == {" ".join(["nd", *ARGS])}
    assert [r.updated for r in watched.runs] == sorted(r.updated for r in watched.runs)
    for phase in ("thresholds",):
        seen = [r for r in watched.runs if r.phase == phase]
        done = [r.done for r in seen]
        assert len(set(done)) >= 5, "about once a second"
        assert done == sorted(done)
        assert {r.total for r in seen} == {cli.IMAGES}
        assert all(0.3 < r.rate <= 1 / 0.6 for r in seen if r.done > 1), "12 images, 0.6 s each and a little more"
        for r in seen:
            if r.done > 2:
                assert r.eta is not None
                left = watched.ended - r.updated
                assert 0.4 * left - 3 < r.eta < 1.5 * left + 3


@pytest.mark.alone
def test_a_run_shows_the_ious_of_the_images_counted_so_far(watched: Watched) -> None:
    assert len(watched.partial) >= 2
    assert set(watched.partial) <= {run.images for run in watched.runs}
    for images, path in watched.partial.items():
        with Store(path) as store:
            assert store.provenance["partial"] == {"images": images, "of": cli.IMAGES}
            assert store.provenance["network"]["name"] == "slow"
            assert store.provenance["data"]["name"] == "small"
            view = store.layer("units")
            expected = by_hand(images, view.statistics.threshold)
            for unit in range(3):
                np.testing.assert_array_equal(view.unit_ious(unit)[0], expected[unit])
            assert (view.labels[0][:3] >= 0).any()
            assert len(view.top(0).image) == min(images, 10)
    assert 0 < max(watched.partial) < cli.IMAGES


def test_a_run_leaves_the_store_alone(watched: Watched) -> None:
    left = {f for f in cli.files_in(watched.folder) if not f.startswith("small")}
    assert left == {"net.py", "slow.py", "out.nd.h5"}
    with Store(watched.folder / "out.nd.h5") as store:
        assert "partial" not in store.provenance
        view = store.layer("units")
        expected = by_hand(cli.IMAGES, view.statistics.threshold)
        assert [view.unit_ious(u)[0].tolist() for u in range(3)] == expected.tolist()


def test_after_a_kill_the_files_stay_the_run_is_dead_and_the_next_one_takes_them_away(tmp_path: Path) -> None:
    target = cli.write_inputs(tmp_path) / "out.nd.h5"
    before = cli.files_in(tmp_path) | {"slow.py"}
    process = start(tmp_path, 0.3)
    wait_until(lambda: process.poll() is not None or ((r := read_run(target)) is not None and r.partial is not None))
    found = shown(target)
    assert found.alive
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = shown(target)
    assert not left.alive
    assert cli.files_in(tmp_path) - before >= {run_file(target).name, partial_file(target).name}

    done = cli.nd(*ARGS, folder=tmp_path, env={"PAUSE": "0"})
    assert done.returncode == 0, done.stderr
    assert cli.files_in(tmp_path) == before | {"out.nd.h5"}


def test_a_run_that_is_stopped_takes_its_files_away_but_for_what_it_goes_on_from(tmp_path: Path) -> None:
    target = cli.write_inputs(tmp_path) / "out.nd.h5"
    before = cli.files_in(tmp_path) | {"slow.py"}
    process = start(tmp_path, 0.3)
    wait_until(lambda: process.poll() is not None or partial_file(target).exists())
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM, err
    assert {f.partition("/")[0] for f in cli.files_in(tmp_path) - before} == {".out.nd.h5.saved"}
    done = cli.nd(*ARGS, folder=tmp_path, env={"PAUSE": "0"})
    assert done.returncode == 0, done.stderr
    assert "going on after" in done.stderr
    assert cli.files_in(tmp_path) == before | {"out.nd.h5"}


def test_a_run_whose_results_so_far_cannot_be_written_goes_on_with_one_note(tmp_path: Path) -> None:
    target = cli.write_inputs(tmp_path) / "out.nd.h5"
    (tmp_path / "slow.py").write_text(SLOW)
    partial_file(target).mkdir()
    done = cli.nd(*ARGS, folder=tmp_path, env={"PAUSE": "0"})
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("nd browse cannot show this run") == 1
    assert not run_file(target).exists()
    with Store(target) as store:
        assert store.layer("units").labels[0][0] >= 0
