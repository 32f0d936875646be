"""``nd paint STORE`` as a person meets it: the real command, the real network, a real terminal."""

from __future__ import annotations

import json
from pathlib import Path

import planted_generator as planted
import pytest
import tmux
from PIL import Image
from tmux import PROMPT, Tmux

from ndissect.engine.machine.console import Console
from ndissect.engine.run.options import Options
from ndissect.engine.run.to_store import dissect_to_store

pytestmark = pytest.mark.skipif(tmux.TMUX is None, reason="tmux is not installed")
FILE = Path(planted.__file__).resolve()


def test_a_tree_is_painted_saved_and_painted_again_by_the_command_that_is_told(tmp_path: Path) -> None:
    options = Options(
        network=f"{FILE}:generator",
        generator=True,
        labeller=f"{FILE}:labeller",
        samples=8,
        quantile="0.6",
        layers=("layer",),
    )
    dissect_to_store(options, Console(), output=tmp_path / "x.nd.h5")
    with Tmux(tmp_path) as terminal:
        terminal.run("nd paint x.nd.h5 --sample 3 --units 1")
        terminal.wait_for("sample 3", "no cells selected", " s", "▀▀▀▀", "┏", gone=("loaded", "drawn"))
        terminal.press("/")
        terminal.type("tree")
        terminal.press("Enter", "h", "h", "h", "h", "K", "L")
        terminal.wait_for("tree  strength 1  row 3, column 1 (selected)  4 of 8 x 8 cells selected")
        terminal.press("+")
        terminal.wait_for("1 + tree  4 cells", "0 of 960 px changed elsewhere", "-> ")
        terminal.press("s")
        screen = "".join(terminal.wait_for("saved: x-layer-3.png and x-layer-3.json", "again: nd paint "))
        assert "nd paint x.nd.h5 --edits x-layer-3.json -o OUT.png" in screen
        terminal.press("+")
        terminal.wait_for("2 + tree")
        terminal.press("q")
        terminal.wait_for(PROMPT, "sample 3 has edits that are not saved", gone=("q quit",))
        terminal.run("nd paint x.nd.h5 --edits x-layer-3.json -o again.png; echo done $?")
        terminal.wait_for("done 0")
    (edit,) = json.loads((tmp_path / "x-layer-3.json").read_text())["edits"]
    assert (edit["concept"], sorted(edit["cells"])) == ("tree", [[3, 0], [3, 1], [4, 0], [4, 1]])
    with Image.open(tmp_path / "x-layer-3.png") as saved, Image.open(tmp_path / "again.png") as again:
        assert saved.convert("RGB").tobytes() == again.convert("RGB").tobytes()
        green = tuple((255 * planted.COLORS[2]).int().tolist())
        assert saved.convert("RGB").getpixel((2, 14)) == green
