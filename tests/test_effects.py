"""What follows from the counts of ablations: against networks that are run without each unit, image by image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from effects_factory import Scene, classes_of, effects_of, head_of
from hypothesis import given, settings
from hypothesis import strategies as st
from store_factory import assert_same

from ndissect.store.effects import (
    Classes,
    Effects,
    agreed,
    hurt_most,
    merged,
    needed_most,
    random_unit,
    speaks_for,
    without_repeats,
)

scenes = st.builds(
    Scene, units=st.integers(1, 7), classes=st.integers(2, 6), images=st.integers(1, 30), seed=st.integers(0, 99)
)


def by_hand(scene: Scene, split: int, splits: int, without: tuple[int, ...]) -> Iterator[float]:
    """The balanced accuracy of each class, by every image's prediction."""
    there = [i for i in range(scene.images) if i // max(scene.classes - 1, 1) % splits == split]
    predicted = scene.scores(without).argmax(1)
    for k in range(scene.classes):
        own = [predicted[i] == k for i in there if scene.truth[i] == k]
        others = [predicted[i] != k for i in there if scene.truth[i] != k]
        yield (np.mean(own) + np.mean(others)) / 2 if own and others else np.nan


@settings(max_examples=30, deadline=None)
@given(scene=scenes, splits=st.sampled_from([("all",), ("train", "val")]))
def test_balanced_accuracy_and_its_change_are_those_of_every_image(scene: Scene, splits: tuple[str, ...]) -> None:
    sets = (*((u,) for u in range(scene.units)), tuple(range(scene.units)))
    effects = effects_of(scene, sets[: scene.units + (scene.units > 1)], splits)
    for split in range(len(splits)):
        before = list(by_hand(scene, split, len(splits), ()))
        np.testing.assert_allclose(effects.balanced_accuracy[split], before)
        for row, units in enumerate(effects.units):
            after = list(by_hand(scene, split, len(splits), units))
            np.testing.assert_allclose(effects.balanced_accuracy_without[split, row], after)
            np.testing.assert_allclose(effects.change[split, row], np.subtract(after, before), atol=1e-12)
            np.testing.assert_array_equal(effects.change_by(row, split), effects.change[split, row])


@settings(max_examples=30, deadline=None)
@given(scene=scenes)
def test_the_order_of_units_and_classes_is_that_of_the_first_split(scene: Scene) -> None:
    ablations = ((scene.units - 1,), *((u,) for u in range(scene.units - 1)), (0, scene.units + 1))
    wide = replace(scene, units=scene.units + 2)
    effects = effects_of(wide, ablations)
    score = effects.score_without[0].astype(float) - effects.score[0]
    for k in range(scene.classes):
        rows = needed_most(effects, k)
        if np.isnan(effects.balanced_accuracy[0, k]):
            assert not len(rows)
            continue
        ranked = sorted(
            effects.single(),
            key=lambda row: (effects.change[0, row, k], score[row, k], effects.units[row]),
        )
        assert rows.tolist() == [int(row) for row in ranked]
    for row in range(len(ablations)):
        known = [k for k in range(scene.classes) if not np.isnan(effects.change[0, row, k])]
        ranked = sorted(known, key=lambda k: (effects.change[0, row, k], np.nan_to_num(score[row, k], nan=np.inf), k))
        assert hurt_most(effects, row).tolist() == ranked


def test_a_class_needs_its_own_unit_most_and_random_ones_do_little() -> None:
    scene = Scene(9)
    effects = effects_of(scene)
    for k in range(4):
        assert effects.units[needed_most(effects, k)[0]] == (k,)
        assert effects.change[0, k, k] < random_unit(effects)[0, k] - 0.05
    assert not len(needed_most(effects, 4))
    assert np.isnan(random_unit(effects)[:, 4]).all()
    np.testing.assert_allclose(random_unit(effects)[:, :4], effects.change.mean(1)[:, :4])
    assert np.isnan(random_unit(effects_of(scene, ((0, 1),)))).all()


def test_a_unit_speaks_for_the_classes_whose_score_it_lifts_above_the_others() -> None:
    scene = Scene(6)
    head = head_of(scene)
    lifted = scene.scores() - scene.scores((2,))  # what unit 2 adds to the scores of each image
    expected = (lifted - lifted.mean(1, keepdims=True)) / scene.means[:, [2]]
    for row in expected:
        np.testing.assert_allclose(speaks_for(head, 2), row, atol=1e-6)
    assert speaks_for(head, 2).argmax() == 2
    shifted = replace(head, weight=head.weight + 7)
    np.testing.assert_allclose(speaks_for(shifted, 2), speaks_for(head, 2), atol=1e-5)


def test_ablations_of_the_same_images_stay_beside_new_ones() -> None:
    scene = Scene(5)
    old, new = effects_of(scene, ((3,), (0,), (1, 2))), effects_of(scene, ((4,), (0,), (0, 1)), command=["again"])
    both = merged(old, new)
    assert both.units == ((0,), (3,), (4,), (0, 1), (1, 2))
    assert both.origin["command"] == ["again"]
    assert_same(replace(both, origin=old.origin), effects_of(scene, both.units))
    assert both.numbered(3) == 1
    assert both.numbered(2) is None


@pytest.mark.parametrize(
    "other",
    [
        {"by": "mean"},
        {"truth": "prediction"},
        {"data": {"name": "small", "digest": "sha256:02"}},
        {"network": {"spec": "torchvision:resnet18", "digest": "sha256:11"}},
    ],
    ids=str,
)
def test_ablations_of_another_origin_are_replaced(other: dict[str, object]) -> None:
    new = effects_of(Scene(5), ((4,),), **other)
    assert_same(merged(effects_of(Scene(5)), new), new)


def test_ablations_of_other_images_or_splits_are_replaced() -> None:
    old = effects_of(Scene(5))
    for new in (effects_of(Scene(5, images=20), ((4,),)), effects_of(Scene(5), ((4,),), ("all",))):
        assert_same(merged(old, new), new)


def test_the_last_of_equal_ablations_stays() -> None:
    made = effects_of(Scene(3), ((2,), (0,), (2,)))
    changed = replace(made, score_without=made.score_without + np.arange(3, dtype=np.float32)[:, None])
    once = without_repeats(changed)
    assert once.units == ((0,), (2,))
    np.testing.assert_array_equal(once.score_without[:, 1], made.score_without[:, 0] + 2)


def test_names_of_classes_that_can_be_those_of_one_network() -> None:
    names, numbers = Classes(("a", "b"), "the network"), Classes(("0", "1"), "their numbers")
    assert agreed(None, names) == names
    assert agreed(names, Classes(("a", "b"), "classes.txt")) == names
    assert agreed(names, numbers) == names
    assert agreed(numbers, names) == names
    assert agreed(names, Classes(("a", "c"), "x")) is None
    assert agreed(numbers, Classes(("a",), "x")) is None


def test_effects_without_a_single_unit_or_an_image() -> None:
    effects: Effects = effects_of(Scene(4, images=0), ((0, 1),))
    assert len(effects.single()) == 0
    assert len(needed_most(effects, 0)) == 0
    assert len(hurt_most(effects, 0)) == 0
    assert classes_of(Scene(4)).names[0] == "kitchen"
