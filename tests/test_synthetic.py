"""The synthetic data set: Broden's format without a fault, the same bytes every time, and never half a folder."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ndissect.engine.data.broden import Broden
from ndissect.engine.data.check import check_dataset
from ndissect.engine.data.formats import open_dataset
from ndissect.engine.data.synthetic import CHUNK, write_synthetic
from ndissect.engine.data.synthetic_scene import CATEGORIES, concept_numbers
from ndissect.store.errors import NDError, WrongUse

IMAGES = 60


def digests(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def times(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def interrupt(done: int, of: int) -> None:
    if done:
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("synthetic") / "set", IMAGES, workers=1)


@pytest.fixture(scope="module")
def data(root: Path) -> Broden:
    dataset = open_dataset(root)
    assert isinstance(dataset, Broden)
    return dataset


def test_the_data_set_has_no_fault(root: Path) -> None:
    assert check_dataset(root) == []
    assert not list(root.parent.glob(".*")), "what it was written into is gone"


def test_it_has_brodens_sizes_categories_and_concepts(data: Broden) -> None:
    assert (len(data), data.grid, data.image_sizes.tolist()) == (IMAGES, (112, 112), [[224, 224]] * IMAGES)
    assert data.columns == data.concepts.categories == ("color", "object", "part", "material", "scene", "texture")
    assert len(data.concepts) == 1197
    counts = np.bincount(data.concepts.category).tolist()
    assert dict(zip(data.columns, counts, strict=True)) == dict(CATEGORIES)
    assert data.concepts.name[:2] == ("black-c", "blue-c")
    assert set(data.splits) == {"train", "val"}


def test_images_have_several_maps_and_some_have_labels(data: Broden) -> None:
    samples = [data.read(i) for i in range(IMAGES)]
    assert 3.3 < np.mean([len(s.maps) for s in samples]) < 4.7
    assert {len(s.maps) for s in samples} >= {1, 3, 4, 5}
    assert 0.3 < np.mean([bool(s.labels) for s in samples]) < 0.8
    for sample in samples:
        color = sample.maps[0]
        assert color.min() >= 1
        assert color.max() <= 11
        assert all(1 < len(np.unique(numbers)) < 32 for numbers in sample.maps[1:])


def test_every_photograph_is_another_and_takes_as_many_bytes_as_a_real_one(root: Path, data: Broden) -> None:
    files = [root / "images" / name for name in data.names]
    assert len({f.read_bytes() for f in files}) == IMAGES
    assert all(f.suffix == ".jpg" and Image.open(f).format == "JPEG" for f in files)
    assert 10_000 < np.mean([f.stat().st_size for f in files]) < 25_000
    assert max(f.stat().st_size for f in root.rglob("*.png")) < 5_000


def test_frequencies_and_coverages_are_those_of_the_maps_and_labels(data: Broden) -> None:
    frequency, coverage = np.zeros(1198, int), np.zeros(1198)
    for index in range(IMAGES):
        sample = data.read(index)
        # A concept has one category, so any map that holds it is of that category.
        held = np.stack([(sample.maps == n).any(0) for n in range(1198)]).mean((1, 2))
        held[list(sample.labels)] = 1
        held[0] = 0
        frequency += held > 0
        coverage += held
    assert data.frequency.tolist() == frequency[1:].tolist()
    np.testing.assert_allclose(data.coverage, coverage[1:], atol=1e-6)
    categories = [sum(coverage[n] for n in numbers) for numbers in concept_numbers(1197).values()]
    np.testing.assert_allclose([data.category_coverage[c] for c in CATEGORIES], categories, atol=1e-3)


def test_concepts_are_frequent_and_rare(data: Broden) -> None:
    objects = concept_numbers(1197)["object"]
    counts = data.frequency[objects.start - 1 : objects.stop - 1]
    assert counts[0] > IMAGES / 4
    assert counts[:10].sum() > counts[100:200].sum()
    assert (counts[200:] > 0).sum() > 20


def test_a_concept_looks_alike_in_all_images(data: Broden) -> None:
    """Otherwise no unit of any network could detect it: an object's own colour must tell it from the image."""
    seen: dict[int, list[np.ndarray]] = {}
    for index in range(IMAGES):
        sample = data.read(index)
        small = sample.image[::2, ::2].astype(float)
        for numbers in sample.maps[1:]:
            for n in np.unique(numbers[numbers > 0]).tolist():
                seen.setdefault(n, []).append(small[numbers == n].mean(0))
    material = concept_numbers(1197)["material"]
    often = [np.array(v) for n, v in seen.items() if len(v) >= 6 and n not in material]
    assert len(often) > 10
    within = np.mean([v.std(0).mean() for v in often])
    between = np.std([v.mean(0) for v in often], 0).mean()
    # Colours that have nothing to do with the concept would vary more than twice as much within as between.
    assert within < between


def test_any_number_of_workers_writes_the_same_bytes(root: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    again = write_synthetic(tmp_path / "set", IMAGES, workers=2, progress=lambda *done: seen.append(done))
    assert digests(again) == digests(root)
    assert seen[0] == (0, IMAGES)
    assert seen[-1] == (IMAGES, IMAGES)
    assert seen == sorted(seen)


def test_a_smaller_data_set_is_the_beginning_of_a_larger_one(root: Path, tmp_path: Path) -> None:
    fewer = write_synthetic(tmp_path / "set", 35, workers=1)
    whole, part = digests(root / "images"), digests(fewer / "images")
    assert len(part) > 100
    assert part.items() <= whole.items()
    rows = (root / "index.csv").read_text().splitlines()
    assert (fewer / "index.csv").read_text().splitlines() == rows[:36]


def test_another_seed_gives_other_images(root: Path, tmp_path: Path) -> None:
    other = write_synthetic(tmp_path / "set", 3, seed=1, workers=1)
    mine, yours = ({p.read_bytes() for p in folder.rglob("*.jpg")} for folder in (root, other))
    assert not mine & yours


def test_other_sizes_and_few_concepts(tmp_path: Path) -> None:
    root = write_synthetic(tmp_path / "set", 12, workers=1, image_size=50, grid=21, concepts=21)
    assert check_dataset(root) == []
    data = open_dataset(root)
    assert (data.grid, len(data.concepts)) == ((21, 21), 21)
    assert data.read(0).image.shape == (50, 50, 3)


@pytest.mark.parametrize("concepts", [21, 40, 333, 1197, 5000])
def test_the_categories_share_all_concepts(concepts: int) -> None:
    numbers = concept_numbers(concepts)
    assert [n for category in CATEGORIES for n in numbers[category]] == list(range(1, concepts + 1))
    assert all(numbers.values())


def test_a_finished_data_set_is_found_again_and_not_touched(root: Path) -> None:
    before = times(root)
    assert write_synthetic(root, IMAGES, progress=lambda *done: pytest.fail("it was written again")) == root
    assert times(root) == before


def test_another_data_set_is_refused_and_kept(root: Path) -> None:
    before = times(root)
    with pytest.raises(NDError, match="images 60, not 61; seed 0, not 3") as refusal:
        write_synthetic(root, IMAGES + 1, seed=3)
    assert "new folder" in refusal.value.hint
    assert times(root) == before


def test_a_folder_with_other_contents_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(NDError, match="is no synthetic data set"):
        write_synthetic(tmp_path, 3)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set").write_text("")
    with pytest.raises(NDError, match="is no synthetic data set"):
        write_synthetic(tmp_path / "set", 3)
    with pytest.raises(NDError, match="cannot be written"):
        write_synthetic(tmp_path / "set" / "below", 3)


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    assert check_dataset(write_synthetic(tmp_path / "set", 3, workers=1)) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_run_goes_on_where_it_stopped(root: Path, tmp_path: Path, workers: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_synthetic(tmp_path / "set", IMAGES, workers=workers, progress=interrupt)
    assert not (tmp_path / "set").exists()
    part = tmp_path / ".set.part"
    finished = [int(p.stem) for p in (part / "chunks").glob("*.json")]
    kept = {
        name: t for name, t in times(part / "images").items() if int(Path(name).stem[:6]) // CHUNK * CHUNK in finished
    }
    assert kept
    seen: list[tuple[int, int]] = []
    again = write_synthetic(tmp_path / "set", IMAGES, workers=1, progress=lambda *done: seen.append(done))
    assert seen[0][0] in (28, 32, 60)
    assert kept.items() <= times(again / "images").items()
    assert digests(again) == digests(root)
    assert not part.exists()


def test_a_process_that_is_killed_is_told_and_its_images_are_made_later(tmp_path: Path) -> None:
    def kill(done: int, of: int) -> None:
        if done:
            for process in multiprocessing.active_children():
                process.kill()

    with pytest.raises(NDError, match="ended from outside"):
        write_synthetic(tmp_path / "set", 10 * CHUNK, workers=2, progress=kill)
    assert not (tmp_path / "set").exists()
    seen: list[tuple[int, int]] = []
    again = write_synthetic(tmp_path / "set", 10 * CHUNK, workers=1, progress=lambda *done: seen.append(done))
    assert seen[0][0] >= CHUNK
    assert check_dataset(again) == []


def test_half_a_file_of_an_interrupted_run_is_written_anew(root: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_synthetic(tmp_path / "set", IMAGES, workers=1, progress=interrupt)
    later = [name for name in open_dataset(root).names[CHUNK:] if name.startswith("places")]
    half = tmp_path / ".set.part" / "images" / later[0]
    half.write_bytes((root / "images" / later[0]).read_bytes()[:100])
    assert digests(write_synthetic(tmp_path / "set", IMAGES, workers=1)) == digests(root)


def test_what_was_begun_with_other_parameters_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_synthetic(tmp_path / "set", IMAGES, seed=1, workers=1, progress=interrupt)
    folder = write_synthetic(tmp_path / "set", 3, workers=1)
    assert digests(folder) == digests(write_synthetic(tmp_path / "fresh", 3, workers=1))


def test_a_hidden_folder_of_somebody_elses_is_not_deleted(tmp_path: Path) -> None:
    mine = tmp_path / ".set.part" / "diary"
    mine.mkdir(parents=True)
    with pytest.raises(NDError, match="in the way"):
        write_synthetic(tmp_path / "set", 3)
    assert mine.is_dir()


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    part = tmp_path / ".set.part"
    part.mkdir()
    held = os.open(part, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        with pytest.raises(NDError, match="Another process is writing"):
            write_synthetic(tmp_path / "set", 3)
    finally:
        os.close(held)
    assert write_synthetic(tmp_path / "set", 3, workers=1).is_dir()


def test_a_disk_without_room_is_refused_before_an_image_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(NDError, match=r"10,000,000 synthetic images takes about .* free"):
        write_synthetic(tmp_path / "set", 10**7, image_size=2048, grid=2048)
    assert not list(tmp_path.rglob("*.jpg"))


@pytest.mark.parametrize(
    ("wrong", "what"),
    [({"images": 0}, "images 0"), ({"seed": -1}, "seed -1"), ({"concepts": 5}, "concepts 5"), ({"grid": 1}, "grid 1"),
     ({"image_size": 10**6}, "image_size 1000000"), ({"workers": -2}, "workers -2")],
)  # fmt: skip
def test_parameters_that_make_no_data_set_are_refused(wrong: dict[str, int], what: str, tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=what):
        write_synthetic(tmp_path / "set", **wrong)
    assert not list(tmp_path.iterdir())


def test_the_folder_says_what_it_is_a_function_of(root: Path) -> None:
    found = json.loads((root / "synthetic.json").read_text())
    assert found == {"images": 60, "seed": 0, "image_size": 224, "grid": 112, "concepts": 1197, "version": 1}
