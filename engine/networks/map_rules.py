"""A user's own rule for how maps are made of what layers return: ``--map``.

tokens[1:] -> 14x14         tokens (N, tokens, units) without the first one are a map of 14 rows and 14 columns
path/file.py:function       what ``function`` of a Python file gives for what the layer returned: (N, U, h, w)
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ndissect.engine.networks.factory import users_code
from ndissect.engine.networks.isolate import Scope
from ndissect.engine.networks.taps import Layout, MapFunction
from ndissect.store.errors import NDError, WrongUse

_TOKENS = re.compile(r"tokens\s*(?:\[\s*(\d*)\s*:\s*(-\d+)?\s*\])?\s*->\s*([1-9]\d{0,3})\s*[x×]\s*([1-9]\d{0,3})")
#: How rules are written.
WRITTEN = 'write --map "tokens[1:] -> 14x14", or --map path/file.py:function'


@dataclass(frozen=True)
class MapRule:
    """The rule ``text``: the layout that it gives to outputs that it fits."""

    text: str
    made: Layout

    def layout(self, output: Any, read: Layout | str, images: int) -> Layout | str:
        """How ``output``, of so many images, holds maps by this rule; ``read``, what it was read as, where it does not.

        A rule for tokens goes before what is read of them; a function is asked where no map was read.
        """
        if self.made.function is None:
            return self._as_tokens(output, read)
        if not isinstance(read, str):
            return read
        try:
            maps = self.made.maps(output)
        except NDError as e:
            return f"not a map: {e.message}"
        if len(maps) != images:
            return f"not a map: {self.text} gives {len(maps)} maps for {images} images"
        return self.made

    def _as_tokens(self, output: Any, read: Layout | str) -> Layout | str:
        if not isinstance(output, Tensor) or output.ndim != 3:
            return read
        count = self.made.first + self.made.last + self.made.grid[0] * self.made.grid[1]
        if output.shape[1] == count:
            return self.made
        return read if isinstance(read, Layout) else f"{read}, where {self.text} takes {count} tokens"


def read_rule(text: str) -> MapRule:
    """The rule that ``text`` writes; WrongUse where it writes none, NDError where its code fails."""
    tokens = _TOKENS.fullmatch(text.strip())
    if tokens:
        first, last, height, width = tokens.groups()
        layout = Layout("NTU", int(first or 0), -int(last or 0), (int(height), int(width)))
        return MapRule(str(layout), layout)
    path, colon, name = text.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise WrongUse(f"--map '{text}' is no rule", WRITTEN)
    function, digest = _load(Path(path).expanduser(), name)
    said = f"{Path(path).name}:{name}"
    return MapRule(said, Layout("", said=f"{said} ({digest[:12]})", function=function))


def is_used(text: str, layouts: Iterable[Layout]) -> bool:
    """Whether the rule ``text`` made one of ``layouts``."""
    if _TOKENS.fullmatch(text.strip()):
        return read_rule(text).made in layouts
    path, _, name = text.rpartition(":")
    return any(layout.said.startswith(f"{Path(path).name}:{name} (") for layout in layouts)


def _load(path: Path, name: str) -> tuple[MapFunction, str]:
    """The function ``name`` of a Python file, and the digest of the file."""
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where a name is too long
        raise WrongUse(f"--map: {path} is not a file", WRITTEN)
    file = path.resolve()
    scope = Scope([file.parent, Path.cwd()])
    with users_code(scope, f"{path} cannot be imported"):
        module = scope.load_file(file)
    function: Callable[[Any], Any] | None = getattr(module, name, None)
    if not callable(function):
        raise WrongUse(f"--map: {path} has no function named {name!r}", WRITTEN)
    return function, hashlib.sha256(file.read_bytes()).hexdigest()
