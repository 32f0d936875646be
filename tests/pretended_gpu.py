"""A GPU that is none: tensors that are said to lie there lie on the host, but may not be mixed with those that do.

What torch would refuse on a GPU is refused here: operations on tensors of both places, and numpy's look at those there.
What would make the host wait for a GPU is counted. Nothing is said of what a GPU computes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

from ndissect.engine.machine import timing
from ndissect.engine.passes import decoding, loader, transfer

GPU, HOST = torch.device("cuda", 0), torch.device("cpu")
_VALUES = {"item", "tolist", "__bool__", "__int__", "__float__", "__index__", "equal", "allclose", "is_nonzero"}
_SIZES = {"nonzero", "masked_select", "unique", "unique_consecutive", "bincount", "argwhere", "histc"}
_TO_NUMPY = {"numpy", "__array__", "__dlpack__"}
_BY_INDEX = {"index_select", "take", "gather", "take_along_dim", "index_add_", "index_copy_", "scatter_add_"}
_MOVED, _BOTH = {"to", "cuda", "cpu"}, {"copy_", "_has_compatible_shallow_copy_type"}


def there(tensor: Tensor) -> bool:
    """Whether a tensor is said to lie on the GPU."""
    return "_there" in tensor.__dict__


def _said(result: Any) -> Any:
    """The same tensors, said to lie on the GPU."""
    for tensor in tree_flatten(result)[0]:
        if isinstance(tensor, Tensor):
            tensor.__dict__["_there"] = True
    return result


class PretendedGpu(TorchFunctionMode):
    """While it is entered, what is asked to be on ``cuda`` is said to be there. ``waits``: where the host waited."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = dict(kwargs or {}), func.__name__
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        on_gpu = [t for t in tensors if there(t)]
        if name == "__get__":
            return self._attribute(func, args, on_gpu)
        if name == "__set__":
            return self._set(func, args)
        if name in _MOVED:
            return self._moved(name, *args, **kwargs)
        if name in _TO_NUMPY and on_gpu:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if name == "from_numpy" or not (on_gpu or "device" in kwargs):
            return func(*args, **kwargs)
        if name == "__iter__":
            return iter(args[0].unbind(0))
        if name in _BOTH:
            self.waits += ["copy_"] * (len(on_gpu) == 1)
        else:
            self._refuse_mixed(name, tensors, on_gpu)
        asked = kwargs.get("device")
        to_gpu = torch.device(asked).type == "cuda" if asked is not None else bool(on_gpu)
        if asked is not None:
            kwargs["device"] = HOST
        self._note_wait(name, args, kwargs, on_gpu, to_gpu)
        result = func(*args, **kwargs)
        return _said(result) if to_gpu and name != "copy_" else result

    def _attribute(self, func: Any, args: tuple[Any, ...], on_gpu: list[Tensor]) -> Any:
        value, which = func(*args), func.__self__.__name__
        if not on_gpu:
            return value
        return {"device": GPU, "is_cuda": True, "is_cpu": False}.get(which, _said(value))

    def _set(self, func: Any, args: tuple[Any, ...]) -> None:
        func(*args)
        if func.__self__.__name__ == "data":
            args[0].__dict__.pop("_there", None)
            if there(args[1]):
                _said(args[0])

    def _moved(self, name: str, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        to, rest = {"cuda": GPU, "cpu": HOST}.get(name), []
        for value in (*args, kwargs.pop("device", None)):
            if isinstance(value, torch.device | str):
                to = torch.device(value)
            elif isinstance(value, bool):
                kwargs["non_blocking"] = value
            elif value is not None:
                rest.append(value)
        is_there = there(tensor)
        goes_there = is_there if to is None else to.type == "cuda"
        if is_there != goes_there:
            if not kwargs.get("non_blocking") or is_there:
                self.waits.append(f"to {to}")
            tensor = tensor.clone()
        tensor = tensor.to(*rest, **kwargs) if rest or kwargs else tensor
        if goes_there:
            return _said(tensor)
        tensor.__dict__.pop("_there", None)
        return tensor

    def _refuse_mixed(self, name: str, tensors: list[Tensor], on_gpu: list[Tensor]) -> None:
        scalars = name not in _BY_INDEX
        elsewhere = [t for t in tensors if not there(t) and not (scalars and t.ndim == 0)]
        if on_gpu and elsewhere:
            shapes = [(tuple(t.shape), "cuda:0" if there(t) else "cpu") for t in tensors]
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found {shapes}")

    def _note_wait(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], on_gpu: list[Tensor], to_gpu: bool
    ) -> None:
        by_mask = name in ("__getitem__", "__setitem__") and any(
            t.dtype == torch.bool for t in tree_flatten(args[1])[0] if isinstance(t, Tensor)
        )
        of_size = name == "repeat_interleave" and kwargs.get("output_size") is None and len(on_gpu) > 1
        copied = name in ("tensor", "as_tensor") and to_gpu and not on_gpu
        if (on_gpu and name in _VALUES | _SIZES) or by_mask or of_size or copied:
            self.waits.append(name)


class _Stream:
    """One in which all has been done."""

    def record_event(self) -> _Stream:
        return self

    def synchronize(self) -> None:
        pass


def decoded_there(sources: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """Photographs decoded on the host, and put there."""
    return [image.to(device) for image in decoding._by_torchvision(sources, torch.device("cpu"))]


def pretend(monkeypatch: pytest.MonkeyPatch) -> PretendedGpu:
    """A GPU that this program uses as it uses any other, while it is entered."""
    timed = timing.Clock._timed
    monkeypatch.setenv("ND_FUSED", "0")
    monkeypatch.setattr(timing.Clock, "_timed", lambda clock, what, device: timed(clock, what, None))
    monkeypatch.setattr(transfer, "_copying_stream", lambda device: _Stream())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    monkeypatch.setattr(loader, "_page_locked", lambda shape: np.empty(shape, np.uint8))
    monkeypatch.setattr(loader, "_pinned", lambda batch: batch)
    monkeypatch.setattr(loader, "lock_pages", lambda address, size: lambda: None)
    return PretendedGpu()
