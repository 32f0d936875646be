"""What is deleted from a folder of ours: files known by name, and nothing that a link leads to."""

from __future__ import annotations

from pathlib import Path

import pytest

from ndissect.store.files import remove_known


def test_files_of_known_names_go_and_the_folder_with_them(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    for name in ("a.part", "b.part"):
        (folder / name).write_text("ours")
    remove_known(folder, lambda name: name.endswith(".part"))
    assert not folder.exists()


def test_other_files_sub_folders_and_links_stay_and_keep_the_folder(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("not ours")
    folder = tmp_path / "state"
    (folder / "sub.part").mkdir(parents=True)
    (folder / "sub.part" / "c.part").write_text("deeper")
    (folder / "mine.txt").write_text("the user's")
    (folder / "link.part").symlink_to(victim)
    (folder / "a.part").write_text("ours")
    remove_known(folder, lambda name: name.endswith(".part"))
    assert sorted(p.name for p in folder.iterdir()) == ["link.part", "mine.txt", "sub.part"]
    assert (folder / "sub.part" / "c.part").exists()
    assert victim.read_text() == "not ours"


def test_a_link_in_place_of_the_folder_is_left_alone(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.part").write_text("not ours")
    link = tmp_path / "state"
    link.symlink_to(elsewhere)
    remove_known(link, lambda _name: True)
    assert link.is_symlink()
    assert (elsewhere / "a.part").read_text() == "not ours"
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    remove_known(loop, lambda _name: True)
    assert loop.is_symlink()


@pytest.mark.parametrize("made", ["nothing", "file"])
def test_no_folder_there_is_no_error(tmp_path: Path, made: str) -> None:
    if made == "file":
        (tmp_path / "state").write_text("a file")
    remove_known(tmp_path / "state", lambda _name: True)
    assert (tmp_path / "state").exists() is (made == "file")
