"""What lies in the place of a saved state and is none: nothing is read from it, written to it, or deleted in it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import cli
import faults
import pytest
from faults import nd_in, numbers

from ndissect.engine.data.alone import alone
from ndissect.store.errors import NDError
from ndissect.store.paused import LOCK, MARK, known

OUT, STATE, SHARD = "out.nd.h5", ".out.nd.h5.saved", "out.nd.h5.shard-1-of-1"
RUN = ("dissect", "slow.py:network", "-d", "small", "-l", "first", "-b", "2", "--top", "3", "--null", "0", "-o", OUT)


@pytest.fixture(scope="module")
def stopped(stoppable_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was stopped half-way, and beside it a shard that is whole."""
    folder = Path(shutil.copytree(stoppable_inputs, tmp_path_factory.mktemp("stopped"), dirs_exist_ok=True))
    assert nd_in(folder, *RUN, "--shard", "1/1").returncode == 0
    assert faults.stopped(folder, *RUN, STOP_AT="6").returncode == 143
    return folder


@pytest.fixture
def folder(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "work", symlinks=True))


def everything(folder: Path) -> dict[str, tuple[object, ...]]:
    """All that lies in ``folder``: kinds, contents, and of files the times of change."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
        changed = 0 if path.is_dir() else about.st_mtime_ns  # whether it may be written to is tried in the user's own
        found[str(path.relative_to(folder))] = (about.st_mode, changed, content)
    return found


def victim(folder: Path) -> Path:
    """A folder of the user's own, of the very names that a run gives as well."""
    mine = folder / "mine"
    mine.mkdir()
    for name in ("thesis.txt", "run.json", "0.phase0.safetensors", "0.kept0.safetensors", "status.json"):
        (mine / name).write_text(f"{name}, three years of work")
    return mine


def a_link_to_a_folder(folder: Path) -> None:
    shutil.rmtree(folder / STATE)
    (folder / STATE).symlink_to(victim(folder.parent))


def a_link_to_the_state(folder: Path) -> None:
    (folder / STATE).rename(folder.parent / "mine")
    (folder / STATE).symlink_to(folder.parent / "mine")


def a_dangling_link(folder: Path) -> None:
    shutil.rmtree(folder / STATE)
    (folder / STATE).symlink_to(folder.parent / "mine")


def a_file(folder: Path) -> None:
    shutil.rmtree(folder / STATE)
    (folder / STATE).write_text("mine")


def a_folder_of_the_user(folder: Path) -> None:
    shutil.rmtree(folder / STATE)
    victim(folder.parent).rename(folder / STATE)


def a_folder_with_a_lock_of_the_user(folder: Path) -> None:
    shutil.rmtree(folder / STATE)
    (folder / STATE).mkdir()
    (folder / STATE / LOCK).write_text("mine")


def names_of_a_run_alone(folder: Path) -> None:
    """Without the mark: the names may be anybody's."""
    (folder / STATE / LOCK).write_text("")


def one_more_file(folder: Path) -> None:
    (folder / STATE / "thesis.txt").write_text("mine")


def one_more_folder(folder: Path) -> None:
    (folder / STATE / "0.kept7.safetensors").mkdir()


def linked(name: str) -> Callable[[Path], None]:
    def link(folder: Path) -> None:
        mine = victim(folder.parent)
        (folder / STATE / name).unlink(missing_ok=True)
        (folder / STATE / name).symlink_to(mine / "thesis.txt")

    link.__name__ = f"a_link_called_{name}"
    return link


LAID = [
    a_link_to_a_folder,
    a_link_to_the_state,
    a_dangling_link,
    a_file,
    a_folder_of_the_user,
    a_folder_with_a_lock_of_the_user,
    names_of_a_run_alone,
    one_more_file,
    one_more_folder,
    *(linked(name) for name in ("lock", "run.json", "status.json", "0.phase0.safetensors", "0.kept0.safetensors")),
    *(linked(name) for name in ("0.phase1.safetensors", ".run.json.123.part", "9.kept9.safetensors")),
]


@pytest.mark.parametrize("lay", LAID, ids=lambda lay: lay.__name__)
def test_what_no_run_has_saved_is_refused_and_stays_as_it_is(lay: Callable[[Path], None], folder: Path) -> None:
    lay(folder)
    before = everything(folder.parent)
    for more in ((), ("--restart",), ("--force",)):
        done = nd_in(folder, *RUN, *more)
        assert done.returncode == 1, (lay.__name__, more, done.stderr)
        cli.two_lines("\n".join(done.stderr.splitlines()[-2:]), STATE, "move it away: mv .out.nd.h5.saved", "-o")
        assert everything(folder.parent) == before
    assert nd_in(folder, "status").returncode in (0, 1)
    assert everything(folder.parent) == before


def test_the_folder_of_another_user_is_refused(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(folder / STATE, 65534, 65534)
    before = everything(folder)
    done = nd_in(folder, *RUN, "--restart")
    assert done.returncode == 1
    assert "belongs to another user" in done.stderr
    assert everything(folder) == before


def test_what_a_run_has_saved_is_gone_on_from_and_its_folder_goes(folder: Path) -> None:
    done = nd_in(folder, *RUN)
    assert done.returncode == 0, done.stderr
    assert "going on after 12 of 24 images" in done.stderr
    assert not (folder / STATE).exists()


# Shards


def shard_linked(folder: Path) -> None:
    (folder / SHARD).rename(folder.parent / "mine")
    (folder / SHARD).symlink_to(folder.parent / "mine")


def shard_with_more(folder: Path) -> None:
    (folder / SHARD / "thesis.txt").write_text("mine")


def shard_with_a_link(folder: Path) -> None:
    (folder / SHARD / "0.kept0.safetensors").rename(folder.parent / "part")
    (folder / SHARD / "0.kept0.safetensors").symlink_to(folder.parent / "part")


@pytest.mark.parametrize("lay", [shard_linked, shard_with_more, shard_with_a_link], ids=lambda lay: lay.__name__)
def test_a_shard_that_is_not_a_run_s_is_not_merged_and_not_removed(lay: Callable[[Path], None], folder: Path) -> None:
    lay(folder)
    before = everything(folder.parent)
    for args in ((OUT,), (SHARD, "-o", "other.nd.h5")):
        done = nd_in(folder, "merge", *args)
        assert (done.returncode, done.stdout) == (1, "")
        cli.two_lines(done.stderr, SHARD, "move it away")
        assert everything(folder.parent) == before


def test_a_file_put_into_a_shard_while_it_is_merged_stays(folder: Path) -> None:
    from ndissect.engine.run.merge import open_shards

    [shard] = open_shards([folder / SHARD])
    (folder / SHARD / "thesis.txt").write_text("mine")
    shard.saved.remove()
    assert [path.name for path in (folder / SHARD).iterdir()] == ["thesis.txt"]


def test_a_whole_shard_is_merged_and_removed(folder: Path) -> None:
    assert nd_in(folder, "merge", OUT).returncode == 0
    assert not (folder / SHARD).exists()
    merged = numbers(folder / OUT)
    assert nd_in(folder, *RUN, "--force").returncode == 0
    assert numbers(folder / OUT) == merged


@pytest.mark.parametrize("file", ["run.json", "0.phase0.safetensors", "0.kept0.safetensors"])
def test_a_bit_that_changed_in_a_shard_is_told_with_what_runs_it_again(file: str, folder: Path) -> None:
    path = folder / SHARD / file
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.write_bytes(raw)
    done = nd_in(folder, "merge", OUT)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    cli.two_lines(done.stderr, f"{SHARD} cannot be read", "--restart")
    assert not (folder / OUT).exists()
    again = nd_in(folder, *RUN, "--shard", "1/1", "--restart")
    assert again.returncode == 0, again.stderr
    assert nd_in(folder, "merge", OUT).returncode == 0


# While a run is at work


def test_a_link_laid_while_a_run_is_at_work_is_not_written_through(folder: Path) -> None:
    with faults.held(folder, *RUN, STOP_AT="4") as command:
        mine = victim(folder.parent)
        (folder / STATE).rename(folder / "away")
        (folder / STATE).symlink_to(mine)
        before = everything(mine)
        command.signal(signal.SIGTERM)
    done = command.end()
    assert "cannot save to .out.nd.h5.saved: that folder has gone" in done.stderr
    assert "what was counted is saved" not in done.stderr
    assert everything(mine) == before


# Locks


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder"])
def test_a_lock_is_a_file_that_is_neither_cut_nor_made_elsewhere(kind: str, tmp_path: Path) -> None:
    lock, mine = tmp_path / "x.lock", tmp_path / "mine"
    if kind == "link":
        mine.write_text("mine")
    if kind in ("link", "dangling"):
        lock.symlink_to(mine)
    elif kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.mkdir()
    before = everything(tmp_path)
    with pytest.raises(NDError, match="is a link, or no file"), alone(lock, "busy"):
        pass
    assert everything(tmp_path) == before


def test_what_a_lock_holds_stays(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    lock.write_text("mine")
    with alone(lock, "busy"):
        pass
    assert lock.read_text() == "mine"


def test_names_that_a_run_gives_and_no_others_are_known() -> None:
    ours = ["run.json", "status.json", "lock", "0.phase0.safetensors", "12.kept345.safetensors"]
    ours += [".run.json.123.part", ".0.phase0.safetensors.123.0a1b2c3d4e5f.part", ".0.kept3.safetensors.1.part"]
    assert [name for name in ours if not known(name)] == []
    others = [
        "run.json~",
        "Run.json",
        "0.phase0.pt",
        "phase0.safetensors",
        "0.phase0.safetensors.bak",
        "x",
        ".lock.1.part",
    ]
    others += ["٣.phase0.safetensors", "0.kept0.safetensors\n", ".run.json.a.b.c.part", "../run.json", "", ".part"]
    assert [name for name in others if known(name)] == []
    assert MARK
