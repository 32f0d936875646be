"""Where a network runs, with arithmetic that does not depend on how the work is cut, and what to do out of memory."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch

from ndissect.engine.machine.progress import Progress
from ndissect.store.errors import NDError, WrongUse

#: The arithmetic of the forward pass; counting is exact in any.
Precision = Literal["fp32", "tf32", "bf16", "fp16"]
#: Images a batch when none is asked for.
DEFAULT_BATCH = {"cuda": 256, "mps": 64, "cpu": 32}


def choose_device(name: str = "auto", local_rank: int = 0) -> torch.device:
    """The device called ``name``; ``auto`` takes CUDA, else MPS, else the CPU. WrongUse where it is not there.

    Of several processes on a machine each takes a GPU of its own, by its ``local_rank``, unless one is named.
    """
    if name == "auto":
        there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
        name = next(kind for kind, usable in there.items() if usable)
    if name.partition(":")[0] not in DEFAULT_BATCH:
        raise WrongUse(f"no device '{name}'", "use auto, cpu, cuda, cuda:1 or mps")
    if name == "cuda" and local_rank:
        name = f"cuda:{local_rank % max(torch.cuda.device_count(), 1)}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # where events are recorded, and pages locked, unless something else is said
    except (RuntimeError, AssertionError) as e:
        reason = str(e).strip().splitlines()[0]
        raise WrongUse(f"cannot use the device '{name}': {reason}", "--device auto picks one that works") from e
    return device


def device_name(device: torch.device) -> str:
    """``cuda: NVIDIA H200``, ``cpu: 2 threads``."""
    if device.type == "cuda":
        return f"{device}: {torch.cuda.get_device_name(device)}"
    return f"cpu: {torch.get_num_threads()} threads" if device.type == "cpu" else str(device)


def exact_arithmetic() -> None:
    """Full float32 on CUDA, and the same algorithm on every pass: thresholds and masks must see equal activations."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    newer: list[Any] = [torch.backends, torch.backends.cudnn, getattr(torch.backends.cudnn, "conv", None)]
    for switch in newer:
        if hasattr(switch, "fp32_precision"):  # which a network's own file may have set
            switch.fp32_precision = "ieee"
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


@contextlib.contextmanager
def computing(precision: Precision, device: torch.device) -> Iterator[None]:
    """The arithmetic of a forward pass for the block: full float32, or what ``precision`` asks for instead."""
    if precision in ("bf16", "fp16"):
        with torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16):
            yield
        return
    if precision == "tf32":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        if precision == "tf32":
            exact_arithmetic()


def out_of_memory(error: Exception) -> bool:
    """Whether the device had no memory left; cuDNN, cuBLAS and MPS say so in plain RuntimeErrors."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in said or "ALLOC_FAILED" in said)
    )


def too_large() -> NDError:
    """The error where not even one image fits the device."""
    return NDError(
        "the device has not enough memory for a single image", "dissect fewer layers at a time, or use --device cpu"
    )


class Halving:
    """Runs work over as many images at a time as fit the device: half as many after each time that memory ran out."""

    def __init__(self, size: int, progress: Progress) -> None:
        self.size = size
        self._progress = progress

    def run(self, images: int, work: Callable[[slice], None]) -> None:
        """Call ``work`` on slices that cover ``images``, each once; a slice that fails must have changed nothing."""
        start = 0
        while start < images:
            some = slice(start, min(start + self.size, images))
            try:
                work(some)
            except torch.OutOfMemoryError as e:
                tried = some.stop - some.start
                if tried == 1:
                    raise too_large() from e
            else:
                start = some.stop
                continue
            self.halve(tried)

    def halve(self, tried: int) -> None:
        """From now on half as many at a time as ``tried``, for which memory did not suffice.

        To be called outside of the handler of that error: its frames hold the tensors that must go.
        """
        self.size = max(1, tried // 2)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._progress.note(f"the device ran out of memory: going on with batches of {self.size}")
