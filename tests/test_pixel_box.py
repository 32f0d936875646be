"""The pixels behind a network's input, found by trying its preprocessing on images whose pixels are known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from ndissect.engine.networks.pixel_box import find_pixel_box
from ndissect.engine.networks.preprocess import Preprocess, make_preprocess

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def images(size: int = 24) -> Tensor:
    return torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))


def of(transform: Callable[..., object]) -> Preprocess:
    return make_preprocess(transform, "a test")[0]


def pil(image: Image.Image) -> Tensor:
    whole = v2.Compose([v2.Resize((16, 16)), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])(image)
    normal: Tensor = v2.functional.normalize(whole, list(MEAN), list(STD))
    return normal


CASES: dict[str, tuple[Callable[[], Preprocess], tuple[int, ...]]] = {
    "as nd prepares": (lambda: Preprocess(mean=MEAN, std=STD), (0, 1, 2)),
    "resized": (lambda: Preprocess(mean=MEAN, std=STD, size=(16, 16)), (0, 1, 2)),
    "blue first": (lambda: Preprocess(mean=MEAN, std=STD, bgr=True), (2, 1, 0)),
    "the luminance": (lambda: Preprocess(channels=1, mean=(0.3,), std=(0.2,)), (0,)),
    "bytes": (lambda: of(lambda x: x.float()), (0, 1, 2)),
    "bytes around zero": (lambda: of(lambda x: 255 - 2.0 * x.float()), (0, 1, 2)),
    "of torchvision": (
        lambda: of(v2.Compose([v2.Resize((16, 16)), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])),
        (0, 1, 2),
    ),
    "PIL images": (lambda: of(pil), (0, 1, 2)),
}


@pytest.mark.parametrize("case", CASES)
def test_pixels_lead_to_the_input_they_are_behind(case: str) -> None:
    make, colours = CASES[case]
    preprocess, x = make(), images()
    inputs = preprocess.apply(x)
    box = find_pixel_box(preprocess, x, inputs, inputs.amin((0, 2, 3)), inputs.amax((0, 2, 3)))
    assert box.colours == colours and not box.reason
    pixels = box.pixels(inputs)
    assert pixels.min() >= 0 and pixels.max() <= 1
    torch.testing.assert_close(box.inputs(pixels), inputs, rtol=1e-4, atol=1e-4)
    if inputs.shape == x.shape:
        torch.testing.assert_close(box.picture(pixels), x / 255.0)


ODD: dict[str, Callable[[Tensor], Tensor]] = {
    "gamma": lambda x: (x / 255.0) ** 2.2,
    "each image by itself": lambda x: (x / 255.0 - (x / 255.0).mean()) / ((x / 255.0).std() + 1e-3),
    "mixed colours": lambda x: (x / 255.0).mean(-3, keepdim=True).expand(x.shape),
    "more channels": lambda x: torch.cat([x / 255.0, 1 - x[..., :1, :, :] / 255.0], -3),
}


@pytest.mark.parametrize("case", ODD)
def test_where_pixels_are_not_known_the_range_of_the_input_is(case: str) -> None:
    preprocess, x = of(ODD[case]), images()
    inputs = preprocess.apply(x)
    box = find_pixel_box(preprocess, x, inputs, inputs.amin((0, 2, 3)), inputs.amax((0, 2, 3)))
    assert box.colours == () and box.reason
    pixels = box.pixels(inputs)
    torch.testing.assert_close(box.inputs(pixels), inputs, rtol=1e-4, atol=1e-4)
    assert float(pixels.min()) >= 0 and float(pixels.max()) <= 1
    for flat in (torch.zeros_like(x), torch.full_like(x, 255)):
        inside = preprocess.apply(flat)
        torch.testing.assert_close(box.inputs(box.pixels(inside)), inside, rtol=1e-4, atol=1e-4)
    assert box.picture(pixels).shape[:2] == (3, 3)


def test_a_mean_image_is_taken_away_from_the_pixels() -> None:
    mean = F.interpolate(torch.rand((1, 3, 4, 4), generator=torch.Generator().manual_seed(1)), (24, 24))[0]

    def minus(image: Tensor) -> Tensor:
        return image / 255.0 - F.interpolate(mean[None], image.shape[-2:])[0]

    preprocess, x = of(minus), images()
    inputs = preprocess.apply(x)
    box = find_pixel_box(preprocess, x, inputs, torch.zeros(3), torch.ones(3))
    torch.testing.assert_close(box.pixels(inputs), x / 255.0)
