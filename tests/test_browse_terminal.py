"""``nd browse`` and its terminal: which ones it takes, what it writes there, stores and runs that change meanwhile."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cli
import pytest
from browse_terminal import (
    LAYER,
    NOT_UTF8,
    UNIT,
    Visit,
    colours,
    program,
    restored,
)
from cli import wait_until
from store_factory import write_small


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_small(tmp_path / "small.nd.h5")
    return tmp_path


# Terminals that it does not take


def test_without_a_terminal_it_says_so_and_draws_nothing(folder: Path) -> None:
    cli.failed(cli.nd("browse", "small.nd.h5", folder=folder), 2, "nd browse needs a terminal", "nd inspect")


@pytest.mark.parametrize("piped", ["stdin", "stdout", "stderr"])
def test_input_output_and_errors_must_all_be_the_terminal(folder: Path, piped: str) -> None:
    ours, theirs = pty.openpty()
    try:
        streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
        streams[piped] = subprocess.DEVNULL if piped == "stdin" else subprocess.PIPE
        env = cli.environment(folder, {"TERM": "xterm-256color"})
        done = subprocess.run([str(cli.ND), "browse", "small.nd.h5"], cwd=folder, env=env, timeout=60, **streams)
        assert done.returncode == 2
        said = (done.stderr or os.read(ours, 1 << 16)).decode().replace("\r\n", "\n")
        cli.two_lines(said, "nd browse needs a terminal", "nd inspect")
        assert "\x1b" not in said
        assert not done.stdout
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("term", ["dumb", "unknown", ""])
def test_a_terminal_whose_cursor_cannot_be_moved_gets_a_refusal(folder: Path, term: str) -> None:
    done = cli.on_terminal("browse", "small.nd.h5", folder=folder, columns=200, env={"TERM": term})
    assert done.code == 1
    assert "\x1b" not in done.raw
    cli.two_lines(done.text, "nd browse", f"TERM={term}", "nd inspect")


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("gone.nd.h5",), 2, ("gone.nd.h5",)),
        (("small.nd.h5", "layer5"), 2, ("layer5", LAYER)),
        (("small.nd.h5", f"{LAYER}:6"), 2, ("6", "0 to 5")),
        (("small.nd.h5", LAYER, "more"), 2, ("more",)),
        (("noise.nd.h5",), 1, ("noise.nd.h5",)),
        (("cut.nd.h5",), 1, ("cut.nd.h5",)),
    ],
    ids=["no such store", "no such layer", "no such unit", "a word too many", "no store at all", "cut short"],
)
def test_what_cannot_be_opened_is_said_before_the_screen_is_taken(
    folder: Path, args: tuple[str, ...], code: int, said: tuple[str, ...]
) -> None:
    (folder / "noise.nd.h5").write_bytes(b"noise" * 1000)
    (folder / "cut.nd.h5").write_bytes((folder / "small.nd.h5").read_bytes()[:5000])
    done = cli.on_terminal("browse", *args, folder=folder, columns=200)
    assert done.code == code, done.text
    assert "\x1b[?" not in done.raw
    cli.two_lines(done.text, *said)


# What it writes to those that it takes


def tour(folder: Path, env: Mapping[str, str]) -> Visit:
    """A visit to every kind of page."""
    with Visit("small.nd.h5", folder=folder, env=env) as visit:
        visit.opened("features.0")
        visit.press("j\r")
        visit.see("threshold", "wheel")
        visit.press(" \r")
        visit.see("top images")
        visit.press("2")
        visit.see("detectors by layer")
        visit.press("3")
        visit.see("unique detectors")
        visit.press("4")
        visit.see("stores")
        visit.press("?")
        visit.see("one row")
        visit.press("1")
        visit.see("best unit")
        visit.press("/iou>")
        visit.see("iou>")
        visit.press("\x03")
    restored(visit, 0)
    return visit


def test_no_color_draws_without_a_colour(folder: Path) -> None:
    codes = {p for sequence in colours(tour(folder, {"NO_COLOR": "1"}).raw) for p in sequence.split(";")}
    coloured = {str(n) for base in (30, 40, 90, 100) for n in range(base, base + 8)} | {"38", "48", "58"}
    assert not codes & coloured
    assert "7" in codes, "what has the keys is still seen"


@pytest.mark.parametrize("term", ["xterm-16color", "linux", "screen", "xterm-256color"])
def test_only_the_terminals_own_sixteen_colours_are_used(folder: Path, term: str) -> None:
    visit = tour(folder, {"TERM": term})
    assert not [sequence for sequence in colours(visit.raw) if re.search(r"[345]8[;:]", sequence)]
    assert any(re.search(r"(^|;)(3[1-7]|9[0-7])(;|$)", sequence) for sequence in colours(visit.raw)), "there is colour"


@pytest.mark.parametrize("kind", NOT_UTF8)
def test_a_terminal_that_is_not_utf8_gets_what_it_can_show(folder: Path, kind: str) -> None:
    visit = tour(folder, NOT_UTF8[kind])
    text = visit.printed.decode("latin-1" if kind == "latin-1" else "ascii")
    assert "traffic light" in text
    assert "> layers" in text
    assert ("señal" if kind == "latin-1" else r"se\xf1al") in text
    assert r"\u8857\u9053" in text


# The store on disk


def test_a_store_deleted_while_it_is_open_is_told_and_nothing_more(folder: Path) -> None:
    with Visit("small.nd.h5", folder=folder) as visit:
        visit.opened("features.0")
        visit.press("")
        (folder / "small.nd.h5").unlink()
        visit.see("small.nd.h5 is gone from the disk")
        visit.press("\r")
        visit.see("features.0")  # its units, where they had been read, or why they cannot be read
        visit.press("r")
        visit.see("no store at small.nd.h5")
        visit.press("2")
        visit.see("detectors by layer")
        visit.press("q")
    restored(visit, 0)


def test_a_store_replaced_while_it_is_open_is_told_and_read_when_asked(folder: Path) -> None:
    with Visit("small.nd.h5", folder=folder) as visit:
        visit.opened("features.0")
        visit.press("")
        write_small(folder / "small.nd.h5", layers={"features.0": (9, (4, 5)), "another": (4, (3, 3))})
        visit.see("small.nd.h5 was replaced", "r reads the new one")
        visit.press("r")
        visit.see("another")
        visit.press("q")
    restored(visit, 0)


# What it needs

IMPORTED = """
import atexit, sys
atexit.register(lambda: open("imported", "w").write("\\n".join(sorted(sys.modules))))
"""


def test_neither_torch_nor_the_engine_is_imported_whatever_is_looked_at(folder: Path) -> None:
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(IMPORTED)
    env = {"PYTHONPATH": str(folder / "site"), "ND_VIEWER": f"{program(folder, 'see', 'touch seen')} &"}
    with Visit(f"{LAYER}:{UNIT}", folder=folder, env=env) as visit:
        visit.opened("top images")
        visit.press("o")
        visit.see("Opened with see")
        visit.press("e")
        visit.see("rows written")
        visit.press("2")
        visit.see("detectors by layer")
        visit.press("3")
        visit.see("unique detectors")
        visit.press("q")
    restored(visit, 0)
    imported = (folder / "imported").read_text().split()
    assert "ndissect.tui.app.app" in imported
    assert [name for name in imported if name.partition(".")[0] in ("torch", "torchvision", "pandas", "scipy")] == []
    assert [name for name in imported if name.startswith("ndissect.engine")] == []


# A run that goes on

# The network waits at its second image for the file `first`; it takes its time over the images that are counted, of
# which results are published every five seconds, also where a busy machine takes long to make them, and waits at the
# last one for the file `second`.
AT_ANY_COST = """
from ndissect.engine.run import publishing

publishing._SHARE = 1e9
"""
SLOW = """
    def forward(self, x):
        from pathlib import Path
        from time import monotonic, sleep
        self.calls = getattr(self, "calls", 0) + 1
        first, last = 2 + {examined}, 1 + {examined} + {images}  # one call looks at the layers, some try the network
        limit = 100 if self.calls in (first, last) else 0.6 if self.calls > first else 0
        gate, end = Path("first" if self.calls == first else "second"), monotonic() + limit
        while not gate.exists() and monotonic() < end:
            sleep(0.02)
"""


def test_a_run_is_watched_from_its_first_images_to_its_store(tmp_path: Path) -> None:
    cli.write_inputs(tmp_path)
    network = cli.NETWORK.replace("    def forward(self, x):\n", SLOW.format(images=cli.IMAGES, examined=cli.EXAMINED))
    assert network != cli.NETWORK
    (tmp_path / "net.py").write_text(network + AT_ANY_COST)
    store = tmp_path / "net-small.nd.h5"
    run = subprocess.Popen(
        [str(cli.ND), *cli.DISSECT, "--batch-size", "1"],
        cwd=tmp_path,
        env=cli.environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    try:
        wait_until(lambda: (tmp_path / f".{store.name}.run").exists() or run.poll() is not None)
        assert run.poll() is None, run.communicate()
        with Visit(folder=tmp_path) as visit:
            visit.see("net-small.nd.h5", "thresholds", "no counts yet", "units", "deep.pool", "q quit")
            (tmp_path / "first").touch()
            visit.see("images so far")
            assert not store.exists()
            visit.press("\r")
            visit.see("threshold", "tree")
            (tmp_path / "second").touch()
            visit.see("the run has ended: this is its store")
            assert store.exists()
            visit.press("q")
        restored(visit, 0)
        out, _ = run.communicate(timeout=60)
        assert run.returncode == 0, out
    finally:
        run.kill()
        run.wait()
    with Visit(folder=tmp_path) as again:
        again.see("net-small.nd.h5 › units", "tree")
        again.press("q")
    restored(again, 0)
