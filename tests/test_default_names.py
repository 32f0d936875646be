"""Files that nd names after what a store says lie where it writes; suggestions are quoted; only its own is deleted."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import cli
import numpy as np
import pytest
from PIL import Image
from store_factory import dissection

from ndissect.engine.data.broden import Broden
from ndissect.engine.data.pack import pack, remove_pack
from ndissect.engine.data.packed import pack_folder, part_folder
from ndissect.engine.machine.progress import Progress
from ndissect.store.errors import NDError
from ndissect.store.reader import Store
from ndissect.store.writer import write_store
from ndissect.tui.app import pictures
from ndissect.tui.app.export import export
from ndissect.tui.app.layers import layers_listing
from ndissect.tui.app.session import Session

LAYERS = ["../../x", "-rf", "$(touch pwned)", "a b"]


def is_safe(name: str) -> None:
    assert Path(name).name == name
    assert name[0] not in ".-~"


# Stores of others, through the commands


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder two levels below one that is looked at, with a store of hostile layers' names."""
    folder = tmp_path_factory.mktemp("around") / "up" / "here"
    folder.mkdir(parents=True)
    names = ["../../x", "-rf", "$(touch pwned)", "a b"]
    write_store(folder / "evil.nd.h5", dissection(layers=dict.fromkeys(names, (3, (4, 4)))))
    return folder


def outside(place: Path) -> set[str]:
    return {str(p) for p in place.parent.parent.rglob("*") if not p.is_relative_to(place)}


@pytest.mark.parametrize("layer", LAYERS)
def test_an_overlay_without_a_name_is_written_to_the_current_folder(place: Path, layer: str) -> None:
    before = outside(place)
    done = cli.nd("overlay", "-s", "evil.nd.h5", "--json", "--", f"{layer}:1", folder=place)
    assert done.returncode == 0, done.stderr
    name = json.loads(done.stdout)["path"]
    is_safe(name)
    assert (place / name).is_file()
    assert outside(place) == before
    again = cli.nd("overlay", "-s", "evil.nd.h5", "--", f"{layer}:1", folder=place)
    assert again.returncode == 0, "it may be drawn anew"


def test_reports_tables_and_exemplars_are_written_to_the_current_folder(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    store = folder / "-report.nd.h5"
    store.write_bytes((place / "evil.nd.h5").read_bytes())
    for command in (
        ("report", "-s", "./-report.nd.h5"),
        ("export", "-s", "./-report.nd.h5", "--format", "milan", "-o", "ex"),
        ("export", "-s", "./-report.nd.h5", "a b", "-o", "./-table.csv"),
        ("import", "./-table.csv"),
    ):
        done = cli.nd(*command, folder=folder)
        assert done.returncode == 0, done.stderr
    assert {p.name for p in folder.iterdir()} >= {"report.html", "ex", "-table.csv", "table.nd.h5"}
    assert {p.name for p in tmp_path.iterdir()} == {"here"}
    assert all(p.is_relative_to(folder / "ex") and p.name[0] not in ".-" for p in (folder / "ex").rglob("*"))


COMMAND = re.compile(r"nd (?:inspect|overlay|export|merge)[^\n]*?(?=    nd |; |$)", re.M)


def test_commands_that_are_suggested_run_as_they_are_pasted(place: Path) -> None:
    filtered = cli.nd("inspect", "-s", "evil.nd.h5", "--min-iou", "0.1", folder=place)
    of_a_unit = cli.nd("inspect", "-s", "evil.nd.h5", "--max-q", "0.5", "--", "-rf:1", folder=place)
    shown = cli.on_terminal("inspect", "-s", "evil.nd.h5", "--", "$(touch pwned):1", folder=place, columns=200)
    table = cli.nd("export", "-s", "evil.nd.h5", folder=place)
    said = COMMAND.findall("\n".join([filtered.stderr, of_a_unit.stderr, shown.text, table.stderr]))
    assert len(said) == 4, said
    for command in said:
        environ = cli.environment(place, {"ND_STORE": "evil.nd.h5"})
        done = subprocess.run(["sh", "-c", command], cwd=place, env=environ, capture_output=True)
        assert done.returncode == 0, (command, done.stderr)
    assert not (place / "pwned").exists()


def test_an_imported_tables_store_is_suggested_in_quotes(place: Path, tmp_path: Path) -> None:
    done = cli.nd("export", "-s", "evil.nd.h5", "a b", "-o", str(tmp_path / "a b.csv"), folder=place)
    assert done.returncode == 0, done.stderr
    done = cli.nd("import", "a b.csv", folder=tmp_path)
    assert done.stderr == "next: nd inspect -s 'a b.nd.h5'\n"


@pytest.mark.parametrize("name", ["../../x", "..", "-x", ".x"])
def test_a_listing_is_taken_to_the_folder_and_stays_visible(place: Path, tmp_path: Path, name: str) -> None:
    session = Session(place / "evil.nd.h5")
    (tmp_path / "here").mkdir()
    path = export(layers_listing(session), np.arange(1), tmp_path / "here", Path(name))
    session.close()
    assert path.parent == tmp_path / "here"
    is_safe(path.name)


# The cache of pictures


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pictures, "_MOST_PICTURES", 2)
    return tmp_path / "cache" / "overlays"


def test_only_pictures_of_the_cache_are_deleted_to_make_room(place: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    mine = {"holiday.png", "holiday-17.png", "evil-a_b-9.png", "drawn-1.png", "notes-3.png"}
    for name in mine - {"drawn-1.png", "notes-3.png"}:
        Image.new("RGB", (4, 4)).save(cache / name)
    (cache / "notes-3.png").write_text("no picture")
    done = cli.nd("overlay", "-s", "evil.nd.h5", "a b:0", "-o", str(cache / "drawn-1.png"), folder=place)
    assert done.returncode == 0, done.stderr
    (cache / "link-5.png").symlink_to(cache / "holiday.png")
    for name in mine:
        os.utime(cache / name, (0, 0))
    before = {name: (cache / name).read_bytes() for name in mine}
    with Store(place / "evil.nd.h5") as store:
        drawn = [pictures.draw(store.layer(layer), unit, truth=False) for layer in LAYERS for unit in range(3)]
    assert {path.parent for path in drawn} == {cache}
    assert {name: (cache / name).read_bytes() for name in mine} == before
    assert (cache / "link-5.png").is_symlink()
    left = [path for path in drawn if path.exists()]
    assert left == drawn[-2:], "of its own the newest are kept"


def test_a_picture_of_the_users_own_is_not_drawn_over(place: Path, cache: Path) -> None:
    with Store(place / "evil.nd.h5") as store:
        first = pictures.draw(store.layer("a b"), 0, truth=False)
        assert pictures.draw(store.layer("a b"), 0, truth=False) == first, "its own is drawn anew"
        Image.new("RGB", (4, 4)).save(first)
        mine = first.read_bytes()
        second = pictures.draw(store.layer("a b"), 0, truth=False)
        victim = cache / "victim"
        victim.write_text("mine")
        second.unlink()
        second.symlink_to(victim)
        third = pictures.draw(store.layer("a b"), 0, truth=False)
    assert len({first, second, third}) == 3
    assert first.read_bytes() == mine
    assert victim.read_text() == "mine"


# Packs


@pytest.fixture
def data(tmp_path: Path, cache: Path) -> Broden:
    return Broden(cli.write_inputs(tmp_path / "inputs") / "small")


class _Stop(Progress):
    def advance(self, images: int) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("file", ["images.bin", "maps.bin", "labels.bin", "index.bin"])
def test_packing_goes_on_through_no_link(data: Broden, tmp_path: Path, file: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        pack(data, _Stop(), workers=1)
    begun = part_folder(data) / file
    victim = tmp_path / "victim"
    victim.write_bytes(begun.read_bytes() + b"more")
    before = victim.read_bytes()
    begun.unlink()
    begun.symlink_to(victim)
    with pytest.raises(NDError, match=re.escape(file)):
        pack(data)
    assert victim.read_bytes() == before


def test_what_is_not_of_a_pack_is_not_deleted_with_it(data: Broden) -> None:
    folder = pack(data)
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(NDError, match=r"holds mine\.txt"):
        remove_pack(data)
    assert (folder / "mine.txt").read_text() == "mine"
    (folder / "mine.txt").unlink()
    folder.rmdir()
    pack_folder(data).write_text("mine too")
    pack(data)
    assert [p.read_text() for p in folder.parent.glob("*.aside")] == ["mine too"]
