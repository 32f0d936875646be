"""A run that is killed, whenever that is, goes on where it was and ends with the same counts, bit for bit."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import faults
import pytest
from faults import Running, Told, Work, finish

FORMS = {"one pass": faults.ONE_PASS, "second pass": faults.SECOND_PASS, "radix": faults.RADIX}
KILLS = 7  # of each form: 21 altogether


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faults.write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def whole(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[Told], dict[str, bytes]]]:
    """Of each form what an uninterrupted run tells, and its numbers."""
    found = {}
    for form, memory in FORMS.items():
        work = Work(inputs, tmp_path_factory.mktemp("whole"), memory)
        run = finish(work)
        assert run.code == 0, run.told[-1]
        found[form] = run.told, faults.numbers(work.store)
    return found


def test_the_forms_are_what_they_are_called_and_count_the_same(
    whole: dict[str, tuple[list[Told], dict[str, bytes]]],
) -> None:
    phases = {form: [t.phase for t in told if t.what == "start"] for form, (told, _) in whole.items()}
    assert phases == {
        "one pass": ["thresholds", "tally 1"],
        "second pass": ["thresholds", "tally 1", "tally 2"],
        "radix": ["thresholds 1/3", "thresholds 2/3", "thresholds 3/3", "tally 1"],
    }
    first, *others = [numbers for _, numbers in whole.values()]
    assert all(numbers == first for numbers in others)


# Killed


@dataclass(frozen=True)
class Kill:
    """A kill -9: the phase that it met, whether while saving, what was saved then, and what the next run took up."""

    phase: str
    saving: bool
    saved: tuple[int, int] | None
    loaded: tuple[int, int] | None
    right: bool


def place(told: list[Told]) -> tuple[int, int] | None:
    """The phase and image of the last of some savings or loadings."""
    return (int(told[-1].phase), told[-1].done) if told else None


def killed(work: Work, moment: int, delay: float, numbers: dict[str, bytes]) -> Kill | None:
    """A run killed a while after the ``moment``-th thing that it told, and resumed; None where it ended before."""
    with Running(work) as run:
        run.until(moment)
        run.process.join(delay)
        run.kill()
    if run.code == 0:
        return None
    assert run.code == -9
    assert not work.store.exists()
    again = finish(work)
    assert again.code == 0, again.told[-1]
    assert not work.state.exists()
    phase = next(t.phase for t in reversed(run.told) if t.what in ("start", "advance"))
    right = faults.numbers(work.store) == numbers
    return Kill(phase, run.told[-1].what == "saving", place(run.all("saved")), place(again.all("loaded")), right)


@pytest.fixture(scope="module")
def kills(
    inputs: Path,
    whole: dict[str, tuple[list[Told], dict[str, bytes]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, list[Kill]]:
    """Seven kills of each form, at random moments all over the run, and more where a phase or a saving met none."""
    chance = random.Random(8)
    found: dict[str, list[Kill]] = {form: [] for form in FORMS}
    for form, memory in FORMS.items():
        told, numbers = whole[form]
        begin = next(i for i, t in enumerate(told) if t.what == "start") + 1
        step = (len(told) - 1 - begin) / KILLS
        while len(found[form]) < KILLS:
            moment = begin + int((len(found[form]) + chance.random()) * step)
            work = Work(inputs, tmp_path_factory.mktemp("killed"), memory)
            kill = killed(work, moment, chance.random() * work.pause, numbers)
            found[form] += [kill] if kill else []
        for _ in range(20):
            met = {k.phase for k in found[form]}
            unmet = [i for i, t in enumerate(told, 1) if t.what == "advance" and t.phase not in met]
            if not unmet and not any(k.saving for k in found[form]):
                unmet = [i for i, t in enumerate(told, 1) if t.what == "saving"]
            if not unmet:
                break
            work = Work(inputs, tmp_path_factory.mktemp("killed"), memory)
            kill = killed(work, chance.choice(unmet), 0.0, numbers)
            found[form] += [kill] if kill else []
    return found


@pytest.mark.parametrize("form", FORMS)
def test_every_kill_is_resumed_to_identical_counts(form: str, kills: dict[str, list[Kill]]) -> None:
    assert [k for k in kills[form] if not k.right] == []


@pytest.mark.parametrize("form", FORMS)
def test_a_resumed_run_takes_up_the_last_that_was_saved(form: str, kills: dict[str, list[Kill]]) -> None:
    for kill in kills[form]:
        if kill.saved is not None:
            assert kill.loaded is not None
            assert kill.loaded >= kill.saved, "one more may have been saved than could be told"
    assert any(k.loaded and 0 < k.loaded[1] < faults.IMAGES for k in kills[form]), "some were in the middle"


def test_the_kills_met_every_phase_and_some_a_saving(kills: dict[str, list[Kill]]) -> None:
    met = {form: Counter(k.phase for k in some) for form, some in kills.items()}
    assert set(met["one pass"]) == {"thresholds", "tally 1"}, met
    assert set(met["second pass"]) == {"thresholds", "tally 1", "tally 2"}, met
    assert set(met["radix"]) == {"thresholds 1/3", "thresholds 2/3", "thresholds 3/3", "tally 1"}, met
    assert all(any(k.saving for k in some) for some in kills.values()), kills


@pytest.mark.parametrize("form", FORMS)
def test_a_run_killed_again_and_again_comes_to_its_end(
    form: str, inputs: Path, tmp_path: Path, whole: dict[str, tuple[list[Told], dict[str, bytes]]]
) -> None:
    """Each life is a few batches long: were anything done anew each time, it would never end."""
    work = Work(inputs, tmp_path, FORMS[form])
    lives, seen = 0, (-1, 0)
    while not work.store.exists():
        lives += 1
        assert lives < 30
        savings = 0

        def enough(t: Told) -> bool:
            nonlocal savings
            savings += t.what == "saved"
            return savings == 9

        with Running(work) as run:
            run.until(enough)
            run.kill()
        loaded = place(run.all("loaded"))
        assert loaded is None or loaded >= seen
        seen = max(seen, place(run.all("saved")) or seen)
    assert lives > 1
    assert faults.numbers(work.store) == whole[form][1]


@pytest.mark.parametrize("sync", [*range(7), 30, 31, 32, 33])
def test_a_kill_at_any_step_of_a_saving_leaves_the_old_state_or_the_new_one(
    sync: int, inputs: Path, tmp_path: Path, whole: dict[str, tuple[list[Told], dict[str, bytes]]]
) -> None:
    """Before a file is synced, between that and its name, and after that; the first files are those of the key."""
    work = Work(inputs, tmp_path, pause=0.0)
    run = finish(replace(work, die_at=sync))
    assert run.code == -9
    again = finish(work)
    assert again.code == 0, again.told[-1]
    saved, loaded = place(run.all("saved")), place(again.all("loaded"))
    assert saved is None or (loaded is not None and loaded >= saved)
    assert faults.numbers(work.store) == whole["one pass"][1]


@pytest.mark.parametrize("form", FORMS)
def test_images_that_cannot_be_read_are_left_out_once_however_often_a_run_is_killed(
    form: str, inputs: Path, tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(inputs, tmp_path / "broken"))
    for name in ("0003", "0010", "0011", "0022"):
        picture = broken / "small" / "images" / "made" / f"{name}.png"
        picture.write_bytes(picture.read_bytes()[:100])
    work = Work(broken, tmp_path, FORMS[form], pause=0.0)
    whole = finish(work)
    assert whole.code == 0, whole.told[-1]
    expected = faults.numbers(work.store)
    for moment in range(20, len(whole.told) - 15, len(whole.told) // 3):
        work.store.unlink()
        with Running(replace(work, pause=0.01)) as run:
            run.until(moment)
            run.kill()
        assert run.code == -9
        again = finish(work)
        assert again.code == 0, again.told[-1]
        assert again.all("loaded")
        assert faults.numbers(work.store) == expected


# What was saved is damaged, missing or of other work


@pytest.fixture(scope="module")
def halves(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of each form a folder with what a run has saved that was killed in its last phase but one, or the first."""
    found = {}
    for form, memory in FORMS.items():
        folder = tmp_path_factory.mktemp("half")
        phase = {"one pass": "0", "second pass": "1", "radix": "2"}[form]
        with Running(Work(inputs, folder, memory, pause=0.05)) as run:
            run.until(lambda t, p=phase: (t.what, t.phase) == ("saved", p) and t.done >= 8)  # type: ignore[misc]
            run.kill()
        assert run.code == -9
        found[form] = folder
    return found


DAMAGES = {
    "cut": lambda b: b[: len(b) // 2],
    "empty": lambda b: b"",
    "zeros": lambda b: bytes(len(b)),
    "of something else": lambda b: b"\x02\0\0\0\0\0\0\0{}",  # a file of tensors, without any
}
DAMAGED = [
    ("one pass", "run.json"),
    ("one pass", "0.phase0.safetensors"),
    ("one pass", "0.kept0.safetensors"),
    ("second pass", "0.phase1.safetensors"),
    ("radix", "0.phase2.safetensors"),
]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("form", "name"), DAMAGED)
def test_a_damaged_state_is_a_clear_error_or_a_new_beginning_and_never_a_wrong_count(
    form: str,
    name: str,
    damage: str,
    inputs: Path,
    tmp_path: Path,
    halves: dict[str, Path],
    whole: dict[str, tuple[list[Told], dict[str, bytes]]],
) -> None:
    shutil.copytree(halves[form], tmp_path, dirs_exist_ok=True)
    work = Work(inputs, tmp_path, FORMS[form], pause=0.0)
    path = work.state / name
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    run = finish(work)
    if name.startswith("0.phase"):
        assert run.code == 0, run.told[-1]
        assert "cannot be read: starting from the beginning" in run.all("note")[0].text
        assert faults.numbers(work.store) == whole[form][1]
    else:
        assert run.code == 1, run.told[-1]
        assert "cannot be read" in run.told[-1].text
        assert "--restart" in run.told[-1].text
        assert not work.store.exists()


def test_what_is_left_without_a_key_is_not_gone_on_with(
    inputs: Path, tmp_path: Path, halves: dict[str, Path], whole: dict[str, tuple[list[Told], dict[str, bytes]]]
) -> None:
    """A kill while a state is thrown away may leave any part of it; nothing says what work that is of."""
    shutil.copytree(halves["second pass"], tmp_path, dirs_exist_ok=True)
    work = Work(inputs, tmp_path, pause=0.0)
    (work.state / "run.json").unlink()
    run = finish(work)
    assert run.code == 0, run.told[-1]
    assert run.all("loaded") == []
    assert faults.numbers(work.store) == whole["one pass"][1]


def test_a_state_that_loses_its_folder_does_not_end_the_run(
    inputs: Path, tmp_path: Path, whole: dict[str, tuple[list[Told], dict[str, bytes]]]
) -> None:
    work = Work(inputs, tmp_path)
    with Running(work) as run:
        run.until(lambda t: t.what == "saved")
        work.state.rename(tmp_path / "gone")
    assert run.code == 0, run.told[-1]
    assert any("the run goes on, but a kill would lose" in t.text for t in run.all("note"))
    assert faults.numbers(work.store) == whole["one pass"][1]


@pytest.mark.parametrize(
    ("then", "now"),
    [("radix", "one pass"), ("one pass", "second pass"), ("second pass", "one pass")],
)
def test_a_run_goes_on_with_more_memory_and_with_less_where_the_thresholds_still_fit(
    then: str,
    now: str,
    inputs: Path,
    tmp_path: Path,
    halves: dict[str, Path],
    whole: dict[str, tuple[list[Told], dict[str, bytes]]],
) -> None:
    """By default half of what is free: never twice the same."""
    shutil.copytree(halves[then], tmp_path, dirs_exist_ok=True)
    work = Work(inputs, tmp_path, FORMS[now], pause=0.0)
    run = finish(work)
    assert run.code == 0, run.told[-1]
    loaded = place(run.all("loaded"))
    assert loaded is not None
    assert loaded[1] > 0
    assert faults.numbers(work.store) == whole[then][1]


def test_what_no_longer_fits_the_memory_is_counted_once(
    inputs: Path, tmp_path: Path, whole: dict[str, tuple[list[Told], dict[str, bytes]]]
) -> None:
    """Killed with all kept, then in the tally of the part that fits less memory: the rest lies on the disk still."""
    for memory, phase, done in ((faults.ONE_PASS, "0", 20), (faults.SECOND_PASS, "1", 0)):
        with Running(Work(inputs, tmp_path, memory, pause=0.05)) as run:
            run.until(lambda t, p=phase, n=done: (t.what, t.phase) == ("saved", p) and t.done >= n)  # type: ignore[misc]
            run.kill()
        assert run.code == -9
    work = Work(inputs, tmp_path, faults.SECOND_PASS)
    run = finish(work)
    assert run.code == 0, run.told[-1]
    assert [t.phase for t in run.all("start")] == ["tally 1", "tally 2"]
    assert faults.numbers(work.store) == whole["one pass"][1]


def test_less_memory_than_the_thresholds_of_an_unfinished_run_take_is_refused(
    inputs: Path, tmp_path: Path, halves: dict[str, Path]
) -> None:
    shutil.copytree(halves["one pass"], tmp_path, dirs_exist_ok=True)
    work = Work(inputs, tmp_path, faults.RADIX)
    run = finish(work)
    assert run.code == 1
    for words in ("10.0 kB", "--memory is 100 B", "--restart"):
        assert words in run.told[-1].text
    assert finish(replace(work, memory=faults.ONE_PASS)).code == 0
