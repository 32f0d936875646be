"""Whatever lies where an input is expected, a pipe, a device, a socket, a folder, is refused at once, in two lines."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from attempts import ODD, Attempt, attempt, put
from broden_factory import Concept, Picture, write_broden
from cli import in_parallel, nd, two_lines

from ndissect.engine.checkpoints.read import load_state
from ndissect.engine.data.broden import Broden
from ndissect.engine.data.check import check_dataset
from ndissect.engine.data.download import Patience, download
from ndissect.engine.data.info import describe
from ndissect.engine.data.pack import pack, plan
from ndissect.engine.data.packed import find_pack
from ndissect.engine.experiments.series import read_series
from ndissect.engine.networks.resolve import load_network
from ndissect.store.table2017 import read_table

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")

QUICK = Patience(attempts=1, backoff=0.01, timeout=1)
NAME = "broden1_224"
TABLES = ("index.csv", "label.csv", "category.csv", "c_object.csv")
PACKED = ("pack.json", "index.bin", "images.bin", "maps.bin", "labels.bin")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    pictures = [Picture({"object": np.full((16, 16), 3)}, name=f"{i}.png") for i in range(3)]
    return write_broden(tmp_path / "small", pictures, [Concept(3, "tree")])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ND_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def refused(tried: Attempt, name: str) -> None:
    """Assert that a reading ended by itself, soon, without taking memory, with an error that names the file."""
    assert tried.error in ("NDError", "WrongUse", "BadFile", "BadArchive"), tried
    assert name in tried.message, tried
    assert tried.hint or tried.error == "BadFile", tried  # what reads images adds what to do
    assert tried.peak < 200 << 20, tried


@pytest.mark.parametrize("kind", ODD)
def test_a_data_set_with_an_odd_file_in_place_of_a_table_a_photograph_or_a_map(kind: str, data: Path) -> None:
    label_map = Broden(data).maps_of(0)[0]
    places = [*TABLES, "images/0.png", f"images/{label_map}"]
    for place in places:
        whole = (data / place).read_bytes()
        put(kind, data / place)
        refused(attempt(lambda: [Broden(data).read(i) for i in range(3)]), Path(place).name)
        checked = attempt(lambda: check_dataset(data))
        assert checked.error in ("", "NDError"), checked
        if (data / place).is_dir() and not (data / place).is_symlink():
            (data / place).rmdir()
        (data / place).unlink(missing_ok=True)
        (data / place).write_bytes(whole)
    assert len(Broden(data).read(0).maps) == 1


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_file_as_weights_network_series_or_table(kind: str, tmp_path: Path) -> None:
    readings: dict[str, Callable[[Path], object]] = {
        "w.pt": load_state,
        "w.safetensors": load_state,
        "net.py": lambda path: load_network(f"{path}:network"),
        "series.csv": lambda path: read_series([str(path)], "demo"),
        "series.json": lambda path: read_series([str(path)], "demo"),
        "3.pt": lambda path: [load_state(m.weights) for m in read_series([str(path.parent)], "demo").members],
        "units.csv": lambda path: read_table(path, "layer"),
    }
    for name, read in readings.items():
        folder = tmp_path / name.replace(".", "_")
        path = put(kind, folder / name)
        refused(attempt(lambda read=read, path=path: read(path)), name)


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_file_in_a_pack_is_no_pack(kind: str, data: Path) -> None:
    whole = pack(Broden(data))
    kept = shutil.copytree(whole, whole.parent.parent / "kept")
    for name in PACKED:
        if (kind, name) == ("an empty file", "labels.bin"):
            continue  # it is: no image has labels of its own
        put(kind, whole / name)

        def find(name: str = name) -> None:
            notes: list[str] = []
            assert find_pack(Broden(data), notes.append) is None
            assert len(notes) == 1, notes
            assert name in notes[0] or "no pack" in notes[0] or "damaged" in notes[0], notes
            describe(data)
            plan(Broden(data))

        tried = attempt(find)
        assert tried.error == "", (name, tried)
        shutil.rmtree(whole)
        shutil.copytree(kept, whole)


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_file_in_place_of_a_download(kind: str, cache: Path) -> None:
    nowhere = "http://127.0.0.1:9"  # nothing listens there
    for name in (f"{NAME}.zip", f"{NAME}.zip.part", f"{NAME}.zip.part.json"):
        path = put(kind, cache / name)
        refused(attempt(lambda: download(NAME, cache, nowhere, patience=QUICK)), NAME)
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        path.unlink(missing_ok=True)


def test_nd_itself_ends_with_two_lines_whatever_it_is_given(tmp_path: Path, data: Path) -> None:
    for name in ("w.pt", "net.py", "t.csv", "runs/1.pt", "x.nd.h5.shard-1-of-2/run.json"):
        put("a named pipe", tmp_path / name)
    put("a device", tmp_path / "zero.pt")
    put("a named pipe", data / "images" / "0.png")
    calls = [
        ("layers", "demo", "--weights", "w.pt"),
        ("dissect", "demo", "--data", "small", "--weights", "zero.pt"),
        ("layers", "net.py:network"),
        ("import", "t.csv"),
        ("import", "/dev/zero"),
        ("dissect", "demo", "--data", "small", "-l", "layer4"),
        ("series", "runs", "--network", "demo", "-l", "layer4", "--data", "small"),
        ("dissect", "demo", "--data", "n" * 300),
        ("layers", f"{'n' * 300}.py:network"),
        ("series", "n" * 300, "--data", "small"),
    ]
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))"  # of what has no end
    for done in in_parallel(lambda call: nd(*call, folder=tmp_path, before=limit, timeout=60), calls):
        assert done.returncode in (1, 2), done
        two_lines("\n".join(done.stderr.splitlines()[-2:]) + "\n")
        assert "unexpected" not in done.stderr, done
    checked = nd("data", "check", "small", folder=tmp_path, timeout=60)
    assert checked.returncode == 1
    assert "images/0.png\t" in checked.stdout
    assert "a named pipe" in checked.stdout
    assert nd("doctor", folder=tmp_path, timeout=100).returncode in (0, 1)
