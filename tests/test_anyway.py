"""``--anyway``: a run goes on in spite of what was found, and every view of its numbers says so."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import cli
import pytest

from ndissect.store.marks import Mark, read_marks
from ndissect.store.reader import Store

NETWORK = """
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.units = nn.Identity(), nn.Identity()
        self.scores = nn.Linear(4, 2)

    def forward(self, x):
        x = self.first(torch.cat([x.float(), torch.zeros_like(x[:, :1]).float()], 1))
        x = self.units(F.dropout(x, 0.01))
        return self.scores(x.mean((2, 3)))
"""
RUN = ("net.py:Net", "--data", "small", "-l", "units")
SAID = "MARKED: units does not compute the same twice"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = cli.write_inputs(tmp_path_factory.mktemp("place"))
    (folder / "net.py").write_text(NETWORK)
    return folder


@pytest.fixture(scope="module")
def dissected(place: Path) -> subprocess.CompletedProcess[str]:
    return cli.nd("dissect", *RUN, "-l", "first", "--quantile", "0.2", "-o", "m.nd.h5", "--anyway", folder=place)


def test_without_it_the_run_is_refused_and_nothing_is_written(place: Path) -> None:
    before = cli.files_in(place)
    done = cli.nd("dissect", *RUN, "-o", "other.nd.h5", folder=place)
    assert done.returncode == 1
    last = "\n".join(done.stderr.splitlines()[-2:])
    cli.two_lines(last, "the layer units does not compute the same twice", "--anyway")
    assert cli.files_in(place) == before


def test_the_summary_and_the_store_say_it(place: Path, dissected: subprocess.CompletedProcess[str]) -> None:
    assert dissected.returncode == 0, dissected.stderr
    assert SAID in dissected.stderr
    with Store(place / "m.nd.h5") as store:
        (mark,) = store.marks
        assert (mark.layer, mark.kind) == ("units", "twice")
        assert store.layer("units").marks == (mark,)
        assert store.layer("first").marks == ()


@pytest.mark.parametrize(
    "view", [("inspect",), ("inspect", "units"), ("inspect", "units:0"), ("concepts",), ("concepts", "tree")]
)
def test_every_table_says_it_and_json_holds_it(place: Path, dissected: object, view: tuple[str, ...]) -> None:
    terminal = cli.on_terminal(*view, "-s", "m.nd.h5", folder=place, columns=300)
    assert SAID in terminal.text
    piped = cli.nd(*view, "-s", "m.nd.h5", folder=place)
    assert SAID in piped.stderr
    assert "MARKED" not in piped.stdout
    found = cli.json_of(*view, "-s", "m.nd.h5", folder=place)
    assert [(mark["layer"], mark["kind"]) for mark in found["marks"]] == [("units", "twice")]


def test_layers_that_are_not_marked_say_nothing(place: Path, dissected: object) -> None:
    assert "MARKED" not in cli.on_terminal("inspect", "first", "-s", "m.nd.h5", folder=place, columns=300).text
    assert cli.json_of("inspect", "first", "-s", "m.nd.h5", folder=place)["marks"] == []


def test_reports_exports_comparisons_and_overlays_say_it(place: Path, dissected: object) -> None:
    done = cli.nd("report", "-s", "m.nd.h5", "-o", "r.html", folder=place)
    assert done.returncode == 0, done.stderr
    assert SAID in (place / "r.html").read_text()
    exported = json.loads(cli.nd("export", "-s", "m.nd.h5", "--format", "json", folder=place).stdout)
    assert exported["marks"][0]["kind"] == "twice"
    assert exported["notes"][0].startswith(SAID)
    done = cli.nd("export", "units", "-s", "m.nd.h5", folder=place)
    assert SAID in done.stderr
    compared = cli.json_of("compare", "first", "units", "-s", "m.nd.h5", folder=place)
    assert [(m["layer"], m["kind"]) for m in compared["marks"]] == [("B units", "twice")]
    assert any(note.startswith("MARKED: B units") for note in compared["notes"])
    from ndissect.tui.pictures.sheets import unit_sheet

    with Store(place / "m.nd.h5") as store:
        marked, plain = (unit_sheet(store.layer(name), 0).image.size[1] for name in ("units", "first"))
    assert marked > plain  # lines more below the title


def test_browse_says_it_wherever_numbers_of_the_layer_stand(place: Path, dissected: object) -> None:
    from ndissect.tui.app.concepts import concepts_listing
    from ndissect.tui.app.layers import layers_listing
    from ndissect.tui.app.session import Session
    from ndissect.tui.app.summary import summary_listing
    from ndissect.tui.app.unit import unit_listing
    from ndissect.tui.app.units import layer_units

    session = Session(place / "m.nd.h5")
    for listing in (
        layers_listing(session), concepts_listing(session), layer_units(session, "units"), layer_units(session, ""),
        unit_listing(session, "units", 0),
    ):  # fmt: skip
        assert listing.notes[0].startswith(SAID), listing.name
    summary = summary_listing(session)
    assert any(str(summary.cells(i)[0]).startswith(SAID) for i in range(summary.count))
    assert not any("MARKED" in note for note in layer_units(session, "first").notes)


def test_a_marked_store_is_not_taken_for_what_is_asked_for_without_it(place: Path, dissected: object) -> None:
    again = cli.nd("dissect", *RUN, "-l", "first", "--quantile", "0.2", "-o", "m.nd.h5", "--anyway", folder=place)
    assert again.returncode == 0, again.stderr
    assert "holds this dissection already" in again.stderr
    plain = cli.nd("dissect", *RUN, "-l", "first", "--quantile", "0.2", "-o", "m.nd.h5", folder=place)
    assert plain.returncode != 0
    assert "holds this dissection already" not in plain.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("sweep", *RUN, "--quantiles", "0.2,0.1"),
        ("rotate", *RUN, "--alphas", "0,1", "--seeds", "1"),
        ("bench", "net.py:Net", "-l", "units", "-d", "small", "-n", "4", "--rounds", "1"),
    ],
)
def test_other_commands_that_run_a_network_refuse_and_mark_alike(place: Path, command: tuple[str, ...]) -> None:
    done = cli.nd(*command, folder=place)
    assert done.returncode == 1
    assert "the layer units does not compute the same twice" in done.stderr
    found = cli.json_of(*command, "--anyway", folder=place)
    assert [(mark["layer"], mark["kind"]) for mark in found["marks"]] == [("units", "twice")]


def test_a_series_marks_its_networks(place: Path) -> None:
    members = ("series", "net.py:Net", "--data", "small", "-l", "units", "-o", "s")
    assert cli.nd(*members, folder=place).returncode == 1
    found = cli.json_of(*members, "--anyway", folder=place)
    assert SAID in found["header"]


def test_what_a_store_says_of_marks_is_not_believed() -> None:
    long = {"layer": "a", "kind": "twice", "sentence": "\x1b[31m" + "x" * 100_000}
    odd = [None, 3, {}, {"layer": 3}, {"layer": "b", "kind": "twice", "sentence": "no such layer"}]
    odd += [{"layer": "a", "kind": "other", "sentence": "x"}, {"layer": "a", "kind": ["twice"], "sentence": "x"}]
    (mark,) = read_marks([*odd, long, *[{**long, "sentence": str(i)} for i in range(10_000)]], ("a",))
    assert "\x1b" not in mark.sentence
    assert len(mark.sentence) <= 400
    assert read_marks({"layer": "a"}, ("a",)) == read_marks(None, ("a",)) == ()
    assert mark == Mark("a", "twice", mark.sentence)
