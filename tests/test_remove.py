"""``nd ablate`` on a generator's store: units set to zero, and the pixels that are then missing, concept by concept.

Unit k of the planted generator draws concept k (tests/planted_generator.py), so all that is measured is known exactly.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import planted_generator
import pytest
import torch
from bomb_factory import provenance
from planted_generator import CONCEPTS, PlantedGenerator, PlantedLabeller
from store_factory import write_small

from ndissect.engine.experiments import remove as module
from ndissect.engine.experiments.area_sums import Areas, areas_without
from ndissect.engine.experiments.generated import Generated, GeneratorRequest, open_generated
from ndissect.engine.experiments.remove import remove, remove_each
from ndissect.engine.experiments.saved_predictions import SavedPredictions
from ndissect.engine.machine.console import Console
from ndissect.engine.machine.progress import Progress
from ndissect.engine.networks.tail import Tail
from ndissect.engine.run.options import Options
from ndissect.engine.run.to_store import dissect_to_store
from ndissect.store.counts import BLOCKS
from ndissect.store.errors import WrongUse
from ndissect.store.intervals import margin
from ndissect.store.reader import Store
from ndissect.tui.tables.removed import RemovalReport

PLANTED = Path(planted_generator.__file__)
SAMPLES, UNITS, PIXELS = 48, 8, 32 * 32
BUILDING, SKY, TREE, DOOR = range(4)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the planted generator."""
    path = tmp_path_factory.mktemp("planted") / "planted.nd.h5"
    options = Options(
        f"{PLANTED}:generator",
        ("layer",),
        labeller=f"{PLANTED}:labeller",
        samples=SAMPLES,
        quantile="0.6",
        null=0,
        device="cpu",
    )
    dissect_to_store(options, Console(), output=path)
    return path


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """A copy of it, that may be changed."""
    return Path(shutil.copy(made, tmp_path / "planted.nd.h5"))


def request(store: Path, **options: Any) -> GeneratorRequest:
    return GeneratorRequest(store, "layer", Options(device="cpu", **options))


@pytest.fixture
def opened(made: Path) -> Iterator[Generated]:
    with open_generated(request(made, batch_size=10), Console()) as g:
        yield g


def by_hand(latents: torch.Tensor, units: list[int]) -> np.ndarray:
    """(n, 4): pixels of each concept, by a hook that zeroes channels of the layer, in plain PyTorch."""
    generator, labeller = PlantedGenerator(), PlantedLabeller()

    def zeroed(layer: object, given: object, maps: torch.Tensor) -> torch.Tensor:
        maps = maps.clone()
        maps[:, units] = 0
        return maps

    with generator.layer.register_forward_hook(zeroed), torch.no_grad():
        labels = labeller(generator(latents)).argmax(1)
    return np.stack([(labels == k + 1).sum((1, 2)).numpy() for k in range(len(CONCEPTS))], 1)


def rows(names: tuple[str, ...]) -> list[int]:
    """Where the planted concepts stand among ``names``."""
    return [names.index(name) for name in CONCEPTS]


def test_a_removal_takes_exactly_the_pixels_of_its_concept(made: Path, opened: Generated) -> None:
    done = remove(request(made), "tree", [1, 3], draws=3)
    tree, other = done.concept, [k for k in rows(done.concepts) if k != done.concept]
    assert done.concepts[tree] == "tree"
    assert done.before[tree] > 0.05
    first = done.top[0]
    assert first.units == (TREE,)
    assert first.after[tree] == 0
    np.testing.assert_array_equal(first.change[tree], -done.before[tree])
    # What a tree stood before is seen then: nothing goes, and buildings are seen where they were.
    assert (first.change[other] >= 0).all()
    assert first.low[tree] < first.change[tree] < first.high[tree] < 0


def test_idle_units_change_nothing(opened: Generated) -> None:
    areas = areas_without(opened, [(4,), (5, 7), (4, 5, 6, 7)], range(30))
    for row in range(3):
        np.testing.assert_array_equal(areas.after[:, row], areas.before)
    assert not areas.low.any()
    assert not areas.high.any()


def test_shares_are_those_of_hooks_in_plain_pytorch(opened: Generated) -> None:
    sets, samples = [(0,), (0, 2), (1, 4, 6), tuple(range(8))], list(range(37))
    areas = areas_without(opened, sets, samples)
    latents = opened.inputs(samples).cpu()
    names = tuple(opened.concepts.label(row) for row in range(len(opened.concepts)))
    before = by_hand(latents, [])
    np.testing.assert_array_equal(areas.before[:, rows(names)].sum(0), before.sum(0))
    for row, units in enumerate(sets):
        after = by_hand(latents, list(units))
        np.testing.assert_array_equal(areas.after[:, row][:, rows(names)].sum(0), after.sum(0))
        np.testing.assert_allclose(areas.change[row, rows(names)], (after - before).mean(0) / PIXELS, atol=1e-12)
        # The jackknife, block by block.
        change = (after - before) / PIXELS
        left = [np.delete(change, range(b, len(samples), BLOCKS), 0).mean(0) - change.mean(0) for b in range(BLOCKS)]
        half = margin(np.stack(left, 1))
        np.testing.assert_allclose(areas.low[row, rows(names)], np.maximum(change.mean(0) - half, -1), atol=1e-12)
        np.testing.assert_allclose(areas.high[row, rows(names)], np.minimum(change.mean(0) + half, 1), atol=1e-12)


def same(a: Areas, b: Areas) -> None:
    for name in ("samples", "before", "after"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


class Pause(BaseException):
    """What ends the work."""


@pytest.mark.parametrize("looks", [1, 4, 9, 17])
def test_work_that_is_stopped_goes_on_to_the_same_sums(opened: Generated, tmp_path: Path, looks: int) -> None:
    sets, target = [(unit,) for unit in range(4)], tmp_path / "store.nd.h5"
    left = iter(range(looks))

    def work(stop: Any) -> Areas:
        saved = SavedPredictions(target, {"of": "this"}, Progress(), every=0.0)
        return areas_without(opened, sets, range(40), saved=saved, stop=stop)

    with pytest.raises(Pause):
        work(lambda: None if next(left, None) is not None else Pause())
    assert list(tmp_path.glob(".store.nd.h5.*"))
    runs: list[int] = []

    class Counting(Tail):
        def start(self, inputs: Any) -> Any:
            runs.append(len(inputs))
            return super().start(inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ndissect.engine.experiments.area_sums.Tail", Counting)
        resumed = work(lambda: None)
    assert len(runs) <= 4 - looks // 5
    same(resumed, areas_without(opened, sets, range(40)))


def test_what_was_kept_of_other_work_is_not_taken(opened: Generated, tmp_path: Path) -> None:
    saved = SavedPredictions(tmp_path / "store", {}, Progress(), every=0.0)
    good = {
        name: torch.zeros(shape, dtype=torch.int64)
        for name, shape in (("samples", (BLOCKS,)), ("before", (BLOCKS, 4)), ("after", (BLOCKS, 1, 4)))
    }
    record = {"done": 0, "begun": 0, "sets_done": 0, "reason": ""}
    for state, told in (
        (good | {"after": torch.ones((BLOCKS, 2, 4), dtype=torch.int64)}, record),
        (good | {"before": torch.ones((BLOCKS, 4))}, record),
        (good, record | {"done": 7}),
        (good, record | {"done": "all"}),
        (good, {}),
    ):
        saved.save(state, told)
        same(areas_without(opened, [(0,)], range(12), saved=saved), areas_without(opened, [(0,)], range(12)))


def test_random_units_are_drawn_by_the_seed_and_all_units_have_none(made: Path) -> None:
    a, b, c = (remove(request(made), "sky", [2, UNITS], samples=20, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a.top[0].random, b.top[0].random)
    assert a.top[0].random.shape == (4, len(a.concepts))
    assert not np.array_equal(a.top[0].random, c.top[0].random)
    assert a.top[1].random.shape == (0, len(a.concepts))
    assert not a.top[1].after.any()


def test_random_units_are_others_than_the_best_where_enough_are_left(made: Path) -> None:
    done = remove(request(made), "tree", [1, 4, 5, UNITS], samples=12)
    assert [without.random_of for without in done.top] == ["others", "others", "all", "all"]
    report = RemovalReport(done, None)
    assert [top["random_of"] for top in report.to_json()["top"]] == ["others", "others", "all", None]
    assert "that are left of the 8 (for n = 5 of all, as too few are left)" in " ".join(report.notes())
    # No tree is lost without others: the four that are left draw none, and all sets of four are those.
    assert (done.top[0].random[:, done.concept] >= done.before[done.concept]).all()
    assert (done.top[1].random[:, done.concept] >= done.before[done.concept]).all()
    every = RemovalReport(remove(request(made), "tree", [7], samples=12), None)
    assert "as many units of all 8," in " ".join(every.notes())


def test_units_alone_are_written_into_the_store(store: Path) -> None:
    done = remove_each(request(store), samples=30)
    assert done.written
    with Store(store) as there:
        view = there.layer("layer")
        effects = view.concept_effects
        assert view.effect_pictures(TREE) is not None
    assert effects is not None
    assert effects.units.tolist() == list(range(UNITS))
    assert effects.samples == 30
    np.testing.assert_array_equal(effects.change, done.effects.change)
    tree = done.concepts.index("tree")
    assert effects.after[TREE, tree] == 0
    assert (effects.change[4:] == 0).all()
    assert effects.low[TREE, tree] <= effects.after[TREE, tree] <= effects.high[TREE, tree]
    assert [p.name for p in store.parent.iterdir()] == [store.name]


def test_best_units_by_effect_are_those_of_the_store(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = remove(request(store), "door", [1], by="effect", samples=30)  # measures them
    # A building hides its door's absence: without it none of its doors shows either.
    assert first.top[0].units[0] in (DOOR, BUILDING)
    monkeypatch.setattr(module, "_each", lambda *given: pytest.fail("they are in the store"))
    again = remove(request(store), "door", [1], by="effect", samples=30)
    assert again.top[0].units == first.top[0].units
    assert "ranked by their effects" in " ".join(again.notes)


def test_effects_of_other_weights_rank_nothing_and_are_not_written(store: Path) -> None:

    remove_each(request(store), samples=10)
    with h5py.File(store, "r+") as f:
        said = json.loads(f["provenance"][()])
        said["network"]["weights_digest"] = "0" * 64
        provenance(f, json.dumps(said))
    with pytest.raises(WrongUse, match="other weights"):
        remove(request(store), "door", [1], by="effect", samples=10)
    done = remove_each(request(store, anyway=True), samples=20)
    assert not done.written
    with Store(store) as there:
        effects = there.layer("layer").concept_effects
    assert effects is not None
    assert effects.samples == 10


def test_what_cannot_be_removed_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="treee") as wrong:
        remove(request(made), "treee", [1])
    assert "tree" in (wrong.value.hint or "")
    with pytest.raises(WrongUse, match="8 units, of which 9"):
        remove(request(made), "tree", [1, 9])
    with pytest.raises(WrongUse, match="no unit 8"):
        remove_each(request(made), [8])
    other = tmp_path / "small.nd.h5"
    write_small(other)
    with pytest.raises(WrongUse, match="no generator"):
        remove(GeneratorRequest(other), "tree", [1])
