"""Archives made to do harm: each is refused with its own reason, nothing is written, and the next try can succeed."""

from __future__ import annotations

import errno
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from attempts import attempt

from ndissect.engine.data import unpack as unpacking
from ndissect.engine.data.download import Patience, download
from ndissect.engine.data.unpack import BadArchive, unpack
from ndissect.store.errors import NDError

NAME = "broden1_224"
SOUND = {"index.csv": b"image", "label.csv": b"number", "category.csv": b"name", "images/a.png": b"pixels"}
NOWHERE = "http://127.0.0.1:9"  # nothing listens there
QUICK = Patience(attempts=1, backoff=0.01, timeout=1)


def pack(path: Path, members: dict[str, bytes], without: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in {**SOUND, **members}.items():
            if name != without:
                packed.writestr(f"{NAME}/{name}", data)
    return path


def changed(path: Path, mark: bytes, at: int, new: bytes) -> Path:
    """The archive with bytes replaced that lie ``at`` behind the last ``mark``."""
    data = bytearray(pack(path, {}).read_bytes())
    start = data.rindex(mark) + at
    data[start : start + len(new)] = new
    path.write_bytes(data)
    return path


def overlapping(path: Path) -> Path:
    """2,000 members that are all the same 10 MB of zeros, of which each takes only its line in the list."""
    pack(path, {"images/big.png": bytes(10 << 20)})
    with zipfile.ZipFile(path, "a") as packed:
        big = packed.getinfo(f"{NAME}/images/big.png")
        for i in range(2_000):
            info = zipfile.ZipInfo(f"{NAME}/images/{i}.png")
            for field in ("header_offset", "CRC", "compress_size", "file_size", "compress_type"):
                setattr(info, field, getattr(big, field))
            packed.filelist.append(info)
        packed._didModify = True
    return path


FIRST, LAST = b"PK\x01\x02", b"PK\x05\x06"
ARCHIVES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a name of 300 characters": (lambda p: pack(p, {f"images/{'n' * 300}.png": b""}), "which no disk takes"),
    "a name of 300 bytes": (lambda p: pack(p, {f"images/{'ü' * 150}.png": b""}), "which no disk takes"),
    "a path of 3,000 characters": (lambda p: pack(p, {"images/" + "d/" * 1_500 + "x": b""}), "which no disk takes"),
    "a file where a folder is": (lambda p: pack(p, {"images": b""}), "a file and a folder of one name"),
    "a file where a folder of other case is": (
        lambda p: pack(p, {"Images/A.PNG/x": b""}), "a file and a folder of one name"
    ),
    "two names that are one": (
        lambda p: pack(p, {"images/\u00e9.png": b"", "images/e\u0301.png": b""}), "two members of one name"
    ),
    "a table that is a folder": (
        lambda p: pack(p, {"label.csv/x": b""}, without="label.csv"), "no label.csv"
    ),
    "members that overlap": (overlapping, "would unpack to"),
    "a list of 4 GB": (lambda p: changed(p, LAST, 12, struct.pack("<I", 0xFFFFFFF0)), ""),
    "a member before the file": (lambda p: changed(p, LAST, 16, struct.pack("<I", 0xFFFFFFF0)), ""),
    "a member behind the file": (lambda p: changed(p, FIRST, 42, struct.pack("<I", 0x7FFFFFFF)), ""),
    "a size that is a lie": (lambda p: changed(p, FIRST, 24, struct.pack("<I", 9_000)), ""),
    "a method that is none": (lambda p: changed(p, FIRST, 10, struct.pack("<H", 77)), "in an unusual way"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_hostile_archive_is_refused_leaves_nothing_and_does_not_stand_in_the_way(name: str, tmp_path: Path) -> None:
    make, said = ARCHIVES[name]
    part = tmp_path / f"{NAME}.zip.part"
    make(part)
    url = f"{NOWHERE}/{NAME}.zip"
    state = {"url": url, "length": part.stat().st_size, "etag": "", "modified": ""}
    part.with_name(part.name + ".json").write_text(json.dumps(state))  # it has come as a whole
    tried = attempt(lambda: download(NAME, tmp_path, NOWHERE, patience=QUICK))
    assert tried.error == "BadArchive", tried
    assert said in tried.message, tried
    assert len(tried.message) < 1_000, tried
    assert "Free some space" not in tried.hint, tried
    assert tried.peak < 300 << 20, tried
    assert {p.name for p in tmp_path.iterdir()} <= {f"{NAME}.lock"}, "the next try begins anew"


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.ENAMETOOLONG, "take a shorter name"),
        (errno.EACCES, "make the place writable"),
        (errno.EIO, "choose another"),
    ],
)
def test_what_to_do_about_an_archive_that_cannot_be_unpacked_fits_the_cause(
    number: int, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = pack(tmp_path / "a.zip", {})

    def fail(*_: object) -> None:  # such a disk cannot be had here
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(unpacking, "_extract", fail)
    with pytest.raises(NDError, match="could not be unpacked") as caught:
        unpack(archive, tmp_path / "out")
    assert hint in caught.value.hint
    assert not isinstance(caught.value, BadArchive), "it is kept"


@pytest.mark.parametrize(
    "state",
    [
        "[" * 100_000,
        json.dumps({"url": f"{NOWHERE}/{NAME}.zip", "length": "9", "etag": 5, "modified": None}),
        json.dumps({"url": f"{NOWHERE}/{NAME}.zip", "length": 9, "etag": "a\r\nX: y", "modified": ""}),
        "x" * 200_000,
    ],
)
def test_what_was_noted_of_a_download_is_not_believed(state: str, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.zip.part").write_bytes(b"PK\x03\x04x")
    (tmp_path / f"{NAME}.zip.part.json").write_text(state)
    with pytest.raises(NDError, match="refuses the connection"):
        download(NAME, tmp_path, NOWHERE, patience=QUICK)
