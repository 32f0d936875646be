"""What units do, on a GPU that is pretended: tensors of the host and of the GPU never meet, and what comes of it is
what comes of it on the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from PIL import Image
from pretended_gpu import pretend

from ndissect.engine.experiments import classified
from ndissect.engine.experiments.ablation_curve import ablation_curve
from ndissect.engine.experiments.attack import attack
from ndissect.engine.experiments.classified import Classified, EffectRequest, open_classified
from ndissect.engine.experiments.explain import explain
from ndissect.engine.experiments.predictions import predict_without
from ndissect.engine.machine.console import Console
from ndissect.engine.run.options import Options
from ndissect.store.effects import By

# Units 0 to 2 see a colour each, and so do the classes. ``bent`` has a nonlinearity behind the layer, ``flat`` a weight
# for each place.
NETWORK = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, bent=False, flat=False):
        super().__init__()
        self.units, self.relu = nn.Conv2d(3, 6, 4, 4), nn.ReLU()
        self.between = nn.Conv2d(6, 6, 3, padding=1) if bent else nn.Identity()
        self.last = nn.ReLU() if bent else nn.Identity()
        self.scores = nn.Linear(6 * 16 if flat else 6, 3)
        self.flat = flat
        with torch.no_grad():
            self.units.weight[:3] = torch.eye(3)[..., None, None] / 16
            self.units.bias[:3] = -0.2
            if bent:
                self.between.weight += torch.eye(6)[..., None, None] * (torch.arange(9).view(3, 3) == 4)
            eye = 20 * torch.eye(6)[:3]
            self.scores.weight += eye.repeat_interleave(16, 1) / 16 if flat else eye

    def forward(self, x):
        y = self.last(self.between(self.relu(self.units(x))))
        return self.scores(y.flatten(1) if self.flat else y.mean((2, 3)))


def made(**how):
    torch.manual_seed(3)
    return Net(**how).eval(), lambda x: x.float() / 255


def linear():
    return made()


def bent():
    return made(bent=True)


def flat():
    return made(flat=True)


linear.classes = bent.classes = flat.classes = ["red", "green", "blue"]
"""
T = TypeVar("T")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("effects_device")
    (folder / "net.py").write_text(NETWORK, encoding="utf-8")
    rng = np.random.default_rng(0)
    for k, name in enumerate(("red", "green", "blue")):
        for split, count in (("train", 4), ("val", 3)):
            (folder / "images" / split / name).mkdir(parents=True)
            for n in range(count):
                pixels = rng.integers(0, 130, (16, 16, 3), dtype=np.uint8)
                pixels[..., k] += 25
                Image.fromarray(pixels).save(folder / "images" / split / name / f"{n}.png")
    return folder


@pytest.fixture
def both(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, Any]]:
    """What ``work`` makes of a network of the folder on the host, and on the pretended GPU."""

    def run(factory: str, work: Callable[[Classified], T]) -> tuple[T, T]:
        options = Options(device="cpu", batch_size=3, workers=1)
        request = EffectRequest(None, f"{folder / 'net.py'}:{factory}", options, "relu", str(folder / "images"))
        with open_classified(request, Console()) as c:
            on_host = work(c)
        gpu = pretend(monkeypatch)
        monkeypatch.setattr(classified, "choose_device", lambda name: torch.device("cuda"))
        there = replace(request, options=replace(options, memory="1GB,1GB"))
        with gpu, open_classified(there, Console()) as c:
            assert c.settings.device.type == "cuda"
            return on_host, work(c)

    return run


@pytest.mark.parametrize("factory", ["linear", "flat", "bent"])
@pytest.mark.parametrize("by", ["zero", "mean", "resample"])
def test_units_are_ablated_there(both: Callable[..., tuple[Any, Any]], factory: str, by: By) -> None:
    sets = [(0,), (1,), (2, 3), (4,), (5,)]
    host, there = both(factory, lambda c: predict_without(c, sets, c.images, by))
    assert host.how == there.how == ("tail" if factory == "bent" else "linear head")
    for name in ("truth", "plain", "predicted"):
        np.testing.assert_array_equal(getattr(host, name), getattr(there, name), name)
    np.testing.assert_allclose(host.score, there.score, atol=1e-5)


@pytest.mark.parametrize(("factory", "fast"), [("linear", False), ("bent", False), ("bent", True), ("flat", False)])
def test_predictions_are_explained_there(both: Callable[..., tuple[Any, Any]], factory: str, fast: bool) -> None:
    host, there = both(factory, lambda c: explain(c, c.images[:4], class_name="green", versus="red", fast=fast))
    assert host.exact == there.exact
    np.testing.assert_allclose(host.contributions, there.contributions, atol=1e-5)


@pytest.mark.parametrize("method", ["cw", "pgd"])
def test_images_are_attacked_there(both: Callable[..., tuple[Any, Any]], method: str) -> None:
    host, there = both("linear", lambda c: attack(c, 1, count=4, method=method, steps=40, epsilon=0.1))
    np.testing.assert_array_equal(host.reached, there.reached)
    assert host.reached.any(), "else nothing is compared"
    np.testing.assert_allclose(host.distance, there.distance, atol=1e-4)
    np.testing.assert_allclose(host.peak_after, there.peak_after, atol=1e-4)


def test_curves_are_drawn_there(both: Callable[..., tuple[Any, Any]]) -> None:
    host, there = both("bent", lambda c: ablation_curve(c, 1, draws=2))
    assert repr(host.series) == repr(there.series)
