"""A store is written whole or not at all, and what could go wrong is found before the work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_factory import assert_same, dissection, read_back, write_small

from ndissect.store.disk import Disk
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.files import atomic, check_writable, human_bytes
from ndissect.store.writer import write_store

BIG = {"a": (300, (7, 7)), "b": (500, (4, 4))}


def run(code: str, *args: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """``code`` in a process of its own, with tests/ to import from."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, check=check, env=environment
    )


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# --- killed ---------------------------------------------------------------------------------------------------------

# One parent that has imported everything forks a writer a time and kills it: the moments are then spread over the
# write itself and not over the imports.
KILLER = """
import json, os, random, signal, sys, time
from pathlib import Path
from ndissect.store.writer import write_store
from store_factory import assert_same, dissection, read_back
target, exists = Path(sys.argv[1]), sys.argv[2] == "exists"
layers = {"a": (300, (7, 7)), "b": (500, (4, 4))}
old, new = dissection(layers=layers, seed=1), dissection(layers=layers, seed=2)
start = time.monotonic()
write_store(target, new)
takes = time.monotonic() - start
rng = random.Random(0)
left = {"old": 0, "new": 0, "none": 0}
for turn in range(40):
    target.unlink()
    if exists:
        write_store(target, old)
    writer = os.fork()
    if writer == 0:
        write_store(target, new)
        os._exit(0)
    # Each eighth writer is killed at once and each eighth is let go, however busy the machine: both ends are seen.
    if turn % 8 != 7:
        time.sleep(rng.uniform(0, 1.5 * takes) if turn % 8 else 0)
        os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    if not target.exists():
        left["none"] += 1
        target.touch()
        continue
    found = read_back(target)
    which = "new" if found.layers[0].counts.area.tolist() == new.layers[0].counts.area.tolist() else "old"
    assert_same(found, new if which == "new" else old)
    left[which] += 1
print(json.dumps(left))
"""


@pytest.mark.parametrize("before", ["exists", "absent"])
def test_a_kill_at_any_moment_leaves_the_old_store_or_the_new_one(tmp_path: Path, before: str) -> None:
    done = run(KILLER, tmp_path / "a.nd.h5", before, check=False)
    assert done.returncode == 0, done.stderr
    left = json.loads(done.stdout)
    assert left["none"] == 0 if before == "exists" else left["old"] == 0
    assert left["new"] > 0
    assert left["old"] + left["none"] > 0
    assert {name for name in files(tmp_path) if not name.startswith(".")} <= {"a.nd.h5"}


def test_an_interrupt_leaves_the_old_store_and_no_temporary_file(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.nd.h5")
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), atomic(path) as part:
        part.write_bytes(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert files(tmp_path) == ["a.nd.h5"]


# --- a full disk ----------------------------------------------------------------------------------------------------

LIMITED = """
import resource, signal, sys
from pathlib import Path
from ndissect.store.errors import NDError
from ndissect.store.writer import write_store
from store_factory import dissection
made = dissection(layers={"a": (300, (7, 7)), "b": (500, (4, 4))}, seed=2)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in map(int, sys.argv[2:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write_store(Path(sys.argv[1]), made)
        print("written")
    except NDError as e:
        print(e.message, "|", e.hint)
"""


@pytest.mark.parametrize("exists", [True, False])
def test_a_disk_that_is_full_at_any_byte_of_the_file(tmp_path: Path, exists: bool) -> None:
    write_store(tmp_path / "whole.nd.h5", dissection(layers=BIG, seed=2))
    size = (tmp_path / "whole.nd.h5").stat().st_size
    (tmp_path / "whole.nd.h5").unlink()
    path = tmp_path / "a.nd.h5"
    before = write_small(path).read_bytes() if exists else b""
    limits = [0, 1, 100, 2048, *range(4096, size, size // 40), size - 1]
    done = run(LIMITED, path, *limits, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == len(limits)
    for limit, line in zip(limits, lines, strict=True):
        assert line.startswith(f"cannot write {path}: File too large | a file that was there before is unchanged"), (
            limit,
            line,
        )
        assert "free some space" in line
    assert files(tmp_path) == (["a.nd.h5"] if exists else [])
    if exists:
        assert path.read_bytes() == before


pieces = st.lists(st.tuples(st.integers(0, 60), st.binary(min_size=1, max_size=20)), max_size=12)


@settings(deadline=None)
@given(before=pieces, after=pieces, at=st.integers(0, 80), count=st.integers(1, 80))
def test_what_the_disk_refused_is_read_back_until_the_end_and_then_reported(
    tmp_path_factory: pytest.TempPathFactory, before: list, after: list, at: int, count: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "disk"
    expected = bytearray(200)
    path.write_bytes(b"")
    for allowed, writes in ((os.O_RDWR, before), (os.O_RDONLY, after)):
        fd = os.open(path, allowed)
        disk = Disk(fd)
        for where, data in writes:
            disk.seek(where)
            assert disk.write(data) == len(data)
            assert disk.tell() == where + len(data)
            expected[where : where + len(data)] = data
        found = bytearray(b"?" * count)
        disk.seek(at)
        assert disk.readinto(found) == count
        assert found == expected[at : at + count]
        if allowed == os.O_RDONLY and writes:
            disk.truncate(7)
            with pytest.raises(OSError, match="Bad file descriptor"):
                disk.check()
        else:
            disk.check()
        os.close(fd)
        if allowed == os.O_RDONLY:
            assert path.stat().st_size == max((w + len(d) for w, d in before), default=0)


def test_many_layers_on_a_full_disk(tmp_path: Path) -> None:
    """So many that HDF5 reads descriptions back which the disk never took."""
    code = LIMITED.replace('{"a": (300, (7, 7)), "b": (500, (4, 4))}', '{f"layer{i}": (2, (2, 2)) for i in range(150)}')
    assert code != LIMITED
    done = run(code, tmp_path / "a.nd.h5", 100_000, 700_000, 1_000_000_000, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.startswith("cannot write") and "File too large" in line for line in done.stdout.splitlines()] == [
        True,
        True,
        False,
    ]
    assert files(tmp_path) == ["a.nd.h5"]


def test_space_enough_is_enough(tmp_path: Path) -> None:
    assert run(LIMITED, tmp_path / "a.nd.h5", 10**9).stdout == "written\n"
    assert_same(read_back(tmp_path / "a.nd.h5"), dissection(layers=BIG, seed=2))


def tiny_disk(folder: Path) -> bool:
    return (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True).returncode
        == 0
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if not tiny_disk(disk):
        pytest.skip("mounting is not allowed here")
    try:
        path = write_small(disk / "a.nd.h5", images=False)
        before = path.read_bytes()
        with pytest.raises(NDError, match="No space left on device") as failed:
            write_store(path, dissection(layers=BIG))
        assert "free some space" in failed.value.hint
        assert path.read_bytes() == before
        assert files(disk) == ["a.nd.h5"]
        with pytest.raises(NDError, match=r"has .* free, the store needs about 1\.0 MB"):
            check_writable(path, 1_000_000)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(NDError, match="Read-only file system") as failed:
            check_writable(path, 0)
        assert "-o/--output" in failed.value.hint
        with pytest.raises(NDError, match="cannot write"):
            write_store(path, dissection())
        assert path.read_bytes() == before
    finally:
        subprocess.run(["umount", disk], check=False)


# --- found before the work ------------------------------------------------------------------------------------------

READ_ONLY = """
import os, sys
from pathlib import Path
from ndissect.store.errors import NDError
from ndissect.store.files import check_writable
from ndissect.store.writer import write_store
from store_factory import dissection
made = dissection()
if os.geteuid() == 0:
    os.setuid(65534)
for attempt in (lambda p: check_writable(p, 0), lambda p: write_store(p, made)):
    try:
        attempt(Path(sys.argv[1]))
    except NDError as e:
        print(e.message, "|", e.hint)
"""


def test_a_folder_that_may_not_be_written_to(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    write_small(folder / "a.nd.h5")
    for parent in tmp_path.parents:  # pytest's own folders are private
        if parent.stat().st_mode & 0o077 == 0:
            parent.chmod(0o755)
    tmp_path.chmod(0o755)
    folder.chmod(0o555)
    checked, written = run(READ_ONLY, folder / "a.nd.h5").stdout.splitlines()
    folder.chmod(0o755)
    assert checked.startswith(f"cannot write a.nd.h5 to the folder {folder}: Permission denied")
    assert "choose another place with -o/--output" in checked
    assert written.startswith(f"cannot write {folder / 'a.nd.h5'}: Permission denied")
    assert files(folder) == ["a.nd.h5"]


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "no" / "such" / "a.nd.h5"
    with pytest.raises(WrongUse, match="does not exist") as failed:
        check_writable(path, 0)
    assert f"mkdir -p {path.parent}" in failed.value.hint
    with pytest.raises(NDError, match="No such file or directory"):
        write_store(path, dissection())


def test_a_target_that_is_a_folder_or_lies_in_a_file(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="is a folder"):
        check_writable(tmp_path, 0)
    (tmp_path / "file").touch()
    with pytest.raises(WrongUse, match="does not exist"):
        check_writable(tmp_path / "file" / "a.nd.h5", 0)


def test_a_name_that_the_file_system_cannot_take_is_found_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(NDError, match="File name too long"):
        check_writable(tmp_path / ("n" * 300 + ".nd.h5"), 0)
    longest = tmp_path / ("n" * 249 + ".nd.h5")
    check_writable(longest, 0)
    assert_same(read_back(write_small(longest)), dissection())
    wide = tmp_path / ("街" * 83 + ".nd.h5")
    check_writable(wide, 0)
    assert_same(read_back(write_small(wide)), dissection())


def test_a_disk_with_too_little_space_is_found_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(NDError, match=r"the store needs about 1000000\.0 TB") as failed:
        check_writable(tmp_path / "a.nd.h5", 10**18)
    assert "free some space" in failed.value.hint


def test_the_check_leaves_nothing_behind_and_touches_nothing(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.nd.h5")
    before = path.stat()
    check_writable(path, 0)
    check_writable(tmp_path / "new.nd.h5", 0)
    assert files(tmp_path) == ["a.nd.h5"]
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_human_bytes() -> None:
    sizes = (0, 999, 1000, 3_400_000, 250_000_000, 1.2e9, 5e15)
    assert [human_bytes(n) for n in sizes] == ["0 B", "999 B", "1.0 kB", "3.4 MB", "250 MB", "1.2 GB", "5000.0 TB"]


def test_a_replaced_store_is_not_changed_under_who_reads_it(tmp_path: Path) -> None:
    from ndissect.store.reader import Store

    old, new = dissection(seed=1), dissection(seed=2)
    path = tmp_path / "a.nd.h5"
    write_store(path, old)
    with Store(path) as store:
        write_store(path, new)
        assert_same(store.layer("features.0").load(), old.layers[0])
    assert_same(read_back(path), new)
