"""From images to what a network was trained on. Every image stays whole, as label maps must lie on what it sees.

Training transforms crop. A dissection must not: a pixel of the label map is compared with the unit's activation at the
same relative place of the input. So presets of torchvision's weights are rewritten to resize the whole image. Any other
transform is tried on images with known edges, and refused if it moves them (ndissect.engine.networks.alignment).
"""

from __future__ import annotations

import functools
import platform
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ndissect.engine.networks.alignment import check_alignment
from ndissect.store.errors import NDError, WrongUse

WANTED = (
    "Return a transform that resizes the whole image, e.g. torchvision.transforms.v2.Compose([Resize((224, 224)), "
    "ToDtype(torch.float32, scale=True), Normalize(mean, std)])"
)
#: Of red, green and blue, as ITU-R BT.601 and torchvision's rgb_to_grayscale have it.
LUMINANCE = (0.2989, 0.587, 0.114)
Mode = Literal["batch", "image", "pil"]
_RANDOM = re.compile(r"\b(Random\w+|AutoAugment|RandAugment|TrivialAugmentWide|AugMix|ColorJitter|MixUp|CutMix)\b")


@dataclass(frozen=True)
class Preprocess:
    """What turns (N, 3, H, W) uint8 images into the (N, C, h, w) float32 input of a network.

    Either ``transform`` (the researcher's own; ``mode`` says what it is handed: a batch of tensors, one tensor, one
    PIL image), or resize to ``size`` (rows, columns; None keeps the image's), scale to [0, 1], normalise. ``channels``:
    3, or 1 for the luminance alone, of which ``mean`` and ``std`` then are. ``bgr``: blue comes first, after all else.
    """

    transform: Callable[..., object] | None = None
    mode: Mode = "batch"
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str = "bilinear"
    antialias: bool = True
    channels: int = 3
    bgr: bool = False
    source: str = "none given"
    _checked: set[tuple[int, int]] = field(default_factory=set, compare=False, repr=False)

    def apply(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 -> (N, C, h, w) float32 on the same device.

        NDError where the researcher's transform fails on images of this size or shows the network a part of them.
        """
        if self.transform is None:
            return self._standard(images)
        size = (int(images.shape[-2]), int(images.shape[-1]))
        if size not in self._checked:
            check_alignment(self._applied, size, WANTED)
            self._checked.add(size)
        return self._applied(images)

    __call__ = apply

    def describe(self) -> dict[str, object]:
        """What was done to the images, for the provenance in a store: plain values that JSON can hold."""
        known: dict[str, object] = {"source": self.source}
        if self.transform is None:
            known |= {"interpolation": self.interpolation, "antialias": self.antialias, "scale": "[0, 1]"}
        else:
            known |= {"transform": _steady_repr(self.transform), "applied_to": self.mode}
        for name, value in (("size", self.size), ("mean", self.mean), ("std", self.std)):
            known[name] = list(value) if value is not None else None
        if self.channels == 1:
            known["channels"] = "luminance"
        if self.bgr:
            known["channels"] = "blue, green, red"
        return known

    def _standard(self, images: Tensor) -> Tensor:
        if self.size is not None and tuple(images.shape[-2:]) != self.size:
            images = _resize(images, self.size, self.interpolation, self.antialias)
        # To the bit what torchvision's to_dtype and normalize give, which take as long to import as torch.
        x = images.to(torch.float32).mul_(1.0 / 255)
        if self.channels == 1:
            x = x.mul_(_by_channel(LUMINANCE, x.device)).sum(1, keepdim=True)
        if self.mean is not None or self.std is not None:
            mean = self.mean or (0.0,) * x.shape[1]
            std = self.std or (1.0,) * x.shape[1]
            x = x.sub_(_by_channel(mean, x.device)).div_(_by_channel(std, x.device))
        return x.flip(1) if self.bgr else x

    def _applied(self, images: Tensor) -> Tensor:
        assert self.transform is not None
        return run_transform(self.transform, self.mode, images)


@functools.cache
def _by_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(C, 1, 1) float32 on ``device``; kept, because a GPU is waited for while it is copied there."""
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]


def _resize(images: Tensor, size: tuple[int, int], interpolation: str, antialias: bool) -> Tensor:
    """(N, 3, *size) uint8 of images (N, 3, H, W) uint8, to the bit as torchvision's transforms.v2 resizes them."""
    smooth = interpolation in ("bilinear", "bicubic")
    in_bytes = not smooth or (images.device.type == "cpu" and (interpolation == "bicubic" or _resizes_bytes()))
    x = images if in_bytes else images.to(torch.float32)
    if len(x) == 1 and x.is_contiguous(memory_format=torch.channels_last):
        # Strides of a single image do not tell interpolate that channels come last, unless its own does.
        x = x.as_strided(x.shape, (x.numel(), *x.stride()[1:]))
    x = F.interpolate(
        x, size, mode=interpolation, align_corners=False if smooth else None, antialias=smooth and antialias
    )
    if in_bytes:
        return x
    return (x.clamp_(0, 255) if interpolation == "bicubic" else x).round_().to(torch.uint8)


def _resizes_bytes() -> bool:
    """Whether this processor resizes bytes faster than floats; bilinear interpolation rounds them in another way."""
    vectors = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    return vectors or platform.machine() in ("aarch64", "arm64")


def make_preprocess(
    transform: object,
    source: str,
    size: tuple[int, int] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    *,
    bgr: bool = False,
    channels: int = 3,
) -> tuple[Preprocess, tuple[str, ...]]:
    """The Preprocess for what came with a network (a transform, or None), and notes for the user.

    ``transform`` may be a Preprocess itself, which is a preset as torchvision's are. ``size``, ``mean``, ``std`` and
    ``bgr`` replace the preset's or fill in for a missing transform; ``channels``: how many the network takes, where it
    has none. Raises WrongUse where they meet a transform of the researcher's own and for a mean of other channels,
    NDError where that transform is random, crops, pads, flips or fails.
    """
    given = size is not None or mean is not None or std is not None or bgr
    if transform is None:
        plain = _checked_channels(Preprocess(size=size, mean=mean, std=std, bgr=bgr, channels=channels), source)
        if not given:
            note = (
                "The network came without a transform: images keep their size and are scaled to [0, 1] "
                "(--size, --mean, --std change it)"
            )
            return plain, (note,)
        return replace(plain, source="options"), ()
    preset = _from_preset(transform, source, size)
    if preset is not None:
        changed = replace(
            preset,
            size=size or preset.size,
            mean=mean or preset.mean,
            std=std or preset.std,
            bgr=bgr or preset.bgr,
        )
        return _checked_channels(changed, source), ()
    if not callable(transform):
        raise NDError(f"{source} gave a {type(transform).__name__} as the transform, which cannot be called", WANTED)
    if given:
        raise WrongUse(
            f"{source} brings its own transform, which --size, --mean, --std and --bgr cannot change",
            "Change the transform, or let the factory return the module alone",
        )
    return _from_transform(transform, source), ()


def _from_preset(transform: object, source: str, size: tuple[int, int] | None) -> Preprocess | None:
    """A preset of torchvision's weights, without its crop, or of a library; None for anything else.

    Presets that keep an image's own shape are transforms as any other, unless the user gives a ``size``.
    """
    if isinstance(transform, Preprocess):
        return transform
    _presets = sys.modules.get("torchvision.transforms._presets")
    if _presets is None:  # nobody can have made one
        return None
    if isinstance(transform, _presets.ImageClassification):
        size = (transform.crop_size * 2)[:2] if len(transform.crop_size) == 1 else transform.crop_size
        return Preprocess(
            size=(int(size[0]), int(size[1])),
            mean=tuple(map(float, transform.mean)),
            std=tuple(map(float, transform.std)),
            interpolation=transform.interpolation.value,
            antialias=bool(transform.antialias),
            source=f"{source}, whole image without crop",
        )
    whole = f"{source}, at the size that is given"
    if size is not None and isinstance(transform, _presets.SemanticSegmentation):
        return Preprocess(
            mean=tuple(map(float, transform.mean)),
            std=tuple(map(float, transform.std)),
            interpolation=transform.interpolation.value,
            antialias=bool(transform.antialias),
            source=whole,
        )
    if size is not None and isinstance(transform, _presets.ObjectDetection):
        return Preprocess(source=whole)
    if isinstance(transform, _presets.VideoClassification | _presets.OpticalFlow):
        raise NDError(
            f"{source} takes videos or image pairs; nd dissects networks that take one image",
            "Return a module from a factory that makes a video or a pair of one image, and calls it",
        )
    return None


def _checked_channels(preprocess: Preprocess, source: str) -> Preprocess:
    """``preprocess``; NDError for channels that an image does not have, WrongUse for options of other channels."""
    channels = preprocess.channels
    if channels not in (1, 3):
        raise NDError(
            f"{source} takes {channels} channels, and images have red, green and blue",
            "Return (module, transform) from a factory, with a transform that makes the other channels",
        )
    if preprocess.bgr and channels == 1:
        raise WrongUse(f"{source} takes one channel, the luminance, which --bgr cannot change", "Leave --bgr out")
    for option, values in (("--mean", preprocess.mean), ("--std", preprocess.std)):
        if values is not None and len(values) not in (1, channels):
            raise WrongUse(
                f"{option} has {len(values)} numbers, and {source} takes {channels} channel{'s' * (channels > 1)}",
                f"give one number{', or one for each channel' * (channels > 1)}",
            )
    return preprocess


def _from_transform(transform: Callable[..., object], source: str) -> Preprocess:
    steps = list(_steps(transform))
    for step in steps:
        random = _RANDOM.search(type(step).__name__)
        if random:
            raise NDError(f"the transform of {source} is random ({random[0]})", WANTED)
    normalise = next((s for s in reversed(steps) if type(s).__name__ == "Normalize"), None)
    mode = _find_mode(transform, source)
    example = run_transform(transform, mode, _noise(2))
    result = Preprocess(
        transform=transform,
        mode=mode,
        size=_fixed_size(transform, mode, example),
        mean=_numbers(getattr(normalise, "mean", None)),
        std=_numbers(getattr(normalise, "std", None)),
        source=source,
    )
    if any(not _same(run_transform(transform, mode, _noise(2)), example) for _ in range(5)):
        raise NDError(f"the transform of {source} is random: the same image came out differently", WANTED)
    result.apply(_noise(1))
    return result


def _fixed_size(transform: Callable[..., object], mode: Mode, example: Tensor) -> tuple[int, int] | None:
    """The size that ``transform`` brings every image to; None where it depends on the image's own."""
    try:
        other = run_transform(transform, mode, _noise(1)[..., :160, :192])
    except Exception:  # it takes one size only, and says so itself when images of another come
        other = example
    if other.shape[-2:] != example.shape[-2:]:
        return None
    return int(example.shape[-2]), int(example.shape[-1])


def _find_mode(transform: Callable[..., object], source: str) -> Mode:
    """How ``transform`` takes images, the fastest way first; NDError with what each way answered."""
    answers = []
    modes: tuple[Mode, ...] = ("batch", "image", "pil")
    for mode in modes:
        try:
            out = run_transform(transform, mode, _noise(2))
            if mode == "batch" and not _same(out, run_transform(transform, "image", _noise(2))):
                # An image must not come out otherwise because of its neighbours, not even by rounding.
                continue
            return mode
        except Exception as error:
            text = (str(error).strip().splitlines() or [""])[0]
            answers.append(f"{_TAKES[mode]}: {type(error).__name__}: {text}")
    raise NDError(f"the transform of {source} fails on an image ({'; '.join(answers)})", WANTED)


_TAKES = {"batch": "uint8 tensor (2, 3, 224, 224)", "image": "uint8 tensor (3, 224, 224)", "pil": "PIL image"}


def run_transform(transform: Callable[..., object], mode: Mode, images: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 -> (N, C, h, w) float32: ``transform`` on the batch, or on one image after another.

    TypeError where what comes back is no float image; whatever ``transform`` raises passes through.
    """
    if mode == "batch":
        out = _as_float(transform(images))
        if out.ndim != 4 or len(out) != len(images):
            raise TypeError(f"{tuple(images.shape)} became {tuple(out.shape)}")
        return out
    out_list = []
    for image in images:
        given = Image.fromarray(image.permute(1, 2, 0).cpu().numpy()) if mode == "pil" else image
        out = _as_float(transform(given))
        out = out[0] if out.ndim == 4 and len(out) == 1 else out
        if out.ndim != 3:
            raise TypeError(f"an image became {tuple(out.shape)}")
        out_list.append(out)
    return torch.stack(out_list).to(images.device)


def _as_float(out: object) -> Tensor:
    if not isinstance(out, Tensor):
        raise TypeError(f"returned a {type(out).__name__} instead of a tensor")
    if not out.is_floating_point():
        raise TypeError(f"returned {str(out.dtype).removeprefix('torch.')} values instead of float")
    return out.detach().to(torch.float32)


def _noise(n: int) -> Tensor:
    return torch.randint(0, 256, (n, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def _steps(transform: object) -> list[object]:
    inner = getattr(transform, "transforms", None)
    if isinstance(inner, list | tuple):
        return [transform, *(step for t in inner for step in _steps(t))]
    if isinstance(transform, torch.nn.Sequential):
        return [step for t in transform for step in _steps(t)]
    return [transform]


def _numbers(values: object) -> tuple[float, ...] | None:
    if isinstance(values, Tensor):
        values = values.flatten().tolist()
    return tuple(map(float, values)) if isinstance(values, list | tuple) else None


def _steady_repr(transform: object) -> str:
    """repr without addresses and private module names, which change from run to run."""
    return re.sub(r"_nd_network_\w+\.| at 0x[0-9a-fA-F]+", "", repr(transform))
