"""Ablation curves of networks in which unit k alone decides class k, and of the same networks with a rotated layer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cli
import numpy as np
import pytest
import torch
from planted_classes import CLASSES, COLOURS, UNITS, write_planted_data, write_planted_images, write_planted_network
from store_factory import dissection

from ndissect.engine.experiments.ablate import ablate
from ndissect.engine.experiments.ablation_curve import AblationCurve, ablation_curve, random_orders
from ndissect.engine.experiments.classified import Classified, EffectRequest, open_classified
from ndissect.engine.experiments.predictions import predict_without
from ndissect.engine.machine.console import Console
from ndissect.engine.networks.linear_head import find_linear_head
from ndissect.engine.networks.taps import Tap
from ndissect.engine.run.options import Options
from ndissect.engine.run.to_store import dissect_to_store
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.reader import Store
from ndissect.store.writer import write_store
from ndissect.tui.cli import ablate_curve

HEADS = ("linear", "nonlinear")
PLANTED = len(COLOURS)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    write_planted_network(folder)
    write_planted_images(folder / "images")
    return folder


@contextmanager
def opened(folder: Path, factory: str) -> Iterator[Classified]:
    request = EffectRequest(
        network=f"{folder / 'planted_classes.py'}:{factory}", layer="units", images=str(folder / "images/classes.csv")
    )
    with open_classified(request, Console()) as c:
        yield c


def balanced(curve: AblationCurve, kind: str) -> list[float]:
    series = curve.of(kind)
    assert series is not None
    return [point.balanced_accuracy.value for point in series.points]


@pytest.mark.parametrize("head", HEADS)
def test_the_unit_that_decides_a_class_is_found_and_decides_it(workplace: Path, head: str) -> None:
    with opened(workplace, head) as c:
        assert c.classes.names == CLASSES
        for name in COLOURS:
            k = c.class_number(name)
            curve = ablation_curve(c, k, draws=5)
            assert curve.how == {"linear": "linear head", "nonlinear": "tail"}[head]
            assert (curve.split, curve.ranking.split) == ("val", "train")
            assert curve.ranking.units[0] == k
            assert curve.ranking.balanced_accuracy[k] == 0.5
            assert (np.delete(curve.ranking.balanced_accuracy, k) == 1).all()
            assert balanced(curve, "remove") == [1, 0.5, 0.5, 0.5, 0.5, 0.5]
            assert balanced(curve, "keep") == [0.5, 1, 1, 1, 1, 1]
            assert curve.of("remove").halved == curve.of("keep").halved == 1
            orders = random_orders(UNITS, 5, 0)
            for point in curve.of("random").points:
                assert point.draws == tuple(0.5 if k in order[: point.n] else 1 for order in orders)


@pytest.mark.parametrize("head", HEADS)
def test_units_that_no_class_looks_at_do_nothing(workplace: Path, head: str) -> None:
    others = tuple(range(PLANTED, UNITS))
    with opened(workplace, head) as c:
        found = predict_without(c, [*((unit,) for unit in others), others, others[:2], (0,)], c.images)
    assert (found.predicted[:, :-1] == found.plain[:, None]).all()
    assert np.abs(found.score[:, :-1] - found.plain_score[:, None]).max() < 1e-5
    assert (found.predicted[:, -1] != found.plain).sum() == (found.truth == 0).sum()


@pytest.mark.parametrize("head", HEADS)
def test_a_rotated_layer_predicts_the_same_and_its_units_decide_nothing(workplace: Path, head: str) -> None:
    with opened(workplace, head) as own, opened(workplace, f"{head}_rotated") as turned:
        batch = next(iter(own.batches(own.images)))
        with torch.no_grad():
            plain, rotated = (c.scores(c.network.module(c.inputs(batch))) for c in (own, turned))
        assert torch.equal(plain.argmax(1), rotated.argmax(1))
        assert (plain - rotated).abs().max() < 1e-5
        curves = [ablation_curve(turned, k, draws=2) for k in range(PLANTED)]
    assert all(curve.before.balanced_accuracy.value == 1 for curve in curves)
    # No class is lost without the unit that counts most for it, and with that unit alone few classes are told.
    assert all((curve.ranking.balanced_accuracy == 1).all() for curve in curves)
    assert all(balanced(curve, "remove")[1] == 1 for curve in curves)
    assert np.mean([balanced(curve, "keep")[1] for curve in curves]) < 0.8


@pytest.mark.parametrize("factory", ["linear", "linear_rotated"])
def test_contributions_sum_to_the_score_in_any_basis(workplace: Path, factory: str) -> None:
    with opened(workplace, factory) as c:
        batch = next(iter(c.batches(c.images)))
        inputs = c.inputs(batch)
        tap = c.layer.tap or Tap(c.layer.name)
        head = find_linear_head(c.network, tap, inputs)
        assert head is not None
        with torch.no_grad():
            scores = c.scores(c.network.module(inputs)).double()
            maps = c.network.module.units(c.network.module.lights(inputs))
        truth = c.truth_of(batch.images, scores)
        added = head.contributions(maps, truth)
        score = scores.gather(1, truth[:, None])[:, 0]
        assert (added.sum(1) + head.bias[truth] - score).abs().max() < 1e-5 * scores.abs().max()
        share = added.max(1).values / added.sum(1)
        if factory == "linear":
            assert torch.equal(added.argmax(1), truth)
            assert (share > 0.999).all()
        else:
            assert share.median() < 0.9


def test_labels_and_effects_of_the_store_are_used(workplace: Path) -> None:
    path = workplace / "planted.nd.h5"
    options = Options(
        network=f"{workplace / 'planted_classes.py'}:linear",
        data=str(write_planted_data(workplace / "data")),
        layers=("units",),
        quantile="0.2",
    )
    dissect_to_store(options, Console(), output=path)
    request = EffectRequest(store=path, layer="units")
    with Store(path) as store:
        rows = {name: store.concepts.name.index(f"{name}_patch") for name in COLOURS}

    def curve_of(name: str, label: str) -> AblationCurve:
        with open_classified(request, Console()) as c:
            return ablation_curve(c, c.class_number(name), label=rows[label], draws=2)

    run = curve_of("green", "green")
    assert not run.ranking.stored
    assert run.label == "green patch"
    assert run.of("label").units[0] == CLASSES.index("green")
    assert balanced(run, "label")[:2] == [1, 0.5]
    assert balanced(curve_of("green", "blue"), "label")[:2] == [1, 1]

    ablate(request)
    stored = curve_of("green", "green")
    assert stored.ranking.stored
    assert stored.ranking.units.tolist() == run.ranking.units.tolist()
    assert stored.series == run.series
    with open_classified(request, Console()) as c:
        assert not ablation_curve(c, 1, by="mean", draws=1).ranking.stored


def test_the_command_prints_json_and_draws(workplace: Path) -> None:
    done = cli.nd(
        *("ablate", "units", "--network", "planted_classes.py:linear", "--images", "images/classes.csv"),
        *("--class", "blue", "--curve", "--draws", "3", "--plot", "blue.svg", "--json"),
        folder=workplace,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["class"], found["layer"], found["split"], found["draws"]) == ("blue", "units", "val", 3)
    remove = found["series"][0]
    assert remove["halved"] == 1
    assert remove["units"][0] == CLASSES.index("blue")
    assert [p["n"] for p in remove["points"]] == [0, 1, 2, 4, 8, 16]
    text = (workplace / "blue.svg").read_text("utf-8")
    assert "balanced accuracy of blue" in text
    assert "random removed, mean of 3" in text


def test_a_terminal_shows_the_units_and_the_numbers(workplace: Path) -> None:
    shown = cli.on_terminal(
        *("ablate", "units", "--network", "planted_classes.py:nonlinear", "--images", "images/classes.csv"),
        *("--class", "pink", "--curve", "--draws", "2"),
        folder=workplace,
        columns=150,
        lines=50,
    )
    assert shown.code == 0, shown.text
    pink = CLASSES.index("pink")
    assert re.search(rf"^ +{pink} +0\.500 ", shown.text, re.MULTILINE), shown.text
    assert re.search(r"^ +1 +0\.500 0\.\d+-0\.\d+ +1\.000 ", shown.text, re.MULTILINE), shown.text
    assert "is lost from 1 of 16 units on" in shown.text
    assert "exact, by running what follows the layer" in shown.text


def test_what_cannot_be_is_told_before_a_network_is_loaded(workplace: Path, tmp_path: Path) -> None:
    path = tmp_path / "made.nd.h5"
    write_store(path, dissection())
    none, made = EffectRequest(network="nowhere.py:net"), EffectRequest(store=path, network="nowhere.py:net")
    with pytest.raises(WrongUse, match="is no name of a plot"):
        ablate_curve.curve(none, class_name="red", plot=Path("red.txt"))
    with pytest.raises(WrongUse, match="--label names a concept of a store"):
        ablate_curve.curve(none, class_name="red", label="car")
    with pytest.raises(WrongUse, match="no concept matches 'cax'"):
        ablate_curve.curve(made, class_name="red", label="cax")
    with pytest.raises(WrongUse, match="means 3 concepts"):
        ablate_curve.curve(made, class_name="red", label="tr")
    request = EffectRequest(
        network=f"{workplace / 'planted_classes.py'}:linear",
        layer="units",
        images=str(workplace / "images/classes.csv"),
    )
    with pytest.raises(NDError, match="no image is of the class nothing"):
        ablate_curve.curve(request, class_name="nothing")
    with pytest.raises(WrongUse, match="blu"):
        ablate_curve.curve(request, class_name="blu")
