"""Predictions of real networks explained: linear heads, one that is not, and images with their true classes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ndissect.engine.experiments.classified import Classified, open_classified
from ndissect.engine.experiments.effect_request import EffectRequest
from ndissect.engine.experiments.explain import explain, images_of
from ndissect.engine.machine.console import Console
from ndissect.engine.networks.capture import Capture
from ndissect.engine.run.options import Options

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the real networks of shared/data are not here")

STREET = SHARED / "broden_mini" / "images" / "camvid"
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def opened(network: str, layer: str, images: Path) -> AbstractContextManager[Classified]:
    request = EffectRequest(
        network=f"{SHARED / 'networks.py'}:{network}",
        options=Options(device="cpu", workers=1),
        layer=layer,
        images=str(images),
    )
    return open_classified(request, Console())


def street() -> Path:
    return min(STREET.iterdir())


def without(c: Classified, path: Path, unit: int, wanted: int) -> float:
    """The score of class ``wanted`` less that with a unit set to zero, by a hook in a pass of its own."""
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None]
    inputs = c.network.preprocess(pixels)

    def edit(_: str, maps: torch.Tensor) -> torch.Tensor:
        changed = maps.clone()
        changed[:, unit] = 0
        return changed

    with torch.no_grad():
        whole = c.network.module(inputs)
        with Capture(c.network.module, [c.layer.name], edit=edit):
            less = c.network.module(inputs)
    return float(whole[0, wanted] - less[0, wanted])


@pytest.mark.parametrize(
    ("network", "layer", "linear"),
    [("mobilenet_v2_imagenet", "features.18", True), ("squeezenet_places365", "fire9", False)],
)
def test_contributions_equal_hooks(network: str, layer: str, linear: bool) -> None:
    with opened(network, layer, street()) as c:
        e = explain(c, [street()])
        wanted = e.images[0].explained
        best = np.argsort(-np.abs(e.contributions))[:3].tolist()
        lost = [without(c, street(), unit, wanted) for unit in best]
    assert (e.how == "linear head") == e.exact == linear
    scale = abs(e.score)
    np.testing.assert_allclose(e.contributions[best], lost, atol=1e-5 * max(1.0, scale))
    if linear:
        assert e.contributions.sum() + e.bias == pytest.approx(e.score, abs=1e-5 * scale)


def test_a_class_by_images_of_its_own(tmp_path: Path) -> None:
    data = np.load(SHARED / "cifar10_test500" / "cifar10_test500.npz")
    for n, (pixels, label) in enumerate(zip(data["images"], data["labels"], strict=True)):
        if label in (3, 5) and n % 3 == 0:
            (tmp_path / CIFAR[label]).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / CIFAR[label] / f"{n}.png")
    names = tmp_path / "classes.txt"
    names.write_text("\n".join(CIFAR), encoding="utf-8")
    request = EffectRequest(
        network=f"{SHARED / 'networks.py'}:cifar10_resnet20",
        options=Options(device="cpu", workers=1, classes=names),
        layer="layer3",
        images=str(tmp_path),
    )
    with open_classified(request, Console()) as c:
        cats = images_of(c, "cat")
        e = explain(c, cats, class_name="cat", versus="dog")
    assert e.exact
    assert {image.truth for image in e.images} == {3}
    assert np.mean([image.predicted == 3 for image in e.images]) > 0.4
    assert e.score > 0
    significant = (e.low > 0) | (e.high < 0)
    assert significant.any()
