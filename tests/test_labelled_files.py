"""Images and label maps of any size, brought to one grid: ndissect.engine.data.labelled_files."""

from __future__ import annotations

import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ndissect.engine.data.image_headers import orientation, read_size
from ndissect.engine.data.images import BadFile, decode_image
from ndissect.engine.data.label_maps import MapFile, MapValues, map_values
from ndissect.engine.data.labelled_files import GRID, ImageRecord, LabelledFiles, same_shape
from ndissect.store.concepts import ConceptTable
from ndissect.store.upsampling import resize_labels

CONCEPTS = ConceptTable(np.array([1, 2, 300], np.int32), ("cat", "dog", "sky"), np.zeros(3, np.int32), ("object",))
VALUES = map_values("labels.csv", {1: 1, 2: 2, 300: 300})


def photograph(path: Path, height: int, width: int, **options: object) -> None:
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)


def dataset(folder: Path, pixels: np.ndarray, size: tuple[int, int], values: MapValues = VALUES) -> LabelledFiles:
    folder.mkdir(exist_ok=True)
    photograph(folder / "a.jpg", *size)
    Image.fromarray(pixels).save(folder / "a.png")
    records = [ImageRecord("a.jpg", Path("a.jpg"), "train", (MapFile(Path("a.png"), values),), (300,))]
    return LabelledFiles(folder, "small", CONCEPTS, records, digest="00")


@pytest.mark.parametrize("shape", [(30, 40), (60, 80), (300, 400), (15, 20)])
def test_a_map_of_any_size_is_read_on_the_grid(tmp_path: Path, shape: tuple[int, int]) -> None:
    numbers = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)
    data = dataset(tmp_path, numbers, (60, 80))
    for grid in (GRID, (7, 9), shape):
        sample = data.on_grid(grid).read(0)
        assert (sample.maps == resize_labels(numbers[None].astype(np.uint16), grid)).all()
        assert (data.on_grid(grid).read_labels(0).maps == sample.maps).all()
        assert sample.labels == (300,)
    assert data.grid == GRID
    assert (sample.image == decode_image((tmp_path / "a.jpg").read_bytes(), "a.jpg")).all()
    assert data.image_sizes.tolist() == [[60, 80]]
    known = data.known_sizes()
    assert known is not None
    assert known.tolist() == [[60, 80]]


def test_it_can_be_sent_to_another_process(tmp_path: Path) -> None:
    data = dataset(tmp_path, np.full((6, 8), 2, np.uint8), (60, 80))
    other = pickle.loads(pickle.dumps(data))
    assert (other.read(0).maps == 2).all()
    assert other.read(0).digest == data.read(0).digest
    assert other.read_encoded(0).image.tobytes() == (tmp_path / "a.jpg").read_bytes()


def test_a_mask_of_another_shape_is_refused(tmp_path: Path) -> None:
    data = dataset(tmp_path, np.ones((100, 120), np.uint8), (200, 200))
    with pytest.raises(BadFile, match=r"a.png: the mask is 100 x 120 pixels, the image 200 x 200: they must show"):
        data.read(0)
    assert [fault.file for fault in data.faults(0)] == ["a.png"]
    assert same_shape((375, 500), (374, 500))
    assert same_shape((375, 500), (94, 125))
    assert not same_shape((375, 500), (500, 375))


def test_a_photograph_that_is_to_be_turned_is_said_to_be(tmp_path: Path) -> None:
    data = dataset(tmp_path, np.ones((40, 30), np.uint8), (30, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph(tmp_path / "a.jpg", 30, 40, exif=exif)
    assert orientation((tmp_path / "a.jpg").read_bytes()) == 6
    with pytest.raises(BadFile, match=r"its camera noted that it is to be turned.*auto-orient"):
        data.read_labels(0)


def test_a_number_that_nothing_names_is_told(tmp_path: Path) -> None:
    data = dataset(tmp_path, np.full((6, 8), 7, np.uint8), (60, 80))
    with pytest.raises(BadFile, match=r"a.png: holds 7, not in labels.csv"):
        data.read(0)


def test_labels_are_read_though_the_photograph_is_damaged(tmp_path: Path) -> None:
    data = dataset(tmp_path, np.full((6, 8), 2, np.uint8), (60, 80))
    (tmp_path / "a.jpg").write_bytes(b"no image")
    assert (data.read_labels(0).maps == 2).all()
    assert data.image_sizes.tolist() == [[0, 0]]
    assert data.known_sizes() is None
    with pytest.raises(BadFile, match="not a readable image"):
        data.read(0)


def test_an_image_that_changes_meanwhile_is_said_to(tmp_path: Path) -> None:
    data = dataset(tmp_path, np.full((6, 8), 2, np.uint8), (60, 80))
    data.read_sizes()
    photograph(tmp_path / "a.jpg", 61, 80)
    with pytest.raises(BadFile, match="the file has changed since its size was read"):
        data.read(0)


@pytest.mark.parametrize(
    ("mode", "dtype"), [("L", np.uint8), ("P", np.uint8), ("I;16", np.uint16), ("RGB", np.uint8), ("1", bool)]
)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_maps_of_every_mode_are_numbers(tmp_path: Path, mode: str, dtype: type, suffix: str) -> None:
    if suffix == ".bmp" and mode == "I;16":
        pytest.skip("BMP has no 16-bit grey")
    numbers = np.random.default_rng(1).integers(0, 2 if mode == "1" else 3, (30, 40)).astype(dtype)
    if mode == "I;16":
        numbers[numbers == 2] = 300
    image = Image.fromarray(np.stack([numbers] * 3, -1) if mode == "RGB" else numbers)
    if mode == "P":
        image = image.convert("P")
        image.putdata(numbers.ravel().tolist())
        image.putpalette([n * 37 % 256 for n in range(768)])
    image.save(tmp_path / f"map{suffix}")
    maps, _ = MapFile(Path(f"map{suffix}"), VALUES).read(tmp_path, (30, 40))
    assert (maps[0] == numbers).all()


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_of_few_bits_is_not_spread(tmp_path: Path, bits: int) -> None:
    numbers = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
    palette = Image.fromarray(numbers).convert("P")
    palette.putdata(numbers.ravel().tolist())
    palette.save(tmp_path / "map.png", bits=bits)
    data = bytearray((tmp_path / "map.png").read_bytes())
    assert data[24:26] == bytes([bits, 3])
    data[25] = 0  # grey
    end = data.index(b"PLTE") - 4
    length = int.from_bytes(data[end : end + 4], "big") + 12
    del data[end : end + length]
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    (tmp_path / "map.png").write_bytes(data)
    maps, _ = MapFile(Path("map.png"), VALUES).read(tmp_path, (3, 4))
    assert (maps[0] == numbers).all()


def test_colours_mean_what_the_table_says(tmp_path: Path) -> None:
    colours = {(255, 0, 0): 1, (0, 255, 0): 300, (0, 0, 0): 0}
    values = map_values("labels.csv", {}, colours=colours)
    numbers = np.random.default_rng(2).integers(0, 3, (6, 8))
    pixels = np.array(list(colours), np.uint8)[numbers]
    assert dataset(tmp_path, pixels, (60, 80), values).read(0).maps[0, 0, 0] == [*colours.values()][numbers[0, 0]]
    maps, _ = MapFile(Path("a.png"), values).read(tmp_path, (60, 80))
    assert (maps[0] == np.array(list(colours.values()))[numbers]).all()
    pixels[3, 3] = (1, 2, 3)
    with pytest.raises(BadFile, match=r"holds #010203, not in labels.csv"):
        dataset(tmp_path, pixels, (60, 80), values).read(0)
    with pytest.raises(BadFile, match=r"is a map of colours, and labels.csv names no colour"):
        dataset(tmp_path, pixels, (60, 80)).read(0)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".gif", ".tif", ".ppm"])
def test_sizes_are_read_from_headers(tmp_path: Path, suffix: str) -> None:
    photograph(tmp_path / f"a{suffix}", 23, 41)
    assert read_size(tmp_path / f"a{suffix}") == (23, 41)
    (tmp_path / f"a{suffix}").write_bytes(b"")
    assert read_size(tmp_path / f"a{suffix}") == (0, 0)
    assert read_size(tmp_path / "none") == (0, 0)


def test_a_map_that_would_fill_the_memory_is_not_decoded(tmp_path: Path) -> None:
    Image.new("1", (20_000, 3_000)).save(tmp_path / "map.png")
    with pytest.raises(BadFile, match="is 3000 x 20000 pixels, more than 50,000,000"):
        MapFile(Path("map.png"), VALUES).read(tmp_path, (3, 20))
    assert MapFile(Path("map.png"), VALUES).read(tmp_path, (3_000, 20_000))[0].shape == (1, 3_000, 20_000)
