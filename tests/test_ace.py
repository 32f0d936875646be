"""The average causal effect of a generator's units, and coefficients that are learned: on one whose units are known.

Unit 2 of the planted generator draws trees alone (tests/planted_generator.py).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cli
import numpy as np
import planted_generator
import pytest
import torch
from torch import Tensor, nn

from ndissect.engine.experiments.ace import Ace, AceRequest, ace, average_effect
from ndissect.engine.experiments.concept_cells import cell_numbers
from ndissect.engine.experiments.concept_scores import ConceptScores
from ndissect.engine.experiments.generated import GeneratorRequest, open_generated
from ndissect.engine.machine.console import Console
from ndissect.engine.run.options import Options
from ndissect.engine.run.to_store import dissect_to_store
from ndissect.store.add_concept_effects import add_concept_effects
from ndissect.store.concept_effects import ConceptEffects
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.reader import Store
from ndissect.tui.cli.ace import _ranking
from ndissect.tui.cli.commands import load
from ndissect.tui.tables.causal import CausalReport

PLANTED = planted_generator.__file__
SAMPLES, TREE = 60, 2
#: A generator and labellers that nd ace cannot learn of, in whole or in part.
ODD = """
from torch import nn
from torchvision.transforms import v2
import torch
import planted_generator
from planted_generator import generator_smooth, labeller


def labeller_with_transform():
    return labeller(), v2.Compose([v2.ToDtype(torch.float32, scale=True)])


class Sized(nn.Module):
    classes = planted_generator.PlantedLabeller.classes

    def __init__(self):
        super().__init__()
        self.labels = labeller()

    def forward(self, x):
        return self.labels(x * 0.25 + 0.5)


def sized():
    return Sized()
"""


def dissected(folder: Path, name: str, generator: str, labeller: str | None, **more: object) -> Path:
    store = folder / f"{name}.nd.h5"
    options = Options(
        network=generator,
        generator=True,
        labeller=labeller,
        samples=SAMPLES,
        layers=("layer",),
        quantile="0.6",
        null=0,
        device="cpu",
    )
    dissect_to_store(replace(options, **more), Console(), output=store)  # type: ignore[arg-type]
    return store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("ace")
    (made / "odd.py").write_text(ODD)
    return made


@pytest.fixture(scope="module")
def smooth(folder: Path) -> Path:
    return dissected(folder, "smooth", f"{PLANTED}:generator_smooth", f"{PLANTED}:labeller")


def request(store: Path, concept: str = "tree", **more: object) -> AceRequest:
    asked = AceRequest(
        GeneratorRequest(store, "layer", Options(device="cpu")), concept, units=1, steps=60, locations=60, held_out=20
    )
    return replace(asked, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tree(smooth: Path, folder: Path) -> Ace:
    return ace(request(Path(shutil.copy(smooth, folder / "tree.nd.h5"))), Console())


def test_the_unit_of_a_concept_is_the_best_by_iou_and_by_coefficient(tree: Ace) -> None:
    assert tree.coefficients is not None
    values = tree.coefficients.values
    assert tree.by_iou[0] == tree.by_coefficient[0] == TREE and tree.overlap == 1
    assert values[TREE] > 0.9
    assert np.delete(values, TREE).max() < 0.05 and tree.coefficients.above == 1
    assert tree.coefficients.after < tree.coefficients.before


def test_an_effect_is_that_of_plain_pytorch(tree: Ace, smooth: Path) -> None:
    """A cell of a tree is 16 of 1024 pixels, all of which are gone with unit 2 at zero and there with it at 1."""
    effects = {effect.chosen_by: effect for effect in tree.effects}
    assert effects["iou"].units == effects["coefficient"].units == (TREE,)
    assert effects["iou"].ace == pytest.approx(16 / 1024)
    assert effects["random"].ace == 0 == effects["random"].low == effects["random"].high
    # The same written out: the share with the cell drawn less that without it, at each location.
    generator, labeller = planted_generator.generator_smooth(), planted_generator.labeller()
    with open_generated(request(smooth).generator, Console()) as g, torch.no_grad():
        maps = generator.layer(g.inputs(list(range(SAMPLES))))

        def share(changed: Tensor) -> Tensor:
            generator.layer = Given(changed)
            return (labeller(generator(changed)).argmax(1) == TREE + 1).float().mean((1, 2))

        for sample in (n for n in range(4, SAMPLES, 5) if maps[n, TREE].any()):
            row, column = maps[sample, TREE].nonzero()[0].tolist()
            with_it, without = maps[sample : sample + 1].clone(), maps[sample : sample + 1].clone()
            with_it[0, TREE, row, column], without[0, TREE, row, column] = 1, 0
            assert float(share(with_it) - share(without)) == pytest.approx(effects["iou"].ace)


class Given(nn.Module):
    """A layer that returns these maps."""

    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, z: Tensor) -> Tensor:
        return self.maps


def test_the_same_request_gives_the_same_answer(tree: Ace, smooth: Path) -> None:
    again = ace(request(smooth, write=False), Console())
    assert again.effects == tree.effects
    assert again.coefficients is not None and tree.coefficients is not None
    assert np.array_equal(again.coefficients.values, tree.coefficients.values)


def test_the_high_value_is_the_mean_where_the_concept_is(smooth: Path, folder: Path) -> None:
    """A unit that is as active in the concept's cells as elsewhere has that mean; the quantile is its largest value."""
    none = ace(request(smooth, "sky", steps=0, units=8), Console())
    assert [effect.chosen_by for effect in none.effects] == ["iou", "random"]
    assert none.coefficients is None and none.overlap is None and none.written is None
    quantile = ace(request(smooth, "sky", steps=0, units=8, high="quantile"), Console())
    # All units at their largest value: a tree stands in front of the sky, and the share of sky does not rise.
    assert none.effects[0].ace == pytest.approx(16 / 1024) and quantile.effects[0].ace == pytest.approx(0)


def test_an_interval_holds_the_mean_it_is_drawn_from() -> None:
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        samples = np.repeat(np.arange(40), 5)
        difference = 0.3 + random.normal(0, 0.1, 40)[samples] + random.normal(0, 0.05, 200)
        value, low, high = average_effect(difference, samples)
        assert low < value < high
        inside += low <= 0.3 <= high
    assert 180 <= inside <= 199
    assert np.isnan(average_effect(np.array([0.1, 0.2]), np.array([3, 3]))[1])


def test_scores_with_gradients_are_those_of_the_labeller_up_to_rounding(smooth: Path, folder: Path) -> None:
    """Of pictures between the levels, enlarged for the labeller; the most likely class is the label."""
    options = Options(device="cpu", labeller=f"{folder / 'odd.py'}:sized", labeller_size="48")
    with open_generated(GeneratorRequest(smooth, "layer", options), Console()) as g:
        drawn = torch.rand(4, 3, *g.generator.size, generator=torch.Generator().manual_seed(0))
        each = torch.stack([ConceptScores(g, c).of(drawn) for c in range(len(g.concepts))], 1)
        segmenter = g.labeller.segmenter
        assert segmenter is not None
        module = segmenter.network.module
        scores = module(segmenter.network.preprocess.apply(g.pictures(drawn)))
        levels = torch.nn.functional.interpolate(scores, g.generator.size, mode="bilinear").softmax(1)
        assert (each - levels[:, 1:]).abs().max() < 2 / 255
        sure = levels.topk(2, 1).values.diff(dim=1)[:, 0].abs() > 4 / 255
        labels = g.rows(g.pictures(drawn))[:, 0]
        full = torch.cat([1 - each.sum(1, keepdim=True), each], 1).argmax(1) - 1
        assert bool(sure.any()) and bool((full == labels)[sure].all())


def test_cells_share_the_pixels_among_them() -> None:
    cells = cell_numbers((6, 10), (3, 4), torch.device("cpu"))
    assert cells[0].tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    assert cells[:, 0].tolist() == [0, 0, 4, 4, 8, 8]


def test_coefficients_go_into_the_store_and_stay_with_those_of_others(tree: Ace) -> None:
    assert tree.written is not None and tree.coefficients is not None
    sky = ace(request(tree.written, "sky", steps=3), Console())
    assert sky.coefficients is not None
    with Store(tree.written) as store:
        kept = store.layer("layer").concept_effects
        assert kept is not None and not len(kept.units)
        assert np.array_equal(kept.coefficients_of(tree.concept), tree.coefficients.values)
        assert np.array_equal(kept.coefficients_of(sky.concept), sky.coefficients.values)
        assert "Adam" in kept.how


def test_what_has_no_gradient_is_refused_before_the_work(smooth: Path, folder: Path) -> None:
    with pytest.raises(WrongUse, match="transform") as error:
        own = Options(device="cpu", labeller=f"{folder / 'odd.py'}:labeller_with_transform")
        ace(replace(request(smooth), generator=GeneratorRequest(smooth, "layer", own)), Console())
    assert "--steps 0" in error.value.hint
    steps = dissected(folder, "steps", f"{PLANTED}:generator", f"{PLANTED}:labeller")
    with pytest.raises(NDError, match="no gradient goes"):
        ace(request(steps), Console())
    assert ace(request(steps, steps=0), Console()).effects[0].ace == pytest.approx(16 / 1024)
    colors = dissected(folder, "colors", f"{PLANTED}:generator_smooth", None, colors=True)
    with pytest.raises(WrongUse, match="name of colours"):
        ace(request(colors, "green"), Console())


def test_a_concept_that_is_not_seen_is_told_with_what_is(smooth: Path) -> None:
    with pytest.raises(NDError, match="finds no door in 0 held-out samples; it finds building, sky, tree") as error:
        ace(request(smooth, "door", samples=4), Console())
    assert "--samples" in error.value.hint
    with pytest.raises(WrongUse, match="bush"):
        ace(request(smooth, "bush"), Console())


def test_both_rankings_are_printed_and_written(smooth: Path, folder: Path) -> None:
    store = shutil.copy(smooth, folder / "shown.nd.h5")
    few = ["--units", "2", "--steps", "40", "--locations", "40", "--held-out", "20", "--device", "cpu"]
    table = folder / "ranking.csv"
    said = cli.nd("ace", f"{store}:layer", "--label", "tree", *few, "--json", "-o", str(table), folder=folder)
    told = json.loads(said.stdout)
    assert told["label"] == "tree" and told["effect"]["n"] == 2 and len(told["coefficients"]) == 8
    effect = told["effect"]
    assert effect["low"] <= effect["ace"] <= effect["high"] and effect["inserted"] - effect["zeroed"] == effect["ace"]
    assert [unit["coefficient"] for unit in told["ranking"]] == sorted(told["coefficients"], reverse=True)
    assert told["ranking"][0]["unit"] == TREE == effect["units"][0] and 1 <= told["overlap"] <= 2
    assert told["held_out"]["after"] < told["held_out"]["before"] and "no effect" in told["how"]
    rows = table.read_text().splitlines()
    assert rows[0] == "unit,iou,coefficient,effect_alone" and len(rows) == 9 and rows[1].startswith("2,")


def test_a_table_has_effects_measured_alone_beside_coefficients(tree: Ace) -> None:
    assert tree.written is not None
    with Store(tree.written) as store:
        before = np.full(len(store.concepts), 0.1)
    after = np.tile(before, (1, 1))
    after[0, TREE] = 0.02
    alone = ConceptEffects(np.array([TREE], np.int32), before, after, after, after, 60, "zero")
    add_concept_effects(tree.written, "layer", alone)
    with Store(tree.written) as store:
        report = CausalReport(tree, store.layer("layer"), "learned", "their mean", 0.05)
        printed = _ranking(report, 3, [])
    assert [c.title for c in printed.columns] == [
        *("rank", "unit by IoU", "IoU", "coefficient", "effect alone"),
        *("unit by coefficient", "its coefficient", "its IoU", "its effect alone"),
    ]
    assert printed.rows[0][1] == printed.rows[0][5] == TREE and printed.rows[0][4] == pytest.approx(-0.08)
    assert np.isnan(printed.rows[1][4])


@pytest.mark.parametrize(
    ("given", "message"),
    [(["--high", "top"], "--high"), (["-o", "ranking.txt"], "CSV"), (["--label", "bush"], "bush")],
)
def test_slips_are_told_in_two_lines(smooth: Path, given: list[str], message: str) -> None:
    label = [] if "--label" in given else ["--label", "tree"]
    with pytest.raises(WrongUse, match=message):
        load("ace").main([f"{smooth}:layer", *label, *given], standalone_mode=False)
