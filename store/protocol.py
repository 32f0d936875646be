"""Named protocols: every choice on which two Network Dissections can differ."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any, Literal, get_args

from ndissect.store.errors import WrongUse
from ndissect.store.limits import size_limit, too_large
from ndissect.store.upsampling import UPSAMPLINGS, Upsampling

QuantileOver = Literal["raw", "upsampled"]
Union = Literal["within-category", "all-images"]
MapCounting = Literal["once", "once-a-map"]


@dataclass(frozen=True)
class Protocol:
    """The choices of one dissection.

    ``q``: the share of a unit's activations above its threshold; ``quantile_over``: raw maps, or maps enlarged to the
    grid; ``grid``: None for the label maps' own size, else (H, W); ``union``: which images a unit's mask area is
    summed over; ``maps``: whether several label maps that name the same concept at a pixel count once or each;
    ``min_images``: concepts held by fewer images are not given as labels.
    """

    name: str
    q: Fraction
    quantile_over: QuantileOver
    upsampling: Upsampling
    grid: tuple[int, int] | None
    union: Union
    maps: MapCounting
    min_images: int = 0

    def to_json(self) -> dict[str, Any]:
        """The protocol as JSON values; q is written exactly, as a fraction."""
        return asdict(self) | {"q": str(self.q), "grid": list(self.grid) if self.grid else None}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Protocol:
        """The inverse of :meth:`to_json`; ValueError, KeyError or TypeError where it is no protocol."""
        name, q, grid, min_images = value["name"], value["q"], value["grid"], value["min_images"]
        if not (isinstance(name, str) and name.isprintable() and isinstance(min_images, int) and min_images >= 0):
            raise ValueError(f"name {name!r} or min_images {min_images!r}")
        if not re.fullmatch("[0-9]{1,400}/[1-9][0-9]{0,399}", q) or not 0 < (share := Fraction(q)) < 1:
            raise ValueError(f"q {q!r} is no fraction between 0 and 1")
        if grid is not None and not (len(grid) == 2 and all(isinstance(n, int) and n > 0 for n in grid)):
            raise ValueError(f"grid {grid!r} is no size")
        if grid is not None and too_large((grid[0], grid[1])):
            raise ValueError(f"grid {grid!r} is too fine: {size_limit()}")
        return cls(
            name=name,
            q=share,
            quantile_over=_one_of(QuantileOver, value["quantile_over"]),
            upsampling=_one_of(Upsampling, value["upsampling"]),
            grid=(grid[0], grid[1]) if grid is not None else None,
            union=_one_of(Union, value["union"]),
            maps=_one_of(MapCounting, value["maps"]),
            min_images=min_images,
        )

    def describe(self) -> str:
        """One line with every choice, for headers of tables and sheets."""
        grid = "label grid" if self.grid is None else f"{self.grid[0]}x{self.grid[1]} grid"
        parts = [
            f"{self.name}: q {float(self.q):.4g} over {self.quantile_over} maps",
            self.upsampling,
            grid,
            f"union {self.union}",
            f"maps {self.maps}",
        ]
        if self.min_images:
            parts.append(f"concepts in >= {self.min_images} images")
        return ", ".join(parts)


def _one_of(kind: Any, value: object) -> Any:
    if value not in get_args(kind):
        raise ValueError(f"{value!r} is none of {', '.join(get_args(kind))}")
    return value


#: The 2017 code reads the quantile off a 1000-point table at 994/999, not at 0.995.
READOUT_2017 = Fraction(5, 999)

PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        Protocol("netdissect", Fraction(1, 200), "raw", "half-pixel", None, "within-category", "once"),
        Protocol("cvpr2017", READOUT_2017, "raw", "receptive-field", None, "within-category", "once-a-map"),
        Protocol("lite", READOUT_2017, "raw", "half-pixel", None, "within-category", "once-a-map"),
        Protocol("pnas2020", Fraction(1, 100), "upsampled", "half-pixel-zero", (56, 56), "all-images", "once"),
    )
}

#: Stands where a store says by which protocol it was counted, of a table that tells IoUs and no more than ``q``.
IOUS_ALONE = replace(PROTOCOLS["pnas2020"], name="ious")


def make_protocol(
    name: str = "netdissect",
    *,
    q: str | None = None,
    quantile_over: str | None = None,
    upsampling: str | None = None,
    grid: str | None = None,
    union: str | None = None,
    maps: str | None = None,
    min_images: int = 0,
) -> Protocol:
    """The protocol ``name`` with the choices that are given replaced; WrongUse for a name or value that is unknown.

    ``q`` is a decimal or a fraction such as ``5/999``; ``grid`` is ``label``, ``N`` or ``HxW``. A protocol with a
    choice replaced is called ``name+``, so that no table shows altered numbers under a paper's name.
    """
    if name not in PROTOCOLS:
        raise WrongUse(f"unknown protocol '{name}'", f"known: {', '.join(PROTOCOLS)}")
    if min_images < 0:
        raise WrongUse(f"--min-images {min_images}: the number of images cannot be negative", "use 0 or more")
    base = PROTOCOLS[name]
    changes: dict[str, Any] = {"min_images": min_images}
    if q is not None:
        changes["q"] = parse_share(q, "--quantile")
    for field, value, kind in (
        ("quantile_over", quantile_over, QuantileOver),
        ("upsampling", upsampling, Upsampling),
        ("union", union, Union),
        ("maps", maps, MapCounting),
    ):
        if value is None:
            continue
        if value not in get_args(kind):
            raise WrongUse(
                f"--{field.replace('_', '-')} '{value}' is unknown", f"use one of {', '.join(get_args(kind))}"
            )
        changes[field] = value
    if grid is not None:
        changes["grid"] = _parse_grid(grid)
    changed = replace(base, **changes)
    return changed if changed == base else replace(changed, name=f"{name}+")


def parse_share(text: str, option: str) -> Fraction:
    """A share between 0 and 1, exactly: a decimal or a fraction; WrongUse, naming ``option``, for anything else."""
    try:
        # A fraction is exact, but of 1e-999999999 it takes hours: read as a float first, that is 0.
        share = Fraction(text) if "/" in text or float(text) else Fraction(0)
    except (ValueError, ZeroDivisionError):
        share = Fraction(0)
    if not 0 < share < 1:
        raise WrongUse(f"{option} '{text}' is no share between 0 and 1", "for example 0.005, or 5/999")
    return share


def _parse_grid(text: str) -> tuple[int, int] | None:
    if text == "label":
        return None
    height, _, width = text.partition("x")
    try:
        grid = int(height), int(width or height)
    except ValueError:
        grid = (0, 0)
    if min(grid) < 1:
        raise WrongUse(
            f"--grid '{text}' is no size", "use 'label', a number such as 56, or HEIGHTxWIDTH such as 112x96"
        )
    if too_large(grid):
        raise WrongUse(f"--grid '{text}' is too fine for a store: {size_limit()}", "use a coarser one, such as 112")
    return grid


__all__ = ["IOUS_ALONE", "PROTOCOLS", "READOUT_2017", "UPSAMPLINGS", "Protocol", "make_protocol", "parse_share"]
