"""Files on their way: made by us alone under names that nobody can foresee, cleared away after a kill, never a link."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ndissect.store.errors import NDError
from ndissect.store.files import (
    atomic,
    atomic_folder,
    being_written,
    new_file,
    own_file,
    own_folder,
    remedy,
    remove_left_overs,
)
from ndissect.store.live import RunWriter, partial_file, run_file


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_every_write_has_a_name_of_its_own(tmp_path: Path) -> None:
    target = tmp_path / "x.nd.h5"
    names = {being_written(target, 7).name for _ in range(50)}
    assert len(names) == 50
    with atomic(target) as part:
        assert part.is_file(), "it is there, made by us, before anything is written"
        assert str(os.getpid()) in part.name
        part.write_bytes(b"new")
    assert os.listdir(tmp_path) == ["x.nd.h5"]  # noqa: PTH208 - hidden ones too


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o027])
def test_what_is_written_has_the_permissions_of_any_new_file(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with atomic(tmp_path / "a") as part:
            part.write_bytes(b"new")
        with atomic_folder(tmp_path / "b") as folder:
            (folder / "c").write_bytes(b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o777 & ~umask


def test_links_at_the_names_of_old_are_in_nobodys_way(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    target = tmp_path / "x.nd.h5"
    pid = os.getpid()
    for name in (f".x.nd.h5.{pid}.part", f".x.nd.h5.{pid}.old", f".x.nd.h5.{pid}.tmp", "..x.nd.h5.run.{pid}.part"):
        (tmp_path / name).symlink_to(victim)
    with RunWriter(target, "nd", ()):
        run_file(target).unlink()
        run_file(target).symlink_to(victim)
        partial_file(target).symlink_to(victim)
    with atomic(target) as part:
        part.write_text("new")
    with atomic_folder(tmp_path / "f"):
        pass
    assert victim.read_text() == "mine"
    assert target.read_text() == "new"


def test_a_link_that_the_user_names_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    target = tmp_path / "x"
    target.symlink_to(victim)
    with atomic(target) as part:
        part.write_text("new")
    assert victim.read_text() == "mine"
    assert not target.is_symlink()
    assert target.read_text() == "new"


def test_a_link_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "mine").touch()
    (tmp_path / "x").symlink_to(tmp_path / "victim")
    with pytest.raises(NDError, match="is a link"), atomic_folder(tmp_path / "x"):
        raise AssertionError
    with pytest.raises(OSError, match="not followed"):
        own_folder(tmp_path / "x")
    assert (tmp_path / "victim" / "mine").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["victim", "x"]


def test_a_folder_that_came_to_hold_other_files_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.mkdir()
    with pytest.raises(NDError, match="did not write"), atomic_folder(target, lambda f: not any(f.iterdir())):
        (target / "mine").write_text("mine")
    assert (target / "mine").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_what_killed_runs_left_goes_and_nothing_else(tmp_path: Path, dead: int) -> None:
    target, elsewhere = tmp_path / "x.nd.h5", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").touch()
    left, folder, link = (being_written(target, dead) for _ in range(3))
    left.touch()
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "link").symlink_to(elsewhere)
    link.symlink_to(elsewhere)
    others = [
        being_written(tmp_path / "y.nd.h5", dead),
        being_written(target, os.getpid()),
        tmp_path / f".x.nd.h5.{dead}.part",
        tmp_path / f".x.nd.h5.{dead}.mine.part",
        tmp_path / ".x.nd.h5.part",
    ]
    far = being_written(target, dead)  # a process of another machine, of which nothing is known here
    far = far.with_name(far.name.replace(far.name.split(".")[-2][:8], "0" * 8))
    for path in (*others, far):
        path.touch()
    remove_left_overs(target)
    assert {p.name for p in tmp_path.iterdir()} == {link.name, "elsewhere", far.name, *(p.name for p in others)}
    assert (elsewhere / "mine").exists()
    os.utime(far, (time.time() - 90_000,) * 2)
    remove_left_overs(target)
    assert not far.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_files_of_another_user_are_left_alone(tmp_path: Path, dead: int) -> None:
    left = being_written(tmp_path / "x", dead)
    left.touch()
    os.chown(left, 12345, 12345)
    remove_left_overs(tmp_path / "x")
    assert left.exists()


def test_the_next_write_clears_away_what_a_killed_one_left(tmp_path: Path) -> None:
    code = "import os, signal, sys; from pathlib import Path; from ndissect.store.files import atomic\n"
    code += "with atomic(Path(sys.argv[1])) as part: part.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], check=False)
    assert [p.name.endswith(".part") for p in tmp_path.iterdir()] == [True]
    with atomic(tmp_path / "x") as part:
        part.write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("renamed", [1, 2])
def test_a_folder_whose_replacement_was_killed_half_way_comes_back(tmp_path: Path, renamed: int) -> None:
    """A real process is killed at one of the two renames that put a new folder in place of the old one."""
    target = tmp_path / "x"
    with atomic_folder(target) as folder:
        (folder / "page").write_text("old")
    code = """
import os, signal, sys
from pathlib import Path
from ndissect.store.files import atomic_folder
left, rename = [int(sys.argv[2])], Path.rename
def killed(self, to):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, to)
Path.rename = killed
with atomic_folder(Path(sys.argv[1])) as folder:
    (folder / "page").write_text("new")
"""
    done = subprocess.run([sys.executable, "-c", code, str(target), str(renamed)], check=False)
    assert done.returncode < 0
    assert target.exists() == (renamed == 1)
    assert len(list(tmp_path.iterdir())) == 2
    remove_left_overs(target)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert (target / "page").read_text() == "old"


def test_only_a_file_of_its_own_name_is_opened(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "link").symlink_to(victim)
    os.link(victim, tmp_path / "hard")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("link", "hard", "pipe", "dangling"):
        for mode in ("wb", "ab", "rb"):
            with pytest.raises(OSError):
                open(tmp_path / name, mode, opener=own_file)  # noqa: SIM115
    assert victim.read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "own").write_text("longer than before")
    with open(tmp_path / "own", "w", opener=own_file) as file:
        file.write("new")
    assert (tmp_path / "own").read_text() == "new"


def test_a_new_file_never_takes_one_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "victim").write_text("mine")
    monkeypatch.setattr(os, "urandom", bytes)  # whoever could foresee the name
    (tmp_path / being_written(tmp_path / "x", os.getpid()).name).symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError):
        new_file(tmp_path / "x")
    assert (tmp_path / "victim").read_text() == "mine"


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EACCES, "writable"),
        (errno.EROFS, "elsewhere"),
        (errno.ENAMETOOLONG, "shorter name"),
        (errno.ELOOP, "move what lies there"),
        (errno.EMFILE, "ulimit"),
        (errno.EIO, "elsewhere"),
    ],
)
def test_what_is_advised_fits_the_cause(number: int, says: str) -> None:
    hint = remedy(OSError(number, os.strerror(number)), "write elsewhere")
    assert says in hint
    assert "elsewhere" in hint
    assert ("space" in hint) == (number in (errno.ENOSPC, errno.EDQUOT))


def test_causes_that_are_no_full_disk_are_not_told_as_one(tmp_path: Path) -> None:
    from ndissect.engine.data.synthetic import write_synthetic
    from ndissect.engine.demo import scenes

    (tmp_path / "file").touch()
    for write in (lambda path: write_synthetic(path, 1, workers=1), lambda path: scenes.write(path, images=1)):
        for target in (tmp_path / "file" / "set", tmp_path / ("x" * 300), tmp_path / ("y" * 300) / "set"):
            with pytest.raises((NDError, OSError)) as failed:
                write(target)
            assert isinstance(failed.value, NDError)
            assert "space" not in failed.value.hint, failed.value.hint
    assert shutil.disk_usage(tmp_path).free
