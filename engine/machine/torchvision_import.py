"""Importing torchvision without torch's compiler, which takes as long to import as torch itself.

One of torchvision's operations asks the compiler for a single function at the top of its module, to call it on devices
that a dissection does not use. For as long as torchvision is imported a stand-in gives that function; it turns to the
compiler when something is wanted of it.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo.utils"
_ASKED_FOR = "is_compile_supported"


@contextlib.contextmanager
def without_compiler() -> Iterator[None]:
    """For the block, in which torchvision is imported, torch's compiler is imported where it is used alone."""
    if _COMPILER in sys.modules:
        yield
        return
    stand_in = _stand_in()
    sys.modules[_COMPILER] = stand_in
    try:
        yield
    finally:
        _remove(stand_in)


def _stand_in() -> ModuleType:
    module = ModuleType(_COMPILER)

    def attribute(name: str) -> Any:
        if name.startswith("__"):  # what the import system asks every module for
            raise AttributeError(name)
        _remove(module)
        return getattr(importlib.import_module(_COMPILER), name)

    def is_compile_supported(device_type: str) -> Any:
        return attribute(_ASKED_FOR)(device_type)

    module.__dict__.update({_ASKED_FOR: is_compile_supported, "__getattr__": attribute})
    return module


def _remove(stand_in: ModuleType) -> None:
    if sys.modules.get(_COMPILER) is stand_in:
        del sys.modules[_COMPILER]
