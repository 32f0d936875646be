"""Stores are written as FORMAT.md says, and stores of every earlier version are read."""

from __future__ import annotations

import hashlib
import re
from dataclasses import fields, is_dataclass, replace
from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pytest
from concept_effects_factory import pictures_of
from effects_factory import NAMES
from store_factory import (
    CATEGORIES,
    DRAWN,
    GRID,
    IMAGES,
    LAYERS,
    PAIRINGS,
    assert_same,
    dissection,
    outline,
    plain,
    read_back,
    type_name,
    without_counts,
    write_small,
)
from test_store import ADDED, ARCHIVE, FORMAT, NEWEST

from ndissect.store import parts
from ndissect.store.counts import BLOCKS, PER_CATEGORY
from ndissect.store.effects import needed_most
from ndissect.store.parts import VERSION
from ndissect.store.protocol import PROTOCOLS, make_protocol
from ndissect.store.reader import Store
from ndissect.store.writer import write_store


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


def written_ious(folder: Path) -> dict[str, h5py.Group | h5py.Dataset]:
    """The groups and datasets that only a store of IoUs without counts has."""
    write_store(folder / "ious.nd.h5", without_counts(dissection()))
    return {name: item for name, item in written(folder / "ious.nd.h5").items() if "/ious" in name}


@pytest.mark.parametrize("groups", [("all",), ("train", "val")])
def test_the_specification_lists_every_dataset_with_its_type_and_shape(tmp_path: Path, groups: tuple[str, ...]) -> None:
    path = write_small(tmp_path / "a.nd.h5", groups=groups, evidence=True, effects=True, drawn=True)
    found = {k: v for k, v in written(path).items() if isinstance(v, tuple)}
    found |= {k: v for k, v in written_ious(tmp_path).items() if isinstance(v, tuple)}
    made = dissection(groups=groups)
    assert made.images is not None
    lengths = {"G": len(groups), "C": len(made.concepts), "K": len(CATEGORIES), "layers": len(LAYERS)}
    lengths |= {"D": IMAGES, "M": 2, "L": 2, "n": 3, "H": GRID[0], "W": GRID[1]}
    lengths |= {"S": BLOCKS, "P": PAIRINGS, "3": PER_CATEGORY}
    lengths |= {"Y": len(NAMES), "F": 2, "A": DRAWN, "R": 2, "X": 2, "2": 2}
    lengths["B"] = sum(map(len, made.images.thumbnail))
    specified = {}
    for name, kind, shape, _ in table("Datasets"):
        for layer, (units, (h, w)) in LAYERS.items() if "<layer>" in name else {"": (0, (0, 0))}.items():
            known = lengths | {"U": units, "h": h, "w": w, "E": units + 1, "N": units + 2}
            if name.endswith("effect_pictures/pictures`"):
                known["B"] = sum(len(jpeg) for pair in pictures_of((0, 1)).pairs for jpeg in pair)
            dims = () if shape == "scalar" else tuple(known[letter] for letter in shape.split(" x "))
            specified[name.strip("`").replace("<layer>", layer)] = (kind.split(" or ")[0], dims)
    assert found == specified


def test_the_specification_lists_every_group_with_its_encoding_and_attributes(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.nd.h5", evidence=True, effects=True, drawn=True)
    found = {k: v for k, v in (written(path) | written_ious(tmp_path)).items() if isinstance(v, dict)}
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
    path = write_small(tmp_path / "a.nd.h5", evidence=True, effects=True, drawn=True)
    full = {k for k, v in (written(path) | written_ious(tmp_path)).items() if isinstance(v, dict)}
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
    """Of every field, array, type and NaN; the fields ``without``, which came later, must say what was so before."""
    total = hashlib.sha256()

    def add(item: object) -> None:
        if is_dataclass(item):
            for field in fields(item):
                if field.name in without:
                    assert getattr(item, field.name) in (None, "pixels")
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
    later = (*ADDED["1.1"], *ADDED["1.2"], *ADDED["1.3"], *ADDED["1.4"])
    assert digest(read_back(path), later) == "da62549a849d0fc1c57a4b52434c1e4aafa6c6d56ebe903e30fdccd138035cc5"
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
    later = (*ADDED["1.2"], *ADDED["1.3"], *ADDED["1.4"])
    assert digest(read_back(path), later) == "97ac3fc3fb93eeb184496853135ad2462b316fb3c081102760b13e6c7fd2f2bb"
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


def test_the_archived_store_of_format_1_2_reads_the_same_for_ever() -> None:
    path = ARCHIVE / "store-1.2.h5"
    assert (
        hashlib.sha256(path.read_bytes()).hexdigest()
        == "2828a6a246739cd6ae80263112dd7f79bcf20a531651c3fec8ff52c730aa28c7"
    )
    assert (
        digest(read_back(path), (*ADDED["1.3"], *ADDED["1.4"]))
        == "317e1f1604a3d276b46308f90946da0e8f24bb1ba99d754158682d9f9ee9ee41"
    )
    with Store(path) as store:
        assert store.layer("features.0").judged_on == "pixels"
        assert store.blocks is not None
        assert store.blocks.concept_images is not None
        assert store.blocks.concept_images.sum(0).tolist() == store.concept_counts.images.sum(0).tolist()


def test_the_archived_store_of_format_1_3_reads_the_same_for_ever() -> None:
    path = ARCHIVE / "store-1.3.h5"
    assert (
        hashlib.sha256(path.read_bytes()).hexdigest()
        == "293d7f90dc1b69ef50f55ca86cd7750fc34fc485576bd326fd78b5bc56d98ccf"
    )
    assert digest(read_back(path), ADDED["1.4"]) == "d5d2ea560410d0cf3a0823f17965b2d43c066579a32654cde935735c0d092b9a"
    with Store(path) as store:
        assert store.classes is not None
        assert store.classes.names == NAMES
        view = store.layer("features.0")
        assert view.head is not None
        assert view.head.weight.shape == (5, 9)
        effects = view.effects
        assert effects is not None
        assert effects.units == (*((u,) for u in range(9)), (0, 8))
        assert needed_most(effects, 0).tolist() == [0, 1, 4, 8, 3, 6, 7, 2, 5]
        assert f"{effects.balanced_accuracy[1, 0]:.4f} {effects.change[1, 0, 0]:.4f}" == "0.9762 -0.4762"


def test_the_archived_store_of_format_1_4_reads_the_same_for_ever() -> None:
    path = ARCHIVE / "store-1.4.h5"
    assert (
        hashlib.sha256(path.read_bytes()).hexdigest()
        == "7d5cf657fe362ddda221bf6c84e709fc9088f6f088586032b6472b4326402210"
    )
    assert digest(read_back(path)) == "9aefd9d483551524052334cc48cec973c47c59d7a2bd37c35a4db8c4be1a727b"
    with Store(path) as store:
        view = store.layer("features.0")
        effects = view.concept_effects
        assert effects is not None
        assert (effects.units.tolist(), effects.samples) == ([0, 1, 2, 3], 20)
        assert f"{effects.before[1]:.4f} {effects.after[1, 1]:.4f} {effects.low[1, 1]:.4f}" == "0.1922 0.0961 0.0861"
        assert effects.coefficient_concepts.tolist() == [1, 4]
        assert view.effect_pictures(1) is not None
