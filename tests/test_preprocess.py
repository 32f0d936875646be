"""What reaches the network: the whole image, as it was trained, or a clear refusal."""

import json

import numpy as np
import pytest
import torch
import torchvision.transforms as v1
from torchvision import models
from torchvision.transforms import v2

from ndissect.engine.networks.preprocess import Preprocess, make_preprocess
from ndissect.store.errors import NDError, WrongUse

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def images(n: int = 2, size: tuple[int, int] = (224, 224)) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def made(transform: object, **options: object) -> Preprocess:
    return make_preprocess(transform, "net", **options)[0]


def refused(transform: object) -> NDError:
    with pytest.raises(NDError) as caught:
        made(transform)
    return caught.value


def normalise(x: torch.Tensor) -> torch.Tensor:
    return (x.float() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


# ---- presets and nothing


def test_a_preset_resizes_the_whole_image_instead_of_cropping():
    preset = models.ResNet50_Weights.IMAGENET1K_V2.transforms()
    assert preset.resize_size == [232] and preset.crop_size == [224]
    preprocess = made(preset)
    x = images(2, (224, 224))
    assert torch.allclose(preprocess.apply(x), normalise(x), atol=1e-6)  # nothing to resize, nothing cut off
    wide = torch.zeros(1, 3, 100, 300, dtype=torch.uint8)
    wide[..., :3] = 255  # a stripe at the very edge, which a crop would lose
    out = preprocess.apply(wide)
    assert out.shape == (1, 3, 224, 224)
    assert (out[..., 0] > 2).all() and (out[..., 5:] < -1.7).all()


@pytest.mark.parametrize("size", [None, (224, 224), (96, 160)])
@pytest.mark.parametrize("mean, std", [(None, None), (MEAN, None), (None, STD), (MEAN, STD)])
def test_without_a_transform_images_come_out_as_torchvision_makes_them_to_the_bit(size, mean, std):
    equal_to_torchvision(images(3), size, mean, std, "bilinear", antialias=True)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("channels_last", [False, True])  # as they are decoded
@pytest.mark.parametrize("size", [(224, 224), (96, 300), (500, 60), (7, 7)])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("interpolation", ["nearest", "nearest-exact", "bilinear", "bicubic"])
@pytest.mark.parametrize("capability", ["AVX2", "DEFAULT"])
def test_resizing_is_torchvisions_to_the_bit(
    count, channels_last, size, antialias, interpolation, capability, monkeypatch
):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    x = images(count, (110, 140))
    x[:, :, 30:60, 30:60] = 255  # edges, beyond which bicubic interpolation overshoots
    if channels_last:
        x = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    equal_to_torchvision(x, size, MEAN, STD, interpolation, antialias)


def equal_to_torchvision(x, size, mean, std, interpolation, antialias):
    expected = v2.functional.to_dtype(
        v2.functional.resize(x, list(size or x.shape[-2:]), v2.InterpolationMode(interpolation), antialias=antialias),
        torch.float32,
        scale=True,
    )
    if mean or std:
        expected = v2.functional.normalize(expected, list(mean or (0.0,) * 3), list(std or (1.0,) * 3))
    given = x.clone()
    out = Preprocess(size=size, mean=mean, std=std, interpolation=interpolation, antialias=antialias).apply(given)
    assert torch.equal(out, expected) and out.stride()[1:] == expected.stride()[1:]
    assert torch.equal(given, x)


def test_presets_keep_their_interpolation_and_size():
    preprocess = made(models.EfficientNet_B1_Weights.IMAGENET1K_V2.transforms())
    assert preprocess.interpolation == "bilinear" and preprocess.size == (240, 240)
    preprocess = made(models.Swin_T_Weights.DEFAULT.transforms())
    assert preprocess.interpolation == "bicubic"
    expected = v2.functional.resize(images(1, (90, 120)), [224, 224], v2.InterpolationMode.BICUBIC, antialias=True)
    assert torch.allclose(preprocess.apply(images(1, (90, 120))), normalise(expected), atol=1e-6)


def test_segmentation_presets_show_the_whole_image_as_they_are():
    preset = models.segmentation.FCN_ResNet50_Weights.DEFAULT.transforms()
    assert made(preset).apply(images(1)).shape == (1, 3, 520, 520)


def test_segmentation_presets_take_another_size():
    preset = models.segmentation.FCN_ResNet50_Weights.DEFAULT.transforms()
    preprocess = made(preset, size=(64, 96))
    assert (preprocess.size, preprocess.mean, preprocess.std) == ((64, 96), MEAN, STD)
    assert preprocess.apply(images(1)).shape == (1, 3, 64, 96)


def test_blue_comes_first_where_that_is_asked_for():
    x = images(1, (32, 32))
    assert torch.equal(made(None, bgr=True).apply(x), made(None).apply(x).flip(1))
    turned = made(models.ResNet18_Weights.DEFAULT.transforms(), bgr=True)
    assert torch.equal(turned.apply(x), made(models.ResNet18_Weights.DEFAULT.transforms()).apply(x).flip(1))
    assert turned.describe()["channels"] == "blue, green, red"
    with pytest.raises(WrongUse, match="its own transform"):
        made(lambda x: x / 255, bgr=True)


def test_one_channel_is_the_luminance():
    x = images(1, (32, 32))
    grey = made(None, channels=1, mean=(0.5,), std=(0.25,))
    expected = v2.functional.rgb_to_grayscale(x.float() / 255)
    assert torch.allclose(grey.apply(x), (expected - 0.5) / 0.25, atol=1e-5)
    assert grey.describe()["channels"] == "luminance"


def test_a_mean_is_of_as_many_channels_as_the_network_takes():
    for options in ({"mean": (0.5, 0.5)}, {"std": (1.0, 1.0, 1.0, 1.0)}, {"channels": 1, "mean": MEAN}):
        with pytest.raises(WrongUse, match=r"takes . channel"):
            made(None, **options)
    assert torch.allclose(made(None, mean=(0.5,)).apply(images(1)), images(1) / 255 - 0.5, atol=1e-6)
    with pytest.raises(NDError, match="takes 4 channels"):
        made(Preprocess(channels=4))


def test_video_presets_are_refused():
    assert "videos" in refused(models.video.R3D_18_Weights.DEFAULT.transforms()).message


def test_without_a_transform_images_keep_their_size_and_the_user_is_told():
    preprocess, notes = make_preprocess(None, "net")
    x = images(2, (60, 80))
    assert torch.allclose(preprocess.apply(x), x.float() / 255)
    assert len(notes) == 1 and "without a transform" in notes[0]


def test_options_stand_in_for_a_missing_transform():
    preprocess, notes = make_preprocess(None, "net", size=(64, 48), mean=MEAN, std=STD)
    assert notes == ()
    x = images(1, (64, 48))
    assert torch.allclose(preprocess.apply(x), normalise(x), atol=1e-6)
    assert preprocess.apply(images(3)).shape == (3, 3, 64, 48)
    assert torch.allclose(made(None, mean=MEAN).apply(x), x / 255 - torch.tensor(MEAN).view(3, 1, 1), atol=1e-6)


def test_options_change_a_preset_but_not_a_transform_of_ones_own():
    preset = models.ResNet18_Weights.DEFAULT.transforms()
    assert made(preset, size=(448, 448)).apply(images(1)).shape == (1, 3, 448, 448)
    with pytest.raises(WrongUse, match="its own transform"):
        made(lambda x: x / 255, size=(64, 64))


# ---- a transform of the researcher's own


def test_a_batchable_transform_is_applied_as_it_is():
    steps = [v2.Resize((96, 128), antialias=True), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    preprocess = made(v2.Compose(steps))
    x = images(3, (50, 70))
    assert preprocess.mode == "batch"
    assert torch.equal(preprocess.apply(x), v2.Compose(steps)(x))
    assert preprocess.describe()["mean"] == list(MEAN)
    assert preprocess.size == (96, 128)
    assert made(v2.ToDtype(torch.float32, scale=True)).size is None  # the image's own


def test_what_most_training_scripts_have_just_works():
    """torchvision v1 with ToTensor: it takes PIL images, one at a time."""
    from PIL import Image

    transform = v1.Compose([v1.Resize((64, 64)), v1.ToTensor(), v1.Normalize(MEAN, STD)])
    preprocess = made(transform)
    x = images(2, (90, 120))
    expected = torch.stack([transform(Image.fromarray(np.asarray(i.permute(1, 2, 0)))) for i in x])
    assert preprocess.mode == "pil"
    assert torch.equal(preprocess.apply(x), expected)


def test_one_image_at_a_time_where_a_batch_comes_out_differently():
    """Standardised by its own mean: over a batch that would mix the images."""
    preprocess = made(lambda x: (x.float() - x.float().mean()) / (x.float().std() + 1e-6))
    assert preprocess.mode == "image"
    both = preprocess.apply(images(2))
    assert torch.equal(both[:1], preprocess.apply(images(2)[:1]))


def test_a_channel_flip_and_other_ranges_are_the_researchers_business():
    preprocess = made(v2.Compose([v2.Lambda(lambda x: x.flip(-3)), v2.ToDtype(torch.float32, scale=False)]))
    x = images(1)
    assert torch.equal(preprocess.apply(x), x.flip(1).float())
    assert made(lambda x: 1 - x / 255).apply(x).shape == x.shape


@pytest.mark.parametrize(
    ("transform", "told"),
    [
        (
            v1.Compose([v1.Resize(256), v1.CenterCrop(224), v1.ToTensor()]),
            "left, 6.2 % cut off at the right",
        ),
        (v2.Compose([v2.Resize(236), v2.CenterCrop(224), v2.ToDtype(torch.float32, scale=True)]), "cut off at the top"),
        (v2.Compose([v2.Pad(30), v2.ToDtype(torch.float32, scale=True)]), "13.4 % added at the bottom"),
        (v2.Compose([v2.Pad(30, fill=128), v2.Resize(224), v2.ToDtype(torch.float32, scale=True)]), "right"),
        (lambda x: x.flip(-1) / 255, "left and right are swapped"),
        (lambda x: x.transpose(-1, -2) / 255, "cannot be told apart"),
        (lambda x: x[..., 20:] / 255, "8.9 % cut off at the left"),
        (lambda x: x[..., :64, :64] / 255, "71.4 % cut off at the bottom"),
    ],
)
def test_a_transform_that_moves_the_edges_is_refused_with_how_much(transform, told):
    error = refused(transform)
    assert told in error.message
    assert "Resize((224, 224))" in error.hint


@pytest.mark.parametrize(
    "steps",
    [
        [v2.Resize((32, 32))],
        [v2.Resize((32, 32), interpolation=v2.InterpolationMode.NEAREST)],
        [v2.Resize((513, 513), interpolation=v2.InterpolationMode.BICUBIC)],
        [v2.Resize(300)],
        [v2.Resize((224, 224)), v2.CenterCrop(224)],
        [v2.Resize((64, 64)), v2.GaussianBlur(3, 1.0)],
        [v2.Grayscale(3)],
    ],
)
def test_any_resize_of_the_whole_image_passes(steps):
    preprocess = made(v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]))
    preprocess.apply(images(1, (150, 224) if len(steps) == 1 else (224, 224)))


def test_a_crop_that_only_other_sizes_suffer_is_found_when_they_come():
    preprocess = made(v2.Compose([v2.CenterCrop(224), v2.ToDtype(torch.float32, scale=True)]))
    preprocess.apply(images(1, (224, 224)))
    with pytest.raises(NDError, match="whole 224 x 320 image"):
        preprocess.apply(images(1, (224, 320)))


class Coin(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / 255 + torch.rand(1)


@pytest.mark.parametrize(
    "transform",
    [
        v2.Compose([v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True)]),
        v1.Compose([v1.ColorJitter(0.1), v1.ToTensor()]),
        v2.Compose([v2.GaussianBlur(3), v2.ToDtype(torch.float32, scale=True)]),  # its sigma is drawn
        v2.Compose([v2.Compose([v2.RandomResizedCrop(224)]), v2.ToDtype(torch.float32, scale=True)]),
        Coin(),
    ],
)
def test_a_random_transform_is_refused(transform):
    assert "random" in refused(transform).message


def test_what_is_no_transform_is_refused_with_every_answer_it_gave():
    assert "str" in refused("resize").message
    error = refused(lambda x: {"pixel_values": x})
    assert "returned a dict" in error.message and "Resize" in error.hint
    assert "uint8 values instead of float" in refused(lambda x: x).message
    assert "float" in refused(v2.Normalize(MEAN, STD)).message


def test_the_description_is_json_and_the_same_in_every_run():
    def scale(x: torch.Tensor) -> torch.Tensor:
        return x / 255

    for preprocess in (made(None, size=(3, 4)), made(scale), made(models.ResNet18_Weights.DEFAULT.transforms())):
        text = json.dumps(preprocess.describe())
        assert "0x" not in text
        assert set(json.loads(text)) >= {"source", "size", "mean", "std"}
