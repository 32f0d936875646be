"""The terminal UI over what nobody hopes for: empty, damaged and strange stores, viewers that fail, poor terminals.

Whatever it is, there is a message in the UI, never a traceback, and the screen keeps its lines and columns.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from browsing import Visit, words
from store_factory import CONCEPTS, dissection, jpeg, write_small

from ndissect.store.errors import NDError
from ndissect.store.model import Dissection
from ndissect.store.reader import Store
from ndissect.store.scores import best_per_category
from ndissect.store.table2017 import read_table, write_table
from ndissect.store.writer import write_store
from ndissect.tui.app.start import bookmark_named

#: Through every screen, with every kind of key, and back.
WALK = (
    *("j", "k", "G", "g", "s", "[", "]", "n", "y", "c", "space", "space", "c", "escape", "enter"),
    *("j", "pagedown", "ctrl+u", "s", "s", "]", "space", "space", "c", "j", "?", "escape", "escape", "y", "g"),
    *("/", "a", "enter", "n", "N", "escape", "enter", "j", "j", "G", "n", "N", "o", "t", "O", "escape", "y", "h"),
    *("2", "s", "s", "/", "c", "a", "t", ":", "escape", "escape", "enter", "enter", "enter", "1"),
    *("3", "j", "3", "enter", "enter", "1", "4", "y", "1", "?", "G", "escape", ":", "escape", "e", "r"),
    *("1", "G", "enter", "enter", "escape", "escape", "p"),
)  # fmt: skip


#: The same in short: each screen once.
SHORT = (
    *("enter", "enter", "h", "h", "G", "enter", "enter", "2", "enter", "enter", "1", "3", "enter", "1"),
    *("g", "space", "space", "c", "escape", "4", "1", "g", "enter", "space", "space", "c", "escape"),
)  # fmt: skip


def walk(visit: Visit, keys: Sequence[str] = WALK) -> str:
    """Press ``keys``, look at the screen after each, and return all messages that were seen."""
    notices = []
    for key in keys:
        if key == "p" and visit.app.images.image_widget is None:  # without a terminal the UI cannot step aside
            continue
        visit.press(key)
        assert visit.app.is_running, key
        assert visit.crumbs
        notices.append(visit.notice)
    return "\n".join(dict.fromkeys(notices))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(path: Path, made: Dissection) -> Path:
    write_store(path, made)
    return path


def weak(made: Dissection, divisor: int) -> Dissection:
    """``made`` where every unit shares so many times fewer pixels with each concept."""
    layers = []
    for layer in made.layers:
        assert layer.counts is not None
        counts = replace(layer.counts, intersection=layer.counts.intersection // divisor)
        best = best_per_category(
            counts,
            made.concept_counts,
            made.concepts.category,
            len(made.concepts.categories),
            made.protocol.union,
            dead=layer.statistics.dead,
        )
        layers.append(replace(layer, counts=counts, best=best))
    return replace(made, layers=tuple(layers))


def named(names: Sequence[str], made: Dissection | None = None) -> Dissection:
    """A dissection whose concepts are called ``names`` from the first on."""
    made = made or dissection()
    all_names = [*names, *made.concepts.name[len(names) :]][: len(made.concepts)]
    return replace(made, concepts=replace(made.concepts, name=tuple(all_names)))


# Little in the store


@pytest.mark.parametrize("columns", [80, 160])
def test_a_store_without_layers(folder: Path, columns: int) -> None:
    with Visit(write_small(folder / "none.nd.h5", layers={}), size=(columns, 24)) as visit:
        assert "this store holds no layer" in visit.text
        assert visit.position == "0/0"
        visit.press("enter")
        assert "enter: there is nothing to open here" in visit.notice
        visit.press("/")
        assert "/: there is nothing to filter" in visit.notice
        visit.press("2")
        assert visit.position == f"1/{len(CONCEPTS)}"
        visit.press("enter")
        visit.press("3")
        assert "no unit of all layers" in visit.text
        visit.press("1")
        walk(visit)


def test_a_layer_without_units(folder: Path) -> None:
    with Visit(write_small(folder / "none.nd.h5", layers={"layer1": (0, (3, 3)), "layer2": (2, (3, 3))})) as visit:
        assert words(visit.rows[0])[:3] == ["layer1", "0", "0"]
        visit.press("enter")
        assert visit.crumbs == "none.nd.h5 › layer1"
        assert visit.position == "0/0"
        for key in ("enter", "o", "y", "e", "space", "/"):
            visit.press(key)
            assert visit.notice.startswith(f"{key}: "), key
        walk(visit)
    with Visit(folder / "none.nd.h5", bookmark_named(folder / "none.nd.h5", "layer1")) as visit:
        walk(visit)


def test_one_layer_with_one_unit(folder: Path) -> None:
    with Visit(write_small(folder / "one.nd.h5", layers={"only": (1, (3, 3))})) as visit:
        assert [words(line)[:2] for line in visit.rows] == [["only", "1"]]  # no row for all layers
        visit.press("enter", "j", "n", "N", "G")
        assert visit.position == "1/1"
        visit.press("enter", "n")
        assert visit.crumbs.startswith("one.nd.h5 › only › 0 ")
        visit.press("3")
        assert "only: 1 units" in visit.info or "only: 1 unit," in visit.info
        walk(visit)


def test_a_store_without_any_detector(folder: Path) -> None:
    with Visit(written(folder / "weak.nd.h5", weak(dissection(), 4))) as visit:
        assert [words(line)[1:3] for line in visit.rows] == [["9", "0"], ["6", "0"], ["layers", "15"]]
        visit.press("3")
        assert "no unit of features.0 has an IoU above 0.04 with any concept" in visit.text
        visit.press("1", "enter")
        visit.type("/detector")
        assert visit.position == "0/0 of 9"
        visit.press("escape")
        walk(visit)


def test_a_store_where_nothing_overlaps(folder: Path) -> None:
    with Visit(written(folder / "zero.nd.h5", weak(dissection(), 10**9))) as visit:
        visit.press("enter")
        assert all(words(line)[1] in ("-", "dead") for line in visit.rows)
        visit.press("enter")
        assert "no concept has an IoU above 0" in visit.text or "top images" in visit.text
        visit.press("2")
        assert all(words(line)[-4:-2] == ["-", "-"] or "-" in line for line in visit.rows)
        visit.press("enter")
        assert "no unit has an IoU above 0 with" in visit.text
        walk(visit)


# Without images


def test_a_store_without_images_shows_its_numbers_and_says_why_there_are_no_pictures(folder: Path) -> None:
    with Visit(write_small(folder / "numbers.nd.h5", images=False)) as visit:
        visit.press("enter", "enter")
        assert "no top images in this store" in visit.text
        for key in ("o", "O", "p"):
            visit.press(key)
            assert visit.notice.startswith(f"{key}: this store holds no top images")
        walk(visit)


def test_an_imported_table_shows_what_it_has(folder: Path) -> None:
    small = write_small(folder / "small.nd.h5")
    with Store(small) as store, (folder / "table.csv").open("w", newline="") as out:
        write_table(store.layer("features.0"), out)
    made = read_table(folder / "table.csv", "features.0")
    with Visit(written(folder / "table.nd.h5", made)) as visit:
        assert words(visit.rows[0])[0] == "features.0"
        visit.press("enter", "enter")
        assert "no top images in this store" in visit.text
        visit.press("o")
        assert "no top images" in visit.notice
        visit.press("2", "enter", "1", "space", "4", "space", "space", "c")
        assert visit.crumbs.endswith("compare")
        visit.press("escape", "1")
        walk(visit)


def without(thumbnail: bytes) -> Callable[[Dissection], Dissection]:
    def change(made: Dissection) -> Dissection:
        assert made.images is not None
        return replace(made, images=replace(made.images, thumbnail=(thumbnail,) * len(made.images.thumbnail)))

    return change


@pytest.mark.parametrize(
    "thumbnail",
    [b"", b"no JPEG at all", jpeg((9, 9, 9))[:90], jpeg((9, 9, 9))[:-200]],
    ids=["none", "text", "head", "cut"],
)
def test_thumbnails_that_cannot_be_drawn_are_a_message(folder: Path, thumbnail: bytes) -> None:
    store = written(folder / "small.nd.h5", without(thumbnail)(dissection()))
    with Visit(store, preview=True) as visit:
        visit.press("enter")
        visit.wait(lambda: visit.notice)
        visit.press("escape", "o")
        visit.wait(lambda: visit.notice and "drawing" not in visit.notice)
        assert "thumbnail" in visit.notice or "image" in visit.notice
        assert not visit.app.images.unseen
        visit.press("enter")
        assert "top images" in visit.text
        walk(visit)


# Names

LONG = "".join(f"{i:03}_" for i in range(50))
NAMES = {
    "long": ("a" * 200, LONG),
    "combining": ("e\u0301" * 40, "a" + "\u0301\u0302\u0303" * 20, "n\u0308"),
    "wide": ("街道" * 50, "ｆｕｌｌ", "한국어", "街"),
    "right-to-left": ("שלום עולם" * 6, "مرحبا", "\u202eevil\u202c"),
    "emoji": ("🐈\u200d⬛" * 12, "👩\u200d👩\u200d👧\u200d👦", "🇩🇪🇫🇷", "🙂" * 60, "☺\ufe0f"),
    "invisible": ("\u200b\u200b", "a\u200db", "\ufeffx", "\u00ad", "\u2028line"),
    "control": ("\x1b[31mred", "tab\tnew\nline\r", "\x9b2J", "bell\a", "\x00"),
    "markup": ("[red]x[/red]", "[/]", "$foo {bar}", "\\[b]", "a › b"),
    "blank": (" ", "   x   "),
}


@pytest.mark.parametrize("size", [(80, 24), (121, 12)], ids=["80x24", "121x12"])
@pytest.mark.parametrize("kind", NAMES)
def test_names_of_any_length_and_script_stay_in_their_column(folder: Path, kind: str, size: tuple[int, int]) -> None:
    names = NAMES[kind]
    made = named(names)
    assert made.images is not None
    layers = tuple(
        replace(layer, name=name.replace("\0", "") or "x", module=names[0])
        for layer, name in zip(made.layers, (names[0], f"{names[-1]}.2"), strict=True)
    )
    image_names = tuple(f"{names[i % len(names)]} {i}.jpg" for i in range(len(made.images.name)))
    made = replace(made, layers=layers, images=replace(made.images, name=image_names))
    try:
        store = written(folder / "names.nd.h5", made)
    except NDError:
        pytest.skip("no store can hold such a name")
    with Visit(store, size=size) as visit:
        walk(visit, WALK if size[0] == 80 else SHORT)
        visit.press("1", "g", "enter")
        if size[0] == 80:
            table = visit.app.table
            assert columns_agree(visit.lines[2 : 2 + len(table.rows)])
        assert not re.search(r"[\x00-\x1f\x7f-\x9f]", visit.text.replace("\n", ""))


def cells(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def columns_agree(lines: list[str]) -> bool:
    """Whether the categories of all rows begin in the same cell."""
    named = re.compile(" (color|object|part|scene|texture) ")
    return len({cells(line[: match.start()]) for line in lines if (match := named.search(line))}) == 1


def test_the_end_of_a_long_name_can_be_read(folder: Path) -> None:
    made = dissection()
    names = (f"{'backbone.body.stage.' * 9}block.1.conv1", f"{'backbone.body.stage.' * 9}block.1.conv2")
    layers = tuple(replace(layer, name=name) for layer, name in zip(made.layers, names, strict=True))
    with Visit(written(folder / "long.nd.h5", replace(made, layers=layers))) as visit:
        assert [line.split()[0][-5:] for line in visit.rows[:2]] == ["conv1", "conv2"]
        visit.type("/block.1.conv2\n")
        assert visit.position == "1/1 of 3"
        visit.press("enter")
        assert "conv2" in visit.crumbs


@pytest.mark.parametrize("name", ["ü" * 90, "街" * 70, "a b  c", "-s", "[red]", "x" * 190, "🙂", "e\u0301"])
def test_a_store_of_any_file_name(folder: Path, name: str) -> None:
    with Visit(write_small(folder / f"{name}.nd.h5")) as visit:
        visit.press("enter", "e")
        assert "9 rows written" in visit.notice
        visit.press("o")
        visit.wait(lambda: visit.app.images.unseen)
        assert visit.app.images.unseen[0].is_file()
        visit.press("4")
        assert visit.position == "1/1"
        visit.press("y")
        assert unicodedata.normalize("NFC", name) in unicodedata.normalize("NFC", visit.copied)
        visit.press("1", "j", "enter", "q")
    with Visit(folder / f"{name}.nd.h5") as visit:
        assert "layer4.1.conv2" in visit.crumbs


# Damage


def damaged(store: Path, change: Callable[[h5py.File], None]) -> Path:
    with h5py.File(store, "r+") as file:
        change(file)
    return store


def members(store: Path) -> list[str]:
    names: list[str] = []
    with h5py.File(store) as file:
        file.visit(names.append)
    return names


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_store_is_refused_before_the_screen_is_taken(folder: Path, share: float) -> None:
    store = write_small(folder / "small.nd.h5")
    data = store.read_bytes()
    store.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(NDError, match=re.escape("small.nd.h5")) as error, Visit(store):
        pass
    assert error.value.hint


def test_a_part_that_is_damaged_is_a_message_and_the_rest_can_be_read(folder: Path) -> None:
    whole = write_small(folder / "whole.nd.h5")
    opened = 0
    alike = re.compile(
        "layers/layer4.1.conv2/.*|.*/(rows|columns)/.*|.*/(inf|maximum|minimum)"
    )  # others stand for them
    for number, member in enumerate(m for m in members(whole) if not alike.fullmatch(m)):
        store = folder / f"{number}.nd.h5"
        shutil.copy(whole, store)

        def remove(file: h5py.File, member: str = member) -> None:
            del file[member]

        damaged(store, remove)
        with contextlib.suppress(NDError), Visit(store) as visit:
            opened += 1
            notices = walk(visit, SHORT)
            visit.press("1", "g", "enter", "g", "enter", "o")
            visit.wait(lambda: visit.notice and "drawing" not in visit.notice)
            assert "damaged" in notices + visit.notice or "no top images" in visit.notice, member
        store.unlink()
    assert opened > 15


@pytest.mark.parametrize("part", ["layers/features.0/top", "images/thumbnails", "images/label_maps"])
def test_the_message_names_what_is_damaged(folder: Path, part: str) -> None:
    store = write_small(folder / "small.nd.h5")

    def spoil(file: h5py.File) -> None:
        names = [name for name in members_of(file) if name.startswith(part.split("/", maxsplit=1)[0])]
        name = part if part in file else next(n for n in names if n.endswith(part.rpartition("/")[2]))
        del file[name]
        file[name] = np.zeros(3)

    damaged(store, spoil)
    with Visit(store) as visit:
        visit.press("enter", "enter")
        visit.wait(lambda: visit.notice or "top images" in visit.text)
        if not visit.notice:
            visit.press("o")
            visit.wait(lambda: "damaged" in visit.notice)
        assert "small.nd.h5isdamaged" in "".join(visit.notice.split()), "wherever its lines end"
        assert part.rpartition("/")[2] in visit.notice.replace(" ", "")
        visit.press("escape", "1", "j", "enter")
        assert visit.position == "1/6"


def members_of(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visit(names.append)
    return names


def test_damage_in_the_middle_of_a_visit(folder: Path) -> None:
    store = write_small(folder / "small.nd.h5")
    with Visit(store) as visit:
        visit.press("enter")
        data = bytearray(store.read_bytes())
        with store.open("r+b") as file:
            file.write(b"\xff" * (len(data) // 2))
        walk(visit, WALK)
        visit.press("r")
        assert "small.nd.h5" in "".join(visit.notice.split())


@pytest.mark.parametrize("seed", range(6))
def test_random_damage_is_no_crash(folder: Path, seed: int) -> None:
    store = write_small(folder / "small.nd.h5")
    rng = np.random.default_rng(seed)
    data = np.frombuffer(store.read_bytes(), np.uint8).copy()
    data[rng.integers(2000, len(data), 400)] = rng.integers(0, 256, 400)
    store.write_bytes(data.tobytes())
    with contextlib.suppress(NDError), Visit(store, bookmark_named(store, "features.0:1")) as visit:
        walk(visit)


# Viewers


def test_a_viewer_that_does_not_exist_is_a_message(folder: Path) -> None:
    with Visit(write_small(folder / "small.nd.h5"), env={"ND_VIEWER": "nosuch --fast"}) as visit:
        visit.press("enter", "o")
        visit.wait(lambda: "nosuch" in visit.notice)
        assert "ND_VIEWER" in visit.notice
        visit.press("O")
        assert "ND_VIEWER" in visit.notice or visit.crumbs.endswith("viewers")
        visit.press("escape", "j", "o")
        visit.wait(lambda: "nosuch" in visit.notice)


def script(folder: Path, name: str, body: str, shebang: str = "#!/bin/sh") -> None:
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{shebang}\n{body}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("body", "shebang", "said"),
    [
        ("echo cannot open display >&2; exit 3", "#!/bin/sh", "failed with exit code 3: cannot open display"),
        ("kill -SEGV $$", "#!/bin/sh", "was ended by SIGSEGV"),
        ("", "#!/no/such/shell", "could not be started"),
    ],
)
def test_a_window_viewer_that_fails_is_a_message(folder: Path, body: str, shebang: str, said: str) -> None:
    script(folder, "feh", body, shebang)
    with Visit(write_small(folder / "small.nd.h5"), env={"ND_VIEWER": "feh"}) as visit:
        visit.press("enter", "o")
        visit.wait(lambda: said in visit.notice)
        visit.press("j")
        assert visit.position == "2/9"


@pytest.mark.alone
def test_a_window_viewer_that_hangs_holds_nothing_up(folder: Path) -> None:
    script(folder, "feh", "exec /bin/sleep 30")
    with Visit(write_small(folder / "small.nd.h5"), env={"ND_VIEWER": "feh"}) as visit:
        visit.press("enter", "o")
        began = time.monotonic()
        for key in ("j", "k", "j", "k"):
            visit.press(key)
        assert time.monotonic() - began < 1
        visit.wait(lambda: "Opened with feh" in visit.notice)
        visit.press("q")


def test_pictures_that_cannot_be_written_are_a_message(folder: Path) -> None:
    (folder / "cache").write_text("a file where the folder should be")
    with Visit(write_small(folder / "small.nd.h5")) as visit:
        visit.press("enter", "o")
        visit.wait(lambda: "cannot be made" in visit.notice)
        assert "ND_CACHE" in visit.notice


# Terminals


@pytest.mark.parametrize("size", [(80, 24), (160, 40)])
def test_no_color_is_no_crash_on_any_screen(folder: Path, size: tuple[int, int]) -> None:
    with Visit(write_small(folder / "small.nd.h5"), env={"NO_COLOR": "1"}, size=size) as visit:
        walk(visit)


@pytest.mark.parametrize("size", [(80, 24), (160, 40)])
def test_without_unicode_only_names_have_any(folder: Path, size: tuple[int, int]) -> None:
    made = named([re.sub("[^ -~]", "x", name) for _, name, _ in CONCEPTS])
    assert made.images is not None
    made = replace(made, images=replace(made.images, name=tuple(f"{i}.jpg" for i in range(len(made.images.name)))))
    with Visit(written(folder / "small.nd.h5", made), unicode=False, size=size) as visit:
        visit.press("enter", "space", "k")
        assert visit.row.startswith(">*")
        assert "IoUv" in visit.header
        assert "##" in visit.row
        assert visit.crumbs == "small.nd.h5 > features.0"
        for key in (k for k in WALK if k != "p"):
            visit.press(key)
            assert visit.text.isascii(), (key, visit.text)
