"""The layers of a network: which there are, which can be dissected, and which a pattern means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ndissect.engine.networks.capture import Capture, not_a_map
from ndissect.engine.networks.first_pass import failure_of_first_pass
from ndissect.engine.networks.resolve import Network
from ndissect.engine.networks.unwatched import why_not_called
from ndissect.store.errors import NDError, WrongUse, nearest

_UNTOLD = re.compile(r"(Max|Avg|LP|Adaptive\w*)Pool|Dropout|StochasticDepth|Identity|Flatten")


@dataclass(frozen=True)
class LayerInfo:
    """One layer: dotted ``name``, ``module_type``, ``units``, ``map_size`` (h, w), and why it cannot be dissected.

    ``reason`` is "" for a dissectable layer. ``calls``: times called in one forward pass; the last call counts.
    ``order``: its place in the order in which layers finish. ``same_as``: the innermost layer that returned this
    very output (a container returns its last child's). ``conv``: a 2-D convolution. ``scores``: as many units as the
    network has outputs.
    """

    name: str
    module_type: str
    units: int
    map_size: tuple[int, int] | None
    reason: str = ""
    calls: int = 1
    order: int = -1
    same_as: str = ""
    conv: bool = False
    scores: bool = False

    @property
    def dissectable(self) -> bool:
        return not self.reason

    @property
    def note(self) -> str:
        """What a reader of the list should know: which of several calls counts."""
        return f"called {self.calls} times, the last call counts" if self.calls > 1 else ""


@dataclass
class _Seen:
    """What the hooks saw of one layer; ``output`` keeps the tensor alive, so that its id stays its own."""

    output: Any
    version: int
    shape: tuple[int, ...]
    calls: int
    order: int
    reason: str

    @property
    def identity(self) -> tuple[int, int]:
        """The same for layers that return the same values; an in-place ReLU returns its input's tensor, later."""
        return id(self.output), self.version


def list_layers(network: Network, image_size: tuple[int, int] = (224, 224)) -> list[LayerInfo]:
    """Every layer of the network in its own order, as seen in one forward pass of one random image of ``image_size``.

    NDError where the forward pass fails, with the line of the network's own code.
    """
    seen: dict[str, _Seen] = {}
    modules = {name: module for name, module in network.module.named_modules() if name}
    outputs = _output_units(_run_once(network, image_size, modules, seen))
    units_last = _units_last(modules, seen)
    innermost: dict[tuple[int, int], str] = {}
    for name, finished in sorted(seen.items(), key=lambda item: item[1].order):
        innermost.setdefault(finished.identity, name)
    infos = []
    for name, module in modules.items():
        s = seen.get(name)
        info = LayerInfo(name, type(module).__name__, 0, None, "", 0, conv=isinstance(module, nn.Conv2d))
        if s is None:
            infos.append(replace(info, reason=why_not_called(name, modules)))
            continue
        info = replace(info, calls=s.calls, order=s.order, units=s.shape[1] if len(s.shape) > 1 else 0)
        if s.reason:
            info = replace(info, reason=s.reason)
        elif s.shape in units_last:
            shape = ", ".join(map(str, s.shape[1:]))
            info = replace(info, units=s.shape[3], reason=f"not a map: shape (N, {shape}) has its units last")
        elif s.shape[2:] == (1, 1):
            info = replace(info, map_size=(1, 1), reason="not a map: one value an image (1 x 1)")
        else:
            info = replace(info, map_size=(s.shape[2], s.shape[3]), scores=s.shape[1] == outputs)
        same = innermost[s.identity]
        infos.append(replace(info, same_as=same if same != name else ""))
    return infos


def match_layers(patterns: Sequence[str], infos: Sequence[LayerInfo], all_convs: bool = False) -> list[str]:
    """The dissectable layers that the patterns mean, in the network's order, each once.

    A pattern is a dotted name or a glob: ``*``, ``?`` and ``[..]`` stay between two dots, ``**`` crosses them; several
    may be joined by commas. ``all_convs`` adds every 2-D convolution. WrongUse for a pattern that means nothing, with
    the nearest names, and for one that means only layers without a map, with the reason.
    """
    chosen: set[str] = set()
    names = [info.name for info in infos]
    for pattern in [p.strip() for text in patterns for p in text.split(",") if p.strip()]:
        matches = [i for i in infos if i.name == pattern] or [i for i in infos if _glob(pattern).fullmatch(i.name)]
        if not matches:
            near = nearest(re.sub(r"[*?\[\]!]", "", pattern), [i.name for i in infos if i.dissectable] or names)
            what = "layer" if pattern == re.sub(r"[*?\[]", "", pattern) else "layer matching"
            raise WrongUse(
                f"the network has no {what} {pattern!r}",
                f"Nearest: {', '.join(near)}" if near else "`nd layers NETWORK` lists them",
            )
        if not any(i.dissectable for i in matches):
            first = matches[0]
            more = f" (and {len(matches) - 1} more like it)" if len(matches) > 1 else ""
            raise WrongUse(
                f"{first.name} ({first.module_type}){more} cannot be dissected: {first.reason}", _instead(infos)
            )
        chosen.update(i.name for i in matches if i.dissectable)
    if all_convs:
        convs = [i.name for i in infos if i.conv and i.dissectable]
        if not convs:
            raise WrongUse("the network has no convolution whose output is a map", _instead(infos))
        chosen.update(convs)
    return [name for name in names if name in chosen]


def default_layers(infos: Sequence[LayerInfo]) -> list[str]:
    """The layers dissected when none is named: ``layer1``, ``layer2``, ... where the network has such stages, else
    the last of the outermost layers that has at least half as many units as the widest of them.

    Class scores and the outputs of pooling, dropout and identity layers do not count; where no outermost layer is
    left, the layers inside them are looked at, and so on. WrongUse where no layer is a map.
    """
    maps = [i for i in infos if i.dissectable]
    if not maps:
        what = "the network has no layer whose output is a map of shape (N, units, h, w)"
        raise WrongUse(what, "`nd layers NETWORK` says why")
    stages = [i.name for i in maps if re.fullmatch(r"layer\d+", i.name)]
    if stages:
        return stages
    types = {i.name: i.module_type for i in infos}
    left = [i for i in maps if not i.scores and not _UNTOLD.search(types[i.same_as or i.name])] or maps
    depth = min(i.name.count(".") for i in left)
    outermost = [i for i in left if i.name.count(".") == depth]
    widest = max(i.units for i in outermost)
    return [max((i for i in outermost if 2 * i.units >= widest), key=lambda i: i.order).name]


def _run_once(
    network: Network, image_size: tuple[int, int], modules: dict[str, nn.Module], seen: dict[str, _Seen]
) -> Any:
    calls = 0

    def look(name: str, output: Any) -> None:
        nonlocal calls
        reason = not_a_map(output)
        before = seen.get(name)
        seen[name] = _Seen(
            output,
            version=output._version if isinstance(output, Tensor) and not output.is_inference() else 0,
            shape=tuple(output.shape) if isinstance(output, Tensor) else (),
            calls=before.calls + 1 if before else 1,
            order=calls,
            reason=f"not a map: {reason}" if reason else "",
        )
        calls += 1

    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (1, 3, *image_size), dtype=torch.uint8, generator=generator)
    x = network.preprocess.apply(image)
    parameter = next(network.module.parameters(), None)
    try:
        with torch.no_grad(), Capture(network.module, tuple(modules), observe=look):
            return network.module(x if parameter is None else x.to(parameter.device))
    except NDError:
        raise
    except Exception as error:
        raise failure_of_first_pass(network, x, error) from error


def _units_last(modules: dict[str, nn.Module], seen: dict[str, _Seen]) -> set[tuple[int, ...]]:
    """Shapes (N, h, w, units), as Swin transformers pass them on: those of linear layers and layer norms on four axes,
    unless a convolution or pooling gives the same shape."""
    last: set[tuple[int, ...]] = set()
    first: set[tuple[int, ...]] = set()
    for name, s in seen.items():
        module = modules[name]
        if len(s.shape) != 4:
            continue
        if type(module) in (nn.Linear, nn.LayerNorm):
            last.add(s.shape)
        elif isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.GroupNorm | nn.MaxPool2d | nn.AvgPool2d):
            first.add(s.shape)
    return last - first


def _output_units(output: Any) -> int:
    """How many scores the network gives, by its first output tensor of two or more axes; 0 if that is unclear."""
    if isinstance(output, dict):
        output = next(iter(output.values()), None)
    elif isinstance(output, tuple | list):
        output = output[0] if output else None
    return int(output.shape[1]) if isinstance(output, Tensor) and output.ndim >= 2 else 0


def _glob(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*|\?|\[[^\]]+\])", pattern)
    meaning = {"**": ".*", "*": "[^.]*", "?": "[^.]"}
    out = []
    for part in parts:
        if part in meaning:
            out.append(meaning[part])
        elif part.startswith("[") and part.endswith("]"):
            inner = part[1:-1].replace("\\", "\\\\")
            out.append(f"(?!\\.)[{'^' + inner[1:] if inner.startswith('!') else inner}]")
        else:
            out.append(re.escape(part))
    return re.compile("".join(out))


def _instead(infos: Sequence[LayerInfo]) -> str:
    maps = [i for i in infos if i.dissectable]
    top = [i.name for i in maps if "." not in i.name] or [i.name for i in maps]
    return f"Layers with a map: {', '.join(top[:8])}{' ...' if len(top) > 8 else ''}" if top else "No layer has a map"
