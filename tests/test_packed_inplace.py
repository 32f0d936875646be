"""Packs of data sets that are read in place hold what their files hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from formats_factory import SIZE, patches, png, save_json, write_instances, write_saved, write_textures

from ndissect.engine.data.formats import open_dataset, open_folder
from ndissect.engine.data.pack import pack
from ndissect.engine.data.packed import find_pack

BOX = [[8, 4, 20, 4, 20, 12, 8, 12]]


def saved(folder: Path) -> Path:
    features = {"image": {"_type": "Image"}, "mask": {"_type": "Image"}}
    photos = [png(np.random.default_rng(i).integers(0, 256, (*SIZE, 3))) for i in range(3)]
    write_saved(folder, features, {"image": photos, "mask": [png(patches((1, 0, 0, i + 5, 9))) for i in range(3)]})
    save_json(folder / "id2label.json", {"1": "cup"})
    return folder


TREES: dict[str, Callable[[Path], Path]] = {
    "instances": lambda folder: write_instances(folder, {"a.jpg": [(1, BOX), (18, BOX)], "b.jpg": [], "c.jpg": []}),
    "textures": lambda folder: write_textures(folder, {"dotted/a.jpg": ["dotted"]}, {"train1": ["dotted/a.jpg"]}),
    "saved": saved,
}


@pytest.mark.parametrize("name", TREES)
def test_a_pack_holds_what_the_files_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if name == "saved":
        pytest.importorskip("pyarrow")
    monkeypatch.setenv("ND_CACHE", str(tmp_path / "cache"))
    folder = TREES[name](tmp_path / "data")
    data = open_folder(folder)
    pack(data)
    packed = open_dataset(folder)
    assert find_pack(data) is not None
    assert type(packed) is not type(data)
    for index in range(len(data)):
        ours, theirs = data.read(index), packed.read(index)
        assert (ours.image == theirs.image).all()
        assert ours.maps.shape == theirs.maps.shape
        assert (ours.maps == theirs.maps).all()
        assert (ours.labels, ours.digest, ours.name) == (theirs.labels, theirs.digest, theirs.name)
