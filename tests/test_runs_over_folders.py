"""Runs over one's own images and masks count the same however they are read: threads, processes, packs, shards."""

from __future__ import annotations

from pathlib import Path

import cli
import h5py
import numpy as np
import pytest
from broden_factory import Concept, Picture, write_broden
from mask_factory import halves, write_folder
from networks_factory import EXACT, write_network

from ndissect.engine.data.formats import open_dataset, open_folder
from ndissect.engine.data.labelled_files import LabelledFiles
from ndissect.engine.data.pack import pack
from ndissect.engine.data.packed import PackedDataset
from ndissect.engine.passes.loader import Loader
from ndissect.store.protocol import make_protocol

FINE = make_protocol(grid="24")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ND_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def mine(root: Path, images: int = 12) -> Path:
    rng = np.random.default_rng(4)
    maps = {
        f"{n:02}": {"": rng.integers(0, 3, (24, 24)).astype(np.uint8), "dog": halves(0, n % 2)} for n in range(images)
    }
    return write_folder(root, maps)


def test_threads_and_processes_read_the_same(tmp_path: Path) -> None:
    data = open_dataset(mine(tmp_path / "mine"), grid=FINE.grid)
    threads, processes = (
        list(Loader(data, FINE, 2, decode_in=how).batches(range(12), 4, skip_bad=False))
        for how in ("threads", "processes")
    )
    for a, b in zip(threads, processes, strict=True):
        assert a.digest == b.digest
        assert all((x == y).all() for x, y in zip(a.pixels, b.pixels, strict=True))
        assert all((of == vars(b.labels)[name]).all() for name, of in vars(a.labels).items())


def test_a_pack_is_what_was_packed_and_of_its_own_grid(tmp_path: Path) -> None:
    root = mine(tmp_path / "mine", 4)
    data = open_folder(root)
    pack(data)
    packed = open_dataset(root)
    assert isinstance(packed, PackedDataset)
    for n in range(4):
        one, other = data.read(n), packed.read(n)
        assert (one.maps == other.maps).all()
        assert (one.image == other.image).all()
        assert (one.labels, one.digest) == (other.labels, other.digest)
    told: list[str] = []
    fine = open_dataset(root, told.append, grid=(24, 24))
    assert isinstance(fine, LabelledFiles)
    assert fine.grid == (24, 24)
    assert "is not used: its labels are on a grid of 112 x 112" in told[0]
    assert fine.tables_digest() == packed.tables_digest()


def test_shards_of_a_folder_that_fits_two_formats_are_merged_as_it_was_read(tmp_path: Path) -> None:
    root = mine(tmp_path / "both")
    write_broden(root, [Picture(maps={"object": halves(1, 2)})], [Concept(1, "cat"), Concept(2, "dog")])
    write_network(tmp_path, EXACT)
    words = ("dissect", "net.py:network", "-d", "both", "--grid", "24", "-o")
    cli.failed(cli.nd(*words, "out.nd.h5", folder=tmp_path), 2, "--format broden or --format folder")
    words = (*words[:-1], "--format", "folder", "-o")
    done = cli.nd(*words, "whole.nd.h5", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for part in ("1/2", "2/2"):
        done = cli.nd(*words, "out.nd.h5", "--shard", part, folder=tmp_path)
        assert done.returncode == 0, done.stderr
    done = cli.nd("merge", *(f"out.nd.h5.shard-{n}-of-2" for n in (1, 2)), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    with h5py.File(tmp_path / "whole.nd.h5") as whole, h5py.File(tmp_path / "out.nd.h5") as merged:
        assert tuple(whole.attrs["grid"]) == (24, 24)
        (layer,) = whole["layers"]
        for name in ("intersection", "area", "area_in_category"):
            assert (whole[f"layers/{layer}/counts/{name}"][()] == merged[f"layers/{layer}/counts/{name}"][()]).all()
