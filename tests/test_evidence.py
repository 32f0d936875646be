"""How far labels can be trusted: against chance, held out, and over image blocks; each against a dense oracle."""

from fractions import Fraction

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndissect.store.bootstrap import block_of, label_counts, label_intervals, label_stability, leading, resamples
from ndissect.store.concepts import ConceptTable
from ndissect.store.counts import BLOCKS, Blocks, ConceptCounts, LayerCounts
from ndissect.store.evidence import NUMBERS, NullBest, false_discovery_rate, held_out, null_best
from ndissect.store.protocol import make_protocol
from ndissect.store.scores import best_per_category, label_units
from ndissect.store.weighing import weigh

UNIONS = ("within-category", "all-images")


class Counted:
    """Counts of a layer and of the labels in G image groups, as few distinct numbers as make ties."""

    def __init__(self, rng: np.random.Generator, groups: int, units: int, category: list[int], categories: int) -> None:
        G, U, C, K = groups, units, len(category), categories
        self.category, self.categories = np.array(category, np.int32), K
        largest = int(rng.choice([2, 5, 1000]))
        held = rng.integers(0, largest, (G, C)) * rng.integers(0, 2, (G, C))
        in_category = rng.integers(0, largest + 1, (G, U, K)) * rng.integers(0, 2, (G, 1, K))
        both = np.minimum(rng.integers(0, largest, (G, U, C)), held[:, None])
        both = np.minimum(both, in_category[:, :, self.category])
        area = in_category.max(2, initial=0) + rng.integers(0, 3, (G, U))
        self.layer = LayerCounts(both, area, in_category)
        self.concepts = ConceptCounts(held, np.where(held > 0, rng.integers(1, 4, held.shape), 0))
        self.dead = rng.random(U) < 0.2

    def areas(self, union: str, group: int | None) -> np.ndarray:
        """(U, K): A as category k's union has it; ``group`` None for all of them."""
        G, U, K = self.layer.area_in_category.shape
        area = np.broadcast_to(self.layer.area[:, :, None], (G, U, K))
        area = self.layer.area_in_category if union == "within-category" else area
        return area.sum(0) if group is None else area[group]

    def choose(self, union: str) -> tuple[object, ...]:
        return self.layer, self.concepts, self.category, self.categories, union


@st.composite
def counted(draw: st.DrawFn, groups: int) -> Counted:
    K = draw(st.integers(0, 3))
    category = draw(st.lists(st.integers(0, K - 1), max_size=8)) if K else []
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return Counted(rng, groups, draw(st.integers(0, 4)), category, K)


def iou(both: int, area: int, held: int) -> Fraction:
    union = int(area) + int(held) - int(both)
    return Fraction(int(both), union) if held and union else Fraction(0)


# --- p and q --------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([0.001, 0.01, 0.02, 0.04, 0.2, 0.2, 1.0, np.nan]), max_size=12))
def test_q_is_the_least_rate_at_which_a_label_counts(p: list[float]) -> None:
    found = false_discovery_rate(np.array(p))
    known = [x for x in p if not np.isnan(x)]
    for x, q in zip(p, found, strict=True):
        if np.isnan(x):
            assert np.isnan(q)
            continue
        # at a cut t, len(known) t are expected by chance among those that are found
        rates = [len(known) * t / sum(y <= t for y in known) for t in known if t >= x]
        assert q == pytest.approx(min(1.0, *rates))


@settings(deadline=None)
@given(counted(groups=1), st.sampled_from(UNIONS))
def test_the_nulls_best_is_the_label_with_its_counts(made: Counted, union: str) -> None:
    best = best_per_category(*made.choose(union), dead=made.dead)
    concept, both, area, held = null_best(best, made.concepts.area[0])
    label, value = label_units(best)
    assert concept.tolist() == label.tolist()
    assert NullBest(*(x[None] for x in (concept, both, area, held))).iou[0].tolist() == value.tolist()
    for u in np.flatnonzero(label >= 0):
        c = label[u]
        assert (both[u], held[u]) == (made.layer.intersection[0, u, c], made.concepts.area[0, c])
        assert area[u] == made.areas(union, 0)[u, made.category[c]]
    assert not np.stack([both, area, held])[:, label < 0].any()


# --- held out -------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(counted(groups=3), st.sampled_from(UNIONS), st.integers(0, 3), st.permutations(["train", "val", "other"]))
def test_the_label_of_the_train_images_on_the_val_images(
    made: Counted, union: str, min_images: int, groups: list[str]
) -> None:
    train, val = groups.index("train"), groups.index("val")
    label, on_train, on_val = held_out(
        *(made.layer, made.concepts, tuple(groups), made.category, made.categories, union),
        dead=made.dead,
        min_images=min_images,
    )
    concept, value = oracle.best(
        made.layer.intersection[train],
        made.areas(union, train),
        made.concepts.area[train],
        made.category,
        made.categories,
        made.concepts.images[train] >= min_images,
        made.dead,
    )
    assert (label.dtype, on_train.dtype, on_val.dtype) == (np.int32, np.float64, np.float64)
    for u in range(len(label)):
        best = max(value[u], default=Fraction(0))
        winners = [concept[u, k] for k in range(made.categories) if value[u, k] == best > 0]
        assert label[u] == min(winners, default=-1)
        if label[u] < 0:
            assert np.isnan([on_train[u], on_val[u]]).all()
            continue
        assert on_train[u] == float(best)
        c = label[u]
        held = made.concepts.area[val, c]
        if not held:
            assert np.isnan(on_val[u])
            continue
        area = made.areas(union, val)[u, made.category[c]]
        assert on_val[u] == float(iou(made.layer.intersection[val, u, c], area, held))


@pytest.mark.parametrize("groups", [("all",), ("train",), ("val",), ("train", "test"), ("a", "val")])
def test_without_train_and_val_images_nothing_is_held_out(groups: tuple[str, ...]) -> None:
    made = Counted(np.random.default_rng(0), len(groups), 5, [0, 0, 1], 2)
    label, on_train, on_val = held_out(
        made.layer, made.concepts, groups, made.category, 2, "all-images", dead=np.zeros(5, bool)
    )
    assert label.tolist() == [-1] * 5
    assert np.isnan([on_train, on_val]).all()


# --- leading concepts -----------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(counted(groups=4), st.sampled_from(UNIONS), st.integers(0, 5))
def test_the_leading_concepts_and_their_counts_by_block(made: Counted, union: str, min_images: int) -> None:
    found = leading(*made.choose(union), dead=made.dead, min_images=min_images)
    held = made.concepts.area.sum(0)
    U, K = len(made.dead), made.categories
    assert found.concept.shape == (U, K, 3)
    assert found.intersection.shape == (U, 4, K, 3)
    assert found.area.shape == (U, 4, K)
    for u in range(U):
        for k in range(K):
            assert found.area[u, :, k].tolist() == [made.areas(union, b)[u, k] for b in range(4)]
            ranked = []
            for c in np.flatnonzero(made.category == k):
                value = iou(made.layer.intersection[:, u, c].sum(), made.areas(union, None)[u, k], held[c])
                if value > 0 and not made.dead[u] and made.concepts.images[:, c].sum() >= min_images:
                    ranked.append((-value, c))
            expected = [c for _, c in sorted(ranked)[:3]]
            assert found.concept[u, k].tolist() == expected + [-1] * (3 - len(expected))
            for rank, c in enumerate(found.concept[u, k]):
                by_block = made.layer.intersection[:, u, c] if c >= 0 else np.zeros(4)
                assert found.intersection[u, :, k, rank].tolist() == by_block.tolist()


@settings(deadline=None)
@given(counted(groups=6), st.sampled_from(UNIONS))
def test_blocks_of_several_groups_of_images_are_added_up(made: Counted, union: str) -> None:
    """A tally counts the blocks of the train images, then those of the val images."""
    by_group, concepts, *rest = made.choose(union)
    parts = [x.reshape(2, 3, *x.shape[1:]) for x in vars(by_group).values()]
    total, by_block = (LayerCounts(*(x.sum(axis) for x in parts)) for axis in (1, 0))
    expected = leading(by_block, concepts, *rest, dead=made.dead)
    assert expected.area.shape[1] == 3
    for name, value in vars(leading(by_group, concepts, *rest, dead=made.dead, total=total)).items():
        np.testing.assert_array_equal(value, getattr(expected, name))


def test_as_many_units_as_are_worked_through_at_a_time_and_one_more() -> None:
    made = Counted(np.random.default_rng(3), 4, 129, [0, 1, 0, 1, 1, 1], 2)
    whole = leading(*made.choose("within-category"), dead=made.dead)
    for u in (0, 63, 64, 127, 128):
        layer = LayerCounts(*(x[:, u : u + 1] for x in vars(made.layer).values()))
        one = leading(layer, *made.choose("within-category")[1:], dead=made.dead[u : u + 1])
        for name, value in vars(one).items():
            assert np.array_equal(getattr(whole, name)[u], value[0]), name


@settings(deadline=None)
@given(counted(groups=4), st.sampled_from(UNIONS))
def test_each_label_leads_and_its_blocks_add_up(made: Counted, union: str) -> None:
    found = leading(*made.choose(union), dead=made.dead)
    label, value = label_units(best_per_category(*made.choose(union), dead=made.dead))
    both, either = label_counts(found, Blocks(np.ones(4, np.int64), made.concepts.area), label)
    assert np.isnan(both[label < 0]).all()
    known = label >= 0
    assert (both[known].sum(1) / either[known].sum(1)).tolist() == value[known].tolist()


# --- blocks ---------------------------------------------------------------------------------------------------------


def test_the_block_of_an_image_is_as_the_format_says() -> None:
    assert [block_of(n) for n in ("ade20k/ADE_train_00000001.jpg", "a", "", "街道", "\udcff")] == [28, 6, 22, 7, 16]


def test_blocks_are_of_like_size_and_independent_of_train_and_val() -> None:
    names = [f"ade20k/ADE_train_{i:08d}.jpg" for i in range(20_000)]
    blocks = np.bincount([block_of(n) for n in names], minlength=BLOCKS)
    assert len(blocks) == BLOCKS
    assert abs(blocks - 625).max() < 5 * np.sqrt(625)


def test_resamples_draw_every_block_with_images_alike_and_no_other() -> None:
    images = np.array([4, 0, 1, 900, 0, 3])
    drawn = resamples(images, 5000)
    assert (drawn.sum(1) == 4).all()
    assert drawn[:, images == 0].sum() == 0
    assert abs(drawn[:, images > 0].mean(0) - 1).max() < 0.06
    assert np.array_equal(drawn, resamples(images, 5000))
    assert resamples(np.zeros(3, np.int64)).shape == (1000, 3)


@settings(max_examples=15, deadline=None)
@given(counted(groups=4), st.sampled_from(UNIONS))
def test_stability_is_the_share_of_resamples_in_which_the_label_wins(made: Counted, union: str) -> None:
    found = leading(*made.choose(union), dead=made.dead)
    label, _ = label_units(best_per_category(*made.choose(union), dead=made.dead))
    blocks = Blocks(np.array([1, 0, 2, 5]), made.concepts.area * np.array([1, 0, 1, 1])[:, None])
    stability = label_stability(found, blocks, label)
    drawn = resamples(blocks.images)
    for u in range(len(label)):
        if label[u] < 0:
            assert np.isnan(stability[u])
            continue
        wins = []
        for weights in drawn:
            values = {  # less the IoU: the least, and of equal ones the lower number, wins
                found.concept[u, k, n]: -iou(
                    weights @ found.intersection[u, :, k, n],
                    weights @ found.area[u, :, k],
                    weights @ blocks.concept_area[:, found.concept[u, k, n]],
                )
                for k in range(made.categories)
                for n in range(3)
                if found.concept[u, k, n] >= 0
            }
            best = min(values, key=lambda c: (values[c], c))
            wins.append(values[best] < 0 and best == label[u])
        assert stability[u] == np.mean(wins)


# --- all of it, and where little is known ---------------------------------------------------------------------------


def concepts(made: Counted) -> ConceptTable:
    names = tuple(f"c{c}" for c in range(len(made.category)))
    kinds = tuple(f"k{k}" for k in range(made.categories))
    return ConceptTable(np.arange(1, len(names) + 1, dtype=np.int32), names, made.category, kinds)


def evidence_of(made: Counted, groups: tuple[str, ...], images: list[int], dead: np.ndarray | None = None) -> object:
    """All evidence for counts whose groups are the blocks, too."""
    dead = made.dead if dead is None else dead
    found = leading(*made.choose("within-category"), dead=dead)
    best = best_per_category(*made.choose("within-category"), dead=dead)
    row = null_best(best, made.concepts.area.sum(0))
    return weigh(
        *(best, made.layer, made.concepts, groups, concepts(made), make_protocol("netdissect"), dead),
        blocks=Blocks(np.array(images), made.concepts.area),
        leading=found,
        null=NullBest(*(np.stack([x, x]) for x in row)),
        auprc=(np.full(len(dead), 0.5), np.full(len(dead), 0.25)),
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("units", "category", "categories"),
    [(0, [0, 1], 2), (3, [], 2), (3, [], 0), (0, [], 0), (1, [0], 1), (70, [0, 1, 1], 3)],
)
@pytest.mark.parametrize("images", [[5, 5], [5, 0], [0, 0]])
def test_layers_of_any_size_have_evidence_of_that_size(
    units: int, category: list[int], categories: int, images: list[int]
) -> None:
    made = Counted(np.random.default_rng(1), 2, units, category, categories)
    for dead in (made.dead, np.ones(units, bool)):
        found = evidence_of(made, ("train", "val"), images, dead)
        for name, value in vars(found).items():
            assert value.shape == (units,), name
            assert value.dtype == (np.float64 if name in NUMBERS else np.int32), name
            assert ((0 <= value) & (value <= 1) | np.isnan(value)).all() or name == "heldout_concept"
        if dead.all():
            assert np.isnan([getattr(found, n) for n in NUMBERS if n not in ("auprc", "base_rate")]).all()


def test_a_concept_in_one_image_only_has_an_interval_that_says_next_to_nothing() -> None:
    both, mask, held = np.zeros((3, 32, 1), np.int64)
    both[3], held[3] = 80, 100
    mask[:] = 2
    mask[3] = 90
    layer = LayerCounts(both[:, None], mask, mask[:, :, None])
    counts = ConceptCounts(held, (held > 0).astype(np.int64))
    made = leading(layer, counts, np.zeros(1, np.int32), 1, "within-category", dead=np.zeros(1, bool))
    blocks, label = Blocks(np.ones(32, np.int64), held), np.zeros(1, np.int32)
    low, high = label_intervals(made, blocks, label)
    assert low < 0.02
    assert high > 0.98
    assert label_stability(made, blocks, label) == pytest.approx(1 - (31 / 32) ** 32, abs=0.05)  # the image is drawn


def test_blocks_without_images_change_nothing() -> None:
    made = Counted(np.random.default_rng(8), 12, 6, [0, 0, 1, 1], 2)
    found = leading(*made.choose("all-images"), dead=made.dead)
    label, _ = label_units(best_per_category(*made.choose("all-images"), dead=made.dead))
    images = np.array([3, 1, 2, 9, 4, 4, 1, 1, 7, 2, 2, 2])
    without = label_intervals(found, Blocks(images, made.concepts.area), label)
    padded = type(found)(
        found.concept, np.insert(found.intersection, [2, 5], 0, axis=1), np.insert(found.area, [2, 5], 0, axis=1)
    )
    blocks = Blocks(np.insert(images, [2, 5], 0), np.insert(made.concepts.area, [2, 5], 0, axis=0))
    assert np.array_equal(label_intervals(padded, blocks, label), without, equal_nan=True)


def test_a_label_that_is_none_of_the_leading_concepts_has_no_interval() -> None:
    made = Counted(np.random.default_rng(8), 4, 6, [0, 0, 1, 1], 2)
    found = leading(*made.choose("all-images"), dead=np.ones(6, bool))
    blocks, label = Blocks(np.ones(4, np.int64), made.concepts.area), np.arange(6, dtype=np.int32) % 4
    assert np.isnan(label_intervals(found, blocks, label)).all()
    assert np.isnan(label_stability(found, blocks, label)).all()
