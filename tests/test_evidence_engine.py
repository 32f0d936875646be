"""The evidence that a run gathers: equal to the dense oracle under the wrong labels, by block, and by definition."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from broden_factory import Concept, Picture, write_broden
from dissecting import GRID, IMAGES, activations, layer, oracle_labels, run, write_data
from networks_factory import EXACT, write_network

from ndissect.engine.data.formats import open_dataset
from ndissect.engine.machine.memory import Budget
from ndissect.engine.machine.progress import Progress
from ndissect.engine.measures.pairing import null_images
from ndissect.engine.measures.peaks import average_precision
from ndissect.store.bootstrap import block_of
from ndissect.store.counts import BLOCKS
from ndissect.store.errors import NDError
from ndissect.store.model import Layer
from ndissect.store.scores import label_units

PAIRINGS = 3
SECOND_PASS = Budget(30_000, 30_000)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"{write_network(tmp_path_factory.mktemp('net'), EXACT)}:network"


def same_evidence(a: Layer, b: Layer) -> None:
    for part in ("evidence", "leading", "null"):
        for name, value in vars(getattr(a, part)).items():
            np.testing.assert_array_equal(value, vars(getattr(b, part))[name], err_msg=f"{part}.{name}")


# The null


@pytest.mark.parametrize("protocol", ["netdissect", "pnas2020"])
@pytest.mark.parametrize("memory", [Budget(1 << 30, 1 << 30), SECOND_PASS], ids=["one pass", "second pass"])
def test_the_null_is_the_best_iou_under_the_labels_of_other_images(
    net: str, data: Path, protocol: str, memory: Budget
) -> None:
    outcome = run(net, data, ["second"], protocol, q="1/7", batch=5, null=PAIRINGS, memory=memory)
    found, p = layer(outcome, "second"), outcome.dissection.protocol
    labels = oracle_labels(data, once=True, grid=p.grid or (GRID, GRID))
    maps = activations(net, data, "second")
    wrong = null_images(open_dataset(data).names, PAIRINGS)
    labels = replace(labels, group=[0] * IMAGES)
    assert found.null is not None
    assert found.null.concept.shape == (PAIRINGS, maps.shape[1])
    for i, images in enumerate(wrong):
        paired = labels.take(list(range(IMAGES)), [int(x) for x in images])
        counts = oracle.count(maps, found.statistics.threshold, p.upsampling, paired)
        area = counts.area_in_category[0] if p.union == "within-category" else counts.area[0][:, None].repeat(6, 1)
        everything = np.ones(len(labels.category), bool)
        concept, iou = oracle.best(
            counts.intersection[0], area, counts.concept_area[0], labels.category, 6, everything, found.statistics.dead
        )
        for u in range(len(concept)):
            best = max(iou[u])
            winners = [concept[u, k] for k in range(6) if best > 0 and iou[u, k] == best]
            row = min(winners, default=-1)
            assert found.null.concept[i, u] == row
            if row >= 0:
                assert found.null.intersection[i, u] == counts.intersection[0, u, row]
                assert found.null.area[i, u] == area[u, labels.category[row]]
                assert found.null.concept_area[i, u] == counts.concept_area[0, row]


def test_every_image_gets_the_labels_of_another_of_its_source_and_gives_its_own_once() -> None:
    names = [f"{source}/{i}.jpg" for source, n in (("ade20k", 50), ("dtd", 2), ("video", 7)) for i in range(n)]
    names += ["lonely/a.jpg", "single/b.jpg"]
    wrong = null_images(names, 6)
    for row in wrong:
        assert sorted(row) == list(range(len(names)))
        assert (row != np.arange(len(names))).all()
        for image, other in enumerate(row[:59]):
            assert names[image].split("/")[0] == names[other].split("/")[0]
    assert len({tuple(row[:50]) for row in wrong}) == 6
    np.testing.assert_array_equal(wrong, null_images(names, 6))
    np.testing.assert_array_equal(wrong[:2], null_images(names, 2))


@pytest.mark.parametrize("names", [[], ["a.jpg"], ["x/a.jpg"]])
def test_one_image_or_none_has_nothing_to_be_paired_with(names: list[str]) -> None:
    np.testing.assert_array_equal(null_images(names, 2), np.tile(np.arange(len(names)), (2, 1)))


def test_without_a_null_p_and_q_are_unknown_and_all_else_is_there(net: str, data: Path) -> None:
    found = layer(run(net, data, ["first"], q="1/7", null=0), "first")
    assert found.null is None
    assert np.isnan(found.evidence.p).all()
    assert np.isnan(found.evidence.q).all()
    assert not np.isnan(found.evidence.auprc).all()


def test_a_null_that_costs_little_is_counted_unasked(net: str, data: Path) -> None:
    found = layer(run(net, data, ["first"], q="1/7", null=None), "first")
    assert found.null is not None
    assert len(found.null.concept) == 4


# However the work is cut


@pytest.mark.parametrize("changes", [{"batch": 1}, {"batch": 64}, {"memory": SECOND_PASS}, {"memory": Budget(2000, 0)}])
def test_evidence_does_not_depend_on_batches_or_memory(net: str, data: Path, changes: dict[str, object]) -> None:
    one = run(net, data, ["first", "second"], q="1/7", batch=5, null=2)
    other = run(net, data, ["first", "second"], q="1/7", null=2, **changes)
    for name in ("first", "second"):
        same_evidence(layer(one, name), layer(other, name))
    np.testing.assert_array_equal(one.dissection.blocks.images, other.dissection.blocks.images)
    np.testing.assert_array_equal(one.dissection.blocks.concept_area, other.dissection.blocks.concept_area)


class Notes(Progress):
    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)


def test_evidence_that_does_not_fit_the_memory_is_left_out_and_said_to_be(
    net: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ndissect.engine.run.evidence_plan._LITTLE", 0)
    notes = Notes()
    outcome = run(net, data, ["first"], q="1/7", null=2, memory=Budget(2000, 2000), progress=notes)
    found = layer(outcome, "first")
    assert (outcome.dissection.blocks, found.leading, found.null) == (None, None, None)
    for what in ("intervals", "the null", "AUPRC"):
        assert any(text.startswith(f"{what} left out: ") for text in notes.told)
    assert not np.isnan(found.evidence.heldout_iou).all(), "the split costs next to nothing"
    np.testing.assert_array_equal(found.best.concept, layer(run(net, data, ["first"], q="1/7"), "first").best.concept)


# By block and by split


def test_the_leading_concepts_are_counted_by_block_as_the_oracle_counts(net: str, data: Path) -> None:
    outcome = run(net, data, ["second"], q="1/7")
    found, names = layer(outcome, "second"), open_dataset(data).names
    labels = oracle_labels(data, once=True)
    labels = replace(labels, group=[block_of(name) for name in names])
    maps = activations(net, data, "second")
    expected = oracle.count(maps, found.statistics.threshold, "half-pixel", labels, groups=BLOCKS)
    np.testing.assert_array_equal(outcome.dissection.blocks.concept_area, expected.concept_area)
    np.testing.assert_array_equal(outcome.dissection.blocks.images, np.bincount(labels.group, minlength=BLOCKS))
    lead = found.leading
    np.testing.assert_array_equal(lead.area, expected.area_in_category.transpose(1, 0, 2))
    known = 0
    for u, k, n in np.argwhere(lead.concept >= 0):
        c = lead.concept[u, k, n]
        assert labels.category[c] == k
        np.testing.assert_array_equal(lead.intersection[u, :, k, n], expected.intersection[:, u, c])
        known += 1
    assert known > 20
    np.testing.assert_array_equal(lead.concept[:, :, 0], found.best.concept)


def test_the_held_out_iou_is_that_of_the_val_images_for_the_label_of_the_train_images(net: str, data: Path) -> None:
    outcome = run(net, data, ["second"], q="1/7")
    found, dataset = layer(outcome, "second"), open_dataset(data)
    assert outcome.dissection.groups == ("train", "val")
    split = np.array(dataset.splits)
    maps, labels = activations(net, data, "second"), oracle_labels(data, once=True)
    labels = replace(labels, group=[0] * IMAGES)
    counts = {}
    for name in ("train", "val"):
        images = [int(i) for i in np.flatnonzero(split == name)]
        counts[name] = oracle.count(maps[images], found.statistics.threshold, "half-pixel", labels.take(images))
    train, val = counts["train"], counts["val"]
    everything = np.ones(len(labels.category), bool)
    concept, iou = oracle.best(
        train.intersection[0], train.area_in_category[0], train.concept_area[0], labels.category, 6, everything,
        found.statistics.dead,
    )  # fmt: skip
    compared = 0
    for u in range(len(concept)):
        best = max(iou[u])
        row = min((concept[u, k] for k in range(6) if best > 0 and iou[u, k] == best), default=-1)
        assert found.evidence.heldout_concept[u] == row
        if row < 0 or val.concept_area[0, row] == 0:
            assert np.isnan(found.evidence.heldout_iou[u])
            continue
        both = val.intersection[0, u, row]
        union = val.area_in_category[0, u, labels.category[row]] + val.concept_area[0, row] - both
        assert found.evidence.heldout_iou[u] == both / union
        assert found.evidence.train_iou[u] == pytest.approx(float(best), abs=1e-15)
        compared += 1
    assert compared > 2


@pytest.mark.parametrize("split", ["train", "val"])
def test_data_of_one_split_has_nothing_held_out(net: str, tmp_path: Path, split: str) -> None:
    rng = np.random.default_rng(1)
    pictures = [Picture(maps={"object": rng.choice([0, 3], (16, 16)).astype(np.uint16)}, split=split) for _ in range(9)]
    write_broden(tmp_path / "one", pictures, [Concept(3, "tree")], image_size=(32, 32), grid=(16, 16))
    outcome = run(net, tmp_path / "one", ["first"], q="1/7")
    assert outcome.dissection.groups == ("all",)
    assert np.isnan(layer(outcome, "first").evidence.heldout_iou).all()
    assert (layer(outcome, "first").evidence.heldout_concept == -1).all()


# The second measure


def slow_precision(score: np.ndarray, relevant: np.ndarray) -> float:
    """By definition: over the distinct scores, falling, the gain in recall times the precision there."""
    area = hits = 0.0
    for s in sorted(set(score), reverse=True):
        above = score >= s
        found = relevant[above].sum()
        area += (found - hits) / relevant.sum() * found / above.sum()
        hits = found
    return area


def test_average_precision_is_that_of_the_definition_with_ties_and_images_left_out() -> None:
    rng = np.random.default_rng(3)
    for _ in range(60):
        N, U = int(rng.integers(1, 30)), 5
        score = rng.choice([-1.5, -0.25, -0.0, 0.0, 1.0, 2.0, 3.5], (N, U)).astype(np.float32)
        counted = rng.random((N, U)) < 0.8
        relevant = counted & (rng.random((N, U)) < 0.4)
        area, base = average_precision(*(torch.from_numpy(x) for x in (score, relevant, counted)))
        for u in range(U):
            rows = counted[:, u]
            if not relevant[:, u].any():
                assert area[u].isnan()
                assert base[u].isnan()
                continue
            assert area[u].item() == pytest.approx(slow_precision(score[rows, u], relevant[rows, u]), abs=1e-12)
            assert base[u].item() == pytest.approx(relevant[rows, u].mean(), abs=1e-12)


@pytest.mark.parametrize("union", ["within-category", "all-images"])
def test_auprc_ranks_the_images_of_the_union_by_the_unit_s_peak(net: str, data: Path, union: str) -> None:
    outcome = run(net, data, ["second"], q="1/7", union=union, batch=4)
    found = layer(outcome, "second")
    label, _ = label_units(found.best)
    maps, labels = activations(net, data, "second"), oracle_labels(data, once=True)
    held = np.array([[labels.times(n, c).any() for c in range(len(labels.category))] for n in range(IMAGES)])
    for u in np.flatnonzero(label >= 0):
        same_category = held[:, labels.category == labels.category[label[u]]].any(1)
        rows = same_category if union == "within-category" else np.ones(IMAGES, bool)
        expected = slow_precision(maps[rows, u].max((1, 2)), held[rows, label[u]])
        assert found.evidence.auprc[u] == pytest.approx(expected, abs=1e-12)
        assert found.evidence.base_rate[u] == pytest.approx(held[rows, label[u]].mean(), abs=1e-12)
    assert (label >= 0).sum() > 2


# Bad input


def test_labels_that_cannot_be_read_are_none_in_the_null_too(net: str, data: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "small"
    shutil.copytree(data, copy)
    dataset = open_dataset(copy)
    damaged = next((copy / "images").rglob("*0003*object*.png"))
    damaged.write_bytes(b"no picture")
    with pytest.raises(NDError):
        run(net, copy, ["first"], null=2)
    outcome = run(net, copy, ["first"], q="1/7", null=2, skip_bad=True, batch=5)
    assert len(outcome.survey.skipped) == 1
    assert outcome.dissection.blocks.images.sum() == len(dataset) - 1
    assert not np.isnan(layer(outcome, "first").evidence.p).all()


def test_layers_without_a_live_unit_have_evidence_of_nothing(data: Path, tmp_path: Path) -> None:
    (tmp_path / "dead.py").write_text(
        "import torch\n"
        "class Dead(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.flat = torch.nn.Conv2d(3, 4, 3, stride=4, padding=1)\n"
        "        torch.nn.init.zeros_(self.flat.weight); torch.nn.init.zeros_(self.flat.bias)\n"
        "    def forward(self, x):\n"
        "        return self.flat(x)\n"
        "def network():\n"
        "    return Dead(), lambda images: images.float() / 255\n"
    )
    found = layer(run(f"{tmp_path / 'dead.py'}:network", data, ["flat"], null=2), "flat")
    assert found.statistics.dead.all()
    for name, value in vars(found.evidence).items():
        assert (value == -1).all() if name == "heldout_concept" else np.isnan(value).all(), name
