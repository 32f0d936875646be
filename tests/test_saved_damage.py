"""What a run saved and then was damaged, edited or exchanged: recounted or refused, never counted wrongly."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faults
import pytest
import torch
from pausing import Notes, Pause, Pausing, digest, edit_sealed

from ndissect.engine.machine.sealed import read_sealed
from ndissect.engine.measures.cells import active_cells
from ndissect.store.errors import NDError
from ndissect.store.paused import saved_folder

#: Of each form: the memory, and after how many batches it is stopped: in the first pass, in the tally, in a later pass.
FORMS = {"one pass": (faults.ONE_PASS, 6), "second pass": (faults.SECOND_PASS, 16), "radix": (faults.RADIX, 30)}
#: Trials of each form; more of them, and others, by hand: TRIALS=1000 SEED=7 pytest tests/test_saved_damage.py
TRIALS, SEED = int(os.environ.get("TRIALS", "60")), int(os.environ.get("SEED", "1"))
NEVER = 1e9


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Pausing:
    return Pausing(faults.write_inputs(tmp_path_factory.mktemp("inputs")))


@pytest.fixture(scope="module")
def right(runs: Pausing, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of a run that nothing disturbs."""
    return digest(runs.run(tmp_path_factory.mktemp("whole") / "out.nd.h5", save_every=NEVER))


@pytest.fixture(scope="module")
def states(runs: Pausing, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of each form what a run has saved that was stopped half-way."""
    return {form: stopped(runs, tmp_path_factory.mktemp("half"), form) for form in FORMS}


def stopped(runs: Pausing, folder: Path, form: str, **more: Any) -> Path:
    memory, batches = FORMS[form]
    given = {"memory": memory, "stop_after": batches} | more
    with pytest.raises(Pause):
        runs.run(folder / "out.nd.h5", **given)
    return saved_folder(folder / "out.nd.h5")


class Trial:
    """A copy of a saved state, to be damaged and gone on from."""

    def __init__(self, runs: Pausing, state: Path, folder: Path, form: str) -> None:
        self._runs, self._form, self.target, self.notes = runs, form, folder / "out.nd.h5", Notes()
        self.state = saved_folder(self.target)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(state, self.state)

    def go_on(self, right: str) -> str:
        """How it ended: ``refused``, ``anew`` or ``went on``; anything but that and the right counts is a failure."""
        try:
            outcome = self._runs.run(self.target, memory=FORMS[self._form][0], save_every=NEVER, notes=self.notes)
        except NDError as e:
            assert e.message
            assert e.hint
            assert "\n" not in e.message + e.hint
            return "refused"
        assert digest(outcome) == right
        assert not self.state.exists()
        return "anew" if any("starting from the beginning" in told for told in self.notes.told) else "went on"


@pytest.mark.parametrize("form", FORMS)
def test_what_is_left_alone_is_gone_on_from(
    form: str, runs: Pausing, right: str, states: dict[str, Path], tmp_path: Path
) -> None:
    assert Trial(runs, states[form], tmp_path / "trial", form).go_on(right) == "went on"


# Bits


@pytest.mark.parametrize("form", FORMS)
def test_a_bit_that_changed_in_any_file_never_changes_a_count(
    form: str, runs: Pausing, right: str, states: dict[str, Path], tmp_path: Path
) -> None:
    """Each file is met as often as any other, be it as small as it may; and the first bytes of the large ones."""
    chance = random.Random(f"{form} {SEED}")
    ended: dict[str, Counter[str]] = {}
    for number in range(TRIALS):
        trial = Trial(runs, states[form], tmp_path / "trial", form)
        files = sorted(trial.state.iterdir())
        path = files[number % len(files)]
        raw = bytearray(path.read_bytes())
        within = len(raw) if chance.random() < 0.7 else min(len(raw), 3000)
        at = chance.randrange(within)
        raw[at] ^= 1 << chance.randrange(8)
        path.write_bytes(raw)
        ended.setdefault(path.name.rstrip("0123456789"), Counter())[trial.go_on(right)] += 1
    last = f"0.phase{ {'one pass': 0, 'second pass': 1, 'radix': 2}[form] }.safetensors"
    assert set(ended[last]) == {"anew"}
    assert set(ended["run.json"]) == set(ended["lock"]) == {"refused"}
    assert set(ended["status.json"]) == {"went on"}, "it decides nothing"
    kept = [how for name, how in ended.items() if "kept" in name]
    assert all(set(how) == {"refused"} for how in kept)
    print(form, TRIALS, {name: dict(how) for name, how in ended.items()})


# Whole files


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0" * 8)


def gone(path: Path) -> None:
    path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("damage", [halved, emptied, longer, gone, a_folder, a_pipe])
@pytest.mark.parametrize("form", ["one pass", "second pass"])
def test_a_file_that_is_cut_or_gone_or_something_else_never_changes_a_count(
    damage: Callable[[Path], None], form: str, runs: Pausing, right: str, states: dict[str, Path], tmp_path: Path
) -> None:
    for name in sorted(path.name for path in states[form].iterdir()):
        trial = Trial(runs, states[form], tmp_path / "trial", form)
        damage(trial.state / name)
        ended = trial.go_on(right)
        if damage in (a_folder, a_pipe):
            assert ended == "refused"


def test_files_in_each_other_s_place_are_found(
    runs: Pausing, right: str, states: dict[str, Path], tmp_path: Path
) -> None:
    for form, a, b, expected in [
        ("one pass", "0.kept0.safetensors", "0.kept1.safetensors", "refused"),
        ("one pass", "0.kept0.safetensors", "0.phase0.safetensors", "anew"),
        ("second pass", "0.phase0.safetensors", "0.phase1.safetensors", "anew"),
        ("radix", "0.phase1.safetensors", "0.phase2.safetensors", "anew"),
    ]:
        trial = Trial(runs, states[form], tmp_path / "trial", form)
        one, other = (trial.state / a).read_bytes(), (trial.state / b).read_bytes()
        (trial.state / a).write_bytes(other)
        (trial.state / b).write_bytes(one)
        assert trial.go_on(right) == expected, (a, b)


def test_files_of_another_run_or_another_process_are_found(
    runs: Pausing, right: str, states: dict[str, Path], tmp_path: Path
) -> None:
    other = stopped(runs, tmp_path, "one pass", null=3)
    for name in ("0.phase0.safetensors", "0.kept0.safetensors", "run.json"):
        trial = Trial(runs, states["one pass"], tmp_path / "trial", "one pass")
        shutil.copy(other / name, trial.state / name)
        assert trial.go_on(right) == ("anew" if "phase" in name else "refused"), name
    trial = Trial(runs, states["one pass"], tmp_path / "trial", "one pass")
    (trial.state / "0.phase0.safetensors").rename(trial.state / "1.phase0.safetensors")
    assert trial.go_on(right) == "went on", "nothing that is this process's is there: it begins"


def test_files_of_another_moment_of_the_same_run_give_the_same_counts(
    runs: Pausing, right: str, states: dict[str, Path], tmp_path: Path
) -> None:
    """An earlier state is a state; a part that does not go with it is found."""
    earlier = stopped(runs, tmp_path, "one pass", stop_after=3)
    trial = Trial(runs, states["one pass"], tmp_path / "trial", "one pass")
    shutil.copy(earlier / "0.phase0.safetensors", trial.state)
    assert trial.go_on(right) == "went on"
    later = stopped(runs, tmp_path, "one pass", save_every=NEVER, stop_after=3)  # other parts than the run has
    trial = Trial(runs, states["one pass"], tmp_path / "trial", "one pass")
    shutil.copy(later / "0.kept0.safetensors", trial.state / "0.kept1.safetensors")
    assert trial.go_on(right) == "refused"


# Edited


def edit_header(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the record in a file of tensors, as somebody with an editor might: its digest does not fit any more."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    record = json.loads(header["__metadata__"]["record"])
    change(record)
    header["__metadata__"]["record"] = json.dumps(record)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])


EDITS: dict[str, Callable[[dict[str, Any]], None]] = {
    "fewer done": lambda r: r.update(done=r["done"] - 2),
    "more done": lambda r: r.update(done=r["done"] + 2),
    "none done": lambda r: r.update(done=0),
    "done below 0": lambda r: r.update(done=-2),
    "done a text": lambda r: r.update(done="12"),
    "done NaN": lambda r: r.update(done=float("nan")),
    "done without end": lambda r: r.update(done=10**30),
    "no parts": lambda r: r.update(parts=[]),
    "one part less": lambda r: r.update(parts=r["parts"][:-1]),
    "one part twice": lambda r: r.update(parts=[*r["parts"], *r["parts"][:1]]),
    "parts from elsewhere": lambda r: r.update(parts=[["../../elsewhere/0.kept0.safetensors", "0" * 64]]),
    "a part by its path": lambda r: r.update(parts=[["/etc/passwd", "0" * 64]]),
    "parts a number": lambda r: r.update(parts=3),
    "parts without digests": lambda r: r.update(parts=[name for name, _ in r["parts"]]),
    "a batch of a text": lambda r: r.update(batch="all"),
    "a batch of nothing": lambda r: r.update(batch=0),
    "thresholds in NaN bytes": lambda r: r.update(thresholds=float("nan")),
    "thresholds in 10^30 bytes": lambda r: r.update(thresholds=10**30),
    "no thresholds": lambda r: r.update(thresholds=0),
    "seconds NaN": lambda r: r.update(seconds={"tally": float("nan")}),
    "seconds a list": lambda r: r.update(seconds=[]),
    "choices gone": lambda r: r.pop("choices"),
    "choices of another type": lambda r: r.update(choices={"intervals": 1, "the null": 1, "AUPRC": 1, "notes": []}),
    "status gone": lambda r: r.pop("status"),
    "empty": lambda r: r.clear(),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_edited_record_is_found(
    form: str, runs: Pausing, right: str, states: dict[str, Path], tmp_path: Path
) -> None:
    for name, edit in EDITS.items():
        trial = Trial(runs, states[form], tmp_path / "trial", form)
        path = max(trial.state.glob("0.phase*"))
        before = path.read_bytes()
        edit_header(path, edit)
        same = json.loads(before[8 : 8 + int.from_bytes(before[:8], "little")])["__metadata__"]["record"]
        changed = json.loads(same)
        edit(changed)
        if changed != json.loads(same):
            assert trial.go_on(right) == "anew", name


# Where what is counted cannot tell: a later pass may have met any number of images, and less memory takes more passes.
BLIND = {"radix": ("fewer done", "more done", "none done")}


@pytest.mark.parametrize("form", FORMS)
def test_an_edited_record_whose_digest_fits_ends_in_words_or_in_the_right_counts(
    form: str, runs: Pausing, right: str, states: dict[str, Path], tmp_path: Path
) -> None:
    for name, edit in EDITS.items():
        if name in BLIND.get(form, ()):
            continue
        trial = Trial(runs, states[form], tmp_path / "trial", form)
        path = max(trial.state.glob("0.phase*"))
        edit_sealed(path, runs.belongs(path.name), lambda record, state, edit=edit: edit(record))  # type: ignore[misc]
        assert trial.go_on(right) in ("refused", "anew", "went on"), name


@pytest.mark.parametrize("form", FORMS)
def test_tensors_of_other_forms_whose_digest_fits_are_refused_in_words(
    form: str, runs: Pausing, states: dict[str, Path], right: str, tmp_path: Path
) -> None:
    """Every tensor in turn: left out, longer, of another type, of no length."""
    shapes: dict[str, Callable[[torch.Tensor], torch.Tensor | None]] = {
        "left out": lambda t: None,
        "longer": lambda t: torch.cat([t.reshape(-1), t.reshape(-1), t.new_zeros(1)]),
        "of no length": lambda t: t.new_zeros(0),
    }
    last = max(path.name for path in states[form].glob("0.phase*"))
    names = list(read_sealed(states[form] / last, runs.belongs(last)).state)
    for name in names:
        for how, change in shapes.items():
            trial = Trial(runs, states[form], tmp_path / "trial", form)

            def put(record: dict[str, Any], state: dict[str, torch.Tensor], name: str = name, change: Any = change):
                found = change(state.pop(name))
                if found is not None:
                    state[name] = found

            edit_sealed(trial.state / last, runs.belongs(last), put)
            assert trial.go_on(right) in ("refused", "anew", "went on"), (name, how)


def of_cells(record: dict[str, Any], state: dict[str, torch.Tensor]) -> None:
    """Of the maps of the first layer the cells instead, all of them: what a longer run would have kept."""
    maps = state.pop("0.0.maps")
    cells = active_cells(maps, torch.full((maps.shape[1],), -torch.inf), "half-pixel")
    state |= {"0.0.index": cells.index, "0.0.corners": cells.corners, "0.0.shape": torch.tensor(cells.shape)}


def ending(words: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., None]:
    """A change of the tensors whose names end so."""

    def put(record: dict[str, Any], state: dict[str, torch.Tensor]) -> None:
        state |= {name: change(t) for name, t in state.items() if name.endswith(words)}

    return put


PIECES: dict[str, Callable[[dict[str, Any], dict[str, torch.Tensor]], None]] = {
    "images counted twice": lambda r, s: r.update(images=[[0, 0] for _ in r["images"]]),
    "images that are not there": lambda r, s: r.update(images=[[10**9, 10**9 + 1] for _ in r["images"]]),
    "images below 0": lambda r, s: r.update(images=[[-1, -2] for _ in r["images"]]),
    "images in words": lambda r, s: r.update(images=["all"]),
    "more images than maps": lambda r, s: r.update(images=[[*i, 23] for i in r["images"]]),
    "no images": lambda r, s: r.update(images=[[]]),
    "cells out of the map": ending("index", lambda t: t + 10**6),
    "cells before the map": ending("index", lambda t: t - 10**6),
    "cells twice": ending("index", torch.zeros_like),
    "cells in floats": ending("index", torch.Tensor.float),
    "absurd shapes": ending("shape", lambda t: torch.tensor([2**40] * 4)),
    "shapes of too few": ending("shape", lambda t: t[:2]),
    "corners of integers": ending("corners", torch.Tensor.long),
    "maps of another layer": ending("maps", lambda t: t.transpose(1, 2)),
    "no layer": lambda r, s: s.clear(),
}


@pytest.mark.parametrize("edit", [None, *PIECES])
def test_what_may_fire_is_looked_at_before_it_is_counted(
    edit: str | None, runs: Pausing, right: str, states: dict[str, Path], tmp_path: Path
) -> None:
    """Its digest, and that in the record of the phase, fit: what it holds cannot be of this run."""
    trial = Trial(runs, states["one pass"], tmp_path / "trial", "one pass")
    name = "0.kept0.safetensors"
    edit_sealed(trial.state / name, runs.belongs(name), of_cells)
    if edit:
        edit_sealed(trial.state / name, runs.belongs(name), PIECES[edit])
    fits = read_sealed(trial.state / name, runs.belongs(name)).digest

    def point(record: dict[str, Any], state: dict[str, torch.Tensor]) -> None:
        record["parts"][0][1] = fits

    phase = "0.phase0.safetensors"
    edit_sealed(trial.state / phase, runs.belongs(phase), point)
    assert trial.go_on(right) == ("refused" if edit else "went on")
