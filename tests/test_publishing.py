"""Results so far that a run hands out: equal to a dissection of the images counted, and at a small part of its time."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cli
import numpy as np
import pytest
import torch

from ndissect.engine.data.formats import open_dataset
from ndissect.engine.data.subset import Subset
from ndissect.engine.machine.memory import Budget
from ndissect.engine.machine.progress import Phase, Progress
from ndissect.engine.measures import pieces
from ndissect.engine.measures.candidates import CandidateBatch
from ndissect.engine.networks.layers import list_layers
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.passes.thumbnails import ImageTables
from ndissect.engine.run import publishing
from ndissect.engine.run.dissect import dissect
from ndissect.engine.run.mask_counter import MaskCounter
from ndissect.engine.run.publishing import Publish
from ndissect.engine.run.settings import Outcome, Settings
from ndissect.store.model import Dissection, Layer
from ndissect.store.protocol import make_protocol

# What is known so far: an oracle that shares nothing with the product


def by_hand(images: int, thresholds: np.ndarray) -> np.ndarray:
    """(U, C): the IoU of channels 0 to 2 with each concept over the first ``images`` of cli.pictures()."""
    numbers, categories = [c.number for c in cli.CONCEPTS], [c.category for c in cli.CONCEPTS]
    both, concept = np.zeros((3, len(numbers))), np.zeros(len(numbers))
    area = np.zeros_like(both)
    for picture in cli.pictures()[:images]:
        masks = [picture.pixels[..., u] > thresholds[u] for u in range(3)]
        held = {n: np.zeros((cli.SIZE, cli.SIZE), bool) for n in numbers}
        for number in numbers:
            for labels in picture.maps.values():
                held[number] |= labels == number
            if number in picture.labels["scene"]:
                held[number][:] = True
        for c, number in enumerate(numbers):
            concept[c] += held[number].sum()
            inside = any(held[n].any() for n, k in zip(numbers, categories, strict=True) if k == categories[c])
            for u, mask in enumerate(masks):
                both[u, c] += (mask & held[number]).sum()
                area[u, c] += mask.sum() if inside else 0
    union = area + concept - both
    return np.divide(both, union, out=np.zeros_like(union), where=(union > 0) & (concept > 0))


@dataclass
class Slow(Progress):
    """Keeps what a run tells, and takes its time over each batch."""

    pause: float = 0.0
    phase: str = "thresholds"
    notes: list[str] = field(default_factory=list)
    plans: list[list[Phase]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def plan(self, phases: Any) -> None:
        self.plans.append(list(phases))

    def start(self, phase: str, total: int, done: int = 0) -> None:
        self.told.append(phase)

    def busy(self, phase: str) -> None:
        self.told.append(phase)

    def advance(self, images: int) -> None:
        time.sleep(self.pause if self.told[-1] == self.phase else 0)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cli.write_inputs(tmp_path_factory.mktemp("inputs"))


def run(inputs: Path, progress: Progress, publish: Publish | None, **changes: Any) -> Outcome:
    network, dataset = load_network(f"{inputs / 'net.py'}:network"), open_dataset(inputs / "small")
    dataset = Subset(dataset, range(changes.pop("images", len(dataset))))
    infos = [i for i in list_layers(network, (cli.SIZE, cli.SIZE)) if i.name in ("units", "deep.pool")]
    how = replace(Settings(batch=1, workers=2, top=3, publish_every=0.0), **changes)
    return dissect(network, dataset, infos, make_protocol(q="0.2"), how, progress, publish)


def same_layer(a: Layer, b: Layer, *, counts: bool) -> None:
    assert a.counts is not None
    assert b.counts is not None
    assert a.top is not None
    assert b.top is not None
    for part in ("statistics", "top", *(["counts"] if counts else [])):
        for f in fields(getattr(a, part)):
            np.testing.assert_array_equal(getattr(getattr(a, part), f.name), getattr(getattr(b, part), f.name))


@pytest.fixture
def at_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results so far are handed out after every batch, however long that takes on a busy machine."""
    monkeypatch.setattr(publishing, "_SHARE", 1e9)


@pytest.mark.usefixtures("at_every_batch")
def test_what_is_published_equals_a_dissection_of_the_images_counted_so_far(inputs: Path) -> None:
    seen: list[tuple[Dissection, int]] = []
    progress = Slow(pause=0.0)
    outcome = run(inputs, progress, lambda d, n: seen.append((d, n)))
    counted = [n for _, n in seen]
    assert counted == sorted(set(counted))
    assert len(counted) >= 4
    assert counted[-1] < cli.IMAGES
    assert outcome.passes == 1
    for found, n in seen:
        assert found.provenance == {"partial": {"images": n, "of": cli.IMAGES}}
        alone = run(inputs, Progress(), None, images=n).dissection
        for mine, of_those in zip(found.layers, alone.layers, strict=True):
            for part in ("statistics", "counts"):
                for f in fields(getattr(mine, part)):
                    a, b = (getattr(getattr(x, part), f.name) for x in (mine, of_those))
                    # The first images alone may all be of one split, and have a single group.
                    np.testing.assert_array_equal(*((a.sum(0), b.sum(0)) if part == "counts" else (a, b)))
            np.testing.assert_array_equal(mine.top.peak[:, : min(n, 3)], of_those.top.peak)
        expected = by_hand(n, found.layers[0].statistics.threshold)
        np.testing.assert_array_equal(ious(found), expected)
        assert expected.max() > 0.1


@pytest.mark.usefixtures("at_every_batch")
def test_what_is_published_of_a_second_pass_has_the_thresholds_and_top_images_of_all(inputs: Path) -> None:
    seen: list[tuple[Dissection, int]] = []
    progress = Slow(pause=0.0, phase="tally")
    outcome = run(inputs, progress, lambda d, n: seen.append((d, n)), memory=Budget(100, 100))
    assert outcome.passes == 4
    assert len(seen) >= 4
    for found, n in seen:
        assert 0 < n < cli.IMAGES
        for mine, final in zip(found.layers, outcome.dissection.layers, strict=True):
            same_layer(mine, final, counts=False)
        np.testing.assert_array_equal(ious(found), by_hand(n, found.layers[0].statistics.threshold))


def ious(found: Dissection) -> np.ndarray:
    """(3, C): the IoUs of the first layer's channels, from the counts in ``found``."""
    counts, category = found.layers[0].counts, found.concepts.category
    assert counts is not None
    both, area = counts.intersection.sum(0)[:3], counts.area_in_category.sum(0)[:3][:, category]
    held = found.concept_counts.area.sum(0)
    union = area + held - both
    held = np.broadcast_to(held > 0, union.shape)
    return np.divide(both, union, out=np.zeros(union.shape), where=(union > 0) & held)


def test_publishing_changes_nothing_of_the_result(inputs: Path) -> None:
    with_it = run(inputs, Progress(), lambda d, n: None)
    without = run(inputs, Progress(), None)
    for a, b in zip(with_it.dissection.layers, without.dissection.layers, strict=True):
        same_layer(a, b, counts=True)
    assert with_it.dissection.provenance == {}
    assert without.dissection.images is not None


@pytest.mark.usefixtures("at_every_batch")
@pytest.mark.parametrize("every", [0.0, 1000.0])
def test_publishing_is_as_frequent_as_asked_for(inputs: Path, every: float) -> None:
    seen: list[int] = []
    run(inputs, Slow(pause=0.02), lambda d, n: seen.append(n), publish_every=every)
    assert len(seen) >= 4 if every == 0 else not seen


def test_publishing_takes_a_fiftieth_of_a_pass_however_slow_the_disk_is(inputs: Path) -> None:
    """A run that is too short for results so far shows none, and one on a slow disk shows them once."""
    seen: list[int] = []

    def publish(d: Dissection, n: int) -> None:
        time.sleep(0.5)
        seen.append(n)

    run(inputs, Slow(pause=0.02), publish)
    assert len(seen) <= 1


def test_what_results_may_take_follows_from_how_fast_the_pass_goes() -> None:
    allowance = publishing.Allowance(1100, every=5.0)
    assert allowance.look(100.0, 100) == 0  # the pass begins: so far in other sessions
    assert allowance.look(104.9, 150) == 0  # not yet
    assert allowance.look(105.0, 200) == pytest.approx(0.02 * 50)  # 100 of 1,000 images in 5 s
    allowance.spend(0.1, 105.1)
    assert allowance.look(110.0, 300) == 0  # 0.1 s are a fiftieth of 5 s
    assert allowance.look(110.2, 304) == pytest.approx(0.02 * 50 - 0.1, rel=0.01)
    allowance.spend(0.8, 111.0)
    assert allowance.look(150.9, 600) == 0
    assert allowance.look(151.1, 600) == pytest.approx(0.02 * 102.2 - 0.9, rel=0.01)  # it has become slower
    allowance.spend(2.0, 160.0)
    assert allowance.look(1000.0, 1100) > 0
    allowance.spend(30.0, 1000.0)
    assert allowance.look(9000.0, 1100) > allowance.look(8000.0, 1100) > 0
    assert publishing.Allowance(10, every=0.0).look(3.0, 4) == 0


def test_results_that_would_take_too_long_are_given_up_half_way(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    whole = MaskCounter._count_batch

    def slowly(counter: MaskCounter, batch: CandidateBatch, *labels: Any) -> None:
        counted.append(batch.images[0])
        time.sleep(0.1)
        whole(counter, batch, *labels)

    monkeypatch.setattr(MaskCounter, "_count_batch", slowly)
    monkeypatch.setitem(pieces._CELLS, "cpu", 1)  # each batch is counted by itself
    seen: list[int] = []
    outcome = run(inputs, Slow(pause=0.0), lambda d, n: seen.append(n))
    assert not seen
    tallied = counted[-cli.IMAGES :]
    assert tallied == list(range(cli.IMAGES))
    assert 0 < len(counted) - cli.IMAGES <= 2, "tried, and not often"
    assert outcome.dissection.images is not None


@pytest.mark.usefixtures("at_every_batch")
def test_no_image_is_read_twice_for_results_so_far_and_the_end(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    of_one = ImageTables._read

    def watched(tables: ImageTables, index: int) -> Any:
        read.append(index)
        return of_one(tables, index)

    monkeypatch.setattr(ImageTables, "_read", watched)
    seen: list[Dissection] = []
    last = run(inputs, Progress(), lambda d, n: seen.append(d)).dissection
    assert len(seen) >= 4
    monkeypatch.undo()
    assert sorted(set(read)) == sorted({int(i) for d in (*seen, last) for i in d.images.index})
    again = [i for i in set(read) if read.count(i) > 1]
    left_out = {i for a, b in pairwise((*seen, last)) for i in set(a.images.index) - set(b.images.index)}
    assert set(again) <= left_out, "an image that left the top may come back"
    fresh = run(inputs, Progress(), None).dissection.images
    for f in fields(fresh):
        np.testing.assert_array_equal(getattr(last.images, f.name), getattr(fresh, f.name))


def test_results_so_far_come_without_images_where_reading_them_takes_too_long(
    inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "_SHARE", 1e9)
    monkeypatch.setattr(publishing, "_IMAGE_SECONDS", 1e15)
    seen: list[Dissection] = []
    last = run(inputs, Progress(), lambda d, n: seen.append(d)).dissection
    assert seen
    for d in seen:
        assert (d.images, [layer.top for layer in d.layers]) == (None, [None, None])
    assert last.images is not None


@pytest.mark.usefixtures("at_every_batch")
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()], ids=type)
def test_a_run_without_memory_for_it_goes_on_and_says_so_once(inputs: Path, error: Exception) -> None:
    def publish(d: Dissection, n: int) -> None:
        if n > 1:
            raise error

    progress = Slow(pause=0.1)
    outcome = run(inputs, progress, publish)
    assert progress.notes == ["not enough memory to show results before the end"]
    same_layer(outcome.dissection.layers[0], run(inputs, Progress(), None).dissection.layers[0], counts=True)


@pytest.mark.usefixtures("at_every_batch")
def test_a_defect_in_publishing_is_not_hidden(inputs: Path) -> None:
    def publish(d: Dissection, n: int) -> None:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        run(inputs, Progress(), publish)


@pytest.mark.parametrize(("memory", "passes"), [(1 << 30, 1), (100, 3)], ids=["one pass", "four"])
def test_the_phases_are_known_before_they_come(inputs: Path, memory: int, passes: int) -> None:
    progress = Slow()
    run(inputs, progress, None, memory=Budget(memory, memory))
    for plan in progress.plans:
        assert [p.name for p in plan] == [*["thresholds"] * passes, "images", "tally"]
        assert len(progress.told) == len(plan)
        assert [p.total for p in plan if p.forward] == [cli.IMAGES] * (1 if passes == 1 else 4)
