"""What a generator's units do to concepts is put into a store that is there, read again, and never believed unseen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from concept_effects_factory import effects_of, pictures_of
from store_factory import assert_same, outline, read_back, visit, write_small

from ndissect.store.add_concept_effects import add_concept_effects
from ndissect.store.concept_effects import ConceptEffects, learned
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.model import Dissection
from ndissect.store.parts import VERSION
from ndissect.store.reader import Store

LAYER = "features.0"
ARCHIVE = Path(__file__).with_name("archive")
CONCEPTS, UNITS = 9, 9


def read(path: Path) -> ConceptEffects | None:
    with Store(path) as store:
        return store.layer(LAYER).concept_effects


def first_layer(given: Dissection, **changes: object) -> Dissection:
    first, *others = given.layers
    return replace(given, layers=(replace(first, **changes), *others))  # type: ignore[arg-type]


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2", "1.3", "1.4"])
def test_all_else_in_a_store_of_any_version_stays(tmp_path: Path, version: str) -> None:
    path = tmp_path / "a.nd.h5"
    path.write_bytes((ARCHIVE / f"store-{version}.h5").read_bytes())
    before = first_layer(read_back(path), concept_effects=None, effect_pictures=None)
    given, pictures = effects_of(CONCEPTS, UNITS, (0, 3, 8), samples=50), pictures_of((0, 8))
    add_concept_effects(path, LAYER, given, pictures)
    assert_same(read_back(path).layers[0].concept_effects.units, given.units)
    if version != "1.4":
        assert_same(read_back(path), first_layer(before, concept_effects=given, effect_pictures=pictures))
    assert {line.strip() for line in outline(path) if "@encoding-version" in line} == {f"@encoding-version: {VERSION}"}
    assert [p.name for p in tmp_path.iterdir()] == ["a.nd.h5"]


def test_units_of_the_same_samples_stay_beside_new_ones_and_others_go(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.nd.h5")
    whole = effects_of(CONCEPTS, UNITS, (1, 2, 5), coefficients=())
    assert add_concept_effects(path, LAYER, effects_of(CONCEPTS, UNITS, (5, 1), coefficients=()), None) is None
    assert add_concept_effects(path, LAYER, effects_of(CONCEPTS, UNITS, (2, 1), coefficients=())) is None
    assert_same(read(path), whole)
    other = effects_of(CONCEPTS, UNITS, (7,), samples=11, coefficients=())
    gone = add_concept_effects(path, LAYER, other, pictures_of((7,)))
    assert gone is not None
    assert gone.units.tolist() == [1, 2, 5]
    assert_same(read(path), other)


def test_coefficients_and_measured_units_do_not_push_each_other_out(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.nd.h5")
    measured = effects_of(CONCEPTS, UNITS, (1, 2), coefficients=())
    ones, halves = np.ones((1, UNITS)), np.full((2, UNITS), 0.5)
    add_concept_effects(path, LAYER, learned(ones, np.array([4], np.int32), CONCEPTS, "learned"))
    first = read(path)
    assert first is not None
    assert (first.samples, len(first.units), np.isnan(first.before).all()) == (0, 0, True)
    add_concept_effects(path, LAYER, measured, pictures_of((1,)))
    add_concept_effects(path, LAYER, learned(halves, np.array([4, 6], np.int32), CONCEPTS, "again"))
    found = read(path)
    assert found is not None
    assert_same(replace(found, coefficients=measured.coefficients, coefficient_concepts=first.units), measured)
    assert sorted(found.coefficient_concepts.tolist()) == [4, 6]
    for row in (4, 6):
        assert found.coefficients_of(row) is not None
        assert (found.coefficients_of(row) == 0.5).all()
    assert found.coefficients_of(0) is None
    with Store(path) as store:
        assert store.layer(LAYER).effect_pictures(1) == pictures_of((1,)).pairs[0]
        assert store.layer(LAYER).effect_pictures(2) is None
        assert store.layer("layer4.1.conv2").concept_effects is None


def test_what_does_not_fit_is_refused_and_the_store_stays(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.nd.h5")
    before = path.read_bytes()
    good = effects_of(CONCEPTS, UNITS, (1, 2))
    with pytest.raises(WrongUse, match="no layer 'x'"):
        add_concept_effects(path, "x", good)
    with pytest.raises(WrongUse, match=r"features\.0 has no unit 9"):
        add_concept_effects(path, LAYER, replace(good, units=np.array([1, 9], np.int32)))
    for wrong, what in (
        (replace(good, before=good.before[1:]), "before has the shape"),
        (replace(good, after=good.after + 1), "after holds what is no share"),
        (replace(good, units=np.array([1, 1], np.int32)), "units names one twice"),
        (replace(good, low=good.high + 1), "low is above high"),
        (replace(good, coefficients=good.coefficients * np.nan), "coefficients holds NaN"),
        (replace(good, coefficient_concepts=good.coefficient_concepts + 50), "no row of the concepts"),
    ):
        with pytest.raises(ValueError, match=what):
            add_concept_effects(path, LAYER, wrong)
    with pytest.raises(ValueError, match="JPEG"):
        add_concept_effects(path, LAYER, good, replace(pictures_of((1,)), pairs=((b"no", b"jpeg"),)))
    assert path.read_bytes() == before


def changed(path: Path, name: str, values: object) -> None:
    with h5py.File(path, "r+") as f:
        g = f[f"layers/{LAYER}"]
        del g[name]
        g.create_dataset(name, data=values)


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("concept_effects/unit", np.array([2, 1], np.int32), "is not in rising order"),
        ("concept_effects/unit", np.array([1, 9], np.int32), "points outside"),
        ("concept_effects/after", np.full((2, CONCEPTS), 1.5), "no share between 0 and 1"),
        ("concept_effects/after", np.zeros((2, CONCEPTS + 1)), "has the shape"),
        ("concept_effects/low", np.ones((2, CONCEPTS)) * 9, "is above its upper end"),
        ("concept_effects/samples", np.int64(-1), "samples"),
        ("concept_effects/coefficient", np.full((2, UNITS), np.nan), "no share between 0 and 1"),
        ("concept_effects/coefficient_concept", np.array([4, 4], np.int32), "names a concept twice"),
        ("effect_pictures/picture_end", np.array([[9, 10], [3, 4]]), "points outside the pictures"),
        ("effect_pictures/picture_end", np.array([[1 << 40, 1 << 41]] * 2), "points outside the pictures"),
    ],
)
def test_a_damaged_part_is_told_with_its_name(tmp_path: Path, name: str, values: object, said: str) -> None:
    path = write_small(tmp_path / "a.nd.h5")
    add_concept_effects(path, LAYER, effects_of(CONCEPTS, UNITS, (1, 2)), pictures_of((1, 2)))
    changed(path, name, values)
    with pytest.raises(NDError, match=said) as failed, Store(path) as store:
        view = store.layer(LAYER)
        _ = view.concept_effects
        view.effect_pictures(2)
    assert name.split("/")[1] in failed.value.message
    assert str(path) in failed.value.message


def test_a_store_with_effects_can_be_looked_at_throughout(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.nd.h5")
    add_concept_effects(path, LAYER, effects_of(CONCEPTS, UNITS, (1, 2)), pictures_of((1, 2)))
    assert visit(path) == 15
