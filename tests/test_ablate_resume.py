"""Predictions without units that are stopped: the same work goes on from what was saved, to the same result."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ablating import Head, OfTensors, classified, images, network
from test_ablate import SETS

from ndissect.engine.experiments import predictions as module
from ndissect.engine.experiments.predictions import Predictions, predict_without
from ndissect.engine.experiments.saved_predictions import SavedPredictions
from ndissect.engine.machine.progress import Progress
from ndissect.engine.machine.sealed import read_sealed
from ndissect.engine.networks.tail import Tail

KEY = {"layer": "units"}


class Pause(KeyboardInterrupt):
    """What ends work that was told to stop."""


@dataclass
class Notes(Progress):
    """What work says in words, and how many predictions it says it has made."""

    told: list[str] = field(default_factory=list)
    made: int = 0

    def note(self, text: str) -> None:
        self.told.append(text)

    def advance(self, images: int) -> None:
        self.made += images


@pytest.fixture(params=["linear", "nonlinear"])
def head(request: pytest.FixtureRequest) -> Head:
    known: Head = request.param
    return known


def work(
    head: Head, target: Path, *, stop_after: int | None = None, by: Any = "zero", key: Any = None, **of: Any
) -> tuple[Predictions, Notes]:
    """Predict what is left, saved after every step; Pause after so many looks at whether to stop."""
    looks = iter(range(10**6))

    def stop() -> BaseException | None:
        return Pause() if stop_after is not None and next(looks) >= stop_after else None

    notes = Notes()
    c: OfTensors = replace(classified(network(head), images(23), stop=stop, **of), progress=notes)
    saved = SavedPredictions(target, key or KEY, notes, every=0.0)
    return predict_without(c, SETS, c.images, by, saved=saved), notes


def same(a: Predictions, b: Predictions) -> None:
    np.testing.assert_array_equal(a.images, b.images)
    np.testing.assert_array_equal(a.predicted, b.predicted)
    np.testing.assert_allclose(a.score, b.score, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(a.plain_score, b.plain_score, rtol=1e-5, atol=1e-5)
    assert a.how == b.how


@pytest.mark.parametrize("by", ["zero", "resample"])
@pytest.mark.parametrize("of", [{}, {"bad": (7, 13)}], ids=["all", "without some"])
def test_work_that_is_stopped_goes_on_to_the_same_result(head: Head, by: Any, of: Any, tmp_path: Path) -> None:
    whole, _ = work(head, tmp_path / "whole", by=by, **of)
    for stops in (1, 2, 9, 20):
        target = tmp_path / f"{stops}.nd.h5"
        try:
            work(head, target, stop_after=stops, by=by, **of)
        except Pause:
            (saved,) = tmp_path.glob(f".{stops}.nd.h5.*.ablation")
            assert saved.is_file()
        resumed, notes = work(head, target, by=by, **of)
        same(resumed, whole)
        assert all(text.startswith("going on after") for text in notes.told)


def test_what_was_predicted_in_a_batch_is_not_predicted_again(tmp_path: Path) -> None:
    runs = []

    class Counting(Tail):
        def run(self, edit: Any) -> Any:
            runs.extend([1] * isinstance(edit, partial))  # not those by which it tries itself
            return super().run(edit)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "Tail", Counting)
        with pytest.raises(Pause):
            work("nonlinear", tmp_path / "store", stop_after=3, batch=23)
        before = len(runs)
        assert 0 < before < len(SETS) - 1
        work("nonlinear", tmp_path / "store", batch=23)
        assert len(runs) == len(SETS) - 1  # unit 4 is dead: without it nothing need be run


def test_other_work_and_damage_start_anew(head: Head, tmp_path: Path) -> None:
    target = tmp_path / "store.nd.h5"
    with pytest.raises(Pause):
        work(head, target, stop_after=2)
    (file,) = tmp_path.glob(".*.ablation")
    _, notes = work(head, target, key={"layer": "other"})
    assert notes.told == []  # which lies in a file of its own
    for damage in (b"", file.read_bytes()[:-1], file.read_bytes()[:-1] + b"x"):
        file.write_bytes(damage)
        resumed, notes = work(head, target)
        assert notes.told == []
    same(resumed, work(head, tmp_path / "whole")[0])


def test_a_file_of_another_shape_is_not_taken(tmp_path: Path) -> None:
    target = tmp_path / "store.nd.h5"
    with pytest.raises(Pause):
        work("linear", target, stop_after=1)
    saved = SavedPredictions(target, KEY, Progress())
    there = saved.load()
    assert there is not None
    state = dict(there.state)
    bad: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (state | {"predicted": state["predicted"][:, :-1]}, there.record),
        (state | {"predicted": state["predicted"] + 100}, there.record),
        (state | {"predicted": state["predicted"].long()}, there.record),
        ({"predicted": state["predicted"]}, there.record),
        (state, there.record | {"done": 10**6}),
        (state, there.record | {"how": "guessed"}),
        (state, there.record | {"reason": 7}),
    ]
    for tensors, record in bad:
        saved.save({k: t.contiguous() for k, t in tensors.items()}, record)
        assert work("linear", target)[1].told == []


def test_a_disk_that_does_not_take_it_is_told_once(head: Head, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    _, notes = work(head, tmp_path / "file" / "store.nd.h5")
    assert len(notes.told) == 1
    assert "a kill would lose what it has predicted" in notes.told[0]


def test_progress_tells_of_every_prediction(head: Head, tmp_path: Path) -> None:
    _, notes = work(head, tmp_path / "store")
    assert notes.made == 23 * len(SETS)
    assert notes.left == 0


def test_nothing_else_is_left_beside_the_store(head: Head, tmp_path: Path) -> None:
    with pytest.raises(Pause):
        work(head, tmp_path / "store.nd.h5", stop_after=3)
    (file,) = tmp_path.iterdir()
    belongs = SavedPredictions(tmp_path / "store.nd.h5", KEY, Progress())
    assert file == belongs.path
    assert set(read_sealed(file, belongs._belongs).record) == {"done", "how", "reason"}
    belongs.remove()
    assert not list(tmp_path.iterdir())
