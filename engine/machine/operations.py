"""How many operations a loop asks of torch, and how often it waits for their results: what a host costs a GPU.

Every call of an operation takes the host some microseconds, whatever it computes, and one whose result the host must
know stops it until the device has done all that was asked before. On a GPU both are what keeps it idle; on a CPU they
can be counted just as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ndissect.engine.machine.timing import phase

# What a GPU stops the host for: values, and tensors whose size depends on values.
_WAITS = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "bincount", "histc"}
_WAITS |= {"_unique", "_unique2", "unique_dim", "unique_consecutive", "unique_dim_consecutive"}


class OperationCount(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts, while it is entered, what its thread asks of torch: by phase (ndissect.engine.machine.timing.phase).

    ``operations``: all of them, views as well; ``waits``: those for whose result a GPU would stop the host; ``names``:
    (phase, operation) of each.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.names: Counter[tuple[str, str]] = Counter()
        self._reads = _Reads(self.waits)

    def __enter__(self) -> OperationCount:
        """Count from here on."""
        self._reads.__enter__()  # type: ignore[no-untyped-call]
        return super().__enter__()  # type: ignore[no-any-return, no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        """Count no more."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._reads.__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count ``func`` and call it."""
        during, name = phase(), func.overloadpacket.__name__
        self.operations[during] += 1
        self.names[during, name] += 1
        if _waits(name, args, kwargs or {}):
            self.waits[during] += 1
        return func(*args, **(kwargs or {}))


class _Reads(TorchFunctionMode):
    """Counts by phase, into ``waits``, the lists made of tensors: a GPU's are copied for it, which a CPU's are not."""

    def __init__(self, waits: Counter[str]) -> None:
        super().__init__()
        self._waits = waits

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count ``func`` if it is one, and call it."""
        if func is Tensor.tolist and args[0].device.type == "cpu" and args[0].ndim:
            self._waits[phase()] += 1
        return func(*args, **(kwargs or {}))


def _waits(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if name in _WAITS:
        return True
    if name in ("index", "index_put", "index_put_", "_index_put_impl_"):  # a mask is turned into places
        return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1] if i is not None)
    if name == "repeat_interleave":
        return kwargs.get("output_size") is None
    if name == "_to_copy":
        to = kwargs.get("device")
        return to is not None and to.type == "cpu" and args[0].device.type != "cpu"
    return False


def count_operations(work: Callable[[], object]) -> OperationCount:
    """What ``work`` asks of torch in this thread."""
    count = OperationCount()
    with count:
        work()
    return count
