"""Why a network fails on the first image that it is given: its input is found out by trying what else it takes."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn

from ndissect.engine.networks.failures import NO_GPU, failure_of_user_code
from ndissect.engine.networks.input_channels import first_convolution
from ndissect.engine.networks.resolve import Network
from ndissect.store.errors import NDError

# Sides of the images that networks were trained on, the usual ones first.
SIDES = (224, 32, 28, 64, 256, 96, 128, 299, 384, 448, 512, 518)
_OTHER_KINDS = {
    nn.Conv3d: "videos or volumes",
    nn.Conv1d: "sequences",
    nn.Embedding: "numbers of words",
    nn.RNNBase: "sequences",
}
_IMAGES_ALONE = "nd dissects networks that see an image"


def failure_of_first_pass(network: Network, x: Tensor, error: Exception) -> NDError:
    """The NDError for ``error``, which ``network`` raised on the images ``x``, (N, C, h, w), with what to do."""
    module, name = network.module, network.name
    for diagnose in (_by_signature, _by_device, _by_channels, _by_kind, _by_dtype, _by_vector, _by_list, _by_size):
        told = diagnose(module, x, error)
        if told is not None:
            message, hint = told
            if diagnose is _by_size and network.preprocess.transform is not None:
                hint = "Let its transform resize images to that"
            return NDError(f"the network {name} {message}", hint)
    folder = network.origin.get("file", "").rpartition("/")[0]
    shape = " x ".join(map(str, x.shape))
    hint = "The error is in its own code. nd calls it with a batch of images: if it takes something else, wrap it"
    what = f"the network {name} fails on an input of {shape}"
    return failure_of_user_code(what, error, [folder] if folder else [], hint)


_Told = tuple[str, str] | None


def _by_signature(module: nn.Module, x: Tensor, error: Exception) -> _Told:
    """Inputs that ``forward`` needs beside an image."""
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):
        return None
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)]
    names = ", ".join(p.name for p in needed)
    wrap = "Return a wrapper from the factory: a module whose forward(self, image) calls it"
    if len(needed) > 1:
        return f"takes {len(needed)} inputs ({names}), and nd gives it one image", f"{wrap} with the others"
    if not positional:
        return f"takes its inputs by name alone ({names or '**kwargs'})", f"{wrap} by name"
    return None


def _by_device(module: nn.Module, x: Tensor, error: Exception) -> _Told:
    """A GPU that is not there, and tensors that stay behind when a network moves to one."""
    text = str(error)
    if any(words in text for words in NO_GPU):
        return (
            "asks for a GPU in its forward(), and there is none",
            "Let it make its tensors on the device of its input",
        )
    if "on the same device" in text or "must be on the current device" in text:
        return (
            "holds tensors that do not move to the device of its weights",
            "Make them buffers (register_buffer), or make them in forward() on the device of its input",
        )
    return None


def _by_channels(module: nn.Module, x: Tensor, error: Exception) -> _Told:
    """A first convolution that takes another number of channels than it is given of the image."""
    seen = first_convolution(module, x)
    if seen is None or seen.takes == seen.given or seen.given != x.shape[1]:
        return None
    if seen.takes == 1:
        hint = "Return (module, transform) from the factory, with torchvision.transforms.v2.Grayscale() in it"
    elif seen.takes < 3:
        hint = "Return (module, transform) from the factory, with a transform that makes them of an image"
    else:
        hint = (
            "Return (module, transform) from the factory, with a transform that adds the others (zeros, or a map of "
            "their own), or a module that adds them"
        )
    return f"takes {seen.takes} channel{'s' * (seen.takes > 1)}, and an image has {seen.given}", hint


def _by_kind(module: nn.Module, x: Tensor, error: Exception) -> _Told:
    """Networks of videos, sound and text, by their first layer."""
    first = next((m for m in module.modules() if next(m.parameters(recurse=False), None) is not None), None)
    for kind, takes in _OTHER_KINDS.items():
        if isinstance(first, kind):
            return f"takes {takes}, as its first layer ({type(first).__name__}) shows", _IMAGES_ALONE
    return None


def _by_dtype(module: nn.Module, x: Tensor, error: Exception) -> _Told:
    """Values of another width than its weights, which it makes itself."""
    text = str(error).lower()
    for word, dtype in (("double", "float64"), ("half", "float16"), ("bfloat16", "bfloat16")):
        if isinstance(error, RuntimeError) and word in text and ("type" in text or "dtype" in text):
            return (
                f"makes {dtype} values in its forward(), and runs in float32 here: {_first_line(error)}",
                "Let it make its tensors of the dtype of its input",
            )
    return None


def _by_vector(module: nn.Module, x: Tensor, error: Exception) -> _Told:
    """Generators: networks that take a vector, of as many numbers as their first layer takes."""
    for layer in module.modules():
        if isinstance(layer, nn.ConvTranspose2d | nn.Linear | nn.Conv2d):
            n = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
            if n <= 4 or not any(_runs(module, x.new_zeros(1, n, *more)) for more in ((), (1, 1))):
                return None
            return (
                f"takes a vector of {n} numbers, and no image",
                f"{_IMAGES_ALONE}: put before it what makes such vectors of images, such as an encoder",
            )
    return None


def _by_list(module: nn.Module, x: Tensor, error: Exception) -> _Told:
    """Detectors that take a list of images."""
    if not _runs(module, list(x)):
        return None
    return (
        "takes a list of images",
        "Return a wrapper from the factory: a module whose forward(self, x) calls it with list(x)",
    )


def _by_size(module: nn.Module, x: Tensor, error: Exception) -> _Told:
    """Images of another size, which it takes."""
    for side in SIDES:
        if x.shape[-2:] != (side, side) and _runs(module, x.new_zeros(1, x.shape[1], side, side)):
            size = " x ".join(map(str, x.shape[-2:]))
            return (
                f"does not take images of {size}, and does of {side} x {side}: {_first_line(error)}",
                f"--size {side}",
            )
    return None


def _runs(module: nn.Module, given: object) -> bool:
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            module(given)
    except Exception:
        return False
    return True


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
