"""The modules of a network as a tree: repeated blocks together, as deep as a screen has room for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ndissect.store.text import one_line

# Cells between two columns, and of the indentation of what is inside a module.
_GAP, _INDENT = 2, 2
# Where there is no room for all, a module's type gives way to a reason, and then both are cut.
_WIDEST_MODULE, _NARROWEST_MODULE, _WIDEST_REASON, _SHORTEST_REASON = 24, 14, 34, 14
#: Stands before the layers that a dissection takes without -l.
TAKEN = "*"


@dataclass(frozen=True)
class ListedLayer:
    """What is told of a module: its dotted ``name`` and its type.

    ``units`` and ``map_size`` where they are known; ``reason``: why it cannot be dissected, "" where it can;
    ``parameters`` within it, None where they are not its own; ``calls``: in one forward pass; ``note``: what to know of
    it; ``taken``: by a dissection without -l.
    """

    name: str
    module: str
    units: int
    map_size: tuple[int, int] | None
    reason: str
    parameters: int | None
    calls: int
    note: str
    taken: bool

    @property
    def map(self) -> str:
        """Its map as text: 14x14."""
        return f"{self.map_size[0]}x{self.map_size[1]}" if self.map_size else ""

    @property
    def told(self) -> str:
        """The reason or the note in few words."""
        if self.reason:
            holder = self.name.rpartition(".")[0]
            inside = self.reason.replace(f"{holder}.", "") if holder else self.reason
            return inside.replace("not a map: ", "no map: ", 1)
        return f"called {self.calls} times" if self.calls > 1 else self.note


@dataclass(frozen=True)
class Branch:
    """A module and what is inside it; ``label``: its name within the module that holds it, ``3-11`` for several."""

    label: str
    layer: ListedLayer
    inside: tuple[Branch, ...] = ()


def grow(layers: Sequence[ListedLayer]) -> list[Branch]:
    """The outermost of ``layers``, each with those whose names begin with its own; their order stays."""
    inside: dict[str, list[ListedLayer]] = {"": []}
    for layer in layers:
        holder = layer.name.rpartition(".")[0]
        while holder not in inside:
            holder = holder.rpartition(".")[0]
        inside[holder].append(layer)
        inside[layer.name] = []

    def branches(holder: str) -> Iterator[Branch]:
        for layer in inside[holder]:
            label = layer.name[len(holder) + 1 :] if holder else layer.name
            yield Branch(label, layer, tuple(branches(layer.name)))

    return list(branches(""))


def folded(branches: Iterable[Branch]) -> list[Branch]:
    """``branches`` where numbered modules in a row that are alike all through are one: ``0-2`` for 0, 1 and 2."""
    runs: list[list[Branch]] = []
    for branch in (replace(b, inside=tuple(folded(b.inside))) for b in branches):
        if runs and branch.inside and _follows(runs[-1][-1], branch):
            runs[-1].append(branch)
        else:
            runs.append([branch])
    return [run[0] if len(run) == 1 else _one(run) for run in runs]


def _one(run: Sequence[Branch]) -> Branch:
    first, last = run[0], run[-1]
    number = re.findall(r"\d+$", last.label)[0]
    label = f"{first.label}-{number}"
    return replace(first, label=label, layer=replace(first.layer, module=f"{len(run)} x {first.layer.module}"))


def _follows(before: Branch, branch: Branch) -> bool:
    """Whether ``branch`` is numbered one higher than ``before`` and is its like."""
    names = [re.fullmatch(r"(.*?)(\d+)", b.label) for b in (before, branch)]
    if names[0] is None or names[1] is None or names[0][1] != names[1][1]:
        return False
    return int(names[1][2]) == int(names[0][2]) + 1 and _form(before) == _form(branch)


def _form(branch: Branch) -> tuple[object, ...]:
    """All that is told of a branch but its name."""
    layer = replace(branch.layer, name="", reason=branch.layer.told)
    return layer, *((inner.label, _form(inner)) for inner in branch.inside)


@dataclass(frozen=True)
class Row:
    """A line of the tree: ``label``, indented by ``depth``; ``more``: modules inside that are not shown."""

    label: str
    depth: int
    layer: ListedLayer
    more: int = 0


def rows(branches: Iterable[Branch], depth: int | None, at: int = 0) -> list[Row]:
    """The lines of ``branches`` and of what is inside them, down to ``depth`` levels, None for all."""
    lines = []
    for branch in branches:
        closed = depth is not None and at + 1 >= depth
        lines.append(Row(branch.label, at, branch.layer, _count(branch.inside) if closed else 0))
        if not closed:
            lines += rows(branch.inside, depth, at + 1)
    return lines


def _count(branches: Iterable[Branch]) -> int:
    return sum(1 + _count(branch.inside) for branch in branches)


def height(branches: Iterable[Branch]) -> int:
    """How many levels there are."""
    return max((1 + height(branch.inside) for branch in branches), default=0)


def fitting_depth(branches: Sequence[Branch], lines: int) -> int:
    """The largest depth whose rows are no more than ``lines``; 1 where even the outermost modules are more."""
    depth = 1
    while depth < height(branches) and len(rows(branches, depth + 1)) <= lines:
        depth += 1
    return depth


def human(count: int | None) -> str:
    """``count`` in three digits: 512, 9.41k, 25.6M; nothing for none."""
    if not count:
        return ""
    value, sign = float(count), ""
    for sign in ("", "k", "M", "G", "T"):
        if value < 999.5 or sign == "T":
            break
        value /= 1000
    return f"{count}" if not sign else f"{value:.3g}{sign}"


def legend(table: Sequence[Row], layers: Sequence[ListedLayer]) -> list[str]:
    """What tells which of ``layers`` are taken without -l: the mark where ``table`` shows one of them, else names."""
    if any(row.layer.taken for row in table):
        return [f"{TAKEN} taken without --layers"]
    taken = [layer.name for layer in layers if layer.taken]
    return [f"taken without --layers: {', '.join(taken)}"] if taken else []


@dataclass(frozen=True)
class Line:
    """A drawn line: its text, and whether it is of a module that cannot be dissected."""

    text: str
    faint: bool


def draw(table: Sequence[Row], width: int) -> list[Line]:
    """A heading and the lines of a tree, each at most ``width`` characters where that can be."""
    names = [f"{' ' * _INDENT * row.depth}{one_line(row.label)}{' +' if row.more else ''}" for row in table]
    modules = [_cut(one_line(row.layer.module), _WIDEST_MODULE) for row in table]
    wide = [
        max(map(len, ("layer", *names))),
        max(map(len, ("module", *modules))),
        max((len(human(row.layer.parameters)) for row in table), default=0),
        max((len(str(row.layer.units)) for row in table), default=0),
        max((len(row.layer.map) for row in table), default=0),
    ]
    wide = [max(n, len(title)) for n, title in zip(wide, ("layer", "module", "params", "units", "map"), strict=True)]
    shapes = wide[3] + _GAP + wide[4]
    told = [len(row.layer.told) + (0 if row.layer.reason else shapes + _GAP) for row in table]
    wanted = max(shapes, min(max(told, default=0), _WIDEST_REASON))
    around = len(TAKEN) + 1 + wide[0] + wide[2] + 3 * _GAP
    wide[1] = min(wide[1], max(_NARROWEST_MODULE, width - around - wanted))
    room = max(width - around - wide[1], _SHORTEST_REASON)

    def start(mark: str, name: str, module: str, parameters: str) -> str:
        cells = (name.ljust(wide[0]), _cut(module, wide[1]).ljust(wide[1]), parameters.rjust(wide[2]))
        return f"{mark:2}{(' ' * _GAP).join(cells)}{' ' * _GAP}"

    def shape(units: str, size: str, note: str) -> str:
        return f"{units.rjust(wide[3])}{' ' * _GAP}{size.rjust(wide[4])}{' ' * _GAP}{one_line(note)}"

    lines = [Line(f"{start('', 'layer', 'module', 'params')}{shape('units', 'map', '')}".rstrip(), faint=False)]
    for row, name, module in zip(table, names, modules, strict=True):
        layer = row.layer
        rest = one_line(layer.told) if layer.reason else shape(str(layer.units), layer.map, layer.told)
        mark = TAKEN if layer.taken else ""
        line = f"{start(mark, name, module, human(layer.parameters))}{_cut(rest, room)}"
        lines.append(Line(line.rstrip(), faint=bool(layer.reason)))
    return lines


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: max(room - 3, 0)]}..."
