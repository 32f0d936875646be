"""Several quantiles from one pass: equal to dissections of their own, summed up, drawn; bad input is refused."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import cli
import numpy as np
import pytest
from dissecting import SIZE, run, write_data
from networks_factory import EXACT, write_network

from ndissect.engine.data.formats import open_dataset
from ndissect.engine.experiments.sweep import Sweep, sweep
from ndissect.engine.machine.memory import Budget
from ndissect.engine.machine.progress import Progress
from ndissect.engine.networks.layers import list_layers, match_layers
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.run.settings import Settings
from ndissect.store.errors import NDError
from ndissect.store.model import Layer
from ndissect.store.protocol import make_protocol
from ndissect.store.scores import label_units, unique_best_label, unique_per_category
from ndissect.tui.tables.swept import summed_up

QS = ["1/50", "1/3", "1/7", "0.1"]  # not in order
LAYERS = ["first", "second"]
ROOM = Budget(1 << 30, 1 << 30)
#: The thresholds fit, what may fire in all images does not.
LITTLE = Budget(57_500, 57_500)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"{write_network(tmp_path_factory.mktemp('net'), EXACT)}:network"


class Noted(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def swept(
    net: str, data: Path, protocol: str, memory: Budget, progress: Progress | None = None, qs: Sequence[str] = QS
) -> Sweep:
    network = load_network(net)
    infos = list_layers(network, (SIZE, SIZE))
    chosen = [i for i in infos if i.name in match_layers(LAYERS, infos)]
    settings = Settings(batch=5, workers=2, memory=memory)
    protocols = [make_protocol(protocol, q=q) for q in qs]
    return sweep(network, open_dataset(data), chosen, protocols, settings, progress or Progress())


def same(a: Layer, b: Layer) -> None:
    """Thresholds, counts over all images and labels are equal."""
    for name, value in vars(a.statistics).items():
        np.testing.assert_array_equal(value, vars(b.statistics)[name], err_msg=name)
    for name, value in vars(a.counts).items():
        np.testing.assert_array_equal(value.sum(0), vars(b.counts)[name].sum(0), err_msg=name)
    for name, value in vars(a.best).items():
        np.testing.assert_array_equal(value, vars(b.best)[name], err_msg=name)


@pytest.mark.parametrize("protocol", ["netdissect", "lite", "pnas2020"])
def test_each_quantile_counts_as_a_dissection_of_its_own(net: str, data: Path, protocol: str) -> None:
    found = swept(net, data, protocol, ROOM)
    assert [d.protocol.q for d in found.dissections] == sorted(map(Fraction, QS), reverse=True)
    assert found.passes == 1
    for dissection in found.dissections:
        alone = run(net, data, LAYERS, protocol, q=str(dissection.protocol.q)).dissection
        assert dissection.protocol == alone.protocol
        assert [x.name for x in dissection.layers] == LAYERS
        for mine, its in zip(dissection.layers, alone.layers, strict=True):
            same(its, mine)


def test_images_that_were_not_kept_are_counted_at_all_quantiles_in_a_second_pass(net: str, data: Path) -> None:
    progress = Noted()
    found, whole = swept(net, data, "netdissect", LITTLE, progress), swept(net, data, "netdissect", ROOM)
    assert 1 < found.passes < 2
    assert any("did not suffice" in note for note in progress.notes)
    for a, b in zip(found.dissections, whole.dissections, strict=True):
        for mine, its in zip(a.layers, b.layers, strict=True):
            same(its, mine)


def test_thresholds_that_do_not_fit_are_told_with_what_they_need(net: str, data: Path) -> None:
    with pytest.raises(NDError, match=r"need 57.2 kB of memory in one pass, --memory is 56.0 kB"):
        swept(net, data, "netdissect", Budget(56_000, 56_000))


def test_counts_that_do_not_fit_are_told_before_anything_is_read(net: str, data: Path) -> None:
    many = [str(Fraction(1, n)) for n in range(3, 200_003)]
    with pytest.raises(
        NDError, match=r"the counts of 200000 quantiles take 1\d\d MB, at most half of --memory 80.0 MB"
    ):
        swept(net, data, "netdissect", Budget(80_000_000, 0), qs=many)


# What is said of it


def test_the_sums_follow_from_the_labels(net: str, data: Path) -> None:
    dissections = swept(net, data, "netdissect", ROOM).dissections
    concepts, area = dissections[0].concepts, dissections[0].concept_counts.area[0]
    for i, layer in enumerate(summed_up(dissections, [0.01, 0.3])):
        label, value = zip(*(label_units(d.layers[i].best) for d in dissections), strict=True)
        for q, level in enumerate(layer.levels):
            rows = [int(c) for c, iou in zip(label[q], value[q], strict=True) if iou > 0.04]
            assert sum(level.by_category.values()) == len(rows)
            assert level.by_category["object"] == sum(concepts.category_of(c) == "object" for c in rows)
            shares = [area[c] / area.sum() for c in rows]
            assert level.coverage == pytest.approx(statistics.median(shares) if rows else np.nan, nan_ok=True)
            assert [at.detectors for at in level.at] == [int((value[q] > iou).sum()) for iou in (0.01, 0.3)]
            best = dissections[q].layers[i].best
            assert [at.unique_best_label for at in level.at] == [unique_best_label(best, iou) for iou in (0.01, 0.3)]
            assert sum(level.unique_by_category.values()) == unique_per_category(best).sum()
        for q, change in enumerate(layer.changes):
            was, is_ = value[q] > 0.04, value[q + 1] > 0.04
            assert change.both == sum(a and b for a, b in zip(was, is_, strict=True))
            assert change.changed == sum(
                a and b and c != d for a, b, c, d in zip(was, is_, label[q], label[q + 1], strict=True)
            )
            assert (change.gained, change.lost) == (sum(is_ & ~was), sum(was & ~is_))
        moved = sum(
            iou > 0.04 and (b < 0 or concepts.category[a] != concepts.category[b])
            for iou, a, b in zip(value[0], label[0], label[-1], strict=True)
        )
        assert sum(move.units for move in layer.moves) == moved
        assert all(move.start != move.end for move in layer.moves)


# The command


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = cli.write_inputs(tmp_path_factory.mktemp("place"))
    tried = cli.EXAMINED_TOGETHER + 1
    wait = f"import time; self.n = getattr(self, 'n', 0) + 1; time.sleep(2 if self.n > {tried} else 0)"
    slow = cli.NETWORK.replace("def forward(self, x):", f"def forward(self, x):\n        {wait}")
    (folder / "slow.py").write_text(slow)
    return folder


SWEEP = ("sweep", "net.py:network", "--data", "small", "-l", "units", "-l", "deep.pool", "--quantiles", "0.1,1/5,0.02")


def test_everything_as_json_and_a_plot(place: Path) -> None:
    done = cli.nd(*SWEEP, "--ious", "0.5,0.04", "--min-images", "2", "--plot", "q.svg", "--json", folder=place)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"network", "data", "images", "passes", "marks", "header", "threshold", "protocols", "layers"}
    assert (found["images"], found["passes"], found["threshold"]) == (cli.IMAGES, 1, 0.04)
    assert [p["q"] for p in found["protocols"]] == ["1/5", "1/10", "1/50"]
    assert {p["min_images"] for p in found["protocols"]} == {2}
    assert "netdissect+" in found["header"]
    assert "no null" in found["header"]
    units, deep = found["layers"]
    assert (units["layer"], units["units"], deep["layer"]) == ("units", 4, "deep.pool")
    assert set(units) == {"layer", "units", "levels", "changes", "moves"}
    assert [level["q"] for level in units["levels"]] == [0.2, 0.1, 0.02]
    assert set(units["levels"][0]) == {"q", "at", "by_category", "unique_by_category", "coverage"}
    first = units["levels"][0]["at"]
    assert [(at["iou"], at["detectors"]) for at in first] == [(0.04, 3), (0.5, 3)]  # every planted unit has an IoU of 1
    assert first[0]["by_category"] == {"object": 1, "scene": 0, "part": 1, "color": 1}
    assert set(units["changes"][0]) == {"from", "to", "both", "changed", "gained", "lost"}
    drawn = (place / "q.svg").read_text()
    for words in ("units: unique detectors", "deep.pool: unique detectors", "object", "0.02", "% of labelled pixels"):
        assert words in drawn


def test_a_pipe_gets_a_line_for_each_layer_quantile_and_iou(place: Path) -> None:
    rows = cli.rows_of(*SWEEP, "--ious", "0.04,0.5", folder=place)
    assert [(r["layer"], r["q"], r["IoU"]) for r in rows] == [
        (layer, q, iou) for layer in ("units", "deep.pool") for q in ("0.2", "0.1", "0.02") for iou in ("0.04", "0.5")
    ]
    assert {"detectors", "unique/cat", "unique/best", "object", "color", "coverage"} < set(rows[0])


def test_a_terminal_shows_quantiles_by_ious_categories_and_moves(place: Path) -> None:
    seen = cli.on_terminal(*SWEEP, "--ious", "0.04,0.5", folder=place, columns=100)
    assert seen.code == 0, seen.text
    for words in ("units, 4 units", "IoU > 0.04", "IoU > 0.5", "coverage", "of 3 detectors at q 0.2, 3", "no null"):
        assert words in seen.text.replace("\n", " "), seen.text
    assert any(line.split()[:2] == ["0.2", "3/4/3"] for line in seen.lines), seen.text


def test_ctrl_c_ends_it_in_one_line(place: Path) -> None:
    with cli.Terminal("sweep", "slow.py:network", *SWEEP[2:], folder=place) as terminal:
        terminal.wait_for("thresholds")
        terminal.type("\x03")
    assert terminal.code == 130
    assert [line for line in terminal.lines if line.startswith("nd: ")] == ["nd: interrupted"], terminal.text
    assert "Traceback" not in terminal.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--quantiles", "0.1,0"), "--quantiles '0' is no share between 0 and 1"),
        (("--quantiles", "0.1,1"), "--quantiles '1' is no share between 0 and 1"),
        (("--quantiles", "0.1,,0.2"), "--quantiles '' is no share"),
        (("--quantiles", "0.2,1/5"), "--quantiles names 0.2 twice"),
        (("--ious", "0.04,1.5"), "--ious '1.5' is no IoU between 0 and 1"),
        (("--ious", "0.04,x"), "--ious 'x' is no IoU"),
        (("--ious", "0.04,nan"), "--ious 'nan' is no IoU"),
        (("--ious", "0.04,0.040"), "--ious names 0.04 twice"),
        (("--plot", "q.gif"), "q.gif is no name of a plot"),
        (("--upsampling", "nearest"), "--upsampling 'nearest' is unknown"),
    ],
)
def test_bad_input_is_told_in_two_lines(place: Path, options: tuple[str, ...], said: str) -> None:
    cli.failed(cli.nd(*SWEEP, *options, folder=place), 2, said)
