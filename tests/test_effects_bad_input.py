"""What can go wrong in ``nd why``, ``nd ablate`` and ``nd attack``, and how little of it is lost."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from class_factory import write_folders, write_labelled, write_network

from ndissect.engine.experiments import ablate as ablating
from ndissect.engine.experiments.ablate import ablate
from ndissect.engine.experiments.ablation_curve import ablation_curve
from ndissect.engine.experiments.attack import attack
from ndissect.engine.experiments.classified import open_classified
from ndissect.engine.experiments.effect_request import EffectRequest
from ndissect.engine.experiments.explanation import ExplainedImage, Explanation
from ndissect.engine.machine.console import Console
from ndissect.engine.run.options import Options
from ndissect.engine.run.to_store import dissect_to_store
from ndissect.store.effects import Classes
from ndissect.store.errors import NDError
from ndissect.store.reader import Store
from ndissect.tui.cli import ablate as ablate_command
from ndissect.tui.cli import output, why
from ndissect.tui.cli.effect_options import labelled_layer
from ndissect.tui.cli.output import PrintedColumn, PrintedTable, print_table
from ndissect.tui.cli.progress import PlainProgress, rate_text
from ndissect.tui.tables.ablated import Ablated
from ndissect.tui.tables.contributions import Explained

COLORS = ("red", "green", "blue")
# Unit 1 is dead; several images at a time are too many for the other network.
NETWORKS = """
import torch
from net import network as whole


class Dead(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net
        with torch.no_grad():
            net.units.weight[1], net.units.bias[1] = 0, -1

    def forward(self, x):
        return self.net(x)


class Failing(Dead):
    def forward(self, x):
        if len(x) > 4:
            raise ValueError("boom")
        return self.net(x)


def dead():
    net, transform = whole()
    return Dead(net), transform


def failing():
    net, transform = whole()
    return Failing(net), transform
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """net.py and odd.py, and images of their classes, a folder each."""
    folder = tmp_path_factory.mktemp("made")
    write_network(folder)
    with (folder / "net.py").open("a", encoding="utf-8") as net:
        net.write("\n\ndef plain():\n    return Net()\n")
        net.write("\n\ndef weaker():\n    net, transform = network()\n")
        net.write("    net.units.weight.data *= 0.9\n    return net, transform\n")
    (folder / "odd.py").write_text(NETWORKS, encoding="utf-8")
    write_folders(folder / "images", {str(k): [k] * 4 for k in range(3)})
    return folder


def request(folder: Path, factory: str, layer: str = "net.units") -> EffectRequest:
    options = Options(device="cpu")
    return EffectRequest(None, f"{folder / 'odd.py'}:{factory}", options, layer=layer, images=str(folder / "images"))


def test_a_unit_that_hurts_no_class_names_none(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ablated = Ablated(ablate(request(made, "dead")), None)
    assert {row.hurt.unit: row.hurts for row in ablated.units} == {0: True, 1: False, 2: True}
    assert ablated.units[-1].hurt.unit == 1
    ablate_command._print(ablated, json=False, limit=None)
    *_, last = capsys.readouterr().out.splitlines()
    assert last.split("\t")[:6] == ["1", "", "", "", "", ""]


@pytest.mark.parametrize("experiment", ["ablate", "attack"])
def test_a_network_that_fails_is_no_defect_of_nd(made: Path, experiment: str) -> None:
    with pytest.raises(NDError, match=r"failing failed.*boom"):
        if experiment == "ablate":
            ablate(request(made, "failing"))
        else:
            with open_classified(request(made, "failing"), Console()) as c:
                attack(c, 0, steps=1)


def test_effects_are_shown_though_their_store_is_gone(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "small.nd.h5"
    write_labelled(tmp_path / "data", tuple(f"{name}-s" for name in COLORS))
    options = Options(
        f"{made / 'net.py'}:network", ("units",), data=str(tmp_path / "data"), quantile="0.2", null=0, device="cpu"
    )
    dissect_to_store(options, Console(), output=store)
    add = ablating.add_effects

    def add_too_late(path: Path, *more: Any) -> Any:
        path.unlink()
        return add(path, *more)

    monkeypatch.setattr(ablating, "add_effects", add_too_late)
    done = ablate(EffectRequest(store, layer="units", images=str(made / "images"), options=Options(device="cpu")))
    assert done.written is None
    assert done.unwritten is not None
    assert len(done.effects.units) == 3
    assert os.listdir(tmp_path) == ["data"]  # noqa: PTH208 - hidden files too
    with labelled_layer(store, "units") as view:
        assert view is None
    assert f"units have no labels: no store at {store}" in capsys.readouterr().err.replace("\n", " ")


def test_effects_are_not_given_to_labels_of_other_weights(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that was dissected anew while its units were taken away."""
    store, other = tmp_path / "small.nd.h5", tmp_path / "other.nd.h5"
    write_labelled(tmp_path / "data", tuple(f"{name}-s" for name in COLORS))
    for path, factory in ((store, "network"), (other, "weaker")):
        spec, data = f"{made / 'net.py'}:{factory}", str(tmp_path / "data")
        dissect_to_store(
            Options(spec, ("units",), data=data, quantile="0.2", null=0, device="cpu"), Console(), output=path
        )
    predict = ablating.predict_without

    def predict_meanwhile(*args: Any, **more: Any) -> Any:
        other.replace(store)
        return predict(*args, **more)

    monkeypatch.setattr(ablating, "predict_without", predict_meanwhile)
    done = ablate(EffectRequest(store, layer="units", images=str(made / "images"), options=Options(device="cpu")))
    assert done.written is None
    assert "other weights" in str(done.unwritten)
    with Store(store) as opened:
        assert opened.layer("units").effects is None


def test_effects_of_images_made_ready_in_another_way_rank_no_unit(made: Path, tmp_path: Path) -> None:
    store = tmp_path / "small.nd.h5"
    write_labelled(tmp_path / "data", tuple(f"{name}-s" for name in COLORS))
    spec = f"{made / 'net.py'}:plain"
    ready = Options(spec, ("units",), data=str(tmp_path / "data"), quantile="0.2", null=0, device="cpu", size="16")
    dissect_to_store(ready, Console(), output=store)
    ranked = []
    for size in ("16", "8"):
        some = EffectRequest(
            store, layer="units", images=str(made / "images"), options=Options(device="cpu", size=size)
        )
        if size == "16":
            ablate(some)
        with open_classified(some, Console()) as c:
            ranked.append(ablation_curve(c, 0, draws=2).ranking.stored)
    assert ranked == [True, False]


TABLE = PrintedTable([PrintedColumn("unit")], [[7]], title="what a single class loses without the units that it needs")


def test_a_pipe_is_told_the_title_where_it_is_told_the_notes(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(TABLE, notes_in_logs=True)
    told = capsys.readouterr()
    assert (told.out, told.err) == ("unit\n7\n", f"{TABLE.title}\n")
    print_table(TABLE)
    assert capsys.readouterr().err == ""


def test_a_title_breaks_between_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(output, "on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "20")
    print_table(TABLE)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["what a single class", "loses without the", "units that it needs", "unit", "7"]


def test_progress_says_what_it_counts(made: Path) -> None:
    counted: list[tuple[str, str]] = []
    said: list[str] = []

    class Told(PlainProgress):
        def advance(self, images: int) -> None:
            counted.append((self._phase, self.counts))
            super().advance(images)

    class Terminal(Console):
        @contextlib.contextmanager
        def progress(self) -> Iterator[Told]:
            yield Told()

        def tell(self, text: str) -> None:
            said.append(text)

    ablate(request(made, "dead"), console=Terminal())
    assert counted
    assert said[0].endswith("dead, net.units, 3 units, data images (12 images), on cpu")
    assert {counts for phase, counts in counted if phase == "ablation"} == {"predictions"}
    told = Told()
    told.counts = "predictions"
    told.start("tally", 3)
    assert told.counts == "images"


def test_slow_work_has_a_rate() -> None:
    assert [rate_text(rate) for rate in (0.0, 0.172, 3.4, 120.4)] == [
        "0 images/s",
        "0.17 images/s",
        "3 images/s",
        "120 images/s",
    ]


def test_an_explanation_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    units = 60
    added = np.where(np.arange(units) % 2, 1.0, -1.0)
    image = ExplainedImage("a.png", 0, 0, -1, 0.0, 0.0, 0.0)
    explanation = Explanation(
        network="net",
        layer="units",
        classes=Classes(COLORS, source="the network"),
        images=(image, image),
        versus=-1,
        how="linear head",
        reason="",
        exact=True,
        contributions=added,
        low=added,
        high=added,
        closeups=(),
    )
    explained = Explained(explanation, None)
    why._print(explained, None)
    assert len(capsys.readouterr().out.splitlines()) == 1 + units  # a pipe gets all
    monkeypatch.setattr(output, "on_terminal", lambda: True)
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("COLUMNS", "80")
    why._print(explained, None)
    assert len(capsys.readouterr().out.splitlines()) <= 23
    why._print(explained, 0)
    assert len(capsys.readouterr().out.splitlines()) > units
