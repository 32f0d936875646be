"""A store holds what it was given, every field of it, in the format that FORMAT.md writes down."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_factory import (
    CATEGORIES,
    DEAD,
    GRID,
    IMAGES,
    LAYERS,
    PAIRINGS,
    WITH_NAN,
    assert_same,
    concept_table,
    dissection,
    outline,
    plain,
    read_back,
    type_name,
    visit,
    write_small,
)

from ndissect.store import parts, scores
from ndissect.store.counts import BLOCKS, PER_CATEGORY, LayerCounts
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
ADDED = {"1.1": ("blocks", "evidence", "leading", "null")}


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


# --- the written format ---------------------------------------------------------------------------------------------


def table(heading: str) -> list[list[str]]:
    """The cells of the table below a heading of FORMAT.md, without its head."""
    section = FORMAT.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def written(path: Path) -> dict[str, h5py.Group | h5py.Dataset]:
    found: dict[str, tuple] = {}
    with h5py.File(path) as f:

        def note(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Dataset):
                found[name] = (type_name(item.dtype), item.shape)
            else:
                found[name] = {key: plain(value) for key, value in item.attrs.items()}

        note("/", f["/"])
        f.visititems(note)
    return found


@pytest.mark.parametrize("groups", [("all",), ("train", "val")])
def test_the_specification_lists_every_dataset_with_its_type_and_shape(tmp_path: Path, groups: tuple[str, ...]) -> None:
    path = write_small(tmp_path / "a.nd.h5", groups=groups, evidence=True)
    found = {k: v for k, v in written(path).items() if isinstance(v, tuple)}
    made = dissection(groups=groups)
    assert made.images is not None
    lengths = {"G": len(groups), "C": len(made.concepts), "K": len(CATEGORIES), "layers": len(LAYERS)}
    lengths |= {"D": IMAGES, "M": 2, "L": 2, "n": 3, "H": GRID[0], "W": GRID[1]}
    lengths |= {"S": BLOCKS, "P": PAIRINGS, "3": PER_CATEGORY}
    lengths["B"] = sum(map(len, made.images.thumbnail))
    specified = {}
    for name, kind, shape, _ in table("Datasets"):
        for layer, (units, (h, w)) in LAYERS.items() if "<layer>" in name else {"": (0, (0, 0))}.items():
            known = lengths | {"U": units, "h": h, "w": w}
            dims = () if shape == "scalar" else tuple(known[letter] for letter in shape.split(" x "))
            specified[name.strip("`").replace("<layer>", layer)] = (kind.split(" or ")[0], dims)
    assert found == specified


def test_the_specification_lists_every_group_with_its_encoding_and_attributes(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.nd.h5", evidence=True)
    found = {k: v for k, v in written(path).items() if isinstance(v, dict)}
    specified = {}
    for name, kind, attributes, _ in table("Groups"):
        for layer in LAYERS if "<layer>" in name else [""]:
            own = {"encoding-type", "encoding-version", *re.findall("`([a-z_]+)`", attributes)}
            specified[name.strip("`").replace("<layer>", layer)] = (kind.strip("`"), own)
    assert {name: (v["encoding-type"], set(v)) for name, v in found.items()} == specified
    assert {v["encoding-version"] for v in found.values()} == {VERSION}
    assert f"format {VERSION}\n" in FORMAT


def test_the_table_of_parts_is_the_specification() -> None:
    """Of every part its name, type, axes and version: to rename what holds it in memory does not change the format."""
    specified = {row[0].strip("`"): row for row in table("Groups")}
    assert {g.path: g.kind for g in parts.GROUPS} == {path: row[1].strip("`") for path, row in specified.items()}
    for group in parts.GROUPS:
        remarks = specified[group.path][3]
        assert group.optional == remarks.startswith("optional"), group.path
        since = re.search(r"since (\d\.\d)", remarks)
        assert group.since == (since[1] if since else "1.0"), group.path
    shapes = {row[0].strip("`"): (row[1], row[2]) for row in table("Datasets")}
    listed = {
        part.name if group is parts.ROOT else f"{group.path}/{part.name}": (
            part.dtype,
            " x ".join(part.axes) or "scalar",
        )
        for group in parts.GROUPS
        for part in group.parts
    }
    assert listed == shapes


def test_the_specification_lists_every_key_of_the_protocol() -> None:
    assert [row[0].strip("`") for row in table("Protocol")] == list(PROTOCOLS["lite"].to_json())


def test_groups_that_are_optional_are_absent_and_nothing_else_is(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.nd.h5", evidence=True)
    full = {k for k, v in written(path).items() if isinstance(v, dict)}
    less = replace(dissection(images=False), grid=None)
    bare = tuple(replace(layer, counts=None, axes=None, map_size=None) for layer in less.layers)
    write_store(tmp_path / "b.nd.h5", replace(less, layers=bare))
    left = {k for k, v in written(tmp_path / "b.nd.h5").items() if isinstance(v, dict)}
    optional = {row[0].strip("`") for row in table("Groups") if row[3].startswith("optional")}
    assert {re.sub(r"^layers/[^/]+(?:/|$)", "layers/<layer>/", k).rstrip("/") for k in full - left} == optional
    assert_same(read_back(tmp_path / "b.nd.h5"), replace(less, layers=bare))


def test_no_link_no_filter_and_no_variable_length_but_what_the_specification_says(tmp_path: Path) -> None:
    with h5py.File(write_small(tmp_path / "a.nd.h5")) as f:
        filtered = []

        def look(name: str, item: h5py.Group | h5py.Dataset) -> None:
            for value in item.attrs:
                assert item.attrs.get_id(value).dtype.kind in "Siu"
            if isinstance(item, h5py.Dataset):
                assert item.dtype.kind in "Siuf", name
                if item.chunks is not None:
                    filtered.append((name, item.compression, item.chunks))

        f.visititems(look)
        assert filtered == [("images/label_maps", "gzip", (1, 2, *GRID))]


def test_the_ten_lines_of_h5py_compute_the_readers_ious(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = FORMAT.split("```python\n")[1].split("```")[0]
    for protocol in (PROTOCOLS["netdissect"], make_protocol(q="1/9", union="all-images")):
        write_small(tmp_path / "store.nd.h5", protocol=protocol, groups=("train", "val"))
        monkeypatch.chdir(tmp_path)
        names: dict[str, np.ndarray] = {}
        exec(code, names)
        with Store(tmp_path / "store.nd.h5") as store:
            view = store.layer("layer4.1.conv2")
            expected = [view.unit_ious(u)[0].tolist() for u in range(view.units)]
        assert names["iou"].tolist() == expected
        assert names["iou"].max() > 0


def test_the_example_is_the_archived_store() -> None:
    example = FORMAT.split("## Example")[1].split("```\n")[1]
    assert example.splitlines() == outline(NEWEST)


# --- old files ------------------------------------------------------------------------------------------------------


def digest(value: object, without: tuple[str, ...] = ()) -> str:
    """Of every field, array, type and NaN; the fields ``without``, which came later, must be None."""
    total = hashlib.sha256()

    def add(item: object) -> None:
        if is_dataclass(item):
            for field in fields(item):
                if field.name in without:
                    assert getattr(item, field.name) is None
                    continue
                total.update(field.name.encode())
                add(getattr(item, field.name))
        elif isinstance(item, np.ndarray):
            total.update(f"{item.dtype.str} {item.shape}".encode() + np.ascontiguousarray(item).tobytes())
        elif isinstance(item, tuple):
            total.update(f"{len(item)}".encode())
            for one in item:
                add(one)
        else:
            total.update(repr(item).encode())

    add(value)
    return total.hexdigest()


def test_the_archived_store_of_format_1_0_reads_the_same_for_ever() -> None:
    path = ARCHIVE / "store-1.0.h5"
    assert (
        hashlib.sha256(path.read_bytes()).hexdigest()
        == "390009b7f869cd036748549d632c2613b2320d464fd7ddce10127688101a2afc"
    )
    assert digest(read_back(path), ADDED["1.1"]) == "da62549a849d0fc1c57a4b52434c1e4aafa6c6d56ebe903e30fdccd138035cc5"
    with Store(path) as store:
        assert store.protocol.q == Fraction(1, 20)
        assert store.groups == ("train", "val")
        view = store.layer("features.0")
        label, value = view.labels
        labels = [store.concepts.label(int(row)) if row >= 0 else None for row in label]
        assert labels == ["red", "blue", None, "traffic light", "señal de tráfico", "wheel", "街道", "wheel", "blue"]
        ious = " ".join(f"{v:.4f}" for v in value)
        assert ious == "0.0680 0.1124 0.0000 0.0556 0.0287 0.0705 0.0563 0.0248 0.0373"
        assert store.images.read(3).name == "ade20k/ünter 3.jpg"


def test_the_archived_store_of_format_1_1_reads_the_same_for_ever() -> None:
    path = ARCHIVE / "store-1.1.h5"
    assert (
        hashlib.sha256(path.read_bytes()).hexdigest()
        == "c5e81d45994cfbe43cba2b4706c182ce4a578f501b7159447014032dae75ecd8"
    )
    assert digest(read_back(path)) == "97ac3fc3fb93eeb184496853135ad2462b316fb3c081102760b13e6c7fd2f2bb"
    with Store(path) as store:
        view = store.layer("features.0")
        known = view.evidence

        def shown(values: np.ndarray) -> str:
            return " ".join(f"{v:.3f}" for v in values)

        assert view.summary()["detectors_q05"] == 4
        assert view.pairings == 6
        assert shown(known.q) == "0.039 0.025 nan 0.039 0.134 0.039 0.143 0.673 0.231"
        assert shown(known.iou_low) == "0.037 0.055 nan 0.024 0.010 0.024 0.016 0.003 0.001"
        assert shown(known.iou_high) == "0.121 0.216 nan 0.124 0.079 0.191 0.178 0.197 0.524"
        assert shown(known.heldout_iou) == "0.096 0.071 nan 0.077 0.006 0.000 0.006 0.000 0.000"
        assert known.heldout_concept.tolist() == [0, 1, -1, 3, 4, 3, 2, 5, 1]
        assert store.blocks is not None
        assert store.blocks.images.sum() == IMAGES
