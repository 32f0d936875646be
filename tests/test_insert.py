"""``nd insert``: what inserting a concept's units at one location at a time changes, by what stood there before."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cli
import numpy as np
import planted_generator
import pytest
import torch
from PIL import Image
from planted_generator import CELLS, CONCEPTS, PlantedGenerator, PlantedLabeller

import ndissect.engine.experiments.insert as module
from ndissect.engine.experiments.generated import GeneratorRequest
from ndissect.engine.experiments.insert import Insertion, insert, locations, middles, squares
from ndissect.engine.experiments.insertion_counts import Insertions, by_context, of_all
from ndissect.engine.machine.console import Console
from ndissect.engine.networks.latents import NormalLatents
from ndissect.engine.run.options import Options
from ndissect.engine.run.to_store import dissect_to_store
from ndissect.store.bootstrap import block_of
from ndissect.store.errors import WrongUse
from ndissect.tui.pictures.insertion_heat import GAIN, insertion_heat
from ndissect.tui.tables.inserted import InsertionReport

PLANTED = Path(planted_generator.__file__)
SAMPLES, CELL = 24, 16  # pixels of a location's square


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("insert") / "planted.nd.h5"
    options = Options(
        network=f"{PLANTED}:generator",
        labeller=f"{PLANTED}:labeller",
        layers=("layer",),
        samples=SAMPLES,
        quantile="0.6",
        generator=True,
        null=0,
        device="cpu",
    )
    dissect_to_store(options, Console(), output=path)
    return path


def request(store: Path, batch: int = 10) -> GeneratorRequest:
    return GeneratorRequest(store, "layer", Options(device="cpu", batch_size=batch))


@pytest.fixture(scope="module")
def door(store: Path) -> Insertion:
    return insert(request(store), "door", units=1)


@pytest.fixture(scope="module")
def tree(store: Path) -> Insertion:
    return insert(request(store), "tree", units=1)


def table(insertion: Insertion) -> dict[str, tuple[float, float]]:
    """What the table says of each context: the mean change and the share of successes."""
    return {row.context: (row.change, row.succeeded) for row in InsertionReport(insertion, "").rows()}


def contexts_of(samples: int) -> np.ndarray[Any, Any]:
    """(samples, cells): what each cell of the unedited pictures shows, by the rows of the store; -1 for nothing."""
    z = torch.from_numpy(NormalLatents((16,)).of(range(samples)))
    with torch.no_grad():
        labels = PlantedLabeller()(PlantedGenerator()(z)).argmax(1)
    return labels[:, 2::4, 2::4].flatten(1).numpy() - 1


def test_a_door_goes_where_a_building_stands_and_nowhere_else(door: Insertion) -> None:
    assert door.units == (3,) and door.ious == (1.0,) and door.values == (1.0,)
    assert door.samples == SAMPLES and door.counts.change.shape == (SAMPLES, CELLS * CELLS)
    assert table(door) == {
        "building": (CELL, 1.0),
        **dict.fromkeys(("sky", "tree", "door", "none"), (0.0, 0.0)),
    }
    assert InsertionReport(door, "").rows()[0].context == "building"  # the largest change first


def test_a_tree_goes_everywhere_but_where_trees_are(tree: Insertion) -> None:
    assert table(tree) == {
        "tree": (0.0, 0.0),
        **dict.fromkeys(("building", "sky", "door", "none"), (CELL, 1.0)),
    }
    assert all(row.inside == 1.0 for row in InsertionReport(tree, "").rows() if row.context != "tree")


def test_contexts_are_what_the_unedited_picture_shows_at_the_middle(door: Insertion) -> None:
    assert list(door.concepts) == list(CONCEPTS)
    np.testing.assert_array_equal(door.counts.context, contexts_of(SAMPLES))
    assert sum(row.locations for row in door.by_context) == SAMPLES * CELLS * CELLS


def test_every_insertion_is_what_plain_pytorch_gives(store: Path) -> None:
    """Two units together, another value than the largest, a few samples: a loop over all locations, one at a time."""
    found = insert(request(store, batch=3), "building", units=2, samples=4, quantile=0.5)
    generator, labeller = PlantedGenerator(), PlantedLabeller()
    z = torch.from_numpy(NormalLatents((16,)).of(range(SAMPLES)))
    with torch.no_grad():
        maps = generator.layer(z)
        values = torch.from_numpy(
            np.quantile(maps.permute(1, 0, 2, 3).flatten(1).numpy(), 0.5, axis=1, method="hazen")
        ).float()
        for sample in range(4):
            before = labeller(generator(z[sample : sample + 1])).argmax(1)[0] == 1
            for cell in range(CELLS * CELLS):
                row, column = divmod(cell, CELLS)

                def edit(_: Any, __: Any, output: Any, row: int = row, column: int = column) -> Any:
                    output = output.clone()
                    output[0, list(found.units), row, column] = values[list(found.units)]
                    return output

                hook = generator.layer.register_forward_hook(edit)
                after = labeller(generator(z[sample : sample + 1])).argmax(1)[0] == 1
                hook.remove()
                new = after & ~before
                square = new[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
                counted = [x[sample, cell] for x in (found.counts.change, found.counts.gained, found.counts.inside)]
                assert counted == [int(after.sum()) - int(before.sum()), int(new.sum()), int(square.sum())]
    assert found.counts.change.min() < 0  # the value is 0: buildings are lost


def test_the_result_does_not_depend_on_the_batch(store: Path, door: Insertion) -> None:
    other = insert(request(store, batch=1), "door", units=1)
    for name in ("location", "context", "change", "gained", "inside"):
        np.testing.assert_array_equal(getattr(other.counts, name), getattr(door.counts, name))
    assert table(other) == table(door)


def test_units_that_draw_nothing_insert_nothing(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.Generated, "best_units", lambda self, concept: [4, 5, 6, 7])
    idle = insert(request(store), "sky", units=4, samples=4)
    assert idle.units == (4, 5, 6, 7) and idle.values == (1.0,) * 4
    assert not idle.counts.change.any() and not idle.counts.gained.any()


def test_means_by_location_are_those_over_samples(door: Insertion) -> None:
    mean = door.counts.change.mean(0).reshape(CELLS, CELLS)
    np.testing.assert_allclose(door.all.by_location, mean)
    building = next(row for row in door.by_context if row.context == 0)
    there = (contexts_of(SAMPLES) == 0).any(0).reshape(CELLS, CELLS)
    np.testing.assert_array_equal(np.isnan(building.by_location), ~there)
    assert set(building.by_location[there].tolist()) == {float(CELL)}


def test_intervals_are_the_jackknife_over_blocks_of_samples(door: Insertion) -> None:
    """Of the mean over all locations: as many blocks as there are, each of some samples, left out in turn."""
    block = np.array([block_of(f"sample {number}") for number in range(SAMPLES)])
    used = np.unique(block)
    mean = np.array([door.counts.change[block != b].mean() for b in used])
    error = np.sqrt((len(used) - 1) / len(used) * ((mean - door.counts.change.mean()) ** 2).sum())
    assert door.all.change == pytest.approx(door.counts.change.mean())
    # Student's t with the blocks' own degrees of freedom is a little more than 1.96
    assert 1.96 * error < door.all.high - door.all.change < 3.0 * error
    assert door.all.high - door.all.change == pytest.approx(door.all.change - door.all.low)


def test_a_context_of_one_block_has_no_interval() -> None:
    one = np.array([[1, 1], [2, 2], [2, 2]], np.int32)
    counts = Insertions(np.tile(np.array([0, 1], np.int32), (3, 1)), one, one, one, one)
    first, second = by_context(counts, np.array([0, 1, 2]), (1, 2))[::-1]
    assert (first.context, first.locations, first.samples) == (1, 2, 1)
    assert np.isnan(first.low) and np.isnan(first.high)
    assert (second.low, second.high) == (2.0, 2.0)
    assert of_all(counts, np.array([0, 1, 2]), (1, 2)).locations == 6


def test_locations_of_large_maps_are_drawn_once_and_for_all() -> None:
    assert locations(0, (8, 8)).tolist() == list(range(64))
    drawn = locations(3, (32, 32))
    assert len(set(drawn.tolist())) == 64 and drawn.min() >= 0 and drawn.max() < 1024
    assert drawn.tolist() == locations(3, (32, 32)).tolist() != locations(4, (32, 32)).tolist()
    assert locations(3, (32, 32), every=1).tolist() == list(range(1024))
    assert locations(0, (4, 6), every=2).tolist() == [7, 9, 11, 19, 21, 23]
    assert locations(0, (2, 2), every=50).tolist() == [3]


def test_squares_and_their_middles_lie_on_the_picture() -> None:
    of_pixel = squares((2, 4), (8, 8))
    assert of_pixel.shape == (8, 8)
    assert of_pixel[0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and of_pixel[7, 0] == 4
    rows, columns = middles((2, 4), (8, 8))
    assert rows.tolist() == [2, 6] and columns.tolist() == [1, 3, 5, 7]
    assert of_pixel[rows][:, columns].flatten().tolist() == list(range(8))


class StopsAfter(Console):
    """Asks a run to end when it has looked ``times`` times."""

    def __init__(self, times: int) -> None:
        self.left, self.notes = times, []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def stop(self) -> BaseException | None:
        self.left -= 1
        return KeyboardInterrupt() if self.left < 0 else None


def test_what_is_stopped_goes_on_to_the_same_result(store: Path, door: Insertion) -> None:
    with pytest.raises(KeyboardInterrupt):
        insert(request(store), "door", units=1, console=StopsAfter(70))
    (saved,) = store.parent.glob(".planted.nd.h5.*")
    with pytest.raises(KeyboardInterrupt):  # other work leaves it alone
        insert(request(store), "tree", units=1, console=StopsAfter(3))
    assert saved.is_file()
    runs: list[int] = []

    class Counting(module.Tail):
        def run(self, edit: Any) -> Any:
            runs.append(1)
            return super().run(edit)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "Tail", Counting)
        resumed = insert(request(store), "door", units=1)
    assert len(runs) < 2 * CELLS * CELLS + 5  # ten samples are over: two batches are left
    np.testing.assert_array_equal(resumed.counts.change, door.counts.change)
    for one, other in zip(resumed.examples, door.examples, strict=True):
        np.testing.assert_array_equal(one.after, other.after)
    assert not list(store.parent.glob(".planted.nd.h5.*"))


def test_what_cannot_be_inserted_is_said(store: Path) -> None:
    with pytest.raises(WrongUse, match="no concept 'gate'"):
        insert(request(store), "gate")
    with pytest.raises(WrongUse, match="has 8 units, not 9"):
        insert(request(store), "door", units=9)
    assert len(insert(request(store), "door", samples=1).units) == 8  # 20 by default, or all
    with pytest.raises(WrongUse, match=r"no layer .nowhere."):
        insert(replace(request(store), layer="nowhere"), "door")


def test_the_picture_shows_where_it_succeeded(door: Insertion) -> None:
    report = InsertionReport(door, "planted.nd.h5")
    picture = np.asarray(insertion_heat(report)).reshape(-1, 3)
    assert (picture == GAIN).all(1).sum() > 1000  # buildings are of the strongest colour
    assert len(door.examples) == module.SHOWN
    example = door.examples[0]
    row, column = example.best
    after = example.after[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
    assert (after == [255, 255, 0]).all() and (example.before != example.after).any(2).sum() == CELL


def test_the_command_prints_json_and_draws(store: Path) -> None:
    words = ["insert", f"{store}:layer", "--label", "door", "--units", "1", "--samples", "6", "--device", "cpu"]
    told = json.loads(cli.nd(*words, "-o", "heat.png", "--json", folder=store.parent).stdout)
    assert (told["label"], told["units"], told["quantile"], told["samples"], told["how"]) == (
        "door",
        [3],
        0.995,
        6,
        "tail",
    )
    assert {"context", "locations", "change", "low", "high", "succeeded"} <= set(told["by_context"][0])
    assert told["by_context"][0]["context"] == "building" and told["by_context"][0]["change"] == CELL
    assert np.array(told["by_location"]).shape == (CELLS, CELLS)
    with Image.open(store.parent / "heat.png") as picture:
        assert picture.width > 800


def test_the_command_says_what_it_needs(store: Path) -> None:
    cli.failed(cli.nd("insert", f"{store}:layer", folder=store.parent), 2, "no concept is named")
    done = cli.nd("insert", f"{store}:layer", "--label", "door", "-o", "heat.jpg", folder=store.parent)
    cli.failed(done, 2, "heat.jpg does not end so")
