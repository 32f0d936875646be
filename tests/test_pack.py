"""Packs: equal to what they were packed from, whole or not there, and never believed without a look."""

from __future__ import annotations

import fcntl
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from broden_factory import Concept, Picture, edit_csv, save_map, save_png, write_broden
from networks_factory import EXACT, write_network

from ndissect.engine.data.broden import Broden
from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.data.formats import open_dataset
from ndissect.engine.data.images import BadFile
from ndissect.engine.data.pack import pack, plan, remove_pack
from ndissect.engine.data.packed import FILES, ROW, PackedDataset, find_pack, pack_folder, part_folder
from ndissect.engine.machine.progress import Progress
from ndissect.engine.networks.layers import list_layers
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.passes.loader import Loader, image_tensor
from ndissect.engine.run.dissect import dissect
from ndissect.engine.run.settings import Outcome, Settings
from ndissect.store.errors import NDError
from ndissect.store.protocol import make_protocol

GRID, IMAGES = (6, 8), 12
CONCEPTS = [Concept(3, "tree"), Concept(700, "car"), Concept(9, "wheel", "part"), Concept(11, "street-s", "scene")]


def pictures(sizes: tuple[tuple[int, int], ...]) -> list[Picture]:
    """No map, one, or three; no image-level label, one, or two; images of several sizes."""
    rng = np.random.default_rng(1)
    found = []
    for i in range(IMAGES):
        maps = {
            "object": [rng.choice([0, 3, 700], GRID), rng.choice([0, 700], GRID)],
            "part": rng.choice([0, 9], GRID),
        }
        labels = {"scene": [[11], [], [0]][i % 3], "object": [3] if i % 4 == 0 else []}
        pixels = rng.integers(0, 256, (*sizes[i % len(sizes)], 3), np.uint8)
        found.append(Picture([maps, {}, {"part": maps["part"]}][i % 3], labels, pixels=pixels))
    return found


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ND_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_broden(tmp_path / "small", pictures(((7, 9), (16, 16), (1, 30))), CONCEPTS, grid=GRID)


def found(data: Path) -> PackedDataset:
    """The pack of the data set, found without anything to say about it."""
    notes: list[str] = []
    packed = open_dataset(data, notes.append)
    assert notes == []
    assert isinstance(packed, PackedDataset)
    return packed


def not_found(data: Path, *words: str) -> None:
    """The data set is opened without its pack, and one note says why and what to do."""
    notes: list[str] = []
    assert isinstance(open_dataset(data, notes.append), Broden)
    assert len(notes) == 1, notes
    for word in (*words, f"nd data pack {data}"):
        assert word in notes[0]


def same(packed: ConceptDataset, dataset: ConceptDataset) -> None:
    """Every field of every sample is equal."""
    assert len(packed) == len(dataset)
    for index in range(len(dataset)):
        a, b, c = packed.read(index), dataset.read(index), packed.read_labels(index)
        assert (a.index, a.name, a.labels, a.digest) == (b.index, b.name, b.labels, b.digest)
        for ours, theirs in ((a.image, b.image), (a.maps, b.maps), (c.maps, b.maps)):
            assert ours.dtype == theirs.dtype
            assert ours.shape == theirs.shape
            assert np.array_equal(ours, theirs)
        assert (c.index, c.labels) == (b.index, b.labels)


def files(folder: Path) -> dict[str, bytes]:
    """What a pack holds, without the time at which it was packed."""
    held = {p.name: p.read_bytes() for p in folder.iterdir()}
    about = json.loads(held.pop("pack.json"))
    del about["packed"]
    return {**held, "pack.json": json.dumps(about).encode()}


# What is packed


def test_a_pack_is_equal_to_what_was_packed_in_every_field(data: Path, cache: Path) -> None:
    dataset = Broden(data)
    folder = pack(dataset)
    assert folder == cache / "packed" / f"small-{dataset.tables_digest()[:16]}"
    packed = found(data)
    same(packed, dataset)
    assert (packed.root, packed.name, packed.names, packed.splits) == (data, "small", dataset.names, dataset.splits)
    assert (packed.grid, packed.tables_digest()) == (GRID, dataset.tables_digest())
    assert packed.concepts.name == dataset.concepts.name
    assert {len(dataset.read(i).maps) for i in range(IMAGES)} == {0, 1, 3}, "the data has every case"
    assert {len(dataset.read(i).labels) for i in range(IMAGES)} == {0, 1, 2}
    assert not packed.read(0).image.flags.writeable


def test_the_size_is_known_beforehand(data: Path) -> None:
    planned = plan(Broden(data))
    assert (planned.images, planned.done) == (IMAGES, 0)
    folder = pack(Broden(data))
    assert planned.folder == folder
    size = sum((folder / name).stat().st_size for name in (*FILES, "index.bin"))
    assert planned.bytes == size - (folder / "labels.bin").stat().st_size
    assert found(data).bytes == size


def test_pictures_without_any_label(tmp_path: Path) -> None:
    data = write_broden(tmp_path / "bare", [Picture() for _ in range(3)], CONCEPTS, grid=GRID)
    assert (pack(Broden(data)) / "maps.bin").stat().st_size == 0
    same(found(data), Broden(data))


def test_two_folders_of_one_name_have_a_pack_each_and_copies_share_one(tmp_path: Path, data: Path) -> None:
    other = write_broden(tmp_path / "other" / "small", pictures(((5, 5),)), CONCEPTS, grid=GRID)
    assert pack(Broden(data)) != pack(Broden(other))
    same(found(data), Broden(data))
    same(found(other), Broden(other))
    copy = shutil.copytree(data, tmp_path / "copy" / "small")
    assert found(copy).folder == found(data).folder
    assert found(copy).root == copy


def run(dataset: ConceptDataset, spec: str) -> Outcome:
    network = load_network(spec)
    layers = list_layers(network, (16, 16))
    settings = Settings(workers=2, top=3, batch=5)
    return dissect(network, dataset, layers[:1], make_protocol("netdissect"), settings, Progress())


def test_a_dissection_over_a_pack_has_the_same_counts_and_digest(tmp_path: Path) -> None:
    data = write_broden(tmp_path / "even", pictures(((16, 16),)), CONCEPTS, grid=GRID)
    spec = f"{write_network(tmp_path, EXACT)}:network"
    plain = run(open_dataset(data), spec)
    pack(Broden(data))
    shutil.rmtree(data / "images")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of arrays that cannot be written to
        packed = run(found(data), spec)
    assert packed.survey.digest == plain.survey.digest
    ours, theirs = packed.dissection, plain.dissection
    for a, b in zip(ours.layers, theirs.layers, strict=True):
        assert a.counts is not None
        assert b.counts is not None
        assert a.counts.intersection.sum() > 0
        assert np.array_equal(a.counts.intersection, b.counts.intersection)
        assert np.array_equal(a.counts.area, b.counts.area)
        assert np.array_equal(a.statistics.threshold, b.statistics.threshold)
    assert ours.images is not None
    assert theirs.images is not None
    assert ours.images.thumbnail == theirs.images.thumbnail
    assert np.array_equal(ours.images.label_maps, theirs.images.label_maps)


def test_images_of_several_sizes_reach_torch_without_a_warning(data: Path) -> None:
    pack(Broden(data))
    loader = Loader(found(data), make_protocol("netdissect"), workers=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for batch in loader.batches(range(len(loader.dataset)), 5, skip_bad=False):
            batch.labels.pixels.add_(1)
            for tensor in batch.pixels:
                tensor.add_(1)
            image_tensor(loader.read(batch.images[0])).zero_()
    same(loader.dataset, Broden(data))


def test_images_that_lie_one_after_another_are_one_piece_of_the_mapped_file(tmp_path: Path) -> None:
    sizes = ((7, 9), (7, 9), (7, 9), (7, 9), (1, 30))
    dataset = Broden(write_broden(tmp_path / "runs", pictures(sizes), CONCEPTS, grid=GRID))
    folder = pack(dataset)
    packed = found(dataset.root)
    run = packed.read_run(range(1, 4))
    assert run is not None
    assert np.shares_memory(run.pixels, packed.read(2).image)
    for n, index in enumerate(range(1, 4)):
        image = dataset.read(index)
        assert np.array_equal(run.pixels[n], image.image)
        assert np.array_equal(run.maps[n], image.maps)
        assert (run.labels[n], run.digests[n]) == (image.labels, image.digest)
    for apart in ([], [0, 2], [2, 1], [3, 4], [4, 5]):
        assert packed.read_run(apart) is None, apart
    with (folder / "images.bin").open("r+b") as file:
        file.seek(2 * 3 * 7 * 9)
        file.write(b"\0\0\0\0\0\0\0\0")
    notes: list[str] = []
    damaged = open_dataset(dataset.root, notes.append)
    assert isinstance(damaged, PackedDataset)
    assert damaged.read_run([0, 1]) is not None
    assert damaged.read_run([1, 2]) is None
    assert len(notes) == 1
    assert np.array_equal(damaged.read(2).image, dataset.read(2).image)


# What changes


def test_what_is_packed_is_not_packed_again_unless_by_force(data: Path) -> None:
    folder = pack(Broden(data))
    first = (folder / "images.bin").stat().st_mtime_ns
    assert pack(Broden(data)) == folder
    assert (folder / "images.bin").stat().st_mtime_ns == first
    pack(Broden(data), force=True)
    assert (folder / "images.bin").stat().st_mtime_ns != first
    same(found(data), Broden(data))


def test_without_its_images_a_pack_is_used_all_the_same(data: Path) -> None:
    whole = shutil.copytree(data, data.with_name("whole"))
    pack(Broden(data))
    shutil.rmtree(data / "images")
    same(found(data), Broden(whole))


def test_an_image_that_has_changed(data: Path) -> None:
    pack(Broden(data))
    path = data / "images" / Broden(data).names[3]
    save_png(path, np.zeros((7, 9, 3)))
    not_found(data, "out of date", "made/0003.png")
    pack(Broden(data))
    same(found(data), Broden(data))


def test_tables_that_have_changed(data: Path) -> None:
    old = pack(Broden(data))
    edit_csv(data / "index.csv", 1, "scene", "11")
    not_found(data, "the tables have changed", str(old))
    new = pack(Broden(data))
    assert new != old
    assert not old.exists(), "what nothing uses any more is deleted"
    assert found(data).read(1).labels == (11,)


def test_removing_a_pack_removes_all_that_is_left_of_it(tmp_path: Path, data: Path, cache: Path) -> None:
    other = write_broden(tmp_path / "other" / "small", pictures(((5, 5),)), CONCEPTS, grid=GRID)
    kept = pack(Broden(other))
    old = pack(Broden(data))
    edit_csv(data / "index.csv", 1, "scene", "11")
    break_image(data, 4)
    part = part_folder(Broden(data))
    removed = remove_pack(Broden(data))
    assert [folder for folder, _ in removed] == [part, old]
    assert all(size > 0 for _, size in removed)
    assert [p for p in (cache / "packed").iterdir() if p.is_dir()] == [kept]
    assert remove_pack(Broden(data)) == []


# What is damaged


def cut(folder: Path) -> None:
    (folder / "images.bin").write_bytes((folder / "images.bin").read_bytes()[:-1])


def lengthen(folder: Path) -> None:
    (folder / "maps.bin").write_bytes((folder / "maps.bin").read_bytes() + b"\0\0")


def lose(folder: Path) -> None:
    (folder / "labels.bin").unlink()


def flip(path: Path, at: int) -> None:
    held = bytearray(path.read_bytes())
    held[at] ^= 1
    path.write_bytes(held)


def change(folder: Path, **values: object) -> None:
    about = json.loads((folder / "pack.json").read_text())
    (folder / "pack.json").write_text(json.dumps({**about, **values}))


def foreign(folder: Path) -> None:
    """The pack of another data set under this name."""
    other = write_broden(folder.parents[2] / "other", pictures(((5, 5),)), CONCEPTS, grid=GRID)
    made = pack(Broden(other))
    shutil.rmtree(folder)
    made.rename(folder)


def not_even_a_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("?")


DAMAGE = {
    "truncated": (cut, "images.bin has"),
    "too long": (lengthen, "maps.bin has"),
    "a file is missing": (lose, "labels.bin"),
    "index cut": (lambda f: (f / "index.bin").write_bytes(b"x" * 40), "index.bin has 40 bytes"),
    "index changed": (lambda f: flip(f / "index.bin", 20), "the CRC"),
    "sizes changed": (lambda f: flip(f / "index.bin", 1), "images.bin has"),
    "labels changed": (lambda f: flip(f / "labels.bin", 0), "the CRC"),
    "no description": (lambda f: (f / "pack.json").unlink(), "pack.json"),
    "description is no JSON": (lambda f: (f / "pack.json").write_bytes(b"\xff{"), "damaged"),
    "description is no object": (lambda f: (f / "pack.json").write_text("[1]"), "is no pack"),
    "description is endless": (lambda f: (f / "pack.json").write_text("[" * 60000), "is no pack"),
    "of another kind": (lambda f: change(f, **{"encoding-type": "zarr"}), "is no pack"),
    "of a later version": (lambda f: change(f, **{"encoding-version": "2.0"}), "version 2.0"),
    "of a strange version": (lambda f: change(f, **{"encoding-version": [1]}), "version"),
    "without the CRC": (lambda f: change(f, index_crc=None), "the CRC"),
    "of other tables": (lambda f: change(f, tables_digest="0" * 32), "other tables"),
    "another pack": (foreign, "other tables"),
    "a file": (not_even_a_folder, "pack.json"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_pack_that_is_damaged_or_foreign_is_ignored_with_a_note_and_replaced(data: Path, kind: str) -> None:
    damage, word = DAMAGE[kind]
    folder = pack(Broden(data))
    damage(folder)
    not_found(data, word, str(folder))
    assert find_pack(Broden(data)) is None
    assert pack(Broden(data)) == folder
    same(found(data), Broden(data))


@pytest.mark.parametrize("file", ["images.bin", "maps.bin"])
def test_damaged_pixels_are_decoded_from_their_files_with_one_note(data: Path, file: str) -> None:
    folder = pack(Broden(data))
    flip(folder / file, 0)
    flip(folder / file, (folder / file).stat().st_size - 1)
    notes: list[str] = []
    packed = find_pack(Broden(data), notes.append)
    assert packed is not None
    assert notes == []
    same(packed, Broden(data))
    assert len(notes) == 1
    assert "made/0000.png is decoded from its files" in notes[0]
    assert f"nd data pack {data} --force" in notes[0]
    (data / "images" / "made" / "0000.png").unlink()
    with pytest.raises(BadFile, match="missing"):
        packed.read(0)


# What is interrupted


class Count(Progress):
    """What is told of the progress."""

    total = done = 0

    def start(self, phase: str, total: int) -> None:
        self.total = total

    def advance(self, images: int) -> None:
        self.done += images


def break_image(data: Path, index: int) -> bytes:
    """Pack until image ``index`` ends it; the sound bytes of the image's file."""
    path = data / "images" / Broden(data).names[index]
    sound = path.read_bytes()
    path.write_bytes(sound[:-30])
    with pytest.raises(NDError):
        pack(Broden(data))
    return sound


def test_bad_images_are_listed_and_what_was_packed_is_kept(data: Path) -> None:
    whole = files(pack(Broden(data)))
    remove_pack(Broden(data))
    names = Broden(data).names
    sound = {name: (data / "images" / name).read_bytes() for name in names[5:]}
    for name in sound:
        (data / "images" / name).write_bytes(b"")
    with pytest.raises(NDError) as caught:
        pack(Broden(data))
    assert "7 of 12 images cannot be used" in caught.value.message
    assert all(name in caught.value.message for name in names[5:10])
    assert caught.value.message.endswith("and 2 more")
    assert f"nd data check {data}" in caught.value.hint
    assert plan(Broden(data)).done == 5
    assert find_pack(Broden(data)) is None
    for name, held in sound.items():
        (data / "images" / name).write_bytes(held)
    assert files(pack(Broden(data))) == whole


def test_packing_goes_on_behind_what_is_whole(data: Path) -> None:
    whole = files(pack(Broden(data)))
    remove_pack(Broden(data))
    (data / "images" / "made" / "0008.png").write_bytes(break_image(data, 8))
    part = part_folder(Broden(data))
    assert plan(Broden(data)).done == 8
    with (part / "images.bin").open("ab") as file:
        file.write(b"the beginning of an image")
    with (part / "index.bin").open("ab") as file:
        file.write(b"half a row")
    assert plan(Broden(data)).done == 8
    with (part / "maps.bin").open("r+b") as file:
        file.truncate((part / "maps.bin").stat().st_size - 1)
    assert plan(Broden(data)).done == 6, "image 7 has no map, so image 6 is the one that lost a byte"
    with (part / "index.bin").open("r+b") as file:
        file.seek(4 * ROW.itemsize)
        file.write(bytes(ROW.itemsize))
    assert plan(Broden(data)).done == 4, "a row of zeros, as a crash of the machine can leave it"
    count = Count()
    assert files(pack(Broden(data), count)) == whole
    assert (count.total, count.done) == (IMAGES - 4, IMAGES - 4)


def test_what_was_begun_with_other_files_is_begun_again(data: Path) -> None:
    break_image(data, 8)
    part = part_folder(Broden(data))
    change(part, tables_digest="0" * 32)
    assert plan(Broden(data)).done == 0
    change(part, tables_digest=Broden(data).tables_digest())
    assert plan(Broden(data)).done == 8
    save_png(data / "images" / "made" / "0008.png", np.ones((1, 30, 3)))
    save_png(data / "images" / "made" / "0000.png", np.zeros((7, 9, 3)))
    assert plan(Broden(data)).done == 0
    pack(Broden(data))
    same(found(data), Broden(data))


def test_a_second_packing_is_refused(data: Path) -> None:
    pack(Broden(data))
    folder = pack_folder(Broden(data))
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for work in (lambda: pack(Broden(data), force=True), lambda: remove_pack(Broden(data))):
            with pytest.raises(NDError, match="Another process is packing small"):
                work()
    same(found(data), Broden(data))


# Where it cannot be


def test_a_disk_that_is_too_small_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    images = [Picture({"part": np.zeros(GRID, int)}, name=f"{i}.png") for i in range(3)]
    data = write_broden(tmp_path / "vast", images, CONCEPTS, grid=GRID)
    rows = (data / "index.csv").read_text().replace(",32,32,", ",32768,32768,").splitlines()
    (data / "index.csv").write_text("\n".join([rows[0], *rows[1:] * 20000]) + "\n")
    with pytest.raises(NDError, match=r"To pack vast takes about 193273.5 GB, .* GB free"):
        pack(Broden(data))
    assert not part_folder(Broden(data)).exists()


def test_a_cache_that_cannot_be_written(data: Path, cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(NDError, match="cannot be written: Not a directory") as caught:
        pack(Broden(data))
    assert "ND_CACHE" in caught.value.hint
    assert isinstance(open_dataset(data), Broden)


def test_a_cache_that_cannot_even_be_looked_into(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ND_CACHE", "x" * 300)
    not_found(data, "cannot be read", "File name too long")
    assert plan(Broden(data)).done == 0
    with pytest.raises(NDError, match="cannot be written: File name too long"):
        pack(Broden(data))


def test_a_wrong_map_is_not_packed(data: Path) -> None:
    save_map(data / "images" / "made" / "0000_part_0.png", np.full(GRID, 77))
    with pytest.raises(NDError, match=r"holds 77, not in label\.csv"):
        pack(Broden(data))
