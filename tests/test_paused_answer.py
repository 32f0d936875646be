"""What a run counts does not depend on how often it was paused: the null, intervals and peaks, and the seconds."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import cli
import faults
import h5py
import numpy as np
import pytest
import torch
from faults import held, nd_in, numbers
from pausing import Notes, Pause, Pausing, digest, edit_sealed

from ndissect.engine.measures.candidates import CandidateBatch
from ndissect.engine.measures.label_store import LabelStore
from ndissect.engine.measures.pieces import together
from ndissect.engine.run import evidence_plan as evidence
from ndissect.store.protocol import make_protocol

OUT = "out.nd.h5"
RUN = ("dissect", "slow.py:network", "-d", "small", "-l", "first", "-l", "second", "-b", "2", "--top", "3", "-o", OUT)


@pytest.fixture(scope="module")
def runs(stoppable_inputs: Path) -> Pausing:
    return Pausing(stoppable_inputs)


def whole_and_paused(runs: Pausing, folder: Path, stops: tuple[int, ...], **more: object) -> tuple[str, str, bool]:
    """The digests of an uninterrupted run and of one that paused after so many batches; whether that has a null."""
    whole = digest(runs.run(folder / "whole.nd.h5", null=None, save_every=1e9, **more))  # type: ignore[arg-type]
    for stop in stops:
        with pytest.raises(Pause):
            runs.run(folder / OUT, null=None, save_every=1e9, stop_after=stop, **more)  # type: ignore[arg-type]
    outcome = runs.run(folder / OUT, null=None, save_every=1e9, **more)  # type: ignore[arg-type]
    assert outcome.dissection is not None
    return whole, digest(outcome), outcome.dissection.layers[0].null is not None


STOPS = {"at the first batch": (1,), "in the middle": (6,), "three times": (3, 4, 2), "in the tally": (18,)}


@pytest.mark.parametrize("stops", STOPS)
@pytest.mark.parametrize("memory", [faults.ONE_PASS, faults.SECOND_PASS], ids=["one pass", "second pass"])
def test_a_cheap_null_is_counted_however_often_a_run_paused(
    stops: str, memory: int, runs: Pausing, tmp_path: Path
) -> None:
    whole, paused, null = whole_and_paused(runs, tmp_path, STOPS[stops], memory=memory)
    assert paused == whole
    assert null


def test_batches_are_counted_together_and_a_pause_after_any_of_them_loses_none(
    stoppable_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, counted = Pausing(stoppable_inputs), list[int]()
    runs.protocol = make_protocol(q="1/60")  # so that cells are kept, not maps

    def counting(batches: list[CandidateBatch], device: torch.device) -> CandidateBatch:
        counted.append(len(batches))
        return together(batches, device)

    monkeypatch.setattr("ndissect.engine.run.mask_counter.together", counting)
    alone = digest(runs.run(tmp_path / "alone.nd.h5", save_every=1e9))
    monkeypatch.setattr("ndissect.engine.measures.pieces._CELLS", {"cpu": 500})
    counted.clear()
    assert digest(runs.run(tmp_path / "whole.nd.h5", save_every=1e9)) == alone
    pieces = list(counted)
    assert max(pieces[:-1]) > 1
    first = -(-len(runs.dataset) // faults.BATCH)
    for n in range(1, len(pieces)):
        with pytest.raises(Pause):
            runs.run(tmp_path / OUT, save_every=1e9, stop_after=first + 1 + n)
        notes = Notes()
        assert digest(runs.run(tmp_path / OUT, save_every=1e9, notes=notes)) == alone
        [told] = [text for text in notes.told if "going on with the tally" in text]
        assert f"after {faults.BATCH * sum(pieces[:n])} of" in told


@pytest.mark.parametrize("stops", STOPS)
def test_a_null_that_would_be_too_dear_is_left_out_however_often_a_run_paused(
    stops: str, runs: Pausing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("CHEAP_SECONDS", "CHEAP_SHARE"):
        monkeypatch.setattr(f"ndissect.engine.run.count_pass.{limit}", -1.0)  # a cost may be measured as 0
    whole, paused, null = whole_and_paused(runs, tmp_path, STOPS[stops])
    assert paused == whole
    assert not null


def test_time_spent_before_a_pause_counts_where_the_cost_decides(
    runs: Pausing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The null takes longer than what is left of the run allows, and not longer than the whole of it allows."""
    monkeypatch.setattr("ndissect.engine.run.count_pass.CHEAP_SECONDS", 0.0)
    monkeypatch.setattr("ndissect.engine.run.mask_counter.MaskCounter.cost_of_pairings", lambda *given: 7.0)
    with pytest.raises(Pause):
        runs.run(tmp_path / OUT, null=None, stop_after=6)
    [state] = tmp_path.glob(".*.saved/0.phase0.safetensors")
    raw = state.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    seconds = json.loads(header["__metadata__"]["record"])["seconds"]
    assert seconds["decode"] > 0
    # As though the first half had taken 100 s.
    edit_sealed(state, runs.belongs(state.name, null=None), lambda r, s: r["seconds"].update(forward=100.0))
    outcome = runs.run(tmp_path / OUT, null=None)
    assert outcome.dissection is not None
    assert outcome.dissection.layers[0].null is not None
    assert outcome.seconds["forward"] > 100


def test_a_choice_once_made_stays_whatever_the_cost_would_be_now(
    runs: Pausing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost = [0.0]
    monkeypatch.setattr("ndissect.engine.run.mask_counter.MaskCounter.cost_of_pairings", lambda *given: cost[0])
    for now, later, expected in ((0.0, 1e9, True), (1e9, 0.0, False)):
        target = tmp_path / f"{now}.nd.h5"
        cost[0] = now
        with pytest.raises(Pause):
            runs.run(target, null=None, stop_after=15)
        cost[0] = later
        outcome = runs.run(target, null=None)
        assert outcome.dissection is not None
        assert (outcome.dissection.layers[0].null is not None) is expected


def test_a_choice_is_kept_before_anything_is_counted_with_it(
    runs: Pausing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill right after it: the run has saved itself before, and the next start does not choose again."""
    with pytest.raises(Pause):
        runs.run(tmp_path / OUT, null=None, stop_after=6)

    class Killed(Exception):
        pass

    def kill(*given: object) -> None:
        raise Killed

    with monkeypatch.context() as killed:
        killed.setattr("ndissect.engine.run.mask_counter.MaskCounter.keep_images", kill)
        with pytest.raises(Killed):
            runs.run(tmp_path / OUT, null=None, save_every=1e9)
    assert list(tmp_path.glob(".*.saved/0.phase1.safetensors"))
    monkeypatch.setattr("ndissect.engine.run.mask_counter.MaskCounter.cost_of_pairings", lambda *given: 1e9)
    outcome = runs.run(tmp_path / OUT, null=None)
    assert outcome.dissection is not None
    assert outcome.dissection.layers[0].null is not None


@pytest.mark.parametrize(("then", "now"), [(4000, faults.ONE_PASS), (faults.ONE_PASS, 40_000)])
def test_what_memory_allowed_at_the_beginning_is_counted_with_more_of_it_and_with_less(
    then: int, now: int, runs: Pausing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default --memory is half of what is free: never twice the same."""
    monkeypatch.setattr(evidence, "_LITTLE", 0)
    monkeypatch.setattr(evidence, "_SHARE", 0.1)
    whole, notes = runs.run(tmp_path / "whole.nd.h5", memory=then, save_every=1e9), Notes()
    with pytest.raises(Pause):
        runs.run(tmp_path / OUT, memory=then, stop_after=6)
    monkeypatch.setattr(evidence, "_SHARE", 0.001 if now < then else 0.9)
    paused = runs.run(tmp_path / OUT, memory=max(now, then), save_every=1e9, notes=notes)
    assert digest(paused) == digest(whole)
    assert any("left out" in text for text in notes.told) == (then < now)


def test_labels_that_are_in_memory_are_there_after_a_pause_as_well(
    runs: Pausing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading them would make the null look dearer than in a run that did not pause."""
    seen: list[bool] = []

    def cost(counting: object, batches: list[CandidateBatch], labels: LabelStore, count: int) -> float:
        images = np.array([image for batch in batches for image in batch.images])
        seen.append(len(images) > 0 and not len(labels.lacks(images)))
        return 0.0

    monkeypatch.setattr("ndissect.engine.run.mask_counter.MaskCounter.cost_of_pairings", cost)
    runs.run(tmp_path / OUT, null=None)
    with pytest.raises(Pause):
        runs.run(tmp_path / OUT, null=None, stop_after=6)
    runs.run(tmp_path / OUT, null=None)
    assert seen == [True, True]


# The command


def test_a_command_stopped_by_ctrl_c_ends_as_one_that_was_not(stoppable_inputs: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(stoppable_inputs, tmp_path, dirs_exist_ok=True))
    whole = nd_in(folder, *RUN)
    assert whole.returncode == 0, whole.stderr
    expected = numbers(folder / OUT)
    (folder / OUT).unlink()
    before = 0.0
    for at in ("3", "4"):
        with held(folder, *RUN, STOP_AT=at) as command:
            time.sleep(0.3)  # more than what is told is rounded to
            command.signal(signal.SIGINT)
        assert command.end().returncode == 130
        [run] = cli.json_of("status", folder=folder)["runs"]
        assert run["seconds"] > before, "what was spent before counts"
        before = run["seconds"]
    done = nd_in(folder, *RUN)
    assert done.returncode == 0, done.stderr
    assert numbers(folder / OUT) == expected
    with h5py.File(folder / OUT) as file:
        about = json.loads(bytes(file["provenance"][()]))["run"]
        assert any("null" in name for name in file["layers/first"])
    assert about["elapsed"] > before
