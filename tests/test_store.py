"""A store holds what it was given, every field of it, and gives it back a piece at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_factory import (
    DEAD,
    GRID,
    IMAGES,
    LAYERS,
    WITH_NAN,
    assert_same,
    concept_table,
    dissection,
    read_back,
    visit,
    write_small,
)

from ndissect.store import scores
from ndissect.store.counts import LayerCounts
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.hdf5 import member_name
from ndissect.store.model import Dissection
from ndissect.store.parts import VERSION
from ndissect.store.protocol import PROTOCOLS, Protocol, make_protocol
from ndissect.store.reader import Store
from ndissect.store.writer import estimated_size, write_store

ROOT = Path(__file__).resolve().parents[1]
FORMAT = (ROOT / "store" / "FORMAT.md").read_text(encoding="utf-8")
ARCHIVE = Path(__file__).with_name("archive")
NEWEST = ARCHIVE / f"store-{VERSION}.h5"
#: What each version of the format added to a dissection and its layers: not in the digests of older ones.
ADDED = {
    "1.1": ("blocks", "evidence", "leading", "null"),
    "1.2": ("concept_images", "judged_on"),
    "1.3": ("classes", "head", "effects"),
    "1.4": ("ious", "concept_effects", "effect_pictures"),
}


def round_trip(folder: Path, given: Dissection) -> Dissection:
    path = folder / "one.nd.h5"
    write_store(path, given)
    return read_back(path)


# --- what goes in comes out -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"groups": ("train", "val")},
        {"groups": ("a", "b", "c"), "seed": 7},
        {"evidence": True},
        {"evidence": True, "groups": ("train", "val"), "images": False},
        {"evidence": True, "layers": {"empty": (0, (4, 4)), "one": (1, (2, 2))}},
        {"effects": True},
        {"drawn": True},
        {"drawn": True, "evidence": True, "layers": {"empty": (0, (4, 4)), "one": (1, (2, 2))}},
        {"effects": True, "evidence": True, "layers": {"empty": (0, (4, 4)), "one": (1, (2, 2))}},
        {"images": False},
        {"top": 0},
        {"top": 50},
        {"layers": {"only.one.unit": (1, (2, 3))}},
        {"layers": {"empty": (0, (4, 4)), "full": (5, (1, 1))}},
        {"layers": {}},
        *({"protocol": protocol} for protocol in PROTOCOLS.values()),
        {"protocol": make_protocol("pnas2020", q="3/7", grid="9x11", union="within-category", min_images=12)},
    ],
    ids=str,
)
def test_every_field_comes_back(tmp_path: Path, changes: dict[str, object]) -> None:
    given = dissection(**changes)
    assert_same(round_trip(tmp_path, given), given)


def test_the_factory_is_worth_the_round_trip() -> None:
    made = dissection(groups=("train", "val"))
    assert [layer.name for layer in made.layers] == list(LAYERS)
    for layer in made.layers:
        assert layer.statistics.dead.tolist() == [u == DEAD for u in range(len(layer.statistics.dead))]
        assert (layer.statistics.nan[WITH_NAN], layer.statistics.inf[WITH_NAN]) == (1, 1)
        label, value = scores.label_units(layer.best)
        assert label[DEAD] == -1
        assert (value > scores.DETECTOR_IOU).sum() >= 3
        assert len({made.concepts.category_of(int(row)) for row in label if row >= 0}) >= 3
        assert layer.top is not None
        assert np.isnan(layer.top.peak).any()
    assert made.images is not None
    assert (made.images.label_maps.shape, made.images.image_labels.shape) == ((IMAGES, 2, *GRID), (IMAGES, 2))


def test_best_and_labels_follow_from_the_counts(tmp_path: Path) -> None:
    given = dissection(groups=("train", "val"))
    write_store(tmp_path / "a.nd.h5", given)
    with Store(tmp_path / "a.nd.h5") as store:
        for layer in given.layers:
            view = store.layer(layer.name)
            assert view.units == LAYERS[layer.name][0]
            for unit in range(view.units):
                value, both, area = view.unit_ious(unit)
                assert layer.counts is not None
                assert both.tolist() == layer.counts.intersection[:, unit].sum(0).tolist()
                for row in range(len(given.concepts)):
                    c = int(given.concept_counts.area[:, row].sum())
                    assert value[row] == both[row] / (area[row] + c - both[row])
                    expected = 0.0 if unit == DEAD else value[row]
                    assert view.concept_ious(row)[unit] == expected
                if unit != DEAD:
                    label, best = view.labels
                    assert best[unit] == value.max()
                    assert label[unit] == (value.argmax() if value.max() > 0 else -1)


@pytest.mark.parametrize("union", ["within-category", "all-images"])
def test_the_unions_area_is_the_protocols(tmp_path: Path, union: str) -> None:
    given = dissection(protocol=make_protocol(q="1/20", union=union), groups=("train", "val"))
    write_store(tmp_path / "a.nd.h5", given)
    counts = given.layers[0].counts
    assert counts is not None
    with Store(tmp_path / "a.nd.h5") as store:
        for unit in (0, 1):
            _, _, area = store.layer("features.0").unit_ious(unit)
            if union == "within-category":
                expected = counts.area_in_category[:, unit].sum(0)[given.concepts.category]
            else:
                expected = np.full(len(given.concepts), counts.area[:, unit].sum())
            assert area.tolist() == expected.tolist()


def test_the_masks_of_the_top_images_are_those_that_were_counted(tmp_path: Path) -> None:
    given = dissection(top=IMAGES)
    write_store(tmp_path / "a.nd.h5", given)
    with Store(tmp_path / "a.nd.h5") as store:
        for layer in given.layers:
            view = store.layer(layer.name)
            assert layer.counts is not None
            images = [store.images.read(i) for i in range(IMAGES)]
            for unit in set(range(view.units)) - {WITH_NAN}:  # whose last top image was taken away
                masks, top = view.masks(unit), view.top(unit)
                assert masks.sum() == layer.counts.area[0, unit]
                for row, concept in enumerate(given.concepts.number):
                    truth = [images[i].truth(int(concept), GRID) for i in top.image]
                    assert (masks & np.array(truth)).sum() == layer.counts.intersection[0, unit, row]


def test_top_images_leave_out_what_is_none(tmp_path: Path) -> None:
    with Store(write_small(tmp_path / "a.nd.h5", top=3)) as store:
        view = store.layer("features.0")
        assert [len(view.top(u).image) for u in range(view.units)] == [3, 3, 3, 2, 3, 3, 3, 3, 3]
        assert view.masks(WITH_NAN).shape == (2, *GRID)


@pytest.mark.parametrize("biggest", [0, 1, 2**32 - 1, 2**32, 2**53 + 1, 2**62])
def test_counts_of_any_size(tmp_path: Path, biggest: int) -> None:
    given = dissection()
    layer = given.layers[0]
    assert layer.counts is not None
    both = layer.counts.intersection.copy()
    both[0, 0, 0] = biggest
    counts = LayerCounts(both, layer.counts.area + biggest, layer.counts.area_in_category + biggest)
    got = round_trip(tmp_path, replace(given, layers=(replace(layer, counts=counts),)))
    assert_same(got.layers[0].counts, counts)
    with h5py.File(tmp_path / "one.nd.h5") as f:
        stored = f["layers/features.0/counts/intersection"].dtype
    assert stored == (np.uint32 if max(biggest, both.max()) < 2**32 else np.int64)


names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=200)


@settings(max_examples=25, deadline=None)
@given(
    layers=st.lists(names, min_size=2, max_size=2, unique=True),
    concepts=st.lists(names, min_size=9, max_size=9),
    module=names,
)
def test_names_in_any_script_and_of_any_length(
    tmp_path_factory: pytest.TempPathFactory, layers: list[str], concepts: list[str], module: str
) -> None:
    given = dissection(seed=1)
    given = replace(
        given,
        layers=tuple(replace(x, name=n, module=module) for x, n in zip(given.layers, layers, strict=True)),
        concepts=replace(given.concepts, name=tuple(concepts)),
    )
    assert_same(round_trip(tmp_path_factory.mktemp("names"), given), given)


@pytest.mark.parametrize(
    "name", ["a/b.1x1", "/", "//", ".", "..", "%2F", "a%b", "b" * 200, "conv.0.街道", "layer 4", "é"]
)
def test_layer_names_that_hdf5_would_read_otherwise(tmp_path: Path, name: str) -> None:
    given = dissection(layers={name: (4, (3, 3)), "b": (4, (3, 3))})
    assert_same(round_trip(tmp_path, given), given)
    with h5py.File(tmp_path / "one.nd.h5") as f:
        assert sorted(f["layers"]) == sorted([member_name(name), "b"])


def test_names_that_utf_8_or_a_terminal_cannot_take_are_made_harmless(tmp_path: Path) -> None:
    given = dissection()
    assert given.images is not None
    odd = tuple(f"{i}\udcff\x1b[31m\0.jpg" for i in range(IMAGES))
    given = replace(
        given,
        images=replace(given.images, name=odd),
        concepts=replace(given.concepts, name=("\x9b31mred", *given.concepts.name[1:])),
        provenance={"command": ["nd", "\udcff", "\x1b"]},
    )
    got = round_trip(tmp_path, given)
    assert got.images is not None
    assert got.images.name[3] == "3?\ufffd[31m\ufffd.jpg"
    assert got.concepts.name[0] == "\ufffd31mred"
    assert got.provenance == {"command": ["nd", "?", "\x1b"]}  # JSON keeps it as an escape


def test_control_characters_of_a_foreign_file_never_reach_a_terminal(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.nd.h5")
    with h5py.File(path, "r+") as f:
        f["concepts/name"][0] = b"\x1b]0;x\x07\xff"
        f["layers/features.0"].attrs["module"] = np.bytes_("\x1b[2J")
    with Store(path) as store:
        assert store.concepts.name[0] == "\ufffd]0;x\ufffd\ufffd"
        assert store.layer("features.0").module == "\ufffd[2J"


def test_thumbnails_of_any_length(tmp_path: Path) -> None:
    given = dissection()
    assert given.images is not None
    jpegs = tuple(bytes(range(256)) * n for n in (0, 1, 300, 0, 0, 2, 1, 0, 7, 1, 1, 0))
    given = replace(given, images=replace(given.images, thumbnail=jpegs))
    assert_same(round_trip(tmp_path, given), given)


def test_a_dissection_without_concepts(tmp_path: Path) -> None:
    given = dissection()
    nothing = concept_table(())
    layers = []
    for layer in given.layers:
        assert layer.counts is not None
        counts = replace(layer.counts, intersection=layer.counts.intersection[:, :, :0])
        best = replace(layer.best, concept=np.full_like(layer.best.concept, -1), iou=np.zeros_like(layer.best.iou))
        best = replace(best, intersection=np.zeros_like(best.intersection))
        layers.append(replace(layer, counts=counts, best=best))
    none = replace(given.concept_counts, area=np.zeros((1, 0), np.int64), images=np.zeros((1, 0), np.int64))
    given = replace(given, concepts=nothing, concept_counts=none, layers=tuple(layers))
    assert_same(round_trip(tmp_path, given), given)
    assert visit(tmp_path / "one.nd.h5") == 15


# --- the protocol as JSON -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda p: p.name)
def test_a_protocol_is_json_and_back(protocol: Protocol) -> None:
    assert Protocol.from_json(json.loads(json.dumps(protocol.to_json()))) == protocol


@given(
    q=st.fractions(min_value=0, max_value=1).filter(lambda q: 0 < q < 1),
    grid=st.none() | st.tuples(st.integers(1, 2048), st.integers(1, 2048)),
    min_images=st.integers(0, 10**9),
)
def test_any_choice_is_json_and_back(q: Fraction, grid: tuple[int, int] | None, min_images: int) -> None:
    protocol = replace(PROTOCOLS["lite"], name="lite+", q=q, grid=grid, min_images=min_images)
    assert Protocol.from_json(json.loads(json.dumps(protocol.to_json()))) == protocol


def test_a_quantile_with_a_huge_exponent_is_refused_at_once() -> None:
    for text in ("1e-999999999", "0e99999999999", "nan", "inf", "1/0", "-1/3"):
        with pytest.raises(WrongUse):
            make_protocol(q=text)


# --- reading a piece at a time --------------------------------------------------------------------------------------


def test_opening_and_labels_read_no_counts_no_maps_and_no_images(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.nd.h5")
    with h5py.File(path, "r+") as f:  # what is not there cannot have been read
        for layer in f["layers"].values():
            del layer["counts"]["intersection"], layer["top"]["map"], layer["rows"]["cell"]
        del f["images"]["thumbnails"], f["images"]["label_maps"], f["provenance"]
    with Store(path) as store:
        view = store.layer("features.0")
        assert view.labels[0].shape == (9,)
        assert view.statistics.dead.sum() == 1
        assert view.summary()["units"] == 9
        for missing in (view.counts, lambda: view.unit_ious(0), lambda: view.top(0), lambda: store.images.read(0)):
            with pytest.raises(NDError, match="is missing"):
                missing()


def test_a_layer_that_is_damaged_does_not_keep_the_others_from_being_read(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.nd.h5")
    with h5py.File(path, "r+") as f:
        del f["layers/features.0/best/concept"]
    with Store(path) as store:
        assert store.layer("layer4.1.conv2").summary()["units"] == 6
        with pytest.raises(NDError, match=r"/layers/features\.0/best/concept is missing"):
            _ = store.layer("features.0").labels


def test_a_look_up_takes_memory_for_what_it_shows(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.nd.h5", layers={"big": (5_000, (1, 1))}, images=False)
    with h5py.File(path) as f:
        assert f["layers/big/counts/intersection"].nbytes == 180_000
    code = """
import sys, tracemalloc
from pathlib import Path
from ndissect.store.reader import Store
tracemalloc.start()
with Store(Path(sys.argv[1])) as store:
    view = store.layer("big")
    view.labels
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    view.unit_ious(7)
    print(tracemalloc.get_traced_memory()[1] - before)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50_000


def test_what_was_read_stays_when_the_store_is_closed(tmp_path: Path) -> None:
    with Store(write_small(tmp_path / "a.nd.h5")) as store:
        view = store.layer("features.0")
        label, _ = view.labels
    assert view.labels[0] is label
    assert view.units == 9


def test_names_and_units_that_are_not_there(tmp_path: Path) -> None:
    with Store(write_small(tmp_path / "a.nd.h5")) as store:
        with pytest.raises(WrongUse) as failed:
            store.layer("layer4.conv2")
        assert "layer4.1.conv2" in failed.value.hint
        view = store.layer("features.0")
        for unit in (9, -1, 10**9):
            for look in (view.unit_ious, view.top, view.masks):
                with pytest.raises(WrongUse, match=f"no unit {unit}"):
                    look(unit)


def test_no_torch_and_no_screen_library_is_needed_to_read(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.nd.h5")
    code = """
import sys
from pathlib import Path
from ndissect.store.reader import Store
with Store(Path(sys.argv[1])) as store:
    store.layer("features.0").load()
print(sorted({"torch", "textual", "typer", "rich", "PIL"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_estimate_covers_the_file(tmp_path: Path) -> None:
    made = dissection(layers={"a": (300, (7, 7)), "b": (200, (14, 14))}, top=10, groups=("train", "val"), evidence=True)
    path = tmp_path / "a.nd.h5"
    write_store(path, made)
    estimate = estimated_size([300, 200], [(7, 7), (14, 14)], len(made.concepts), 10, IMAGES)
    assert path.stat().st_size <= estimate <= path.stat().st_size + 2_000_000
