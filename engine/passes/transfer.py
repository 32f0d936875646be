"""Batches on the device that counts: a GPU copies the next one while it works on this one."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Generator
from dataclasses import replace

import torch
from torch import Tensor

from ndissect.engine.passes.loader import Batch, Loaded


def on_device(
    loaded: Generator[Loaded, None, None], device: torch.device, *, pixels: bool
) -> Generator[Batch, None, None]:
    """The same batches, in memory of their own: their labels on ``device``, and with ``pixels`` their pixels too.

    ``device`` is the CPU or a GPU. On a GPU each batch is copied by a stream of its own, while the one before it is
    worked on.
    """
    with contextlib.closing(loaded):
        if device.type == "cuda":
            yield from _copied_ahead(loaded, device, pixels)
        else:
            for one in loaded:
                yield one.owned()


def _copied_ahead(
    loaded: Generator[Loaded, None, None], device: torch.device, pixels: bool
) -> Generator[Batch, None, None]:
    stream = _copying_stream(device)
    copying: _Copy | None = None
    try:
        for one in loaded:
            before, copying = copying, _Copy(one, device, stream, pixels)
            if before is not None:
                yield before.end()
        if copying is not None:
            yield copying.end()
    finally:
        stream.synchronize()  # before the memory that is copied from goes


@functools.cache
def _copying_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all passes: memory that was allocated for a stream is used again by that stream alone."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class _Copy:
    """A batch on its way to ``device``; ``end`` gives it when it is there."""

    def __init__(self, loaded: Loaded, device: torch.device, stream: torch.cuda.Stream, pixels: bool) -> None:
        def copied(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        def kept(tensor: Tensor) -> Tensor:
            # What the device decoded is nobody else's, and may not be there yet for a stream of another's.
            return tensor if loaded.release is None or tensor.is_cuda else tensor.clone()

        self._loaded = loaded  # its memory must not be used for anything else meanwhile
        self._device = device
        self._batch: Batch | None = None
        try:
            with torch.cuda.stream(stream):
                batch = loaded.batch.each(copied if pixels else kept, copied)
            self._batch = replace(batch, area=kept(loaded.batch.area))
        except torch.OutOfMemoryError:  # it stays on the host: the forward pass takes it in pieces
            pass
        self._copied = stream.record_event()

    def end(self) -> Batch:
        """Wait until it is copied, which it is as a rule, and give back the memory that it came from."""
        self._copied.synchronize()
        if self._batch is None:
            return self._loaded.owned()
        using = torch.cuda.current_stream(self._device)
        for tensor in (*self._batch.pixels, *vars(self._batch.labels).values()):
            if tensor.is_cuda:  # what is freed while that stream uses it must not be copied into
                tensor.record_stream(using)
        if self._loaded.release is not None:
            self._loaded.release()
        return self._batch
