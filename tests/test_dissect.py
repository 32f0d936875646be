"""A whole dissection, from files to counts: equal to the dense oracle, and the same however the work is cut."""

from __future__ import annotations

import dataclasses
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from broden_factory import Concept, Picture, write_broden
from dissecting import GRID, IMAGES, SIZE, activations, layer, oracle_labels, run, write_data
from networks_factory import CHANNELS, EXACT, write_network

from ndissect.engine.data.formats import open_dataset
from ndissect.engine.machine.device import out_of_memory
from ndissect.engine.machine.memory import Budget
from ndissect.engine.machine.progress import Progress
from ndissect.engine.measures.tally import Tally
from ndissect.engine.networks.layers import list_layers
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.run.dissect import dissect
from ndissect.engine.run.settings import Settings
from ndissect.store.errors import NDError
from ndissect.store.model import Layer
from ndissect.store.protocol import make_protocol
from ndissect.store.scores import label_units

# Enough for the thresholds, but not for the maps of a single batch.
NOTHING_KEPT = Budget(2000, 2000)


class Notes(Progress):
    """Keeps what a run tells."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.phases: list[str] = []
        self.done = 0

    def start(self, phase: str, total: int, done: int = 0) -> None:
        self.phases.append(phase)

    def advance(self, images: int) -> None:
        self.done += images

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture
def net(tmp_path: Path) -> str:
    return f"{write_network(tmp_path, EXACT)}:network"


FIELDS = {"first": oracle.Receptive(-1, 3, 4, SIZE), "second": oracle.Receptive(-5, 11, 8, SIZE)}


@pytest.mark.parametrize("protocol", ["netdissect", "cvpr2017", "lite", "pnas2020"])
@pytest.mark.parametrize("name", ["first", "second"])
@pytest.mark.parametrize("q", [None, "1/7"])
def test_every_count_and_threshold_of_every_protocol_equals_the_dense_oracle(
    net: str, data: Path, protocol: str, name: str, q: str | None
) -> None:
    outcome = run(net, data, ["first", "second"], protocol, batch=5, q=q)
    found, p = layer(outcome, name), outcome.dissection.protocol
    grid = p.grid or (GRID, GRID)
    labels = oracle_labels(data, once=p.maps == "once", grid=grid)
    maps = activations(net, data, name)
    fields = (FIELDS[name], FIELDS[name]) if p.upsampling == "receptive-field" else None
    values = maps
    if p.quantile_over == "upsampled":
        values = np.stack([[oracle.upsample(m, p.upsampling, grid)[0] for m in units] for units in maps])
    threshold = np.array([oracle.hazen(values[:, u].ravel(), p.q) for u in range(maps.shape[1])])
    np.testing.assert_array_equal(found.statistics.threshold, threshold)

    expected = oracle.count(maps, threshold, p.upsampling, labels, fields=fields, groups=2)
    assert found.counts is not None
    np.testing.assert_array_equal(found.counts.intersection, expected.intersection)
    np.testing.assert_array_equal(found.counts.area, expected.area)
    np.testing.assert_array_equal(found.counts.area_in_category, expected.area_in_category)
    np.testing.assert_array_equal(outcome.dissection.concept_counts.area, expected.concept_area)
    np.testing.assert_array_equal(outcome.dissection.concept_counts.images, expected.images)
    assert q is None or expected.intersection.sum() > 1000, "the case is not trivial"

    area = expected.area_in_category.sum(0) if p.union == "within-category" else np.repeat(
        expected.area.sum(0)[:, None], labels.categories, 1
    )  # fmt: skip
    winners, _ = oracle.best(
        expected.intersection.sum(0),
        area,
        expected.concept_area.sum(0),
        labels.category,
        labels.categories,
        np.ones(len(labels.category), bool),
        found.statistics.dead,
    )
    np.testing.assert_array_equal(found.best.concept, winners)


def same(a: Layer, b: Layer) -> None:
    assert a.counts is not None
    assert b.counts is not None
    for field in dataclasses.fields(a.counts):
        np.testing.assert_array_equal(getattr(a.counts, field.name), getattr(b.counts, field.name))
    for field in dataclasses.fields(a.statistics):
        np.testing.assert_array_equal(getattr(a.statistics, field.name), getattr(b.statistics, field.name))


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_counts_do_not_depend_on_the_batch_size(net: str, data: Path, batch: int) -> None:
    one, other = run(net, data, ["second"], batch=5), run(net, data, ["second"], batch=batch)
    same(layer(one, "second"), layer(other, "second"))
    for field in ("image", "peak", "maps"):
        a, b = (getattr(layer(x, "second").top, field) for x in (one, other))
        np.testing.assert_array_equal(a, b)


def test_counts_do_not_depend_on_the_set_of_layers(net: str, data: Path) -> None:
    both, alone = run(net, data, ["first", "second"]), run(net, data, ["first"])
    same(layer(both, "first"), layer(alone, "first"))


def test_counts_do_not_depend_on_the_order_of_images(net: str, data: Path, tmp_path: Path) -> None:
    turned = Path(shutil.copytree(data, tmp_path / "turned"))
    header, *rows = (data / "index.csv").read_text().splitlines()
    mixed = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
    (turned / "index.csv").write_text("\n".join([header, *mixed]) + "\n")
    a, b = run(net, data, ["first"]), run(net, turned, ["first"])
    same(layer(a, "first"), layer(b, "first"))
    assert a.survey.digest == b.survey.digest


@pytest.mark.parametrize("protocol", ["netdissect", "pnas2020"])  # the latter's thresholds are of enlarged maps
def test_counts_do_not_depend_on_the_memory_for_thresholds(net: str, data: Path, protocol: str) -> None:
    notes = Notes()
    # No pixel of this grid lies at the middle of a cell of the maps, where enlarged maps are as high as the maps are.
    large = run(net, data, ["first"], protocol, grid=str(GRID))
    small = run(net, data, ["first"], protocol, notes, grid=str(GRID), memory=Budget(100, 100))
    same(layer(large, "first"), layer(small, "first"))
    assert large.passes == 1
    assert small.passes == 4
    assert "3 forward passes for the thresholds and one for the tally" in notes.notes[0]
    assert "--memory 100 B" in notes.notes[0]


@pytest.mark.parametrize("protocol", ["netdissect", "pnas2020", "cvpr2017"])
@pytest.mark.parametrize("q", [None, "1/7"])
def test_images_that_cannot_be_kept_go_through_the_network_again_and_count_the_same(
    net: str, data: Path, protocol: str, q: str | None
) -> None:
    whole = run(net, data, ["first", "second"], protocol, q=q, batch=4)
    assert whole.passes == 1
    partly = set()
    for memory in (int(1500 * 1.4**k) for k in range(24)):
        notes = Notes()
        some = run(net, data, ["first", "second"], protocol, notes, q=q, batch=4, memory=Budget(memory, memory))
        for name in ("first", "second"):
            same(layer(whole, name), layer(some, name))
        assert some.survey.digest == whole.survey.digest
        if 1 < some.passes < 2:
            partly.add(memory)
            assert any("a second forward pass over those" in note for note in notes.notes)
    # Thresholds over enlarged maps take more memory than all that may fire.
    assert partly or protocol == "pnas2020", "at some budget a part of the images must have been kept"


def test_a_stricter_share_gives_higher_thresholds_and_smaller_masks(net: str, data: Path) -> None:
    loose, strict = run(net, data, ["first"], q="0.05"), run(net, data, ["first"], q="0.005")
    a, b = layer(loose, "first"), layer(strict, "first")
    assert (a.statistics.threshold < b.statistics.threshold).all()
    assert a.counts is not None
    assert b.counts is not None
    assert (a.counts.area > b.counts.area).all()
    assert loose.dissection.protocol.name == "netdissect+"
    assert loose.dissection.protocol.q == Fraction(1, 20)


def test_top_images_are_those_with_the_highest_peaks(net: str, data: Path) -> None:
    outcome = run(net, data, ["first"], batch=3)
    top, maps = layer(outcome, "first").top, activations(net, data, "first")
    assert top is not None
    assert outcome.dissection.images is not None
    peaks, means = maps.max((2, 3)), maps.mean((2, 3))
    for u in range(maps.shape[1]):
        order = sorted(range(len(maps)), key=lambda i: (-peaks[i, u], -means[i, u], i))[:4]
        assert [int(outcome.dissection.images.index[row]) for row in top.image[u]] == order
        np.testing.assert_array_equal(top.peak[u], peaks[order, u])
        np.testing.assert_array_equal(top.maps[u], maps[order, u])


def test_a_unit_that_is_a_concept_is_found_with_iou_1(tmp_path: Path) -> None:
    """Channel k shows the mask of concept k: the dissection must say so, and nothing else."""
    rng = np.random.default_rng(2)
    concepts = [Concept(1, "tree"), Concept(2, "wheel", "part"), Concept(3, "red-c", "color")]
    pictures = []
    for _ in range(40):
        masks = rng.random((3, SIZE, SIZE)) < 0.002
        pixels = np.moveaxis(masks, 0, 2).astype(np.uint8) * 200
        maps = {k: masks[i].astype(np.uint16) * (i + 1) for i, k in enumerate(("object", "part", "color"))}
        pictures.append(Picture(maps=maps, pixels=pixels))
    folder = write_broden(tmp_path / "planted", pictures, concepts, grid=(SIZE, SIZE))
    found = layer(run(f"{write_network(tmp_path, CHANNELS)}:network", folder, ["units"]), "units")
    label, iou = label_units(found.best)
    assert label.tolist() == [0, 1, 2]
    assert iou.tolist() == [1.0, 1.0, 1.0]


def test_dead_and_non_finite_units_are_marked_counted_and_not_labelled(data: Path, tmp_path: Path) -> None:
    found = layer(run(f"{write_network(tmp_path, CHANNELS)}:odd", data, ["units"], q="0.3"), "units")
    s = found.statistics
    assert s.dead.tolist() == [True, True, False, False, False]
    assert s.nan.tolist() == [0, 0, IMAGES * SIZE * SIZE // 2, 0, 0]
    assert s.inf.tolist() == [0, 0, 0, IMAGES, 0]
    assert (found.best.concept[:2] == -1).all()
    assert (found.best.iou[:2] == 0).all()
    assert (found.best.iou[4] > 0).any()
    assert found.counts is not None
    assert found.counts.area[0, 2] > 0, "the finite half still counts"


def test_what_is_counted_of_activations_does_not_depend_on_where_the_quantile_is_taken(
    data: Path, tmp_path: Path
) -> None:
    """Enlarging pads a constant unit with zeros, and makes many pixels of one infinite activation."""
    file = write_network(tmp_path, CHANNELS)
    found = layer(run(f"{file}:odd", data, ["units"], "pnas2020", grid="24"), "units").statistics
    assert found.dead.tolist() == [True, True, False, False, False]
    assert found.nan.tolist() == [0, 0, IMAGES * SIZE * SIZE // 2, 0, 0]
    assert found.inf.tolist() == [0, 0, 0, IMAGES, 0]
    assert found.maximum[:2].tolist() == [7.0, -1.0]


def test_out_of_memory_halves_the_batch_says_so_and_changes_no_count(data: Path, tmp_path: Path) -> None:
    file, notes = write_network(tmp_path, CHANNELS), Notes()
    whole = run(f"{file}:network", data, ["units"], batch=4)
    halved = run(f"{file}:out_of_memory", data, ["units"], progress=notes, batch=16)
    same(layer(whole, "units"), layer(halved, "units"))
    assert halved.batch == 4
    assert [n for n in notes.notes if "batches of 8" in n]
    assert [n for n in notes.notes if "batches of 4" in n]


def test_memory_errors_of_libraries_below_torch_halve_the_batch_as_well() -> None:
    assert out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    assert out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"))
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert not out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert not out_of_memory(ValueError("out of memory"))


def test_a_batch_that_was_too_large_for_counting_is_not_tried_again(
    net: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands in for a GPU on which the maps of four images at a time can be counted."""
    whole, notes = run(net, data, ["first"]), Notes()

    add = Tally.add

    def small_gpu(tally: Tally, maps: torch.Tensor, *rest: object) -> None:
        if len(maps) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        add(tally, maps, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Tally, "add", small_gpu)
    halved = run(net, data, ["first"], progress=notes, batch=8, memory=NOTHING_KEPT)
    same(layer(whole, "first"), layer(halved, "first"))
    assert halved.passes == 2
    assert len([n for n in notes.notes if "ran out of memory" in n]) == 1
    assert halved.batch == 4


def test_one_image_that_does_not_fit_is_an_error_not_a_loop(data: Path, tmp_path: Path) -> None:
    file = write_network(tmp_path, CHANNELS)
    network, dataset = load_network(f"{file}:network"), open_dataset(data)
    infos = [i for i in list_layers(network, (SIZE, SIZE)) if i.name == "units"]
    broken = dataclasses.replace(network, module=load_network(f"{file}:TooLarge").module)
    with pytest.raises(NDError, match="not enough memory for a single image"):
        dissect(broken, dataset, infos, make_protocol(), Settings(batch=8), Progress())


def test_an_unreadable_image_stops_the_run_and_all_that_are_unreadable_are_named(
    net: str, data: Path, tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(data, tmp_path / "broken"))
    for name in ("0002", "0011"):
        picture = broken / "images" / "made" / f"{name}.png"
        picture.write_bytes(picture.read_bytes()[:200])
    notes = Notes()
    with pytest.raises(NDError) as caught:
        run(net, broken, ["first"], progress=notes)
    assert "2 of 23 images" in caught.value.message
    assert "0002.png" in caught.value.message
    assert "0011.png" in caught.value.message
    assert "--skip-bad" in caught.value.hint

    outcome = run(net, broken, ["first"], skip_bad=True)
    assert [name for name, _ in outcome.survey.skipped] == ["made/0002.png", "made/0011.png"]
    kept = [i for i in range(IMAGES) if i not in (2, 11)]
    expected = oracle.count(
        activations(net, data, "first")[kept],
        layer(outcome, "first").statistics.threshold,
        "half-pixel",
        oracle_labels(data, once=True).take(kept),
        groups=2,
    )
    found = layer(outcome, "first").counts
    assert found is not None
    np.testing.assert_array_equal(found.intersection, expected.intersection)


def test_min_images_leaves_out_rare_concepts_and_keeps_their_counts(net: str, data: Path) -> None:
    plain, strict = run(net, data, ["first"]), run(net, data, ["first"], min_images=10)
    same(layer(plain, "first"), layer(strict, "first"))
    images = plain.dissection.concept_counts.images.sum(0)
    rare = np.flatnonzero(images < 10)
    assert len(rare)
    assert np.isin(layer(plain, "first").best.concept, rare).any()
    assert not np.isin(layer(strict, "first").best.concept, rare).any()


def test_progress_is_told_of_every_image_of_every_phase(net: str, data: Path) -> None:
    notes = Notes()
    run(net, data, ["first"], progress=notes)
    assert notes.phases == ["thresholds", "tally"]
    assert notes.done == 2 * IMAGES
