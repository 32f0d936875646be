"""``nd series``: what a series is of, its networks dissected one after another whatever stops them, table and plot."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cli
import pytest
import torch
from faults import numbers, stopped
from matplotlib.figure import Figure
from safetensors.torch import save_file

from ndissect.engine.experiments.series import Member, choose, others, read_series
from ndissect.store.errors import WrongUse
from ndissect.tui.pictures.series_plot import draw, figure_size
from ndissect.tui.tables.series import Dissected, LayerSummary, panels

# Its first units show what a picture holds (tree, wheel, red), as many of them as the checkpoint says.
NETWORK = '''
import os, time
from pathlib import Path

import torch
from torch import nn


class Net(nn.Module):
    """Stops in a forward pass of the checkpoint with STOP_AT units, for as long as the file ``here`` is there."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(3))
        self.units, self.pool = nn.Identity(), nn.MaxPool2d(4)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        if int(self.gain.sum()) == int(os.environ.get("STOP_AT", -1)) and self.calls == 3 + EXAMINED:
            here = Path("here")
            here.touch()
            while here.exists():
                time.sleep(0.01)
        return self.pool(self.units(x * self.gain[:, None, None]))


def network():
    return Net(), lambda x: x.float()


def one():
    net = Net()
    net.gain.data[:1] = 1
    return net, lambda x: x.float()


def three():
    net = Net()
    net.gain.data[:] = 1
    return net, lambda x: x.float()
'''
RUN = ("-d", "small", "--quantile", "0.2", "--device", "cpu", "-b", "4")
LAYER = ("-l", "units")
SERIES = ("series", "run", "--network", "net.py:network", *LAYER, *RUN)


def state(units: int) -> dict[str, torch.Tensor]:
    return {"gain": (torch.arange(3) < units).float()}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set ``small``, the network, and the folder ``run`` of checkpoints with 0, 1, 2 and 3 units."""
    folder = cli.write_inputs(tmp_path_factory.mktemp("inputs"))
    (folder / "net.py").write_text(f"EXAMINED = {cli.EXAMINED}\n{NETWORK}")
    (folder / "run").mkdir()
    for units, step in ((0, 0), (1, 5), (2, 100), (3, 20000)):
        if units % 2:
            torch.save({"state_dict": state(units)}, folder / "run" / f"step{step}.pt")
        else:
            save_file(state(units), folder / "run" / f"step{step}.safetensors")
    (folder / "run" / "notes.txt").write_text("no checkpoint")
    return folder


@pytest.fixture
def folder(inputs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(inputs, tmp_path, dirs_exist_ok=True))


@pytest.fixture(scope="module")
def whole(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder after a series that nothing has stopped."""
    folder = Path(shutil.copytree(inputs, tmp_path_factory.mktemp("whole"), dirs_exist_ok=True))
    done = cli.nd(*SERIES, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder


STORES = ("step0.nd.h5", "step5.nd.h5", "step100.nd.h5", "step20000.nd.h5")


def stores(folder: Path) -> dict[str, dict[str, bytes]]:
    return {name: numbers(folder / "run.series" / name) for name in STORES}


# What a series is of


def table(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_checkpoints_are_ordered_by_the_number_in_their_names(folder: Path) -> None:
    found = read_series([str(folder / "run")], "net.py:network").members
    assert [(m.name, m.factors) for m in found] == [
        ("step0", {"number": 0.0}),
        ("step5", {"number": 5.0}),
        ("step100", {"number": 100.0}),
        ("step20000", {"number": 20000.0}),
    ]
    assert {m.network for m in found} == {"net.py:network"}
    assert [m.weights for m in read_series([str(folder / "run" / "step5.pt")], "x").members] == [
        folder / "run" / "step5.pt"
    ]


@pytest.mark.parametrize(
    ("names", "numbers_"),
    [
        (("resnet18-epoch3", "resnet18-epoch12"), [3, 12]),
        (("net_5.of_10", "net_7.of_10"), [5, 7]),  # the last number says the same everywhere
        (("width0.5", "width0.25"), [0.25, 0.5]),
        (("v2-10", "v2-9"), [9, 10]),
    ],
)
def test_the_number_is_the_last_one_that_differs(names: tuple[str, ...], numbers_: list[float], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / f"{name}.pt").touch()
    assert [m.factors["number"] for m in read_series([str(tmp_path)], "n").members] == numbers_


CSV = """name,network,weights,iteration,batch_norm,width
a,net.py:one,w.pt,0,yes,1
b,,w.pt,16,no,1
,net.py:three,w.pt,16,,2
"""


def test_a_table_says_it_all(tmp_path: Path) -> None:
    (tmp_path / "w.pt").touch()
    path = table(tmp_path / "series.csv", CSV)
    (tmp_path / "other1.pt").touch()
    found = read_series([str(tmp_path)], "net.py:network").members
    assert found == read_series([str(path)], "net.py:network").members
    assert found == [
        Member("a", "net.py:one", tmp_path / "w.pt", {"iteration": 0.0, "batch_norm": "yes", "width": 1.0}),
        Member("b", "net.py:network", tmp_path / "w.pt", {"iteration": 16.0, "batch_norm": "no", "width": 1.0}),
        Member("w", "net.py:three", tmp_path / "w.pt", {"iteration": 16.0, "width": 2.0}),
    ]
    rows = [
        {"name": "a", "network": "net.py:one", "weights": "w.pt", "iteration": 0, "batch_norm": True, "width": 1},
        {"name": "b", "weights": "w.pt", "iteration": 16, "batch_norm": False, "width": 1},
        {"network": "net.py:three", "weights": "w.pt", "iteration": 16, "batch_norm": None, "width": 2},
    ]
    assert read_series([str(table(tmp_path / "all.json", json.dumps(rows)))], "net.py:network").members == found


def test_factors_are_chosen_and_narrowed(tmp_path: Path) -> None:
    (tmp_path / "w.pt").touch()
    found = read_series([str(table(tmp_path / "s.csv", CSV))], "net.py:network").members
    assert choose(found, None, ()) == ("iteration", found)
    assert choose(found, "width", ["iteration=16"]) == ("width", found[1:])
    assert choose(found, None, ["batch_norm=no", "width=1.0"]) == ("iteration", [found[1]])
    assert others(found[1:], "width") == [{"iteration": 16.0, "batch_norm": "no"}, {"iteration": 16.0}]
    for factor, only, said in (
        ("depth", (), "no factor 'depth'"),
        (None, ("depth=1",), "no factor 'depth'"),
        (None, ("width",), "no FACTOR=VALUE"),
        (None, ("width=3",), "no network of the series has width=3"),
        (None, ("batch_norm=yes", "width=2"), "has width=2"),
    ):
        with pytest.raises(WrongUse, match=said):
            choose(found, factor, only)


def test_networks_are_a_series_by_their_names() -> None:
    found = read_series(["torchvision:resnet18", "a/b.py:small"]).members
    assert [(m.name, m.network, m.weights) for m in found] == [
        ("torchvision_resnet18", "torchvision:resnet18", None),
        ("a_b.py_small", "a/b.py:small", None),
    ]
    assert choose(found, None, ())[0] == "network"


# The command


def test_each_network_is_dissected_as_by_itself(whole: Path) -> None:
    for name, checkpoint in zip(STORES, ("step0.safetensors", "step5.pt"), strict=False):
        args = ("net.py:network", "--weights", f"run/{checkpoint}", *LAYER, *RUN, "-o", "alone.nd.h5", "-f", "-q")
        done = cli.nd("dissect", *args, folder=whole)
        assert (done.returncode, done.stdout) == (0, "")
        assert numbers(whole / "alone.nd.h5") == stores(whole)[name]


def test_the_table_is_what_the_stores_say(whole: Path) -> None:
    rows = cli.rows_of(*SERIES, folder=whole)
    assert [(r["network"], r["number"], r["layer"]) for r in rows] == [
        (f"step{n}", str(n), "units") for n in (0, 5, 100, 20000)
    ]
    assert [int(r["unique/best"]) for r in rows] == [0, 1, 2, 3]
    assert [int(r["object"] or 0) for r in rows] == [0, 1, 1, 1]
    assert [int(r["part"] or 0) for r in rows] == [0, 0, 1, 1]
    assert [int(r["color"] or 0) for r in rows] == [0, 0, 0, 1]
    found = cli.json_of(*SERIES, "--factor", "steps", folder=whole)
    assert found["factor"] == "steps"
    assert "q 0.2" in found["header"]
    for member, name in zip(found["networks"], STORES, strict=True):
        assert member["store"] == f"run.series/{name}"
        inspected = cli.json_of("inspect", "units", "-s", member["store"], folder=whole)
        assert member["layers"] == [{"layer": "units", "summary": inspected["summary"]}]


def test_what_is_dissected_is_not_dissected_again(whole: Path) -> None:
    before = {name: (whole / "run.series" / name).stat().st_mtime_ns for name in STORES}
    done = cli.nd(*SERIES, folder=whole)
    assert done.returncode == 0
    assert "forward pass" not in done.stderr
    assert {name: (whole / "run.series" / name).stat().st_mtime_ns for name in STORES} == before


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_a_series_that_was_stopped_goes_on(by: signal.Signals, folder: Path, whole: Path) -> None:
    first = stopped(folder, *SERIES, by=by, STOP_AT="2")
    assert first.stdout == ""
    if by == signal.SIGKILL:
        assert first.returncode == -signal.SIGKILL
    else:
        assert first.returncode == 128 + by
        last = "\n".join(first.stderr.splitlines()[-2:])
        cli.two_lines(last, "what was counted is saved; 2 of 4 networks are dissected", f"go on: nd {' '.join(SERIES)}")
    kept = {name: (folder / "run.series" / name).stat().st_mtime_ns for name in STORES[:2]}
    assert not (folder / "run.series" / STORES[2]).exists()
    done = cli.nd(*SERIES, folder=folder)
    assert done.returncode == 0, done.stderr
    assert ("going on after" in done.stderr) == (by != signal.SIGKILL)
    assert {name: (folder / "run.series" / name).stat().st_mtime_ns for name in kept} == kept
    assert stores(folder) == stores(whole)


def test_a_checkpoint_that_does_not_fit_stops_the_series_with_what_is_done_kept(folder: Path) -> None:
    save_file({"other": torch.zeros(2)}, folder / "run" / "step100.safetensors")
    done = cli.nd(*SERIES, folder=folder)
    assert (done.returncode, done.stdout) == (1, "")
    last = "\n".join(done.stderr.splitlines()[-2:])
    cli.two_lines(last, "step100: run/step100.safetensors holds other weights", "2 of 4 networks are dissected")
    assert sorted(p.name for p in (folder / "run.series").glob("*.nd.h5")) == ["step0.nd.h5", "step5.nd.h5"]
    (folder / "run" / "step100.safetensors").unlink()
    rows = cli.rows_of(*SERIES, folder=folder)
    assert [r["network"] for r in rows] == ["step0", "step5", "step20000"]


def test_stores_of_other_work_are_not_mixed_in(folder: Path, whole: Path) -> None:
    shutil.copytree(whole / "run.series", folder / "run.series")
    before = {name: (folder / "run.series" / name).read_bytes() for name in STORES}
    other = cli.nd(*SERIES, "--protocol", "pnas2020", folder=folder)
    cli.failed(other, 2, "run.series/step0.nd.h5 was dissected by other rules: protocol", "-o")
    save_file(state(3), folder / "run" / "step0.safetensors")  # trained anew
    other = cli.nd(*SERIES, folder=folder)
    assert other.returncode == 2
    last = "\n".join(other.stderr.splitlines()[-2:])
    cli.two_lines(last, "run.series/step0.nd.h5 is of other work", "-o")
    assert {name: (folder / "run.series" / name).read_bytes() for name in STORES} == before
    shutil.copytree(folder / "small", folder / "large")
    other = cli.nd(*("large" if a == "small" else a for a in SERIES), folder=folder)
    cli.failed(other, 2, "was dissected by other rules: on small; now on large")


def test_networks_by_name_and_a_plot_of_bars(folder: Path) -> None:
    args = ("series", "net.py:one", "net.py:three", *LAYER, *RUN, "-o", "made/by", "--plot", "bars.svg")
    rows = cli.rows_of(*args, folder=folder)
    assert [(r["network"], int(r["unique/best"])) for r in rows] == [("net.py:one", 1), ("net.py:three", 3)]
    assert (folder / "made" / "by" / "net.py_three.nd.h5").is_file()
    text = (folder / "bars.svg").read_text()
    assert all(word in text for word in ("net.py:one", "net.py:three", "unique detectors", "object", "best label"))


def test_a_number_that_no_name_explains_is_told_in_notes_table_and_plot(folder: Path) -> None:
    (folder / "tars").mkdir()
    for name, units in (("checkpoint_0010.pth.tar", 1), ("checkpoint_0020.pth.tar", 3), ("last.ckpt", 2)):
        torch.save({"state_dict": state(units)}, folder / "tars" / name)
    args = ("series", "tars", "--network", "net.py:network", *LAYER, *RUN, "--factor", "epochs", "--plot", "bars.svg")
    done = cli.nd(*args, folder=folder)
    assert done.returncode == 0, done.stderr
    told = "number: what follows checkpoint_"
    assert f"note: {told}\n" in done.stderr
    assert "note: 1 without such a number left out: last.ckpt\n" in done.stderr
    header, *rows = (line.split("\t") for line in done.stdout.splitlines())
    assert header[:2] == ["network", told]
    assert [row[:2] for row in rows] == [["checkpoint_0010", "10"], ["checkpoint_0020", "20"]]
    assert told in (folder / "bars.svg").read_text()


MISTAKES = {
    "an empty folder": (("series", "empty"), "the folder empty holds no checkpoints"),
    "no network": (("series", "run"), "does not say of which network"),
    "two networks": (("series", "net.py:one", "--network", "net.py:one"), "networks are named already"),
    "no number": (("series", "nameless", "--network", "net.py:one"), "best.pt has no number in its name"),
    "the same twice": (("series", "net.py:one", "net.py:one"), "two networks of the series are named net.py_one"),
    "weights that are not there": (("series", "gone.csv"), "there is no file w9.pt"),
    "no table": (("series", "bad.json"), "bad.json is no table of networks"),
    "a table of something else": (("series", "else.csv"), "else.csv is no table of networks"),
    "a table that is not there": (("series", "nowhere.csv"), "cannot read nowhere.csv"),
    "rows without a network": (("series", "rows.csv"), "row 1 names no network"),
    "an unknown factor": ((*SERIES, "--only", "width=2"), "no factor 'width'"),
    "no plot": ((*SERIES, "--plot", "a.pdf"), "a.pdf is no name of a plot"),
    "too many panels": (
        ("series", "many.csv", "--factor", "width", "--plot", "a.png"),
        "the plot would have 20 panels",
    ),
    "an unknown layer": ((*SERIES[:4], "-l", "unit", *RUN), "step0: the network has no layer 'unit'"),
    "no data": ((*SERIES, "-d", "nothing"), "nothing"),
    "no protocol": ((*SERIES, "-p", "mine"), "mine"),
}


@pytest.fixture(scope="module")
def wrong(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(inputs, tmp_path_factory.mktemp("wrong"), dirs_exist_ok=True))
    (folder / "empty").mkdir()
    (folder / "nameless").mkdir()
    (folder / "nameless" / "best.pt").touch()
    table(folder / "gone.csv", "network,weights,step\nnet.py:network,w9.pt,3\n")
    table(folder / "bad.json", '{"network": "net.py:one"')
    table(folder / "else.csv", "alpha,beta\n1,2\n")
    table(folder / "rows.csv", "weights,step\nrun/step5.pt,3\n")
    lines = [f"net.py:one,n{i},{i},{i % 2}" for i in range(20)]
    table(folder / "many.csv", "\n".join(["network,name,step,width", *lines]))
    return folder


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_two_lines(mistake: str, wrong: Path) -> None:
    args, said = MISTAKES[mistake]
    done = cli.nd(*args, folder=wrong)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    cli.two_lines("\n".join(done.stderr.splitlines()[-2:]), said)


# The plot


def dissected(name: str, factors: dict[str, Any], counts: dict[str, int], layer: str = "deep") -> Dissected:
    total = sum(counts.values())
    summary = {"units": 9, "detectors": 8, "unique_per_category": total, "unique_best_label": total - 1}
    return Dissected(Member(name, "n", None, factors), Path(name), (LayerSummary(layer, summary, counts),))


def test_a_panel_for_each_combination_of_the_other_factors_that_has_a_curve() -> None:
    found = [
        dissected("a", {"step": 8.0, "norm": "yes", "seed": 1.0}, {"object": 4, "part": 2}),
        dissected("b", {"step": 1.0, "norm": "yes", "seed": 1.0}, {"object": 1, "part": 1}),
        dissected("c", {"step": 1.0, "norm": "no", "seed": 1.0}, {"object": 2, "part": 1}),
        dissected("d", {"step": 2.0, "norm": "no", "seed": 1.0}, {"object": 3, "part": 1}),
        dissected("e", {"step": 2.0, "norm": "no", "seed": 1.0}, {"object": 4, "part": 3}),
        dissected("f", {"step": 2.0, "norm": "no", "seed": 2.0}, {"object": 9, "part": 9}),
    ]
    yes, no = panels(found, "step")
    assert (yes.title, yes.x, yes.per_category) == ("deep, norm yes", [1, 8], [2, 6])
    assert (no.title, no.x, no.per_category, no.best_label) == ("deep, norm no", [1, 2], [3, 5.5], [2, 4.5])
    assert no.by_category == {"object": [2, 3.5], "part": [1, 2]}


def test_networks_with_other_layers_are_compared_by_their_last() -> None:
    found = [
        dissected("a", {"network": "a"}, {"object": 4}, layer="layer4"),
        dissected("b", {"network": "b"}, {"object": 1}, layer="features.29"),
    ]
    (panel,) = panels(found, "network")
    assert (panel.title, panel.x, panel.per_category) == ("last layer", ["a", "b"], [4, 1])


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ((0, 1, 2, 256), "symlog"),
        ((1, 10, 1000), "log"),
        ((0, 1, 2, 50), "linear"),
        ((0.25, 0.5, 1), "linear"),
        ((7,), "linear"),
    ],
)
def test_the_axis_is_logarithmic_where_the_factor_spans_decades(values: tuple[float, ...], scale: str) -> None:
    found = [dissected(str(v), {"step": float(v)}, {"object": 1, "odd": 2}) for v in values]
    shown = panels(found, "step")
    figure = Figure(figure_size(shown))
    draw(figure, shown, "step", "a note")
    (axes,) = figure.axes
    assert axes.get_xscale() == scale
    assert axes.get_xlabel() == "step"
    assert [float(t.get_text()) for t in axes.get_xticklabels()] == list(values)
    assert {line.get_label() for line in axes.lines} == {"all, per category", "all, best label", "object", "odd"}


# The demo's


def test_the_demos_factors_are_a_series_as_they_are(tmp_path: Path) -> None:
    cli.write_inputs(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "ndissect.engine.demo.factors", "-o", "factors", "--quick"],
        cwd=tmp_path,
        env=cli.environment(tmp_path, {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "factors" / "series.csv").open() as file:
        rows = list(csv.DictReader(file))
    steps = sorted({int(r["iteration"]) for r in rows})
    assert steps == [0, 1, 2, 4]
    kinds = {(r["batch_norm"], r["dropout"], r["width"]) for r in rows}
    assert kinds == {("yes", "0.0", "1"), ("no", "0.0", "1"), ("yes", "0.5", "1"), ("yes", "0.0", "2")}
    assert len(rows) == len(steps) * len(kinds)
    assert {r["weights"] for r in rows} == {p.name for p in (tmp_path / "factors").glob("*.safetensors")}
    facts = json.loads((tmp_path / "factors" / "factors.json").read_text())
    assert facts["wide"]["parameters"] > 3 * facts["baseline"]["parameters"] > 3 * facts["no-batch-norm"]["parameters"]

    last = ("series", "factors", "--only", "iteration=4", "-l", "layer4", "-d", "small", "--device", "cpu")
    found = cli.json_of(*last, "--factor", "width", "--plot", "width.png", folder=tmp_path)
    units = {n["name"]: n["layers"][0]["summary"]["units"] for n in found["networks"]}
    assert units == {"baseline-0004": 128, "no-batch-norm-0004": 128, "dropout-0004": 128, "wide-0004": 256}
    assert (tmp_path / "width.png").read_bytes().startswith(b"\x89PNG")
    rows_ = cli.rows_of(*last, "--factor", "batch_norm", "--only", "width=1", "--only", "dropout=0", folder=tmp_path)
    assert [r["batch_norm"] for r in rows_] == ["yes", "no"]
