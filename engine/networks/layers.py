"""The layers of a network: which there are, which can be dissected, and which a pattern means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from ndissect.engine.networks.functional import Functional, type_of
from ndissect.engine.networks.map_rules import WRITTEN, read_rule
from ndissect.engine.networks.probe import Output, Seen, probe
from ndissect.engine.networks.resolve import Network
from ndissect.engine.networks.stages import last_blocks, stages_of
from ndissect.engine.networks.taps import Tap
from ndissect.engine.networks.unwatched import why_not_called
from ndissect.store.errors import WrongUse, nearest

_UNTOLD = re.compile(r"(Max|Avg|LP|Adaptive\w*)Pool|Dropout|StochasticDepth|Identity|Flatten")


@dataclass(frozen=True)
class LayerInfo:
    """One layer: dotted ``name``, ``module_type``, ``units``, ``map_size`` (h, w), and why it cannot be dissected.

    ``reason`` is "" for a dissectable layer. ``calls``: times called in one forward pass; the last call counts, unless
    the ``tap`` of a dissectable layer, which says where its maps are taken, names another. ``order``: its place in the
    order in which layers finish. ``same_as``: the innermost module that returned this very output (a container returns
    its last child's). ``conv``: a 2-D convolution. ``scores``: as many units as the network has outputs.
    ``functional``: it is what a function returned, which ``module_type`` names.

    The name is that of a module; ``module@2`` stands for its second call, ``module.0`` and ``module.key`` for a part of
    what it returns.
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
    functional: bool = False
    tap: Tap | None = None

    @property
    def dissectable(self) -> bool:
        return not self.reason

    @property
    def spatial(self) -> bool:
        """Whether it can be dissected and its maps have more than one place."""
        return self.dissectable and self.map_size != (1, 1)

    @property
    def note(self) -> str:
        """What a reader of the list should know: which of several calls counts."""
        last = self.tap is None or not self.tap.call
        return f"called {self.calls} times, the last call counts" if self.calls > 1 and last else ""

    @property
    def made_by(self) -> str:
        """How its maps are made of what the module returns, ``tokens[1:] -> 16x16``; "" where it returns maps."""
        return str(self.tap.layout) if self.tap else ""


def list_layers(
    network: Network,
    image_size: tuple[int, int] = (224, 224),
    *,
    map_rule: str | None = None,
    patterns: Sequence[str] = (),
) -> list[LayerInfo]:
    """Every layer of the network in its own order, as seen in a forward pass of random images of ``image_size``.

    ``map_rule``: the user's own (ndissect.engine.networks.map_rules). Calls before the last have layers of their own
    where one of ``patterns`` asks for a call, as ``layer@2`` does. NDError where the forward pass fails, with the line
    of the network's own code.
    """
    every_call = any("@" in pattern for pattern in patterns)
    rule = read_rule(map_rule) if map_rule else None
    seen, scores = probe(network, image_size, rule, every_call=every_call)
    innermost: dict[tuple[int, float], str] = {}
    modules = {name: module for name, module in network.module.named_modules() if name}
    last = [(name, s.calls[-1][()]) for name, s in seen.items() if not isinstance(modules[name], Functional)]
    for name, output in sorted(last, key=lambda item: item[1].order):
        innermost.setdefault(output.identity, name)
    infos = []
    for name, module in modules.items():
        info = LayerInfo(name, type_of(module), 0, None, "", 0, conv=isinstance(module, nn.Conv2d))
        info = replace(info, functional=isinstance(module, Functional))
        if name in seen:
            listed = _of_module(info, seen[name], scores, frozenset(modules), every_call=every_call)
            for one, output in listed:
                same = innermost.get(output.identity, one.name)
                infos.append(replace(one, same_as=same if same != one.name else ""))
        else:
            infos.append(replace(info, reason=why_not_called(name, modules)))
    return infos


def taps_of(infos: Sequence[LayerInfo]) -> dict[str, Tap]:
    """By name, where the maps of the layers are taken."""
    return {info.name: info.tap or Tap(info.name) for info in infos}


def maps_made(infos: Sequence[LayerInfo]) -> dict[str, str]:
    """By name, how maps are made of what the layers return, of those that do not return maps."""
    return {info.name: info.made_by for info in infos if info.made_by}


def _of_module(
    info: LayerInfo, seen: Seen, scores: int, modules: frozenset[str], *, every_call: bool
) -> list[tuple[LayerInfo, Output]]:
    """The layers of one module, each with what it returned: itself, the maps inside of its output, its calls."""
    count = len(seen.calls)
    listed = _of_call(replace(info, calls=count), seen.calls[-1], 0, scores, modules)
    if every_call and count > 1:
        for call, outputs in enumerate(seen.calls, 1):
            of_call = replace(info, name=f"{info.name}@{call}", calls=count)
            listed += _of_call(of_call, outputs, call, scores, modules)
    return listed


def _of_call(
    info: LayerInfo, outputs: dict[tuple[str, ...], Output], call: int, scores: int, modules: frozenset[str]
) -> list[tuple[LayerInfo, Output]]:
    module = info.name.partition("@")[0] if call else info.name
    whole = _described(info, Tap(module, call), outputs[()], scores)
    inner = []
    for path, output in outputs.items():
        if path:
            name = ".".join((info.name, *path))
            if name in modules:  # a child of that name comes first
                name = ".".join((f"{module}@{call or info.calls}", *path))
            inner.append((_described(replace(info, name=name), Tap(module, call, path), output, scores), output))
    inner = [(one, output) for one, output in inner if one.dissectable]
    if inner and not whole.dissectable:
        names = [one.name for one, _ in inner]
        more = " ..." if len(names) > 3 else ""
        verb = "are" if len(names) > 1 else "is"
        whole = replace(whole, reason=f"{whole.reason}, of which {', '.join(names[:3])}{more} {verb}")
    return [(whole, outputs[()]), *inner]


def _described(info: LayerInfo, tap: Tap, output: Output, scores: int) -> LayerInfo:
    """``info`` with what is known of the layer's output."""
    info = replace(info, order=output.order, units=output.shape[1] if len(output.shape) > 1 else 0)
    if isinstance(output.layout, str):
        return replace(info, reason=output.layout)
    tap = replace(tap, layout=output.layout)
    count, height, width = output.maps
    return replace(info, units=count, map_size=(height, width), scores=count == scores, tap=tap)


def match_layers(patterns: Sequence[str], infos: Sequence[LayerInfo], all_convs: bool = False) -> list[str]:
    """The dissectable layers that the patterns mean, in the network's order, each once.

    A pattern is a dotted name or a glob: ``*``, ``?`` and ``[..]`` stay between two dots, ``**`` crosses them; several
    may be joined by commas. ``all_convs`` adds every 2-D convolution. WrongUse for a pattern that means nothing, with
    the nearest names, and for one that means only layers without a map, with the reason.
    """
    chosen: set[str] = set()
    names = [info.name for info in infos]
    for pattern in [p.strip() for text in patterns for p in text.split(",") if p.strip()]:
        matches = [i for i in infos if i.name == pattern]
        meant = [i for i in matches if i.dissectable]
        if not matches:
            matches = [i for i in infos if _glob(pattern).fullmatch(i.name) and ("@" in pattern or "@" not in i.name)]
            meant = [i for i in matches if i.spatial] or [i for i in matches if i.dissectable]
        if not matches:
            near = nearest(re.sub(r"[*?\[\]!]", "", pattern), [i.name for i in infos if i.dissectable] or names)
            what = "layer" if pattern == re.sub(r"[*?\[]", "", pattern) else "layer matching"
            raise WrongUse(
                f"the network has no {what} {pattern!r}",
                f"Nearest: {', '.join(near)}" if near else "`nd layers NETWORK` lists them",
            )
        if not meant:
            first = matches[0]
            more = f" (and {len(matches) - 1} more like it)" if len(matches) > 1 else ""
            raise WrongUse(
                f"{first.name} ({first.module_type}){more} cannot be dissected: {first.reason}",
                _instead(infos, by_rule=any(_untold(i) for i in matches)),
            )
        chosen.update(i.name for i in meant)
    if all_convs:
        convs = [i.name for i in infos if i.conv and i.spatial and "@" not in i.name]
        if not convs:
            why = next((f": {i.name} is {i.reason}" for i in infos if i.conv and i.reason.startswith("not a map")), "")
            raise WrongUse(f"the network has no convolution whose output is a map{why}", _instead(infos))
        chosen.update(convs)
    return [name for name in names if name in chosen]


def default_layers(infos: Sequence[LayerInfo]) -> list[str]:
    """The layers dissected when none is named, as :func:`taken_unasked` tells them."""
    return taken_unasked(infos)[0]


def taken_unasked(infos: Sequence[LayerInfo]) -> tuple[list[str], str]:
    """The layers dissected when none is named, and in words which these are.

    The last block of a transformer, the stages of a network that has them (``layer1``, ``layer2``, ...), else the last
    of the outermost layers that has at least half as many units as the widest of them. For that, class scores and the
    outputs of pooling, dropout and identity layers do not count; where no outermost layer is left, the layers inside
    them are looked at, and so on. WrongUse where no layer is a map, or where what lies behind the only ones is none.
    """
    infos = [i for i in infos if not i.functional]
    maps = [i for i in infos if i.spatial and "@" not in i.name]
    if not maps:
        what = "the network has no layer whose output is a map of shape (N, units, h, w)"
        raise WrongUse(what, _instead(infos, by_rule=any(_untold(i) for i in infos)))
    stages = [i.name for i in maps if re.fullmatch(r"layer\d+", i.name)] or stages_of(infos)
    blocks = last_blocks(infos, max((i.order for i in maps if i.name in stages), default=-1))
    if blocks:
        return blocks, "the last block" if len(blocks) == 1 else "the last block of each stage"
    if stages:
        return stages, "the stages of the network"
    types = {i.name: i.module_type for i in infos}
    left = [i for i in maps if not i.scores and not _UNTOLD.search(types[i.same_as or i.name])] or maps
    depth = min(i.name.count(".") for i in left)
    outermost = [i for i in left if i.name.count(".") == depth]
    widest = max(i.units for i in outermost)
    last = max((i for i in outermost if 2 * i.units >= widest), key=lambda i: i.order)
    behind = [i for i in infos if i.order > last.order and _untold(i)]
    if last.conv and 2 * len(behind) > sum(i.order >= 0 for i in infos):
        raise WrongUse(
            f"what lies behind {last.name}, the last layer with a map, is none: {behind[-1].name} "
            f"({behind[-1].module_type}): {behind[-1].reason}",
            f"Name a layer, and how it is a map: {WRITTEN}",
        )
    return [last.name], "the last layer of many units with a map"


def _untold(info: LayerInfo) -> bool:
    """Whether its output has a shape that a rule of the user's might make maps of."""
    return info.reason.startswith("not a map: shape")


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


def _instead(infos: Sequence[LayerInfo], *, by_rule: bool = False) -> str:
    maps = [i for i in infos if i.spatial and "@" not in i.name]
    top = [i.name for i in maps if "." not in i.name] or [i.name for i in maps]
    listed = f"Layers with a map: {', '.join(top[:8])}{' ...' if len(top) > 8 else ''}" if top else "No layer has a map"
    return f"{listed}. If this is one, {WRITTEN}" if by_rule else listed
