"""Where activation maps are taken in a network, and how they are made of what is there.

Most layers return maps, (N, U, h, w). Transformers return tokens, others keep their units last, return several tensors
or are called several times. A :class:`Tap` says all of that of one layer. What the maps are changed to goes back into
the output, so that experiments can change the units of any layer.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ndissect.store.errors import NDError

#: What makes maps (N, U, h, w) of what a layer returned.
MapFunction = Callable[[Any], Tensor]
# Tensors inside one output that are looked at, and how deep inside.
_ITEMS, _DEPTH = 32, 3


@dataclass(frozen=True)
class Layout:
    """How a tensor holds activation maps.

    ``order``: its axes, N images, U units, T tokens, h rows, w columns: ``NUhw`` is a map as it is, ``NU`` has one
    value an image. Of tokens ``first`` and ``last`` at the ends are none of the image, the others are the map ``grid``
    (rows, columns), row by row. With ``function``, it alone makes the maps; ``said`` is how it was named.
    """

    order: str = "NUhw"
    first: int = 0
    last: int = 0
    grid: tuple[int, int] = (0, 0)
    said: str = ""
    function: MapFunction | None = field(default=None, compare=False)

    def maps(self, output: Any) -> Tensor:
        """(N, U, h, w): the maps in ``output``, sharing its memory unless a user's function makes them.

        NDError where it is of another shape.
        """
        if self.function is not None:
            return self._by_function(output)
        reason = not_a_tensor(output)
        if reason or output.ndim != len(self.order):
            raise NDError(f"not a map: {reason or shape_text(output.shape)}")
        x: Tensor = output.permute([self.order.index(axis) for axis in _unit_first(self.order)])
        if "T" in self.order:
            count = x.shape[2] - self.first - self.last
            if count != self.grid[0] * self.grid[1]:
                raise NDError(f"not a map of {self}: {shape_text(output.shape)}")
            return x[:, :, self.first : self.first + count].view(*x.shape[:2], *self.grid)
        return x[:, :, None, None] if self.order == "NU" else x

    def _by_function(self, output: Any) -> Tensor:
        assert self.function is not None
        try:
            maps = self.function(output)
        except Exception as e:  # whatever the user's code raises
            raise NDError(f"{self.said} fails on it: {type(e).__name__}: {e}") from e
        reason = not_a_tensor(maps)
        if reason or maps.ndim != 4:
            raise NDError(f"{self.said} gives no map: {reason or shape_text(maps.shape)}", "it must give (N, U, h, w)")
        return maps

    def put_back(self, output: Any, maps: Tensor) -> Any:
        """``output`` with ``maps`` in the place of its own; what is no map in it stays as it is.

        NDError where a user's function made the maps of a copy, so that nothing leads back.
        """
        if self.order == "NUhw" and self.function is None:
            return maps
        changed = copy_of(output)
        inside = self.maps(changed)
        if not _within(inside, changed):
            raise NDError(
                f"maps that {self.said} makes cannot be changed", "it must give a view of the output, no copy"
            )
        inside.copy_(maps)
        return changed

    def __str__(self) -> str:
        """How maps are made, as a user writes and reads it; "" where the output is a map as it is."""
        if self.said:
            return self.said
        if "T" in self.order:
            part = f"[{self.first or ''}:{-self.last or ''}]" if self.first or self.last else ""
            axes = {"NTU": "", "TNU": ", tokens before images", "NUT": ", units before tokens"}[self.order]
            return f"tokens{part} -> {self.grid[0]}x{self.grid[1]}{axes}"
        return {"NUhw": "", "NU": "one value an image", "NhwU": "units last"}[self.order]


def _unit_first(order: str) -> str:
    return "NU" + order.replace("N", "").replace("U", "")


@dataclass(frozen=True)
class Tap:
    """Where the maps of a layer are taken: of which call (1 is the first, 0 the last) of the module with this dotted
    name, of which of the tensors that it returned (the keys that lead there), and in which ``layout``."""

    module: str
    call: int = 0
    path: tuple[str, ...] = ()
    layout: Layout = Layout()

    def item(self, output: Any) -> Any:
        """The part of what the module returned that holds the maps; NDError where it has no such part."""
        for key in self.path:
            parts = dict(children(output))
            if key not in parts:
                raise NDError(f"{self.module} returned no {'.'.join(self.path)} this time")
            output = parts[key]
        return output

    def maps(self, output: Any) -> Tensor:
        """(N, U, h, w): the maps in what the module returned."""
        return self.layout.maps(self.item(output))

    def put_back(self, output: Any, maps: Tensor) -> Any:
        """What the module returned, with ``maps`` in the place of its own."""
        return _replaced(output, self.path, self.layout.put_back(self.item(output), maps))


def not_a_tensor(output: object) -> str:
    """Why ``output`` cannot hold activation maps, whatever its shape; "" where it can."""
    if not isinstance(output, Tensor):
        return f"returns a {type(output).__name__}" + (f" of {len(output)}" if isinstance(output, tuple | list) else "")
    return "" if output.is_floating_point() else f"{str(output.dtype).removeprefix('torch.')} values"


def shape_text(shape: torch.Size | tuple[int, ...]) -> str:
    """``shape (N, 197, 768)``: all but the images, which are any number."""
    return f"shape (N{''.join(f', {n}' for n in shape[1:])})"


def children(output: Any) -> Iterator[tuple[str, Any]]:
    """The parts of a tuple, list, dictionary or dataclass with their keys; nothing for any other value."""
    if isinstance(output, Mapping):
        yield from ((str(key), value) for key, value in output.items())
    elif isinstance(output, tuple) and hasattr(output, "_fields"):
        yield from zip(output._fields, output, strict=True)
    elif isinstance(output, tuple | list):
        yield from ((str(i), value) for i, value in enumerate(output))
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        yield from ((f.name, getattr(output, f.name)) for f in dataclasses.fields(output))


def tensors_inside(output: Any) -> dict[tuple[str, ...], Tensor]:
    """The tensors in what a module returned, by the keys that lead to them, where it returned no tensor alone."""
    found: dict[tuple[str, ...], Tensor] = {}

    def look(value: Any, path: tuple[str, ...]) -> None:
        if isinstance(value, Tensor):
            found[path] = value
            return
        if len(path) < _DEPTH:
            for key, part in children(value):
                if len(found) < _ITEMS:
                    look(part, (*path, key))

    if not isinstance(output, Tensor):
        look(output, ())
    return found


def every_tensor(value: Any) -> Iterator[Tensor]:
    """Each tensor in tuples, lists and dictionaries inside of one another, as arguments of functions are."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from every_tensor(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from every_tensor(part)


def copy_of(output: Any) -> Any:
    """``output`` with tensors of its own."""
    if isinstance(output, Tensor):
        return output.clone()
    for key, part in list(children(output)):
        output = _replaced(output, (key,), copy_of(part))
    return output


def _replaced(output: Any, path: tuple[str, ...], value: Any) -> Any:
    """``output`` with ``value`` at ``path``; the containers on the way are copied."""
    if not path:
        return value
    key, rest = path[0], path[1:]
    inner = _replaced(dict(children(output))[key], rest, value)
    if isinstance(output, Mapping):
        changed: Any = copy.copy(output)
        changed[next(k for k in output if str(k) == key)] = inner
    elif isinstance(output, tuple) and hasattr(output, "_fields"):
        changed = type(output)(**(dict(children(output)) | {key: inner}))
    elif isinstance(output, tuple | list):
        items = list(output)
        items[int(key)] = inner
        changed = type(output)(items)
    else:
        changed = copy.copy(output)
        object.__setattr__(changed, key, inner)
    return changed


def _within(maps: Tensor, output: Any) -> bool:
    """Whether ``maps`` lies in the memory of a tensor in ``output``."""
    tensors = [output] if isinstance(output, Tensor) else tensors_inside(output).values()
    return any(t.untyped_storage().data_ptr() == maps.untyped_storage().data_ptr() for t in tensors)
