"""Names of files, layers, concepts, images and all that files say of themselves never reach a terminal as they are.

Every command looks at, or fails over, a workplace in which everything has a name full of escape sequences, C1 codes,
directions of text and characters that nobody sees: in pipes nothing of it is left, on a terminal there are the
sequences of Rich and Textual alone, and JSON is read as the names that there are.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cli
import faults
import hostile
import pytest
from hostile import DATA, EVIL, OTHER, RUN, SERIES, SPEC, STORE, TABLE, WEIGHTS, harmless, left_of, name, seen, strange
from tmux import TMUX, Tmux

from ndissect.store.reader import Store

OPTION = name("OPTION")
#: Fewer than this many pairs of a command and a kind of name that it showed would mean that names were not shown.
SHOWN = 150
S, SECOND = ("-s", STORE), ("-s", OTHER)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile.workplace(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def layer(place: Path) -> str:
    with Store(place / STORE) as store:
        return store.layer_names[0]


@pytest.fixture(scope="module")
def concept(place: Path) -> str:
    with Store(place / STORE) as store:
        return store.concepts.label(3)


@pytest.fixture(autouse=True, scope="module")
def _without_a_fork_server_of_another_folder() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def looks(layer: str, concept: str) -> list[tuple[str, ...]]:
    """Commands that look at stores, data and runs, that export, and that fail over what they were given."""
    file = hostile.file_name("FILE")
    shown = [
        ("inspect", *S), ("inspect", layer, *S), ("inspect", f"{layer}:1", *S), ("inspect", OPTION, *S),
        ("inspect", f"{layer}:x", *S), ("inspect", f"{layer}:99", *S), ("inspect", layer, *S, "--category", OPTION),
        ("inspect", layer, *S, "--sort", OPTION), ("inspect", "-s", f"{file}.nd.h5"), ("inspect", "-s", TABLE),
        ("inspect", f"--{OPTION}"), ("inspect", "--limit", OPTION), ("inspect", "a", OPTION), (OPTION,),
        ("concepts", *S), ("concepts", OPTION, *S), ("concepts", concept, *S), ("concepts", "CONCEPT", *S, "-n", "3"),
        ("classes", *S), ("classes", OPTION, *S), ("classes", "0", *S), ("classes", "CLASS", *S, "-n", "3"),
        ("compare", STORE, OTHER), ("compare", layer, f"{layer}1", *S), ("compare", STORE, OPTION),
        ("compare", f"{STORE}:{OPTION}", OTHER), ("compare", STORE, OTHER, "--plot", f"{file}.svg"),
        ("compare", STORE, OTHER, "--plot", f"{file}.jpg"), ("compare", STORE, OTHER, "--layer", layer),
        ("overlay", f"{layer}:1", *S, "-o", f"{file}.png"), ("overlay", f"{layer}:1", *S, "-o", STORE),
        ("overlay", f"{layer}:0", *S, "--truth"), ("overlay", OPTION, *S),
        ("overlay", f"{layer}:1", *S, "-f", "--open"), ("overlay", f"{layer}:1", *S, "--concept", OPTION, "-f"),
        ("overlay", f"{layer}:1", *S, "-o", f"{OPTION}/x.png"),
        ("report", *S, "-o", f"{file}.html"), ("report", *S, "-o", STORE), ("report", OPTION, *S),
        ("report", *S, "--units", OPTION), ("report", *S, "-f", "-o", f"{file}2.html"),
        ("export", layer, *S), ("export", *S), ("export", layer, *S, "-o", f"{file}2.csv"), ("export", OPTION, *S),
        ("export", "--effects", *S), ("export", "--effects", *S, "--format", "json"),
        ("export", *S, "--format", "json"), ("export", *S, "--format", "json", "-o", f"{file}.json"),
        ("export", *S, "--format", "parquet", "-o", f"{file}.parquet"), ("export", *S, "--format", OPTION),
        ("export", *S, "--format", "milan", "-o", f"{file}.milan"), ("export", *S, "--format", "milan", "-o", DATA),
        ("import", TABLE, "-o", f"{file}.nd.h5"), ("import", TABLE, "-o", STORE), ("import", STORE),
        ("import", TABLE, "--layer", OPTION, "-o", f"{file}3.nd.h5"), ("import", OPTION), ("status",),
        ("status", RUN), ("status", OPTION), ("status", STORE), ("browse", *S), ("browse", OPTION, OPTION, OPTION),
        ("browse", f"--{OPTION}"), ("data", "info", DATA), ("data", "info", OPTION), ("data", "check", DATA),
        ("data", "check", OPTION), ("data", "download", OPTION), ("data", "pack", OPTION), ("data", OPTION),
        ("data", "info", DATA, OPTION),
        ("merge", OPTION), ("merge", STORE), ("merge", RUN), ("bench", OPTION, "-d", DATA), ("bench", f"--{OPTION}"),
        ("dissect", OPTION, "-d", DATA), ("dissect", "-d", OPTION), ("dissect", "-o", f"{OPTION}/x"),
        ("dissect", "--size", OPTION),
        *(("dissect", spec, "-d", DATA) for spec in (f"{SPEC}:{OPTION}", f"{OPTION}.py:network", f"{SPEC}:failing")),
        *(("dissect", spec, "-d", DATA) for spec in (f"torchvision:{OPTION}", f"timm:{OPTION}", f"{OPTION}.a:b")),
        *(("dissect", "-d", DATA, option, OPTION) for option in ("--protocol", "--quantile", "--grid", "--memory")),
        *(("dissect", "-d", DATA, option, OPTION) for option in ("--shard", "--device")),
        ("layers", OPTION), ("layers", f"{SPEC}:failing"), ("sweep", OPTION, "-d", DATA),
        ("sweep", "--quantiles", OPTION), ("rotate", OPTION, "-d", DATA), ("rotate", "--alphas", OPTION),
        ("series", OPTION, "-d", DATA), ("series", DATA), ("inspect", "--debug", *S, OPTION),
    ]  # fmt: skip
    json_too = [
        ("inspect", *S), ("inspect", layer, *S), ("inspect", f"{layer}:1", *S), ("concepts", *S), ("classes", *S),
        ("classes", "0", *S),
        ("concepts", concept, *S), ("compare", STORE, OTHER), ("status",), ("data", "info", DATA),
        ("data", "check", DATA), ("overlay", f"{layer}:1", *S, "-f", "-o", f"{file}2.png"),
    ]  # fmt: skip
    return [*shown, *((*command, "--json") for command in json_too)]


def runs(layer: str) -> list[tuple[str, ...]]:
    """Commands that run the network, and that pack the data, in turn."""
    network, file = f"{SPEC}:network", hostile.file_name("FILE")
    data = ("-d", DATA, "--quantile", "0.2")
    return [
        ("layers", network), ("layers", network, "--json"),
        ("dissect", network, *data, "-l", "LAYER*", "-o", f"{file}d.nd.h5"),
        ("dissect", network, *data, "-l", "LAYER*", "-o", f"{file}d.nd.h5", "--skip-bad"),
        ("dissect", network, *data, "-l", "LAYER*", "-o", f"{file}d.nd.h5", "--skip-bad"),
        ("dissect", network, *data, "-l", "LAYER*", "--skip-bad", "--shard", "1/2", "-o", f"{file}s.nd.h5"),
        ("merge", f"{file}s.nd.h5"),
        ("dissect", network, *data, "-l", "LAYER*", "--skip-bad", "--shard", "2/2", "-o", f"{file}s.nd.h5"),
        ("merge", f"{file}s.nd.h5"),
        ("dissect", network, *data, "-l", OPTION, "-o", f"{file}e.nd.h5"),
        ("dissect", network, *data, "-l", "LAYER*", "-o", f"{file}d.nd.h5"),
        ("dissect", network, *data, "--weights", WEIGHTS, "-o", f"{file}w.nd.h5"),
        ("dissect", network, *data, "--weights", WEIGHTS, "--partial", "-l", "LAYER*", "-o", f"{file}w.nd.h5"),
        ("dissect", network, *data, "--weights", DATA, "-o", f"{file}w.nd.h5"),
        ("sweep", network, "-d", DATA, "-l", "LAYER*", "--skip-bad", "--plot", f"{file}s.svg"),
        ("rotate", network, "-d", DATA, "-l", "LAYER*", "--skip-bad", "--alphas", "0,1", "--plot", f"{file}r.svg"),
        ("series", network, f"{SPEC}:failing", "-d", DATA, "-l", "LAYER*", "--skip-bad"),
        ("series", SERIES, "-d", DATA, "-l", "LAYER*", "--skip-bad", "--plot", f"{file}t.svg"),
        ("series", SERIES, "-d", DATA, "-l", "LAYER*", "--skip-bad", "--json"),
        ("series", SERIES, "-d", DATA, "-l", "LAYER*", "--only", f"{OPTION}=1"),
        ("bench", network, "-d", DATA, "-l", "LAYER*", "--images", "4"),
        ("data", "pack", DATA), ("data", "pack", DATA, "--remove"), ("doctor",),
    ]  # fmt: skip


def told(place: Path, args: tuple[str, ...]) -> set[str]:
    """Run ``nd args`` with both outputs piped and look at all that it says; the kinds of names in it."""
    env = {"ND_VIEWER": OPTION, "ND_CACHE": str(place / hostile.file_name("FILE", "cache")), "OMP_NUM_THREADS": "1"}
    done = faults.Command(*args, folder=place, env=env).end(120)
    for said in (done.stdout, done.stderr):
        assert harmless(said, layout="\n\t"), (args, strange(said, "\n\t"), said)
    if (
        done.returncode
        and "--debug" not in args
        and args[0] not in ("status", "doctor")
        and args[:2] != ("data", "check")
    ):
        two = done.stderr.splitlines()[-2:]
        assert two[0].startswith("nd: "), (args, done)
        assert two[1].startswith("    "), (args, done)
    assert "a defect of nd" not in done.stderr, (args, done.stderr)
    if "--json" in args and done.returncode == 0:
        kept = json.dumps(json.loads(done.stdout), ensure_ascii=False)
        assert any(not harmless(c) for c in kept) or args[0] == "data", "names are exact in JSON"
    return seen(done.stdout + done.stderr)


def test_every_command_in_a_pipe(place: Path, layer: str, concept: str) -> None:
    commands = looks(layer, concept)
    found = cli.in_parallel(lambda args: told(place, args), commands)
    pairs = sum(map(len, found))
    print(f"{len(commands)} commands, {pairs} pairs of a command and a kind of name that it showed")
    assert pairs >= SHOWN


def test_every_command_that_runs_a_network_in_a_pipe(place: Path, layer: str) -> None:
    commands = runs(layer)
    found = {args: told(place, args) for args in commands}
    print(f"{len(commands)} commands, {sum(map(len, found.values()))} pairs")
    everything = set.union(*found.values())
    assert (place / f"{hostile.file_name('FILE')}s.nd.h5").exists(), "shards of such a name are put together"
    assert {"SPEC", "LAYER", "DATA", "IMAGE", "FILE", "KEY", "OPTION", "VALUE", "FACTOR"} <= everything


def on_a_terminal(raw: str) -> None:
    rest = left_of(raw)
    assert harmless(rest, layout="\r\n\t"), strange(rest, "\r\n\t")


def test_commands_on_a_terminal(place: Path, layer: str, concept: str) -> None:
    network, file = f"{SPEC}:network", hostile.file_name("FILE")
    commands = [
        ("inspect", *S), ("inspect", layer, *S), ("inspect", f"{layer}:1", *S), ("inspect", layer, *S, "--json"),
        ("concepts", *S), ("concepts", concept, *S), ("compare", STORE, OTHER), ("status",), ("data", "info", DATA),
        ("classes", *S), ("classes", "0", *S), ("data", "check", DATA), ("inspect", OPTION, *S), (OPTION,),
        ("export", layer, *S),
        ("overlay", f"{layer}:1", *S, "-f", "-o", f"{file}t.png"), ("report", *S, "-f", "-o", f"{file}t.html"),
        ("dissect", network, "-d", DATA, "--quantile", "0.2", "-l", "LAYER*", "--skip-bad", "-o", f"{file}t.nd.h5"),
    ]  # fmt: skip
    env = {"OMP_NUM_THREADS": "1"}
    found = cli.in_parallel(lambda args: cli.on_terminal(*args, folder=place, env=env), commands)
    for args, terminal in zip(commands, found, strict=True):
        on_a_terminal(terminal.raw)
        assert seen(terminal.text), (args, terminal.text)
    print(f"{len(commands)} commands, {sum(len(seen(t.text)) for t in found)} pairs")


def test_a_question_on_a_terminal(place: Path) -> None:
    (place / f"{OPTION}.nd.h5".replace("/", "")).write_bytes(b"mine")
    args = ("import", TABLE, "-o", f"{OPTION}.nd.h5".replace("/", ""))
    with cli.Terminal(*args, folder=place) as terminal:
        terminal.wait_for("Replace it?")
        terminal.type("n\n")
    on_a_terminal(terminal.raw)
    assert "is kept" in terminal.text


# Through all screens: a layer, its units, a unit, a copy, marks, a comparison, concepts, summaries, stores, help, the
# palette, a filter, an export, a picture that no viewer shows.
KEYS = ("\r", "\r", "j", "y", "h", " ", " ", "c", "\x1b", "2", "\r", "\x1b", "3", "3", "4", "y", "1", "?", "\x1b", ":")
MORE = ("\x1b", "/nothing\x1b[200~\u202e\x07\u200bx\x1b[201~\r", "\x1b", "e", "1", "\r", "\r", "o")


@pytest.mark.parametrize("columns", [80, 200])
def test_the_terminal_ui(place: Path, columns: int) -> None:
    found = place.parent / f"bin{columns}"  # no viewer of pictures
    found.mkdir()
    (found / "sh").symlink_to(str(shutil.which("sh")))
    env = {"PATH": str(found), "OMP_NUM_THREADS": "1"}
    with cli.Terminal("browse", STORE, folder=place, columns=columns, lines=40, env=env) as terminal:
        terminal.wait_for("LAYER")
        for key in (*KEYS, *MORE):
            before = len(terminal.raw)
            terminal.type(key)
            while len(terminal.raw) == before and terminal._read():
                pass
        terminal.wait_for("the path is copied")
        terminal.type("q")
    assert terminal.code == 0, terminal.text
    copied = terminal.raw.count("\x1b]52;c;")
    assert copied, "what y copies goes to the clipboard"
    assert EVIL[:10] not in terminal.raw
    raw = hostile.COPIED.sub("", terminal.raw)
    on_a_terminal(raw)
    assert {"STORE", "LAYER", "CONCEPT", "IMAGE"} <= seen(terminal.text)


@pytest.mark.skipif(TMUX is None, reason="tmux is not installed")
def test_neither_clipboard_nor_title_of_tmux_are_set_by_names(place: Path) -> None:
    link = place.parent / "place"
    link.symlink_to(place.name)
    with Tmux(place.parent) as tmux:
        before = tmux.ask("pane_title")
        tmux.run('cd place; set -- STORE*; nd browse "$1"')
        tmux.wait_for("LAYER", "help")
        tmux.press("Enter")
        tmux.wait_for("CONCEPT")
        tmux.press("q")
        tmux.wait_for("ready:")
        tmux.run("nd inspect; nd status; nd data info DATA*")
        tmux.wait_for("COMMAND")
        assert tmux.copied() == ""
        assert tmux.ask("pane_title") == before
