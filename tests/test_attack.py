"""``nd attack``: which images are attacked, what becomes of them and of the units, and what is said of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cli
import numpy as np
import numpy.typing as npt
import pytest
import torch
from class_factory import write_labelled
from PIL import Image

from ndissect.engine.experiments.ablate import ablate
from ndissect.engine.experiments.attack import Attacked, attack
from ndissect.engine.experiments.attack_changes import (
    changes,
    group_changes,
    mean_interval,
    share_interval,
    unit_changes,
)
from ndissect.engine.experiments.classified import EffectRequest, open_classified
from ndissect.engine.machine.console import Console
from ndissect.engine.run.options import Options
from ndissect.engine.run.to_store import dissect_to_store
from ndissect.store.errors import NDError, WrongUse
from ndissect.tui.pictures.attack_sheet import attack_sheet
from ndissect.tui.tables.attacked import AttackReport

# Units 4 k to 4 k + 3 see colour k where it is bright, and class k is the sum of these.
NETWORK = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.units, self.scores = nn.Conv2d(3, 12, 1), nn.Linear(12, 3)
        with torch.no_grad():
            gains = torch.tensor([1.0, 1.25, 1.5, 1.75])
            self.units.weight.copy_(torch.kron(torch.eye(3), gains[:, None])[..., None, None])
            self.units.bias.copy_(-0.42 * gains.repeat(3))
            self.scores.weight.copy_(4 * torch.kron(torch.eye(3), torch.ones(1, 4)))
            self.scores.bias.zero_()

    def forward(self, x):
        return self.scores(torch.relu(self.units(x)).mean((2, 3)))


def network():
    return Net(), lambda x: x.float() / 255


class Closed(Net):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


def closed():
    return Closed(), lambda x: x.float() / 255


class Spoilt(Net):
    def forward(self, x):
        y = torch.sigmoid(x)
        scores = super().forward(y * y)
        y.zero_()
        return scores


def spoilt():
    return Spoilt(), lambda x: x.float() / 255


def gamma():
    return Net(), lambda x: (x.float() / 255) ** 1.5


network.classes = closed.classes = spoilt.classes = gamma.classes = ["crimson_red", "green", "blue"]
"""
CPU = Options(device="cpu", batch_size=4)
RED, GREEN, BLUE = range(3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """net.py and images in folders of classes; the first of crimson_red looks green, and one image has no class."""
    folder = tmp_path_factory.mktemp("attack")
    (folder / "net.py").write_text(NETWORK, encoding="utf-8")
    rng = np.random.default_rng(0)
    for k, (name, count) in enumerate({"crimson_red": 7, "green": 3, "blue": 4}.items()):
        (folder / "images" / name).mkdir(parents=True)
        for n in range(count):
            pixels = rng.integers(80, 130, (16, 16, 3), dtype=np.uint8)
            pixels[..., GREEN if (k, n) == (RED, 0) else k] += 40
            Image.fromarray(pixels).save(folder / "images" / name / f"{n}.png")
    Image.fromarray(pixels).save(folder / "alone.png")
    return folder


def request(folder: Path, factory: str = "network", images: str = "images") -> EffectRequest:
    return EffectRequest(
        network=f"{folder / 'net.py'}:{factory}", layer="units", images=str(folder / images), options=CPU
    )


def attacked(folder: Path, target: str = "green", source: str | None = "crimson_red", **more: object) -> Attacked:
    asked = request(folder, str(more.pop("factory", "network")), str(more.pop("images", "images")))
    with open_classified(asked, Console()) as c:
        of = None if source is None else c.class_number(source)
        return attack(c, c.class_number(target), source=of, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def slow(folder: Path) -> Attacked:
    return attacked(folder)


def test_images_are_taken_for_the_target_and_units_follow(slow: Attacked) -> None:
    assert slow.names == tuple(f"crimson_red/{n}.png" for n in range(1, 7)), "without that which looks green"
    assert (slow.truth == RED).all() and (slow.predicted == RED).all()
    assert slow.reached.all() and (slow.after == GREEN).all()
    assert set(slow.important.units[GREEN]) == {4, 5, 6, 7} and set(slow.important.units[RED]) == {0, 1, 2, 3}
    groups = {group.name: group for group in group_changes(slow)}
    assert set(groups["target"].units) == {4, 5, 6, 7} and set(groups["source"].units) == {0, 1, 2, 3}
    assert groups["target"].low > 0 > groups["source"].high
    assert abs(groups["others"].change) < 0.2 * groups["target"].change
    random = groups["random"]
    assert random.low < random.change < random.high < groups["target"].change
    for group in groups.values():
        assert group.low <= group.change <= group.high


def test_peaks_and_distances_are_those_of_the_pictures(slow: Attacked) -> None:
    namespace: dict[str, object] = {"__name__": "net"}
    exec(NETWORK, namespace)
    net = namespace["Net"]()  # type: ignore[operator]
    assert len(slow.pairs) == 6
    for pair in slow.pairs:
        i = pair.number
        before, after = torch.from_numpy(pair.before), torch.from_numpy(pair.after)
        assert 0 <= float(after.min()) and float(after.max()) <= 1
        assert float((after.double() - before.double()).norm()) == pytest.approx(slow.distance[i], rel=1e-5)
        with torch.no_grad():
            assert int(net(after[None]).argmax()) == GREEN
            rounded = net((after[None] * 255).round() / 255)
            was, now = net.units(before[None])[0], net.units(after[None])[0]
        assert slow.reached_8bit is not None and bool(rounded.argmax() == GREEN) == bool(slow.reached_8bit[i])
        np.testing.assert_allclose(slow.peak_before[i], was.amax((1, 2)), atol=1e-5)
        np.testing.assert_allclose(slow.peak_after[i], now.amax((1, 2)), atol=1e-5)
        np.testing.assert_allclose(slow.moved[i], (now - was).abs().mean((1, 2)), atol=1e-5)
        assert sorted(pair.units) == list(range(8))
        np.testing.assert_allclose(pair.maps_after, now[list(pair.units)], atol=1e-5)


def test_whole_maps_are_measured_where_asked(slow: Attacked) -> None:
    np.testing.assert_array_equal(changes(slow, "map"), slow.moved[slow.reached])
    groups = {group.name: group for group in group_changes(slow, "map")}
    assert 0 < groups["others"].change < groups["target"].low and groups["source"].low > 0


def test_pgd_is_quick_goes_farther_and_stays_within_epsilon(slow: Attacked, folder: Path) -> None:
    quick = attacked(folder, method="pgd", epsilon=0.12)
    assert quick.names == slow.names and quick.reached.all()
    assert (quick.distance >= slow.distance).all()
    for pair in quick.pairs:
        assert np.abs(pair.after - pair.before).max() <= 0.12 + 1e-6
    assert not attacked(folder, method="pgd", epsilon=0.01).reached.any()


def test_images_of_any_class_have_the_units_of_their_own(folder: Path) -> None:
    found = attacked(folder, source=None, method="pgd", epsilon=0.12)
    assert [n.partition("/")[0] for n in found.names] == ["blue"] * 4 + ["crimson_red"] * 6
    groups = {group.name: group for group in group_changes(found)}
    assert groups["source"].units == () and groups["source"].high < 0 < groups["target"].low
    of_source = [changes(found)[i, list(found.important.units[k])].mean() for i, k in enumerate(found.truth.tolist())]
    assert groups["source"].change == pytest.approx(np.mean(of_source))


def test_some_images_are_spread_evenly(folder: Path) -> None:
    found = attacked(folder, count=3, method="pgd", epsilon=0.12)
    assert found.wanted == len(found.names) == 3 and set(found.names) < {f"crimson_red/{n}.png" for n in range(1, 7)}
    assert attacked(folder, count=3, method="pgd", epsilon=0.12).names == found.names


def test_what_cannot_be_attacked_is_refused(folder: Path) -> None:
    with pytest.raises(WrongUse, match="the same class"):
        attacked(folder, target="green", source="green")
    with pytest.raises(WrongUse, match="no_such"):
        attacked(folder, target="no_such")
    with pytest.raises(WrongUse, match="no image is left to attack towards blue: 1 are taken for blue already"):
        attacked(folder, target="blue", source=None, images="alone.png")
    with pytest.raises(NDError, match="no gradient"):
        attacked(folder, factory="closed")
    with pytest.raises(NDError, match="failed on its way back to the pixels"):
        attacked(folder, target="blue", source=None, factory="spoilt")
    with pytest.raises(WrongUse, match="confidence"):
        attacked(folder, confidence=-1.0)
    with pytest.raises(WrongUse, match="epsilon"):
        attacked(folder, method="pgd", epsilon=2.0)


def test_without_classes_the_prediction_stands_for_them(folder: Path) -> None:
    found = attacked(folder, source=None, images="alone.png", method="pgd", epsilon=0.12)
    assert found.truth_from == "prediction" and found.truth.tolist() == [BLUE] and found.reached.all()
    assert any("prediction" in note for note in found.notes)
    low, high = unit_changes(found)[1:]
    assert np.isnan(low).all() and np.isnan(high).all(), "one image has no interval"


def test_where_pixels_are_not_known_the_input_is_changed_and_said(folder: Path) -> None:
    found = attacked(folder, factory="gamma", method="pgd", epsilon=1.0)
    assert found.reached.any() and "the network's input" in found.pixels and found.reached_8bit is None


@pytest.mark.parametrize("after", [0, 4])
def test_an_interrupt_leaves_what_is_done(folder: Path, after: int) -> None:
    seen: list[str] = []

    def keep(number: int, name: str, pixels: npt.NDArray[np.float32]) -> None:
        if len(seen) == after:
            raise KeyboardInterrupt
        seen.append(name)

    if after == 0:
        with pytest.raises(KeyboardInterrupt):
            attacked(folder, method="pgd", epsilon=0.12, keep=keep)
        return
    found = attacked(folder, method="pgd", epsilon=0.12, keep=keep)
    assert found.interrupt is not None and found.names == tuple(seen) and len(found.reached) == 4 < found.wanted


def report(found: Attacked) -> AttackReport:
    share = share_interval(int(found.reached.sum()), len(found.reached))
    return AttackReport(found, share, unit_changes(found), group_changes(found), "peak", None)


def test_the_report_is_whole_with_nothing_reached_and_without_labels(slow: Attacked, folder: Path) -> None:
    nothing = attacked(folder, method="pgd", epsilon=0.01)
    for found in (slow, nothing, replace(nothing, interrupt=KeyboardInterrupt())):
        told = report(found)
        assert len(told.to_json()["units"]) == 12 and len(told.to_json()["attacked"]) == 6
        assert any(line.startswith("success: ") for line in told.notes())
        assert attack_sheet(told).width > 300
    assert report(nothing).rows() == [] and "success: 0 of 6, 0.0 %" in report(nothing).success
    assert [row.unit for row in report(slow).rows()][8:] == [None] * 4


def test_intervals() -> None:
    assert share_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-3)  # Wilson's
    assert share_interval(0, 10)[0] == 0 and share_interval(10, 10)[1] == pytest.approx(1)
    assert share_interval(0, 0) == (0, 1)
    values = np.random.default_rng(3).normal(2, 1, (4000, 25))
    mean, low, high = mean_interval(values.T)
    np.testing.assert_allclose(mean, values.mean(1))
    assert 0.93 < ((low < 2) & (high > 2)).mean() < 0.97
    assert np.isnan(mean_interval(np.zeros((0, 3)))[0]).all()


def test_the_command_with_a_store_sheet_and_files(folder: Path) -> None:
    data = write_labelled(folder / "data", ("crimson red-s", "green", "blue-s"))
    network, store = f"{folder / 'net.py'}:network", folder / "units.nd.h5"
    options = Options(network=network, data=str(data), layers=("units",), device="cpu", null=0)
    dissect_to_store(options, Console(), output=store)
    ablate(EffectRequest(store, layer="units", options=Options(device="cpu")))
    words = ["attack", "-s", "units.nd.h5", "--target", "green", "--source", "crimson red", "--method", "pgd"]
    words += ["--epsilon", "0.4", "-o", "sheet.png", "--save", "changed", "--json", "--device", "cpu"]
    done = cli.nd(*words, folder=folder)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["target"] == "green" and told["source"] == "crimson_red" and told["complete"]
    assert told["important"].startswith("the effects in the store")
    assert told["success"]["images"] == told["images"] == len(list((folder / "changed").iterdir())) > 0
    assert {unit["unit"] for unit in told["units"] if unit["needed_by"] == ["green"]} == {4, 5, 6, 7}
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.width > 1000
    with Image.open(next((folder / "changed").iterdir())) as changed:
        assert changed.size == (16, 16)
        assert 50 < np.asarray(changed)[..., RED].mean() < 130, "180 before"
    again = cli.nd(*words, folder=folder)
    assert again.returncode == 2 and "exists" in again.stderr
    refused = cli.nd("attack", "-s", "units.nd.h5", "--target", "gren", folder=folder)
    assert refused.returncode == 2 and "green" in refused.stderr
