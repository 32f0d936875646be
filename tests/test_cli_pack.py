"""``nd data pack``: told beforehand, stopped and gone on with, one at a time, and used by every later run."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import cli
import h5py
import numpy as np
import pytest
from broden_factory import Concept, Picture, write_broden

ROW = 40  # bytes of an image in index.bin
TOGETHER = 256  # images between two moments at which what is packed is safe from a kill
MANY, STUCK = 300, 280


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return cli.write_inputs(tmp_path)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A folder with the data set ``many``: more images than one kill may cost."""
    rng = np.random.default_rng(2)
    maps = [rng.choice([0, 3], (4, 4)) for _ in range(MANY)]
    write_broden(tmp_path / "many", [Picture({"object": m}) for m in maps], [Concept(3, "tree")], image_size=(8, 8))
    return tmp_path


def packs(place: Path) -> Path:
    return place / "cache" / "packed"


def part_of(place: Path) -> Path:
    (part,) = packs(place).glob(".*.part")
    return part


def held(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix == ".bin"}


# An image itself cannot be waited for: only regular files are opened.
WAITS = """
import os, pathlib

_open = os.open

def wait(path, *args, **more):
    if os.path.basename(os.fspath(path)) == {image!r}:
        pathlib.Path({pipe!r}).read_bytes()
    return _open(path, *args, **more)

os.open = wait
"""


@contextlib.contextmanager
def stuck(place: Path, cache: Path | None = None) -> Iterator[tuple[subprocess.Popen[str], BinaryIO]]:
    """``nd data pack many`` that waits before it opens one image, and the pipe on whose end it waits."""
    image, waiting = place / "many" / "images" / "made" / f"{STUCK:04d}.png", place / "waiting"
    os.mkfifo(waiting)
    (place / "site").mkdir()
    (place / "site" / "sitecustomize.py").write_text(WAITS.format(image=str(image.name), pipe=str(waiting)))
    more = {"PYTHONPATH": str(place / "site")} | ({"ND_CACHE": str(cache)} if cache else {})
    env = cli.environment(place, more)
    args = [str(cli.ND), "data", "pack", "many", "--workers", "2"]
    process = subprocess.Popen(args, cwd=place, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    index = (cache or place / "cache") / "packed"

    def waits() -> bool:
        return any(p.stat().st_size >= TOGETHER * ROW for p in index.glob(".*.part/index.bin"))

    try:
        deadline = time.monotonic() + 60
        pipe = None
        while pipe is None or not waits():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
            with contextlib.suppress(OSError):  # nobody reads yet
                pipe = pipe or os.fdopen(os.open(waiting, os.O_WRONLY | os.O_NONBLOCK), "wb")
        with pipe:
            yield process, pipe
    finally:
        process.kill()
        process.communicate()


def refused(done: subprocess.CompletedProcess[str], code: int, *said: str) -> None:
    """Assert a failure after the line that tells the size."""
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    lines = done.stderr.splitlines(keepends=True)
    cli.two_lines("".join(lines[-2:]), *said)


# A pack from its beginning to its end


def test_a_pack_is_told_beforehand_written_once_shown_and_removed(place: Path) -> None:
    assert cli.json_of("data", "info", "small", folder=place)["pack"] is None
    done = cli.nd("data", "pack", "small", folder=place)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert folder.parent == packs(place)
    size, packed, later = done.stderr.splitlines()
    assert re.fullmatch(rf"small: 12 images, about \d+(\.\d)? kB in {folder}; .* free", size)
    assert re.fullmatch(r"12 images packed, .* kB in \d+\.\d s, \d+ images/s", packed)
    assert later == "later runs use it by themselves"
    shown = cli.json_of("data", "info", "small", folder=place)["pack"]
    assert shown["path"] == str(folder)
    assert shown["bytes"] == sum(len(data) for data in held(folder).values())
    seen = cli.on_terminal("data", "info", "small", folder=place, columns=200)
    assert f"packed: {folder}" in seen.text
    made = (folder / "pack.json").stat().st_mtime_ns
    again = cli.nd("data", "pack", "small", folder=place)
    assert (again.returncode, again.stdout) == (0, f"{folder}\n")
    assert "small is packed already" in again.stderr
    assert "--force" in again.stderr
    assert (folder / "pack.json").stat().st_mtime_ns == made
    before = held(folder)
    assert cli.nd("data", "pack", "small", "--force", folder=place).returncode == 0
    assert (folder / "pack.json").stat().st_mtime_ns != made
    assert held(folder) == before
    removed = cli.nd("data", "pack", "small", "--remove", folder=place)
    assert (removed.returncode, removed.stdout) == (0, "")
    assert removed.stderr.startswith(f"removed {folder}, ")
    assert not folder.exists()
    nothing = cli.nd("data", "pack", "small", "--remove", folder=place)
    assert (nothing.returncode, nothing.stderr) == (0, "small is not packed\n")
    cli.failed(cli.nd("data", "pack", "small", "--remove", "--force", folder=place), 2, "--force", "--remove")
    cli.failed(cli.nd("data", "pack", "smell", folder=place), 2, "smell")


def test_a_terminal_shows_the_progress(place: Path) -> None:
    seen = cli.on_terminal("data", "pack", "small", folder=place)
    assert seen.code == 0
    assert "packing" in seen.text
    assert "12/12" in seen.text
    assert all(len(line) <= 80 for line in seen.lines if "packed" not in line), "but for paths"


def numbers(store: Path) -> dict[str, bytes]:
    """Every array of a store."""
    found: dict[str, bytes] = {}

    def keep(name: str, item: h5py.HLObject) -> None:
        if isinstance(item, h5py.Dataset) and "provenance" not in name:
            found[name] = repr(item.asstr()[()].tolist()).encode() if item.dtype == object else item[()].tobytes()

    with h5py.File(store) as file:
        file.visititems(keep)
    return found


def test_a_dissection_uses_the_pack_by_itself_and_finds_the_same(tmp_path: Path) -> None:
    place = cli.workplace(tmp_path)
    assert cli.nd("data", "pack", "small", folder=place).returncode == 0
    shutil.rmtree(place / "small" / "images")
    done = cli.nd(*cli.DISSECT, "-o", "packed.nd.h5", folder=place)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert "note" not in done.stderr
    plain, packed = place / "net-small.nd.h5", place / "packed.nd.h5"
    assert len(numbers(plain)) > 10
    assert numbers(packed) == numbers(plain)
    digests = []
    for path in (plain, packed):
        text = path.read_bytes()
        digests.append(re.findall(rb'"content_digest": ?"([0-9a-f]{32})"', text))
    assert len(digests[0]) == 1
    assert digests[0] == digests[1]


def test_a_stale_pack_is_not_used_and_every_command_says_so(tmp_path: Path) -> None:
    place = cli.workplace(tmp_path)
    assert cli.nd("data", "pack", "small", folder=place).returncode == 0
    image = place / "small" / "images" / "made" / "0003.png"
    image.write_bytes(image.read_bytes() + b"more")
    done = cli.nd(*cli.DISSECT, "-o", "again.nd.h5", folder=place)
    assert done.returncode == 0, done.stderr
    note = next(line for line in done.stderr.splitlines() if line.startswith("note: the pack "))
    assert "images/made/0003.png has changed" in note
    assert "nd data pack small" in note
    shown = cli.nd("data", "info", "small", "--json", folder=place)
    assert '"pack": null' in shown.stdout
    assert note in shown.stderr.splitlines()
    done = cli.nd("data", "pack", "small", folder=place)
    assert done.returncode == 0
    assert note in done.stderr.splitlines()
    assert cli.nd("data", "info", "small", folder=place).stderr == ""


# Stopped


def test_a_pack_that_was_killed_goes_on_where_it_was(many: Path) -> None:
    with stuck(many) as (process, _):
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    assert list(packs(many).glob("many-*")) == [], "nothing has its final name yet"
    assert cli.json_of("data", "info", "many", folder=many)["pack"] is None
    done = cli.nd("data", "pack", "many", folder=many)
    assert done.returncode == 0, done.stderr
    assert f"goes on after the {TOGETHER} images that are packed" in done.stderr
    folder = Path(done.stdout.strip())
    gone_on = held(folder)
    assert cli.nd("data", "pack", "many", "--force", folder=many).returncode == 0
    assert held(folder) == gone_on
    assert not list(packs(many).glob(".*.part"))


def test_ctrl_c_says_how_to_go_on(many: Path) -> None:
    with stuck(many) as (process, pipe):
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        pipe.close()  # the thread that waits goes on
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    stopped, hint = err.splitlines()[-2:]
    packed = re.fullmatch(r"nd: stopped; (\d+) of 300 images are packed", stopped)
    assert packed, err
    assert TOGETHER <= int(packed[1]) <= STUCK, "an interrupt costs nothing"
    assert hint == "    go on where it was: nd data pack many --workers 2"
    done = cli.nd("data", "pack", "many", folder=many)
    assert f"goes on after the {packed[1]} images" in done.stderr


def test_a_second_pack_of_the_same_data_is_refused_while_the_first_runs(many: Path) -> None:
    with stuck(many) as (process, _):
        refused(cli.nd("data", "pack", "many", folder=many), 1, "Another process is packing many", "Wait")
        refused(cli.nd("data", "pack", "many", "--remove", folder=many), 1, "Another process is packing many")
        assert process.poll() is None
        assert part_of(many).is_dir()
    assert cli.nd("data", "pack", "many", folder=many).returncode == 0, "a kill releases the lock"


def test_files_that_cannot_grow_end_in_one_error_and_nothing_is_lost(many: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (52000, 52000))"
    done = cli.nd("data", "pack", "many", folder=many, before=limit)
    refused(done, 1, "cannot be written: File too large", "run the same command again", "ND_CACHE")
    done = cli.nd("data", "pack", "many", folder=many)
    assert done.returncode == 0, done.stderr
    assert f"goes on after the {TOGETHER} images" in done.stderr


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 512 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "nd-test", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("only root can make a disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up_ends_in_one_error_and_what_was_packed_is_kept(many: Path, disk: Path) -> None:
    filler = disk / "filler"
    with stuck(many, cache=disk) as (process, pipe):
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        pipe.close()
        out, err = process.communicate(timeout=60)
    refused(subprocess.CompletedProcess([], process.returncode, out, err), 1, "No space left on device", "run the same")
    env = {"ND_CACHE": str(disk)}
    done = cli.nd("data", "pack", "many", "--workers", "2", folder=many, env=env)
    refused(done, 1, "To pack many takes about", "has 0.0 MB free")
    filler.unlink()
    done = cli.nd("data", "pack", "many", folder=many, env=env)
    assert done.returncode == 0, done.stderr
    assert f"goes on after the {TOGETHER} images" in done.stderr


def test_bad_images_are_refused_with_the_command_that_lists_them(place: Path) -> None:
    (place / "small" / "images" / "made" / "0001.png").write_bytes(b"")
    done = cli.nd("data", "pack", "small", folder=place)
    refused(done, 1, "1 of 12 images cannot be used: images/made/0001.png: ", "nd data check small")
