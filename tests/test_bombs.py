"""Small inputs that would take much memory or time are refused, with what they claim; honest ones are read as ever."""

from __future__ import annotations

import collections
import csv
import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from attempts import Attempt, attempt
from broden_factory import Concept, Picture, write_broden
from cli import nd, two_lines
from PIL import Image
from safetensors.torch import save_file

from ndissect.engine.checkpoints.read import load_state, read_checkpoint
from ndissect.engine.data.broden import Broden
from ndissect.engine.data.check import check_dataset
from ndissect.engine.data.formats import open_dataset
from ndissect.engine.data.images import decode_image, decode_labels
from ndissect.engine.data.jpeg import keep_jpeg
from ndissect.engine.data.pack import pack
from ndissect.engine.data.packed import find_pack
from ndissect.engine.experiments.series import read_series
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.table2017 import read_table

SIZE = (20, 24)


def refused(tried: Attempt, *said: str, peak: int = 150 << 20) -> None:
    """Assert that a reading ended by itself with an error that says all of ``said``, and took little memory."""
    assert tried.error in ("NDError", "WrongUse", "BadFile", "BadArchive"), tried
    for words in said:
        assert words in f"{tried.message}\n{tried.hint}", tried
    assert len(tried.message) < 2_000, tried
    assert tried.peak < peak, tried


# Images


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def header(height: int, width: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def png(*chunks: bytes, size: tuple[int, int] = SIZE) -> bytes:
    """A black RGB PNG of ``size``, ``chunks`` before its pixels."""
    packed = zlib.compress(bytes((3 * size[1] + 1) * size[0]), 9)
    return b"\x89PNG\r\n\x1a\n" + header(*size) + b"".join(chunks) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def claimed(height: int, width: int) -> bytes:
    """A PNG that says it is of this size, and is cut short."""
    return b"\x89PNG\r\n\x1a\n" + header(height, width) + chunk(b"IDAT", zlib.compress(bytes(1000)))


def jpeg(pixels: np.ndarray | None = None, **how: object) -> bytes:
    out = io.BytesIO()
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8) if pixels is None else pixels
    Image.fromarray(picture).save(out, "JPEG", **how)
    return out.getvalue()


def many_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is there ``count`` times more."""
    data = jpeg(progressive=True)
    at = data.rindex(b"\xff\xda")
    return data[:at] + data[at:-2] * count + data[at:]


def tiff(*entries: tuple[int, int, int, int], more: bytes = b"") -> bytes:
    """A TIFF whose directory is (tag, type, count, value)s; ``more`` lies at byte 4096."""
    body = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries)
    return (body + bytes(4)).ljust(4096, b"\0") + more


TIFF = ((256, 3, 1, SIZE[1]), (257, 3, 1, SIZE[0]), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1))
MIB = 1 << 20

IMAGES: dict[str, Callable[[], bytes]] = {
    "a second header of 65,500 x 65,500": lambda: png(header(65_500, 65_500)),
    "a second header of 9,000 x 9,000": lambda: png(header(9_000, 9_000)),
    "a JPEG of 3,000 scans": lambda: many_scans(3_000),
    "a JPEG of 200,000 comments": lambda: jpeg()[:2] + b"\xff\xfe\0\3x" * 200_000 + jpeg()[2:],
    "a JPEG of 4 million fill bytes": lambda: jpeg()[:2] + b"\xff" * 4_000_000 + jpeg()[2:],
    "a PNG of 200,000 parts": lambda: png(chunk(b"tEXt", b"a\0b") * 200_000),
    "a TIFF of a million strips": lambda: tiff(*TIFF, (273, 4, 1_000_000, 4096), more=bytes(4 * MIB)),
    "a TIFF with a tile of 60,000 x 60,000": lambda: tiff(
        *TIFF, (322, 4, 1, 60_000), (323, 4, 1, 60_000), (324, 4, 1, 4096), (325, 4, 1, 64), more=bytes(64)
    ),
    "a TIFF that uses the same megabytes 2,000 times": lambda: tiff(
        *TIFF, *((40_000 + i, 7, 8 * MIB, 30_000) for i in range(2_000)), more=bytes(9 * MIB)
    ),
    "a GIF of 200,000 pieces of comments": lambda: (
        b"GIF89a" + struct.pack("<HHBBB", SIZE[1], SIZE[0], 0, 0, 0) + b"\x21\xfe" + b"\1x" * 200_000 + b"\0;"
    ),
}
MAPS = ("a second header of 65,500 x 65,500", "a second header of 9,000 x 9,000", "a PNG of 200,000 parts")
SOUND: dict[str, Callable[[], bytes]] = {
    "profiles that inflate to 300 MB": lambda: png(
        *[chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(MIB - 1), 9)) for _ in range(300)]
    ),
    "texts that inflate to 300 MB": lambda: png(
        *[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(MIB - 1), 9)) for _ in range(300)]
    ),
    "an EXIF block of 30 MB in 480 pieces": lambda: (
        jpeg()[:2] + (b"\xff\xe1\xff\xffExif\0\0" + bytes(65_527)) * 480 + jpeg()[2:]
    ),
}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_that_costs_more_than_its_pixels_is_refused(name: str) -> None:
    data = IMAGES[name]()
    refused(attempt(lambda: decode_image(data, "images/a", SIZE)), "images/a")
    if name in MAPS:
        refused(attempt(lambda: decode_labels(data, "images/a.png", SIZE)), "images/a.png")
    if data.startswith(b"\xff\xd8"):
        refused(attempt(lambda: keep_jpeg(data, "images/a", SIZE)), "images/a")


@pytest.mark.parametrize("name", SOUND)
def test_what_is_no_pixel_is_not_even_read(name: str) -> None:
    data = SOUND[name]()
    tried = attempt(lambda: decode_image(data, "images/a", SIZE))
    assert tried.error == "", tried
    assert tried.peak < 100 << 20, tried
    without = decode_image(jpeg() if data.startswith(b"\xff\xd8") else png(), "images/a", SIZE)
    np.testing.assert_array_equal(decode_image(data, "images/a", SIZE), without)


@pytest.mark.parametrize(
    "how", [{}, {"progressive": True}, {"exif": b"Exif\0\0" + bytes(9_000), "comment": b"c" * 9_000}]
)
def test_pixels_are_the_same_with_metadata_and_without(how: dict[str, object]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    data = jpeg(pixels, **how)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(decode_image(data, "a.jpg", (64, 64)), np.asarray(image.convert("RGB")))


def data_set(folder: Path, size: tuple[int, int], grid: tuple[int, int], maps: int = 1) -> Path:
    """Two images, the second of them small."""
    pictures = [
        Picture({"object": [np.full(grid, 3)] * maps}, name="large.png", pixels=np.zeros((*size, 3), np.uint8)),
        Picture({"object": np.full(grid, 3)}, name="small.png", pixels=np.zeros((8, 8, 3), np.uint8)),
    ]
    return write_broden(folder, pictures, [Concept(3, "tree")], grid=grid)


def test_an_image_of_13000_x_13000_is_one_bad_image_and_takes_no_memory(tmp_path: Path) -> None:
    data = data_set(tmp_path / "small", (16, 16), (16, 16))
    (data / "images" / "large.png").write_bytes(claimed(13_000, 13_000))
    index = (data / "index.csv").read_text()
    (data / "index.csv").write_text(index.replace(",16,16,16,16", ",13000,13000,16,16", 1))
    said = ("images/large.png", "13000 x 13000 pixels, more than 50,000,000", "--max-pixels")
    refused(attempt(lambda: Broden(data).read(0)), *said)
    assert open_dataset(data).read(1).image.shape == (8, 8, 3), "one bad image among good ones"
    assert [p.file for p in check_dataset(data)] == ["images/large.png"]
    refused(attempt(lambda: pack(Broden(data))), *said)


def test_label_maps_of_13000_x_13000_are_refused_by_the_table(tmp_path: Path) -> None:
    data = data_set(tmp_path / "small", (16, 16), (16, 16))
    for path in (data / "images").rglob("*object*.png"):
        path.write_bytes(claimed(13_000, 13_000))
    index = (data / "index.csv").read_text()
    (data / "index.csv").write_text(
        index.replace(",16,16,16,16", ",16,16,13000,13000").replace(",8,8,16,16", ",8,8,13000,13000")
    )
    refused(attempt(lambda: Broden(data)), "index.csv: row 2", "13000 x 13000", "--max-pixels")


def test_the_option_lifts_the_limit_and_a_lower_one_holds_for_images_and_for_maps_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ND_CACHE", str(tmp_path / "cache"))
    data = data_set(tmp_path / "small", (40, 30), (10, 10), maps=5)
    dataset = open_dataset(data, max_pixels=1_200)
    assert dataset.read(0).image.shape == (40, 30, 3)
    with pytest.raises(NDError, match=r"images/large.png: the image is 40 x 30 pixels, more than 1,199"):
        open_dataset(data, max_pixels=1_199).read(0)
    with pytest.raises(NDError, match=r"row 2: large.png has 5 label maps of 10 x 10 pixels, more than 499"):
        open_dataset(data, max_pixels=499).read_labels(0)
    assert [p.file for p in check_dataset(data, max_pixels=499)] == ["images/large.png", "index.csv"]
    pack(Broden(data))
    for most in (499, 1_199):  # packed or not, the same images are read
        packed = open_dataset(data, max_pixels=most)
        assert find_pack(Broden(data)) is not None
        with pytest.raises(NDError, match="--max-pixels"):
            packed.read(0)
        assert packed.read(1).image.shape == (8, 8, 3)
    with pytest.raises(NDError, match="--max-pixels"):
        open_dataset(data, max_pixels=499).read_labels(0)


def test_fewer_large_images_are_held_at_a_time(tmp_path: Path) -> None:
    from ndissect.engine.data.dataset import at_once

    dataset = open_dataset(data_set(tmp_path / "small", (40, 30), (10, 10), maps=5))
    assert dataset.largest == 3 * 40 * 30 + 2 * 5 * 100
    assert at_once(dataset, 64) == 64
    dataset.image_sizes[0] = 7_000, 7_000
    del dataset.__dict__["largest"]
    assert at_once(dataset, 64) == 3


# Tables


def replaced(folder: Path, name: str, text: str) -> Path:
    data = data_set(folder / "small", (16, 16), (16, 16))
    (data / name).write_text(text, encoding="utf-8")
    return data


TABLES: dict[str, tuple[str, Callable[[], str], str]] = {
    "ten million concepts": (
        "label.csv", lambda: "number,name\n" + "1,a\n" * 10_000_000, "at most 16,777,216 are read"
    ),
    "70,000 concepts": ("label.csv", lambda: "number,name\n" + "1,a\n" * 70_000, "more than 65,536 rows"),
    "2 million categories": ("category.csv", lambda: "name\n" + "x\n" * 2_000_000, "at most 256,000 are read"),
    "2,000 categories": ("category.csv", lambda: "name\n" + "x\n" * 2_000, "more than 1,000 rows"),
    "a million columns": ("index.csv", lambda: ",".join(map(str, range(1_000_000))) + "\n", "more than 1,000 columns"),
    "a cell of 100 MB": ("index.csv", lambda: "image\n" + "x" * 100_000_000, "field larger"),
    "a quote that does not end": ("label.csv", lambda: 'number,name\n1,"' + "x\n" * 1_000_000, "not a CSV table"),
    "a name of 100,000 characters": ("label.csv", lambda: f"number,name\n3,{'x' * 100_000}\n", "characters"),
    "a category of 100,000 spaces": (
        "label.csv", lambda: f"number,name,category\n3,a,a{' ' * 120_000}b\n", "is not of the form object(3)"
    ),
    "a number of 100,000 digits": ("label.csv", lambda: f"number,name\n{'9' * 100_000},a\n", "is not a whole number"),
    "a category of 300 characters": ("category.csv", lambda: f"name\n{'x' * 300}\n", "no name of a category"),
    "a category that is a path": ("category.csv", lambda: "name\n/../../../x\n", "no name of a category"),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_a_table_without_measure_is_refused(name: str, tmp_path: Path) -> None:
    file, text, said = TABLES[name]
    data = replaced(tmp_path, file, text())
    refused(attempt(lambda: Broden(data), seconds=20), file, said, peak=450 << 20)
    assert attempt(lambda: check_dataset(data), seconds=20, memory=2 << 30).error in ("", "NDError")


def test_tables_of_series_and_of_units_without_measure_are_refused(tmp_path: Path) -> None:
    given = {
        "deep.json": "[" * 100_000,
        "many.csv": "weights,n\n" + "".join(f"{i}.pt,1\n" for i in range(20_000)),
        "large.json": "[" + " " * (17 << 20),
        "long.csv": f"weights,n\n{'x' * 300}.pt,1\n",
    }
    for name, text in given.items():
        (tmp_path / name).write_text(text)
        refused(attempt(lambda name=name: read_series([str(tmp_path / name)], "demo")), peak=400 << 20)
    (tmp_path / "units.csv").write_text(",".join(f"c{i}-label" for i in range(100_000)))
    refused(attempt(lambda: read_table(tmp_path / "units.csv", "layer")), "100,000 columns")
    with pytest.raises(WrongUse, match="at most 10,000"):
        read_series([str(tmp_path / "many.csv")], "demo")


# Checkpoints


def deflated(path: Path, content: object) -> Path:
    """A checkpoint whose members are deflated."""
    whole = io.BytesIO()
    torch.save(content, whole)
    with zipfile.ZipFile(whole) as stored, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for member in stored.infolist():
            packed.writestr(member.filename, stored.read(member))
    return path


def pickled(path: Path, opcodes: bytes) -> Path:
    """A checkpoint whose data.pkl is ``opcodes``."""
    whole = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, whole)
    with zipfile.ZipFile(whole) as stored, zipfile.ZipFile(path, "w") as packed:
        for member in stored.infolist():
            own = member.filename.endswith("data.pkl")
            packed.writestr(member.filename, opcodes if own else stored.read(member))
    return path


def wide(depth: int, width: int) -> object:
    """Dictionaries in dictionaries, the same one ``width`` times in each."""
    inner: object = {str(i): i for i in range(width)}
    for _ in range(depth):
        inner = {str(i): inner for i in range(width)}
    return inner


def itself() -> object:
    content: dict[str, object] = {}
    content["state_dict"] = content["model"] = content
    return content


class Hidden:
    """Pickles as a state dict whose own attributes hide its methods."""

    def __reduce__(self) -> tuple[object, ...]:
        attributes = {"get": 5, "items": 5, "keys": 5, "values": 5}
        return collections.OrderedDict, (), attributes, None, iter([("a", torch.zeros(2))])


CONTENTS: dict[str, tuple[Callable[[], object], str]] = {
    "a tensor of 4 TB over one number": (lambda: {"a": torch.zeros(1).expand(10**6, 10**6)}, "--max-weights"),
    "a sparse tensor": (lambda: {"a": torch.sparse_coo_tensor([[0]], [1.0], (10**6,))}, "a sparse tensor"),
    "a tensor without values": (lambda: {"a": torch.empty(10**9, device="meta")}, "without values"),
    "a quantised tensor": (
        lambda: {"a": torch.quantize_per_tensor(torch.zeros(4), 0.1, 0, torch.qint8)}, "a quantised tensor"
    ),
    "a key of 100,000 characters": (lambda: {"k" * 100_000: torch.zeros(1)}, "a key of 100,000 characters"),
    "a dictionary that holds itself": (itself, "holds no state dict"),
    "wide dictionaries": (lambda: wide(4, 300), "holds no state dict"),
    "a number of 10,000 digits as a key": (lambda: {"a": {10**200: 1}, 10**200: torch.zeros(1)}, "no state dict"),
    "nothing": (lambda: {}, "holds no state dict"),
}  # fmt: skip


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("name", CONTENTS)
def test_a_checkpoint_that_is_none_is_refused(name: str, old: bool, tmp_path: Path) -> None:
    make, said = CONTENTS[name]
    torch.save(make(), tmp_path / "w.pt", _use_new_zipfile_serialization=not old)
    refused(attempt(lambda: load_state(tmp_path / "w.pt")), "w.pt", said)


def test_methods_hidden_by_attributes_do_no_harm(tmp_path: Path) -> None:
    torch.save(Hidden(), tmp_path / "w.pt")
    assert load_state(tmp_path / "w.pt")["a"].shape == (2,)
    tensor = torch.zeros(3)
    tensor.detach = tensor.as_subclass = 5
    torch.save({"a": tensor}, tmp_path / "w.pt")
    assert load_state(tmp_path / "w.pt")["a"].numel() == 3


def test_a_deflated_checkpoint_that_grows_a_thousand_times_is_refused_and_read_on_request(tmp_path: Path) -> None:
    path = deflated(tmp_path / "w.pt", {"a": torch.zeros(50 << 20, dtype=torch.uint8), "b": torch.zeros(50 << 20)})
    assert path.stat().st_size < 1 << 20
    refused(attempt(lambda: load_state(path)), "w.pt would take in memory 262 MB", "--max-weights 1GB")
    assert read_checkpoint(path, 10**9).state["b"].shape == (50 << 20,)
    with pytest.raises(NDError, match="at most"):
        read_checkpoint(path, 10**8)


def test_a_deflated_checkpoint_of_usual_weights_is_read(tmp_path: Path) -> None:
    state = {"a": torch.rand(1 << 16), "zeros": torch.zeros(1 << 18)}
    found = load_state(deflated(tmp_path / "w.pt", state))
    assert all(torch.equal(found[k], state[k]) for k in state)


def test_a_pickle_of_millions_of_objects_is_refused(tmp_path: Path) -> None:
    many = b"\x80\x02(" + b"}" * 5_000_000 + b"l."
    refused(attempt(lambda: load_state(pickled(tmp_path / "w.pt", many))), "would take in memory")
    (tmp_path / "old.pt").write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + many)
    refused(attempt(lambda: load_state(tmp_path / "old.pt"), seconds=60), "old.pt", peak=500 << 20)


def test_lists_in_lists_100000_deep_are_no_state_dict(tmp_path: Path) -> None:
    deep = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    refused(attempt(lambda: load_state(pickled(tmp_path / "w.pt", deep))), "holds no state dict: a list")


def test_what_a_safetensors_file_claims_is_not_believed(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(4)}, tmp_path / "w.safetensors")
    whole = (tmp_path / "w.safetensors").read_bytes()
    length = int.from_bytes(whole[:8], "little")
    given = {
        "a header of 4 GB": struct.pack("<Q", (1 << 32) - 1) + whole[8:],
        "a header of 50 MB": struct.pack("<Q", 50 << 20) + whole[8:].ljust(50 << 20),
        "a tensor of 4 TB": whole.replace(b'"shape":[4]', b'"shape":[' + b"9" * 13 + b"]"),
        "an unknown kind": whole.replace(b'"F32"', b'"F99"'),
        "cut short": whole[: 8 + length + 5],
        "deep": struct.pack("<Q", 200_001) + b"{" + b"[" * 200_000,
    }
    for name, data in given.items():
        (tmp_path / "w.safetensors").write_bytes(data)
        tried = attempt(lambda: load_state(tmp_path / "w.safetensors"))
        refused(tried, "w.safetensors"), name
    with (tmp_path / "sparse.safetensors").open("wb") as file:
        file.write(whole)
        file.truncate(10**12)
    refused(attempt(lambda: load_state(tmp_path / "sparse.safetensors")), "has 1.0 TB", "--max-weights 1000GB")


def test_two_lists_of_members_in_one_checkpoint_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(4)}, tmp_path / "w.pt")
    whole = (tmp_path / "w.pt").read_bytes()
    moved = bytearray(whole)
    moved[-34:-26] = struct.pack("<Q", 5)  # where the last list of members is said to be
    for data in (bytes(moved), whole + b"more", whole[:-5], b"PK" + bytes(100)):
        (tmp_path / "w.pt").write_bytes(data)
        refused(attempt(lambda: load_state(tmp_path / "w.pt")), "w.pt is damaged or not a checkpoint")


def test_nd_tells_of_both_limits_with_the_option_that_lifts_them(tmp_path: Path) -> None:
    data_set(tmp_path / "small", (40, 30), (10, 10))
    done = nd("data", "check", "small", "--max-pixels", "1000", folder=tmp_path)
    assert done.returncode == 1
    assert "--max-pixels" in done.stdout
    deflated(tmp_path / "w.pt", {"a": torch.zeros(50 << 20)})
    done = nd("layers", "demo", "--weights", "w.pt", folder=tmp_path)
    two_lines(done.stderr, "w.pt would take in memory 210 MB", "--max-weights 1GB")
    done = nd("layers", "demo", "--weights", "w.pt", "--max-weights", "1GB", folder=tmp_path)
    two_lines(done.stderr, "none of its 1 keys fits the network")


def test_rows_are_read_as_ever_up_to_the_limit(tmp_path: Path) -> None:
    data = data_set(tmp_path / "small", (16, 16), (16, 16))
    with (data / "label.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["number", "name", "category"])
        table.writerows([i, f"c{i}", "object(1)"] for i in range(65_536))
    assert len(Broden(data).concepts) == 65_535
