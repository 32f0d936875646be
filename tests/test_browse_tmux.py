"""``nd browse`` as a person meets it: whole visits in a real tmux, by keys, judged by what the screen shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tmux
from PIL import Image
from store_factory import write_small
from tmux import PROMPT, Tmux

from ndissect.store.reader import Store

pytestmark = pytest.mark.skipif(tmux.TMUX is None, reason="tmux is not installed")

# Says what it was given and what the terminal is like for it.
VIEWER = """#!/bin/sh
echo "drawn for: $*"
stty -a > seen.stty
for word; do printf '%s\\n' "$word"; done > seen.part
cat seen.part >> seen
"""
# What a program that takes the whole screen and the mouse must give back: as the shell has them, and as nd has them.
MODES = ("alternate_on", "cursor_flag", "mouse_any_flag", "mouse_sgr_flag", "wrap_flag")
OUTSIDE = dict(zip(MODES, "01001", strict=True))
INSIDE = dict(zip(MODES, "10110", strict=True))
LAYER = "layer4.1.conv2"


@dataclass(frozen=True)
class Unit:
    """What the store says of the layer's units, read without the UI; ``best``: those with a label, best first."""

    best: list[int]
    labels: dict[int, str]
    ious: dict[int, str]
    category: dict[int, str]

    def words(self, place: int) -> tuple[str, ...]:
        """What the row of the unit at that place must show."""
        unit = self.best[place]
        return f" {unit} ", self.labels[unit], self.ious[unit], self.category[unit]

    @property
    def crumbs(self) -> str:
        """The first line on the best unit's page."""
        unit = self.best[0]
        return f"small.nd.h5 › {LAYER} › {unit} {self.labels[unit]} {self.ious[unit]}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_small(tmp_path / "small.nd.h5")
    viewer = tmp_path / "viewer"
    viewer.write_text(VIEWER)
    viewer.chmod(0o755)
    return tmp_path


@pytest.fixture
def terminal(folder: Path) -> Iterator[Tmux]:
    with Tmux(folder, env={"ND_VIEWER": str(folder / "viewer")}) as made:
        yield made


@pytest.fixture
def unit(folder: Path) -> Unit:
    with Store(folder / "small.nd.h5") as store:
        concept, iou = store.layer(LAYER).labels
        labelled = [u for u in range(len(concept)) if concept[u] >= 0]
        assert len(labelled) >= 4
        return Unit(
            best=sorted(labelled, key=lambda u: -iou[u]),
            labels={u: store.concepts.label(int(concept[u])) for u in labelled},
            ious={u: f"{iou[u]:.3f}" for u in labelled},
            category={u: store.concepts.category_of(int(concept[u])) for u in labelled},
        )


def position(screen: list[str]) -> str:
    """``3/37 of 512`` at the end of the last line."""
    match = re.search(r"(\d+/\d+( of \d+)?)$", screen[-1])
    return match[1] if match else ""


def see(
    terminal: Tmux,
    *words: str,
    crumbs: str | None = None,
    at: str | None = None,
    row: tuple[str, ...] = (),
    line: str | None = None,
    gone: tuple[str, ...] = (),
) -> list[str]:
    """Wait until all of this is on the screen at once; returns it.

    ``crumbs``: the first line; ``at``: the position on the last; ``row``: words of the row that the cursor is on, the
    only such row; ``line``: a whole line; ``gone``: words that are nowhere.
    """

    def there(screen: list[str]) -> bool:
        text = "\n".join(screen)
        rows = [each for each in screen[1:-1] if each.startswith("›")]
        return (
            all(word in text for word in words)
            and not any(word in text for word in gone)
            and crumbs in (None, screen[0])
            and at in (None, position(screen))
            and (not row or (len(rows) == 1 and all(word in rows[0] for word in row)))
            and (line is None or line in screen)
        )

    try:
        return terminal.wait_until(there)
    except TimeoutError as e:
        raise TimeoutError(f"{words=} {crumbs=} {at=} {row=} {line=} {gone=}\n{e}") from None


def open_store(terminal: Tmux, command: str, crumbs: str) -> list[str]:
    """Type the command, and wait until the UI is there."""
    terminal.run(command)
    screen = see(terminal, "q quit", crumbs=crumbs)
    assert terminal.ask(*MODES) == INSIDE
    return screen


def quit_cleanly(terminal: Tmux) -> list[str]:
    """Press q; the shell is back as it was."""
    terminal.press("q")
    screen = terminal.wait_for(PROMPT, gone=("q quit",))
    assert terminal.ask(*MODES) == OUTSIDE
    return screen


def test_a_whole_visit(terminal: Tmux, folder: Path, unit: Unit) -> None:
    stty = terminal.result_of("stty -a", "stty.before")
    assert terminal.ask(*MODES) == OUTSIDE

    # open
    screen = open_store(terminal, "nd browse small.nd.h5", "small.nd.h5 › layers")
    assert len(screen) == 24
    assert "? help" in screen[-1]
    see(terminal, at="1/3", row=("features.0",))  # two layers, and all of them

    # move, go in
    terminal.press("j")
    see(terminal, at="2/3", row=(LAYER,))
    terminal.press("Enter")
    screen = see(terminal, crumbs=f"small.nd.h5 › {LAYER}", at="1/6", row=unit.words(0))
    assert [int(line.lstrip("›● ").split()[0]) for line in screen[2 : 2 + len(unit.best)]] == unit.best

    # filter: live, kept by enter, counted, taken away by esc
    kind = unit.category[unit.best[0]]
    passing = [u for u in unit.best if unit.category[u] == kind]
    count = len(passing)
    assert 0 < count < 6
    terminal.press("/")
    terminal.type(f"cat:{kind}")
    see(terminal, at=f"1/{count} of 6", line=f"/cat:{kind}")
    terminal.press("Enter")
    see(terminal, "? help", at=f"1/{count} of 6", line=f"/cat:{kind}")
    terminal.press("G")
    see(terminal, at=f"{count}/{count} of 6", line=f"/cat:{kind}", row=(f" {passing[-1]} ",))
    terminal.press("Escape")
    see(terminal, at=f"{unit.best.index(passing[-1]) + 1}/6", row=(f" {passing[-1]} ",), gone=("/cat:",))

    # a unit
    terminal.press("g", "Enter")
    see(terminal, "top images", "ade20k/ün", crumbs=unit.crumbs)

    # its images, in a viewer that needs the terminal, which is as the shell had it meanwhile
    terminal.press("o")
    terminal.wait_for("drawn for: /", "press a key to return to nd", gone=("q quit",))
    assert terminal.ask(*MODES) == OUTSIDE
    (picture,) = terminal.wait_for_file(folder / "seen")
    with Image.open(picture) as sheet:
        assert sheet.format == "PNG"
        assert np.asarray(sheet.convert("L")).std() > 1
    assert (folder / "seen.stty").read_text() == stty
    terminal.press("j")
    screen = see(terminal, "top images", "q quit", crumbs=unit.crumbs, gone=("press a key",))
    assert terminal.ask(*MODES) == INSIDE
    assert position(screen).startswith("1/"), "the key meant that the viewer's picture has been seen"
    terminal.press("j")
    see(terminal, crumbs=unit.crumbs, at=position(screen).replace("1/", "2/", 1))

    # back, a step at a time
    terminal.press("h")
    see(terminal, crumbs=f"small.nd.h5 › {LAYER}", row=unit.words(0))
    terminal.press("h")
    see(terminal, crumbs="small.nd.h5 › layers", row=(LAYER,))

    # quit: the shell's screen, its modes, its settings
    screen = quit_cleanly(terminal)
    assert screen[0].startswith("drawn for: /"), "what the viewer printed is still there"
    assert PROMPT in screen, "on a line of its own"
    assert terminal.result_of("echo $?", "code") == "0\n"
    assert terminal.result_of("stty -a", "stty.after") == stty


def test_a_window_viewer_leaves_the_screen_alone_and_the_next_visit_begins_where_this_one_ended(
    terminal: Tmux, folder: Path, unit: Unit
) -> None:
    open_store(terminal, f"ND_VIEWER='{folder}/viewer --raw {{}} &' nd browse {LAYER}:{unit.best[0]}", unit.crumbs)
    terminal.press("o")
    screen = see(terminal, "Opened with viewer", crumbs=unit.crumbs, gone=("drawn for",))
    assert terminal.ask(*MODES) == INSIDE
    option, picture = terminal.wait_for_file(folder / "seen", 2)
    assert option == "--raw"
    assert Path(picture).is_file()
    assert picture in "".join(line.strip() for line in screen), "the message says where the picture lies"
    terminal.press("Escape")
    see(terminal, crumbs=unit.crumbs, gone=("Opened with",))  # the message went, and nothing else
    quit_cleanly(terminal)
    open_store(terminal, "nd browse", unit.crumbs)
    quit_cleanly(terminal)


def test_without_a_viewer_the_path_is_told_copied_and_printed_at_the_end(terminal: Tmux, unit: Unit) -> None:
    # whatever is installed here: a PATH on which nothing shows pictures
    none = 'env -u DISPLAY -u WAYLAND_DISPLAY ND_VIEWER= PATH=/nowhere "$(command -v nd)"'
    open_store(terminal, f"{none} browse {LAYER}:{unit.best[0]}", unit.crumbs)
    terminal.press("o")
    see(terminal, "no image viewer", "copied", crumbs=unit.crumbs)
    picture = terminal.copied()
    assert picture.endswith(".png")
    assert Path(picture).is_file()
    terminal.press("Escape")
    see(terminal, crumbs=unit.crumbs, gone=("no image viewer",))
    assert picture in "".join(quit_cleanly(terminal))


def test_a_row_is_copied_through_tmux(terminal: Tmux, unit: Unit) -> None:
    open_store(terminal, f"nd browse {LAYER}", f"small.nd.h5 › {LAYER}")
    terminal.press("g", "y")
    see(terminal, "copied")
    best = unit.best[0]
    assert {f"{LAYER}:{best}", unit.labels[best], unit.category[best]} <= set(terminal.copied().split("\t"))


def test_suspended_to_the_shell_and_back(terminal: Tmux) -> None:
    stty = terminal.result_of("stty -a", "stty.before")
    open_store(terminal, "nd browse small.nd.h5", "small.nd.h5 › layers")
    terminal.press("j")
    inside = see(terminal, at="2/3", row=(LAYER,))
    for _ in range(2):
        terminal.press("C-z")
        terminal.wait_for("topped", PROMPT, gone=("q quit",))  # Stopped, or stopped
        assert terminal.ask(*MODES) == OUTSIDE
        assert terminal.result_of("stty -a", "stty.meanwhile") == stty
        (Path(terminal.folder) / "stty.meanwhile").unlink()
        terminal.run("fg")
        terminal.wait_until(lambda screen: screen == inside)
        assert terminal.ask(*MODES) == INSIDE
    terminal.press("k")
    see(terminal, at="1/3", row=("features.0",))
    quit_cleanly(terminal)
    assert terminal.result_of("stty -a", "stty.after") == stty


def test_as_many_tables_as_the_terminal_has_room_for_at_any_time(terminal: Tmux, unit: Unit) -> None:
    layers, units, one = "best unit", "unit label", "top images"

    def tables(screen: list[str]) -> list[str]:
        return ["\n".join(part) for part in zip(*(line.split("│") for line in screen[1:-2]), strict=True)]

    open_store(terminal, f"nd browse {LAYER}", f"small.nd.h5 › {LAYER}")
    small = see(terminal, units, at="1/6", row=unit.words(0), gone=(layers, one, "│"))

    terminal.resize(140, 24)
    left, right = tables(see(terminal, units, one, at="1/6", gone=(layers,)))
    assert units in left
    assert one in right
    assert unit.labels[unit.best[0]] in right

    terminal.resize(170, 30)
    screen = see(terminal, layers, units, one, at="1/6")
    assert len(screen) == 30
    assert [title in table for title, table in zip((layers, units, one), tables(screen), strict=True)] == [True] * 3
    terminal.press("j")
    second = unit.labels[unit.best[1]]
    assert second not in tables(screen)[2].splitlines()[1]
    terminal.wait_until(lambda screen: position(screen) == "2/6" and second in tables(screen)[2].splitlines()[1])
    terminal.press("k")
    terminal.wait_until(lambda now: now == screen)

    terminal.resize(40, 10)
    screen = terminal.wait_until(
        lambda screen: len(screen) == 10 and position(screen) == "1/6" and "│" not in screen[1]
    )
    assert max(map(len, screen)) <= 40
    terminal.press("G")
    see(terminal, at="6/6", row=(" ",))
    terminal.press("g")
    see(terminal, at="1/6", row=(f" {unit.best[0]} ",))

    terminal.resize(80, 24)
    terminal.wait_until(lambda screen: screen == small)
    quit_cleanly(terminal)


def test_keys_typed_ahead_are_taken_in_their_order(terminal: Tmux, folder: Path, unit: Unit) -> None:
    # as over a slow connection, where several arrive at once
    kind = unit.category[unit.best[0]]
    open_store(terminal, f"nd browse {LAYER}", f"small.nd.h5 › {LAYER}")
    terminal.press("/", *f"cat:{kind}", "Enter", "y")
    see(terminal, "copied", "q quit", line=f"/cat:{kind}")
    terminal.press("Escape")
    see(terminal, gone=("copied",))
    terminal.press("Escape")
    see(terminal, at="1/6")
    terminal.press(":", *"reload", "Enter")
    see(terminal, "read again", "q quit", crumbs=f"small.nd.h5 › {LAYER}")
    terminal.press("h", "k", "Enter", "G", "Enter")
    see(terminal, "top images", "small.nd.h5 › features.0 › ")
    quit_cleanly(terminal)
    assert not (folder / "seen").exists(), "no letter of a filter was taken for a command"
    assert not list(folder.glob("*.csv"))


def test_a_terminal_without_unicode_shows_the_same_numbers(terminal: Tmux) -> None:
    def last_words(screen: list[str]) -> list[list[str]]:
        return [line.split()[-2:] for line in screen[2:8]]

    open_store(terminal, f"nd browse {LAYER}", f"small.nd.h5 › {LAYER}")
    units = last_words(see(terminal, at="1/6"))
    assert all(len(words) == 2 for words in units)
    terminal.press("Enter")
    one = last_words(see(terminal, "街道", "top images"))
    quit_cleanly(terminal)
    terminal.run(f"PYTHONIOENCODING=ascii nd browse {LAYER}")
    screen = see(terminal, r"se\xf1al", at="1/6", crumbs=f"small.nd.h5 > {LAYER}")
    assert last_words(screen) == units
    terminal.press("Enter")
    assert last_words(see(terminal, r"\u8857\u9053", "top images")) == one
    quit_cleanly(terminal)
