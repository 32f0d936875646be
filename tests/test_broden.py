"""Broden as it lies on disk: every case of the format, and every fault told with its place."""

from __future__ import annotations

import hashlib
import io
import pickle
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from broden_factory import (
    CATEGORIES,
    Concept,
    Picture,
    drop_column,
    edit_csv,
    read_csv,
    save_map,
    save_png,
    write_broden,
    write_csv,
)
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from ndissect.engine.data.broden import Broden
from ndissect.engine.data.formats import find_dataset, open_dataset
from ndissect.engine.data.images import BadFile, decode_image, decode_labels, numbers_to_rgb, rgb_to_numbers
from ndissect.engine.data.index_table import split_by_name
from ndissect.store.errors import NDError, WrongUse

MINI = Path(__file__).resolve().parents[2] / "shared" / "data" / "broden_mini"
needs_mini = pytest.mark.skipif(not MINI.is_dir(), reason="the real data of shared/data/broden_mini are not here")

TREE, DOOR, HIGH, STREET, DOTTED = 3, 5, 700, 7, 9
CONCEPTS = [
    Concept(TREE, "tree"),
    Concept(DOOR, "door", "part"),
    Concept(HIGH, "sky"),
    Concept(STREET, "street-s", "scene"),
    Concept(DOTTED, "dotted", "texture"),
]


def halves(left: int, right: int, grid: tuple[int, int] = (16, 16)) -> np.ndarray:
    """A label map of two halves."""
    numbers = np.full(grid, left)
    numbers[:, grid[1] // 2 :] = right
    return numbers


@pytest.fixture
def data(tmp_path: Path) -> Path:
    pictures = [
        Picture({"object": halves(TREE, HIGH), "part": [halves(DOOR, 0), halves(0, DOOR)]}, {"scene": [STREET]}),
        Picture({"object": halves(0, TREE)}, {"texture": [DOTTED]}, name="dtd/two.png", split="val"),
        Picture(name="dtd/none.png", split="train"),
    ]
    return write_broden(tmp_path / "data", pictures, CONCEPTS)


def refused(path: Path, *words: str) -> None:
    """Opening or reading the data set fails with an error that holds the words."""
    with pytest.raises(NDError) as caught:
        dataset = open_dataset(path)
        for index in range(len(dataset)):
            dataset.read(index)
    for word in words:
        assert word in str(caught.value), (word, str(caught.value))


# What lies on disk, as it is read


def test_all_maps_of_all_cells_and_the_image_labels_are_read(data: Path) -> None:
    dataset = open_dataset(data)
    assert len(dataset) == 3
    assert dataset.grid == (16, 16)
    sample = dataset.read(0)
    expected = [halves(TREE, HIGH), halves(DOOR, 0), halves(0, DOOR)]
    np.testing.assert_array_equal(sample.maps, expected)
    assert sample.maps.dtype == np.uint16
    assert sample.labels == (STREET,)
    assert sample.image.shape == (32, 32, 3)
    assert sample.image.dtype == np.uint8
    np.testing.assert_array_equal(sample.image, Image.open(data / "images/made/0000.png"))


def test_an_image_without_any_label_has_no_map(data: Path) -> None:
    sample = open_dataset(data).read(2)
    assert sample.maps.shape == (0, 16, 16)
    assert sample.labels == ()


def test_labels_are_read_without_the_photograph(data: Path) -> None:
    dataset = open_dataset(data)
    samples = [dataset.read(index) for index in range(3)]
    for name in dataset.names:
        (data / "images" / name).unlink()
    for sample in samples:
        found = dataset.read_labels(sample.index)
        assert (found.index, found.labels) == (sample.index, sample.labels)
        assert found.maps.dtype == np.uint16
        assert np.array_equal(found.maps, sample.maps)
        assert found.maps.shape == sample.maps.shape
    save_map(data / "images" / "dtd" / "two_object_0.png", halves(0, 77))
    with pytest.raises(BadFile, match=r"dtd/two_object_0.png: holds 77, not in label.csv"):
        dataset.read_labels(1)


def test_concepts_are_sorted_by_number_with_their_categories(data: Path) -> None:
    header, *rows = read_csv(data / "label.csv")
    write_csv(data / "label.csv", header, rows[::-1])
    concepts = open_dataset(data).concepts
    assert concepts.number.tolist() == [3, 5, 7, 9, 700]
    assert concepts.name == ("tree", "door", "street-s", "dotted", "sky")
    assert [concepts.category_of(i) for i in range(5)] == ["object", "part", "scene", "texture", "object"]
    assert concepts.categories == ("object", "part", "scene", "texture")


def test_a_cell_mixes_numbers_and_maps_and_forgives_empty_items(data: Path) -> None:
    edit_csv(data / "index.csv", 1, "object", "7; 3 ;;made/0000_object_0.png;")
    sample = open_dataset(data).read(1)
    assert sample.labels == (TREE, STREET, DOTTED)
    np.testing.assert_array_equal(sample.maps, [halves(TREE, HIGH)])
    assert Broden(data).cells(1)["object"] == ("7", "3", "made/0000_object_0.png")


def test_number_zero_is_no_concept_anywhere(data: Path) -> None:
    header, *rows = read_csv(data / "label.csv")
    write_csv(data / "label.csv", header, [["0", "-", "scene(9)", "9", "9", ""], *rows])
    header, *rows = read_csv(data / "c_scene.csv")
    write_csv(data / "c_scene.csv", header, [["0", "0", "-", "9", "9"], *rows])
    edit_csv(data / "index.csv", 0, "scene", "0")
    edit_csv(data / "index.csv", 1, "texture", "0;9")
    dataset = open_dataset(data)
    assert 0 not in dataset.concepts.number
    assert dataset.read(0).labels == ()
    assert dataset.read(1).labels == (DOTTED,)
    assert (dataset.read(0).maps == 0).any()


def test_which_cells_are_filled_is_known_without_reading(data: Path) -> None:
    dataset = Broden(data)
    filled = [tuple(c for c, on in zip(dataset.columns, row, strict=True) if on) for row in dataset.filled]
    assert filled == [("object", "part", "scene"), ("object", "texture"), ()]
    assert dataset.unused == ("color", "material")


def test_the_largest_number_that_two_bytes_hold(tmp_path: Path) -> None:
    folder = write_broden(tmp_path, [Picture({"object": halves(65535, 256)})], [Concept(65535, "a"), Concept(256, "b")])
    np.testing.assert_array_equal(open_dataset(folder).read(0).maps[0], halves(65535, 256))


@given(arrays(np.uint16, array_shapes(max_dims=3, max_side=8)))
def test_numbers_survive_the_pixels_of_a_map(numbers: np.ndarray) -> None:
    rgb = numbers_to_rgb(numbers)
    assert rgb.dtype == np.uint8
    np.testing.assert_array_equal(rgb_to_numbers(rgb), numbers)


@given(st.integers(0, 255), st.integers(0, 255))
def test_a_number_is_red_plus_256_green(red: int, green: int) -> None:
    pixel = np.array([red, green, 0], np.uint8)
    assert int(rgb_to_numbers(pixel)) == red + 256 * green


def test_rectangular_maps(tmp_path: Path) -> None:
    picture = Picture({"object": halves(TREE, 0, (9, 14))})
    dataset = open_dataset(write_broden(tmp_path, [picture], CONCEPTS, image_size=(18, 28)))
    assert dataset.grid == (9, 14)
    assert dataset.read(0).maps.shape == (1, 9, 14)
    assert dataset.read(0).image.shape == (18, 28, 3)


@pytest.mark.parametrize("kind", ["byte order mark", "CRLF", "both"])
def test_tables_written_on_other_systems(data: Path, kind: str) -> None:
    expected = open_dataset(data)
    for path in data.glob("*.csv"):
        text = path.read_bytes()
        text = text.replace(b"\n", b"\r\n") if kind != "byte order mark" else text
        path.write_bytes(b"\xef\xbb\xbf" + text if kind != "CRLF" else text)
    found = open_dataset(data)
    assert found.names == expected.names
    assert found.concepts.name == expected.concepts.name
    assert found.read(0).digest == expected.read(0).digest


def test_names_outside_ascii(tmp_path: Path) -> None:
    picture = Picture({"object": halves(TREE, 0)}, name="straße/été 1.png")
    dataset = open_dataset(write_broden(tmp_path, [picture], [Concept(TREE, "árbol")]))
    assert dataset.concepts.name == ("árbol",)
    assert dataset.read(0).name == "straße/été 1.png"


# Splits


def test_the_split_column_decides_and_the_rule_fills_its_gaps(data: Path) -> None:
    edit_csv(data / "index.csv", 0, "split", "")
    dataset = open_dataset(data)
    assert dataset.splits == (split_by_name("made/0000.png"), "val", "train")
    drop_column(data / "index.csv", "split")
    dataset = open_dataset(data)
    assert dataset.splits == tuple(split_by_name(name) for name in dataset.names)


@given(st.text())
def test_the_rule_is_seven_tenths_of_the_md5(name: str) -> None:
    value = int(hashlib.md5(name.encode("utf-8")).hexdigest()[:16], 16)
    assert split_by_name(name) == ("train" if value * 10 <= 7 * 2**64 else "val")


def test_the_rule_splits_about_seven_to_three() -> None:
    found = Counter(split_by_name(f"ade20k/ADE_train_{i:08d}.jpg") for i in range(5000))
    assert 0.68 < found["train"] / 5000 < 0.72


# Primary categories


def primary_of(folder: Path, concept: Concept, **how: bool) -> str:
    others = [Concept(100 + i, c, c, {c: 1.0}) for i, c in enumerate(CATEGORIES)]
    path = write_broden(folder, [Picture()], [concept, *others], **how)
    table = open_dataset(path).concepts
    return table.category_of(table.number.tolist().index(concept.number))


def test_the_category_of_the_largest_coverage_not_of_the_most_images(tmp_path: Path) -> None:
    concept = Concept(1, "door", coverage={"object": 0.5, "part": 2.5}, counts={"object": 90, "part": 3})
    assert primary_of(tmp_path, concept) == "part"


def test_equal_coverages_go_to_the_last_category_of_category_csv(tmp_path: Path) -> None:
    concept = Concept(1, "door", coverage={"texture": 1.5, "object": 1.5, "part": 1.5})
    assert primary_of(tmp_path, concept) == "texture"
    header, *rows = read_csv(tmp_path / "category.csv")
    write_csv(tmp_path / "category.csv", header, rows[::-1])
    table = open_dataset(tmp_path).concepts
    assert table.category_of(0) == "object"


def test_coverage_in_exponent_form(tmp_path: Path) -> None:
    concept = Concept(1, "door", coverage={"object": 6e-05, "part": 5e-05})
    assert primary_of(tmp_path, concept) == "object"
    assert "6e-05" in (tmp_path / "c_object.csv").read_text()
    assert open_dataset(tmp_path).concepts.number[0] == 1


def test_without_c_files_the_counts_of_label_csv_decide(tmp_path: Path) -> None:
    concept = Concept(1, "wood", coverage={"object": 9.0, "material": 0.1}, counts={"material": 36, "object": 3})
    assert primary_of(tmp_path, concept, category_files=False) == "material"


def test_one_missing_c_file_makes_coverages_incomparable_for_its_concepts_only(tmp_path: Path) -> None:
    both = Concept(1, "wood", coverage={"object": 9.0, "material": 0.1}, counts={"material": 36, "object": 3})
    plain = Concept(2, "door", coverage={"object": 9.0, "part": 0.1}, counts={"part": 36, "object": 3})
    folder = write_broden(tmp_path, [Picture()], [both, plain])
    (folder / "c_material.csv").unlink()
    table = open_dataset(folder).concepts
    assert [table.category_of(0), table.category_of(1)] == ["material", "object"]


def test_without_category_csv_the_columns_of_index_csv_order_the_categories(tmp_path: Path) -> None:
    concept = Concept(1, "wood", coverage={"scene": 1.0, "object": 1.0}, counts={"object": 3, "scene": 3})
    for files in (True, False):
        assert primary_of(tmp_path / str(files), concept, category_file=False, category_files=files) == "scene"
        assert open_dataset(tmp_path / str(files)).concepts.categories == CATEGORIES


@given(
    st.dictionaries(st.sampled_from(CATEGORIES), st.sampled_from([0.0, 1e-5, 0.5, 2.0]), min_size=1),
    st.permutations(CATEGORIES),
)
def test_primary_category_is_the_last_of_the_largest(weights: dict[str, float], order: list[str]) -> None:
    from ndissect.engine.data.concepts import primary_category

    found = primary_category(weights, tuple(order))
    largest = [c for c in order if weights.get(c) == max(weights.values())]
    assert found == largest[-1]


# Digests, threads, processes


def test_the_digest_of_a_sample_covers_name_cells_and_every_byte(data: Path) -> None:
    before = [open_dataset(data).read(i).digest for i in range(3)]
    assert len(set(before)) == 3
    assert all(0 <= d < 2**128 for d in before)
    edit_csv(data / "index.csv", 2, "scene", str(STREET))
    save_map(data / "images/dtd/two_object_0.png", halves(TREE, 0))
    save_png(data / "images/made/0000.png", np.zeros((32, 32, 3), np.uint8))
    after = [open_dataset(data).read(i).digest for i in range(3)]
    assert all(a != b for a, b in zip(before, after, strict=True))


def test_the_digest_of_the_tables_changes_with_any_table(data: Path) -> None:
    seen = {open_dataset(data).tables_digest()}
    for path in sorted(data.glob("*.csv")):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
        seen.add(open_dataset(data).tables_digest())
    assert len(seen) == 1 + len(list(data.glob("*.csv")))


def test_a_data_set_travels_to_another_process_and_is_read_by_threads(data: Path) -> None:
    dataset = open_dataset(data)
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.tables_digest() == dataset.tables_digest()
    with ThreadPoolExecutor(8) as pool:
        found = [s.digest for s in pool.map(copy.read, [0, 1, 2] * 20)]
    assert found == [dataset.read(i).digest for i in range(3)] * 20


def test_a_fault_travels_back_from_another_process() -> None:
    fault = pickle.loads(pickle.dumps(BadFile("images/a.png", "truncated", "do this")))
    assert (fault.file, fault.what, fault.hint) == ("images/a.png", "truncated", "do this")
    assert str(fault) == "images/a.png: truncated\ndo this"


# Photographs of every kind


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "1", "LA", "I;16"])
def test_photographs_of_other_modes_become_rgb(data: Path, mode: str) -> None:
    grey = np.linspace(0, 255, 32 * 32).reshape(32, 32).astype(np.uint8)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "P":
        image = Image.fromarray(grey).quantize(256)
    else:
        image = Image.fromarray(np.stack([grey] * 3, -1)).convert(mode)
    image.save(data / "images/dtd/none.png", "TIFF" if mode == "CMYK" else "PNG")
    found = open_dataset(data).read(2).image
    assert found.shape == (32, 32, 3)
    assert found.dtype == np.uint8
    if mode != "1":
        np.testing.assert_allclose(found.astype(int), np.stack([grey] * 3, -1), atol=1)


def test_an_orientation_tag_does_not_turn_the_photograph_away_from_its_maps(data: Path) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(data / "images/dtd/none.png", "JPEG", exif=exif, quality=95)
    found = open_dataset(data).read(2).image
    assert found[:12].min() > 200
    assert found[20:].max() < 50


def jpeg(folder: Path) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = folder / "whole.jpg"
    Image.fromarray(noise).save(path, quality=90)
    return path.read_bytes()


@pytest.mark.parametrize("kept", [0, 1, 10, 200, 0.5, 0.9])
def test_a_truncated_photograph_is_refused(tmp_path: Path, kept: float) -> None:
    whole = jpeg(tmp_path)
    cut = whole[: int(kept * len(whole)) if isinstance(kept, float) else kept]
    with pytest.raises(BadFile, match=r"images/a\.jpg: not a readable image"):
        decode_image(cut, "images/a.jpg", (64, 64))
    assert decode_image(whole, "images/a.jpg", (64, 64)).shape == (64, 64, 3)


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(cut=st.integers(0, 5000), flip=st.integers(0, 7))
@example(cut=72, flip=0)  # a TIFF whose number of rows becomes a fraction: Pillow's TypeError
def test_damaged_bytes_are_a_fault_of_the_file_or_an_image_never_another_error(cut: int, flip: int) -> None:
    rgb = numbers_to_rgb(np.arange(32 * 32).reshape(32, 32))
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        out = io.BytesIO()
        Image.fromarray(rgb).save(out, kind)
        data = bytearray(out.getvalue())
        data[cut % len(data)] ^= 1 << flip
        try:
            assert decode_image(bytes(data), "a", (32, 32)).shape == (32, 32, 3)
        except BadFile as fault:
            assert fault.file == "a"


# Faults, told with their place


@pytest.mark.parametrize("table", ["index.csv", "label.csv"])
def test_a_missing_table(data: Path, table: str) -> None:
    (data / table).unlink()
    refused(data, table, "missing")


def test_a_folder_that_is_no_data_set(tmp_path: Path, data: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(empty, "it holds nothing")
    refused(tmp_path / "nowhere", "no folder")
    refused(tmp_path, f"Did you mean {data}")


@pytest.mark.parametrize(
    ("table", "column"),
    [
        *[("index.csv", c) for c in ("image", "ih", "iw", "sh", "sw", "object")],
        ("label.csv", "number"),
        ("label.csv", "name"),
        ("category.csv", "name"),
        ("c_object.csv", "number"),
        ("c_object.csv", "coverage"),
    ],
)
def test_a_missing_column(data: Path, table: str, column: str) -> None:
    drop_column(data / table, column)
    refused(data, table, column)


@pytest.mark.parametrize("table", ["index.csv", "label.csv"])
def test_an_empty_table(data: Path, table: str) -> None:
    write_csv(data / table, read_csv(data / table)[0], [])
    refused(data, table, "lists no")
    (data / table).write_bytes(b"")
    refused(data, table, "empty")


@pytest.mark.parametrize(
    ("table", "row", "column", "value", "words"),
    [
        ("index.csv", 1, "ih", "tall", ["index.csv", "row 3", "column ih", "'tall'"]),
        ("index.csv", 1, "sw", "-3", ["row 3", "column sw", "'-3'"]),
        ("index.csv", 1, "sh", "0", ["row 3", "column sh", "cannot be 0"]),
        ("index.csv", 1, "iw", "1_0", ["row 3", "column iw"]),
        ("index.csv", 1, "sh", "17", ["row 3", "17 x 16", "row 2 has 16 x 16"]),
        ("index.csv", 1, "split", "held", ["row 3", "column split", "'held'"]),
        ("index.csv", 1, "image", "", ["row 3", "column image", "empty"]),
        ("label.csv", 1, "number", "x", ["label.csv", "row 3", "column number", "'x'"]),
        ("label.csv", 1, "number", "3", ["label.csv", "row 3", "number 3", "row 2"]),
        ("label.csv", 1, "number", "70000", ["label.csv", "row 3", "65535"]),
        ("label.csv", 1, "number", "-1", ["label.csv", "row 3", "'-1'"]),
        ("label.csv", 1, "category", "weather(3)", ["label.csv", "row 3", "'weather'"]),
        ("label.csv", 1, "category", "part", ["label.csv", "row 3", "'part'", "object(3)"]),
        ("label.csv", 1, "frequency", "many", ["label.csv", "row 3", "column frequency"]),
        ("label.csv", 1, "coverage", "nan", ["label.csv", "row 3", "column coverage"]),
        ("c_object.csv", 0, "coverage", "much", ["c_object.csv", "row 2", "column coverage", "'much'"]),
        ("c_object.csv", 0, "number", "44", ["c_object.csv", "44", "not in label.csv"]),
        ("c_object.csv", 1, "number", "3", ["c_object.csv", "row 3", "number 3 is listed twice"]),
        ("category.csv", 1, "name", "object", ["category.csv", "row 3", "'object'", "twice"]),
    ],
)
def test_a_wrong_cell(data: Path, table: str, row: int, column: str, value: str, words: list[str]) -> None:
    edit_csv(data / table, row, column, value)
    refused(data, *words)


def test_labels_in_a_column_that_no_table_names_a_category(data: Path) -> None:
    edit_csv(data / "index.csv", 1, "material", "dtd/x.png")
    (data / "category.csv").unlink()
    refused(data, "row 3", "column material", "no category")


def test_a_concept_without_any_category(data: Path) -> None:
    edit_csv(data / "label.csv", 0, "category", "")
    assert open_dataset(data).concepts.category_of(0) == "object"
    header, *rows = read_csv(data / "c_object.csv")
    write_csv(data / "c_object.csv", header, rows[1:])
    refused(data, "label.csv", "row 2", "concept 3 (tree) has no category")


def test_a_row_with_too_few_cells(data: Path) -> None:
    text = (data / "index.csv").read_text().splitlines()
    (data / "index.csv").write_text("\n".join([*text[:2], text[2].rsplit(",", 1)[0], text[3]]))
    refused(data, "index.csv", "row 3: 11 cells, the header has 12")


def test_a_table_that_is_not_text(data: Path) -> None:
    (data / "label.csv").write_bytes((data / "label.csv").read_bytes() + b"8,caf\xe9,object(1),1,1,\n")
    refused(data, "label.csv", "row 7", "UTF-8")


@pytest.mark.parametrize("path", ["../secret.png", "/etc/secret.png", "a/../../b.png", "..\\b.png", "C:\\b.png", "C:b"])
@pytest.mark.parametrize("column", ["image", "object"])
def test_paths_stay_inside_the_images(data: Path, path: str, column: str) -> None:
    save_map(data / "secret.png", halves(TREE, 0))
    edit_csv(data / "index.csv", 1, column, path if column == "image" else f"dtd/two_object_0.png;{path}")
    refused(data, "index.csv", "row 3", f"column {column}", "leads out of")


def test_dots_within_a_name_are_no_way_out(tmp_path: Path) -> None:
    picture = Picture({"object": halves(TREE, 0)}, name="a..b/c...d.png")
    assert open_dataset(write_broden(tmp_path, [picture], CONCEPTS)).read(0).maps.shape == (1, 16, 16)


def test_a_missing_image_or_map(data: Path) -> None:
    (data / "images/dtd/two_object_0.png").unlink()
    refused(data, "images/dtd/two_object_0.png", "missing")
    (data / "images/made/0000.png").unlink()
    refused(data, "images/made/0000.png", "missing")


def test_an_unknown_number_in_a_map(data: Path) -> None:
    save_map(data / "images/dtd/two_object_0.png", halves(TREE, 4))
    refused(data, "images/dtd/two_object_0.png", "4", "label.csv")


@pytest.mark.parametrize("number", ["8", "70000", "99999999999"])
def test_an_unknown_image_level_label(data: Path, number: str) -> None:
    edit_csv(data / "index.csv", 1, "scene", number)
    refused(data, "index.csv", "row 3", "column scene", "dtd/two.png", number)


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "1"])
def test_grey_and_palette_maps_are_numbers_as_they_stand(data: Path, mode: str) -> None:
    path = data / "images/dtd/two_object_0.png"
    numbers = rgb_to_numbers(np.asarray(Image.open(path)))
    assert numbers.any()
    if mode == "1":
        numbers = (numbers == numbers.max()).astype(np.uint16)
    image = Image.fromarray(numbers if mode == "I;16" else numbers.astype(bool if mode == "1" else np.uint8))
    if mode == "P":
        image = Image.fromarray(numbers.astype(np.uint8)).convert("P")
        image.putdata(numbers.ravel().tolist())
        image.putpalette([255 - n // 3 for n in range(768)])
    image.save(path)
    assert (decode_labels(path.read_bytes(), "a.png", (16, 16)) == numbers).all()


@pytest.mark.parametrize(
    ("image", "word"),
    [
        (Image.new("LA", (16, 16)), "8-bit greyscale with alpha"),
        (Image.new("RGBA", (16, 16)), "8-bit RGB with alpha"),
        (Image.new("RGB", (16, 15)), "15 x 16"),
    ],
)
def test_a_map_of_the_wrong_mode_or_size(data: Path, image: Image.Image, word: str) -> None:
    image.save(data / "images/dtd/two_object_0.png", "PNG")
    refused(data, "images/dtd/two_object_0.png", word)


@pytest.mark.parametrize("kept", [0, 5, 20, 40, -30, -12, -1])
def test_a_truncated_map_is_refused(data: Path, kept: int) -> None:
    path = data / "images/made/0000_object_0.png"
    path.write_bytes(path.read_bytes()[:kept])
    refused(data, "images/made/0000_object_0.png")


def test_a_damaged_map_is_refused_by_its_checksum(data: Path) -> None:
    path = data / "images/made/0000_object_0.png"
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"IDAT") + 12] ^= 0x10
    path.write_bytes(whole)
    refused(data, "images/made/0000_object_0.png", "damaged")


def test_an_image_of_another_size_than_the_table_says(data: Path) -> None:
    edit_csv(data / "index.csv", 1, "ih", "33")
    refused(data, "images/dtd/two.png", "32 x 32", "33 x 32")


def test_data_sets_are_read_without_torch() -> None:
    modules = ", ".join(f"ndissect.engine.data.{m}" for m in ("broden", "check", "info", "download"))
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# Finding a data set by what the user typed


def test_a_data_set_is_found_by_path_or_by_the_name_of_a_download(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ND_CACHE", str(tmp_path / "cache"))
    assert find_dataset(str(data)) == data
    with pytest.raises(WrongUse, match="nd data download broden1_224"):
        find_dataset("broden1_224")
    kept = tmp_path / "cache" / "broden1_224"
    kept.mkdir(parents=True)
    assert find_dataset("broden1_224") == kept
    with pytest.raises(WrongUse, match="broden1_224"):
        find_dataset("broden_224")
    with pytest.raises(WrongUse, match="There is no folder"):
        find_dataset(str(tmp_path / "nowhere"))
    (tmp_path / "a.zip").write_bytes(b"")
    with pytest.raises(WrongUse, match="Unpack it"):
        find_dataset(str(tmp_path / "a.zip"))


# Real photographs


@needs_mini
def test_the_real_data_open() -> None:
    dataset = open_dataset(MINI)
    assert len(dataset) == 1551
    assert dataset.grid == (112, 112)
    assert dataset.name == "broden_mini"
    table = dataset.concepts
    found = Counter(table.category_of(row) for row in range(len(table)))
    assert found == {"color": 11, "object": 128, "part": 8, "texture": 10, "scene": 2}


@needs_mini
def test_the_real_tables_agree_with_their_own_counts() -> None:
    dataset = Broden(MINI)
    parts = dataset.columns.index("part")
    held: Counter[int] = Counter()
    for index in np.flatnonzero(dataset.filled[:, parts]).tolist():
        numbers = {int(n) for path in dataset.cells(index)["part"] for n in np.unique(dataset.read_map(path)[0])}
        held.update(numbers - {0})
    in_file = {int(row[1]): int(row[3]) for row in read_csv(MINI / "c_part.csv")[1:]}
    assert dict(held) == in_file
