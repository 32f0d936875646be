"""People, vehicles and buildings, built of parts; each function paints one, standing at (x, y), ``h`` pixels high."""

from __future__ import annotations

import itertools
import math

from ndissect.engine.demo import materials
from ndissect.engine.demo.canvas import RGB, SIZE, Canvas, Fill, Label, Point, shade

BRIGHT: tuple[RGB, ...] = (
    (205, 38, 36), (36, 92, 190), (240, 196, 40), (36, 140, 78), (236, 124, 34), (126, 62, 158), (240, 240, 238),
    (226, 96, 148), (58, 62, 70), (140, 205, 225),
)  # fmt: skip
SKIN: tuple[RGB, ...] = ((242, 200, 168), (222, 172, 132), (178, 122, 84), (120, 78, 54))
HAIR: tuple[RGB, ...] = ((42, 30, 24), (96, 60, 32), (196, 150, 70), (150, 70, 36), (120, 118, 116))
TROUSERS: tuple[RGB, ...] = ((44, 56, 96), (60, 60, 64), (104, 84, 60), (30, 30, 36))
PAINTED: tuple[RGB, ...] = ((236, 222, 190), (240, 236, 226), (214, 150, 110), (170, 200, 206), (232, 196, 120))
ROOFS: tuple[RGB, ...] = ((168, 62, 44), (120, 54, 44), (84, 82, 92), (96, 74, 58))
BRICKS: tuple[RGB, ...] = ((172, 82, 58), (150, 70, 56), (190, 108, 76))
WOODS: tuple[RGB, ...] = ((150, 102, 58), (118, 78, 46), (178, 132, 84))


def person(c: Canvas, x: float, y: float, h: float) -> None:
    """A person: head with hair, torso, arms and legs, dressed in fabric."""
    skin, hair = c.choose(SKIN, 8), c.choose(HAIR, 8)
    shirt, trousers = c.choose(BRIGHT), c.choose(TROUSERS)
    pattern = ("", "", "stripes", "checks")[int(c.rng.integers(4))]
    stride = h * c.uniform(0.01, 0.09)
    for side in (-1, 1):
        c.line(
            [(x + side * h * 0.035, y - h * 0.46), (x + side * stride, y)],
            h * 0.085,
            trousers,
            Label("person", "leg", "fabric"),
        )
    swing = c.uniform(-0.05, 0.12)
    cloth: Fill = materials.fabric(c.rng, shirt, pattern)
    for side in (-1, 1):
        elbow = (x + side * h * (0.13 + swing), y - h * 0.56)
        c.line(
            [(x + side * h * 0.09, y - h * 0.77), elbow], h * 0.06, shade(shirt, 0.85), Label("person", "arm", "fabric")
        )
        c.line([elbow, (x + side * h * (0.11 + swing), y - h * 0.44)], h * 0.05, skin, Label("person", "arm", "skin"))
    c.polygon(
        [
            (x - h * 0.11, y - h * 0.8),
            (x + h * 0.11, y - h * 0.8),
            (x + h * 0.085, y - h * 0.42),
            (x - h * 0.085, y - h * 0.42),
        ],
        cloth,
        Label("person", "torso", "fabric"),
    )
    r = h * 0.088
    c.disc(x, y - h * 0.905, r * 1.12, hair, Label("person", "head", detail="hair"))
    c.ellipse((x - r * 0.85, y - h * 0.955, x + r * 0.85, y - h * 0.815), skin, Label("person", "head", "skin"))


def wheel(c: Canvas, thing: str, x: float, y: float, r: float) -> None:
    """A wheel of ``thing``: a tyre and its hub, the hub being a part of the wheel."""
    c.disc(x, y, r, c.near((34, 34, 38), 6), Label(thing, "wheel"))
    c.disc(x, y, r * 0.52, c.near((186, 190, 196), 12), Label(thing, "wheel", "metal", "hub"))


def car(c: Canvas, x: float, y: float, h: float) -> None:
    """A car seen from the side: metal body and roof, glass windows, wheels with hubs, a headlight, a door."""
    paint = c.choose(BRIGHT)
    long = h * c.uniform(2.2, 2.6)
    left, right, waist, top = x - long / 2, x + long / 2, y - h * 0.58, y - h
    body = materials.metal(c.rng, paint)
    c.ellipse((left, y - h * 0.16, right, y + h * 0.04), (44, 44, 48))
    cabin: list[Point] = [
        (left + long * 0.16, waist),
        (left + long * 0.28, top),
        (left + long * 0.66, top),
        (left + long * 0.82, waist),
    ]
    c.polygon(cabin, shade(paint, 0.9), Label("car", "roof", "metal"))
    pane = c.near((150, 190, 214), 12)
    glass = materials.glass(c.rng, pane)
    low, up = waist - h * 0.01, top + h * 0.09
    c.polygon(
        [(left + long * 0.21, low), (left + long * 0.3, up), (left + long * 0.45, up), (left + long * 0.45, low)],
        glass,
        Label("car", "window", "glass"),
    )
    c.polygon(
        [(left + long * 0.49, low), (left + long * 0.49, up), (left + long * 0.64, up), (left + long * 0.76, low)],
        glass,
        Label("car", "window", "glass"),
    )
    front = right - long * 0.02
    c.polygon(
        [
            (left, y - h * 0.2),
            (left + long * 0.03, waist),
            (front - long * 0.08, waist + h * 0.02),
            (front, waist + h * 0.16),
            (right, y - h * 0.18),
        ],
        body,
        Label("car", material="metal"),
    )
    c.box(left + long * 0.33, waist + h * 0.03, left + long * 0.64, y - h * 0.2, body, Label("car", "door", "metal"))
    c.line([(left + long * 0.48, waist), (left + long * 0.48, y - h * 0.2)], 0.6, shade(paint, 0.6))
    c.disc(front - h * 0.04, waist + h * 0.2, h * 0.075, (255, 240, 180), Label("car", "headlight", "glass"))
    for share in (0.2, 0.79):
        wheel(c, "car", left + long * share, y - h * 0.17, h * 0.2)


def bus(c: Canvas, x: float, y: float, h: float) -> None:
    """A bus: a long metal body with a row of windows, a door and wheels."""
    paint = c.choose(BRIGHT[:6])
    long = h * c.uniform(1.9, 2.3)
    left = x - long / 2
    c.box(left, y - h, left + long, y - h * 0.14, materials.metal(c.rng, paint), Label("bus", material="metal"))
    c.box(left, y - h, left + long, y - h * 0.9, shade(paint, 0.8), Label("bus", "roof", "metal"))
    glass = materials.glass(c.rng, c.near((146, 184, 206), 10))
    panes = int(c.rng.integers(4, 7))
    step = long * 0.8 / panes
    for k in range(panes):
        at = left + long * 0.03 + k * step
        c.box(at, y - h * 0.82, at + step * 0.8, y - h * 0.5, glass, Label("bus", "window", "glass"))
    c.box(left + long * 0.86, y - h * 0.8, left + long * 0.96, y - h * 0.16, glass, Label("bus", "door", "glass"))
    c.disc(left + long * 0.98, y - h * 0.26, h * 0.05, (255, 240, 180), Label("bus", "headlight", "glass"))
    for share in (0.18, 0.76):
        wheel(c, "bus", left + long * share, y - h * 0.12, h * 0.13)


def house(c: Canvas, x: float, y: float, h: float, *, lit: bool = False) -> None:
    """A house of brick, wood or plaster with a roof, a chimney, windows and a door; ``lit`` windows glow."""
    wide, wall = h * c.uniform(0.75, 1.15), y - h * 0.6
    left, right = x - wide / 2, x + wide / 2
    kind = int(c.rng.integers(3))
    name = ("brick", "wood", "plaster")[kind]
    front = (
        materials.brick(c.rng, c.choose(BRICKS), h * 0.13 + 2),
        materials.wood(c.rng, c.choose(WOODS), h * 0.14 + 2),
        materials.speckle(c.rng, c.choose(PAINTED), 0.03),
    )[kind]
    c.box(left, wall, right, y, front, Label("house", material=name))
    if c.chance(0.7):
        at = x + wide * c.uniform(0.15, 0.35)
        c.box(
            at - wide * 0.06,
            y - h * 1.02,
            at + wide * 0.06,
            wall,
            materials.brick(c.rng, c.choose(BRICKS), 6),
            Label("house", "chimney", "brick"),
        )
    tiles = c.choose(ROOFS)
    over, inset = wide * 0.08, wide * (0.5 if c.chance(0.6) else 0.25)
    c.polygon(
        [(left - over, wall), (left - over + inset, y - h), (right + over - inset, y - h), (right + over, wall)],
        materials.brick(c.rng, tiles, 5),
        Label("house", "roof"),
    )
    window, door = Label("house", "window", "glass"), Label("house", "door", "wood")
    pane: Fill = c.near((255, 216, 120), 10) if lit else materials.glass(c.rng, c.near((130, 174, 206), 12))
    size, sill = wide * c.uniform(0.17, 0.22), y - h * 0.24
    for share in (0.24, 0.76):
        at = left + wide * share
        c.box(
            at - size * 0.62,
            sill - size * 1.25,
            at + size * 0.62,
            sill + size * 0.14,
            c.near((238, 236, 230), 8),
            Label("house", "window", "wood", "frame"),
        )
        c.box(at - size / 2, sill - size * 1.1, at + size / 2, sill, pane, window)
        c.line([(at, sill - size * 1.1), (at, sill)], 0.6, (238, 236, 230))
    c.box(x - wide * 0.09, y - h * 0.36, x + wide * 0.09, y, materials.wood(c.rng, c.choose(BRIGHT), 40), door)
    c.disc(
        x + wide * 0.05, y - h * 0.17, max(0.7, h * 0.016), (236, 204, 110), Label("house", "door", "metal", "handle")
    )


def building(c: Canvas, x: float, y: float, h: float, wide: float, *, lit: bool = False) -> None:
    """A tall building of brick, stone or plaster with rows of windows and a door."""
    kind = int(c.rng.integers(3))
    name = ("brick", "stone", "plaster")[kind]
    front = (
        materials.brick(c.rng, c.choose(BRICKS), 7),
        materials.stone(c.rng, c.choose(((168, 164, 156), (140, 142, 150), (190, 180, 160)))),
        materials.speckle(c.rng, c.choose(PAINTED), 0.03),
    )[kind]
    left = x - wide / 2
    c.box(left, y - h, left + wide, y, front, Label("building", material=name))
    c.box(
        left - 1,
        y - h - 2,
        left + wide + 1,
        y - h + 1,
        c.choose(((120, 116, 112), (90, 84, 84))),
        Label("building", "roof", "stone"),
    )
    columns = max(2, round(wide / c.uniform(8, 11)))
    step, pitch = wide / columns, c.uniform(11, 14)
    dark, glow = c.near((92, 126, 156), 14), c.near((255, 214, 116), 10)
    for row in range(max(1, int((h - 14) / pitch))):
        for column in range(columns):
            at, top = left + (column + 0.5) * step, y - h + 5 + row * pitch
            pane = glow if c.chance(0.6 if lit else 0.06) else dark
            c.box(
                at - step * 0.27, top, at + step * 0.27, top + pitch * 0.58, pane, Label("building", "window", "glass")
            )
    c.box(x - 3.4, y - 10, x + 3.4, y, c.choose(WOODS + BRIGHT[:4]), Label("building", "door", "wood"))


def lighthouse(c: Canvas, x: float, y: float, h: float) -> None:
    """A banded tower with a gallery and a lantern below a roof."""
    base, neck = h * 0.15, h * 0.09
    paint = c.choose(((202, 46, 40), (40, 70, 140), (52, 54, 60)), 10)
    for k in range(5):
        low, up = k / 5, (k + 1) / 5
        wide = [base + (neck - base) * t for t in (low, up)]
        c.polygon(
            [
                (x - wide[0], y - h * 0.76 * low),
                (x - wide[1], y - h * 0.76 * up),
                (x + wide[1], y - h * 0.76 * up),
                (x + wide[0], y - h * 0.76 * low),
            ],
            paint if k % 2 else c.near((244, 242, 236), 4),
            Label("lighthouse", material="stone"),
        )
    c.box(
        x - neck * 1.35,
        y - h * 0.79,
        x + neck * 1.35,
        y - h * 0.75,
        (70, 70, 76),
        Label("lighthouse", "gallery", "metal"),
    )
    c.box(
        x - neck * 0.7,
        y - h * 0.9,
        x + neck * 0.7,
        y - h * 0.79,
        c.near((255, 236, 150), 8),
        Label("lighthouse", "window", "glass"),
    )
    c.polygon(
        [(x - neck, y - h * 0.9), (x, y - h), (x + neck, y - h * 0.9)],
        shade(paint, 0.9),
        Label("lighthouse", "roof", "metal"),
    )


def boat(c: Canvas, x: float, y: float, h: float, kind: str = "") -> None:
    """A sailing boat (mast and sails) or a motor boat (cabin with a window) on a wooden hull."""
    paint = c.choose(BRIGHT)
    wide = h * c.uniform(0.38, 0.5)
    deep = h * 0.2
    hull = materials.wood(c.rng, paint, 6)
    if (kind or ("sail" if c.chance(0.75) else "motor")) == "sail":
        c.line([(x, y - deep), (x, y - h)], max(1, h * 0.025), (110, 84, 58), Label("boat", "mast", "wood"))
        cloth = c.choose(((248, 246, 240), (248, 246, 240), *BRIGHT[:5]), 8)
        sheet = materials.fabric(c.rng, cloth, "stripes" if c.chance(0.25) else "")
        c.polygon(
            [(x + h * 0.03, y - h * 0.97), (x + wide * 0.95, y - deep * 1.4), (x + h * 0.03, y - deep * 1.4)],
            sheet,
            Label("boat", "sail", "fabric"),
        )
        c.polygon(
            [(x - h * 0.03, y - h * 0.88), (x - wide * 0.8, y - deep * 1.5), (x - h * 0.03, y - deep * 1.5)],
            sheet,
            Label("boat", "sail", "fabric"),
        )
    else:
        c.box(x - wide * 0.5, y - h * 0.5, x + wide * 0.35, y - deep, (240, 238, 232), Label("boat", material="wood"))
        for share in (-0.38, -0.02):
            c.box(
                x + wide * share,
                y - h * 0.43,
                x + wide * (share + 0.26),
                y - h * 0.29,
                materials.glass(c.rng, (126, 170, 200)),
                Label("boat", "window", "glass"),
            )
        c.box(
            x - wide * 0.6,
            y - h * 0.55,
            x + wide * 0.45,
            y - h * 0.49,
            shade(paint, 0.8),
            Label("boat", "roof", "wood"),
        )
    c.polygon(
        [(x - wide, y - deep), (x + wide * 1.12, y - deep * 1.08), (x + wide * 0.75, y), (x - wide * 0.72, y)],
        hull,
        Label("boat", "hull", "wood"),
    )
    c.line([(x - wide, y - deep), (x + wide * 1.1, y - deep)], 0.8, (244, 240, 232))


def streetlight(c: Canvas, x: float, y: float, h: float, *, lit: bool = False) -> None:
    """A metal pole with a lamp head on an arm."""
    grey, side = c.near((72, 76, 84), 10), -1 if c.chance(0.5) else 1
    tip = x + side * h * 0.16
    c.line([(x, y), (x, y - h), (tip, y - h)], max(1.2, h * 0.028), grey, Label("streetlight", "pole", "metal"))
    if lit:
        c.disc(tip, y - h * 0.98, h * 0.13, (112, 102, 78))
    c.ellipse(
        (tip - h * 0.07, y - h * 1.02, tip + h * 0.07, y - h * 0.95),
        (255, 240, 170),
        Label("streetlight", "head", "glass"),
    )


def fence(c: Canvas, y: float, h: float) -> None:
    """A wooden fence across the picture."""
    paint, step = c.choose((*WOODS, (238, 236, 228))), c.uniform(5, 8)
    label = Label("fence", material="wood")
    for share in (0.35, 0.75):
        c.box(0, y - h * share, SIZE, y - h * (share - 0.12), shade(paint, 0.86), label)
    for k in range(int(SIZE / step) + 2):
        at = k * step
        c.polygon(
            [
                (at, y),
                (at, y - h * 0.88),
                (at + step * 0.27, y - h),
                (at + step * 0.54, y - h * 0.88),
                (at + step * 0.54, y),
            ],
            paint,
            label,
        )


def bench(c: Canvas, x: float, y: float, h: float) -> None:
    """A park bench: back, seat and legs."""
    plank, wide = materials.wood(c.rng, c.choose(WOODS), 5), h * 0.95
    for side in (-0.8, 0.8):
        c.box(
            x + side * wide - h * 0.05,
            y - h * 0.5,
            x + side * wide + h * 0.05,
            y,
            (56, 58, 64),
            Label("bench", "leg", "metal"),
        )
    for low in (0.66, 0.88):
        c.box(x - wide, y - h * (low + 0.13), x + wide, y - h * low, plank, Label("bench", "back", "wood"))
    c.box(x - wide * 1.04, y - h * 0.54, x + wide * 1.04, y - h * 0.4, plank, Label("bench", "seat", "wood"))


def umbrella(c: Canvas, x: float, y: float, h: float) -> None:
    """A sunshade on its pole, its canopy in two colours."""
    first, r = c.choose(BRIGHT[:8]), h * c.uniform(0.5, 0.62)
    c.line([(x, y), (x, y - h * 0.9)], max(1, h * 0.03), (226, 220, 208), Label("umbrella", "pole", "wood"))
    label, top, low = Label("umbrella", "canopy", "fabric"), y - h, y - h * 0.58
    cuts = [-1, -0.62, -0.22, 0.22, 0.62, 1]
    for k, (a, b) in enumerate(itertools.pairwise(cuts)):
        arc = [
            (x + r * t, low - (low - top) * math.sqrt(max(0, 1 - t * t)))
            for t in (a, (3 * a + b) / 4, (a + b) / 2, (a + 3 * b) / 4, b)
        ]
        c.polygon([(x + r * a, low), *arc, (x + r * b, low)], first if k % 2 == 0 else (246, 242, 232), label)


def balloon(c: Canvas, x: float, y: float, h: float) -> None:
    """A hot-air balloon: a gored canopy and a basket on ropes."""
    first, second = c.choose(BRIGHT[:6]), c.choose(BRIGHT)
    r = h * 0.36
    for dx in (-0.55, 0.55):
        c.line([(x + dx * r, y - h * 0.42), (x + dx * r * 0.28, y - h * 0.12)], 0.6, (70, 60, 50))
    label = Label("balloon", "canopy", "fabric")
    c.polygon(
        [
            (x - r * 0.9, y - h * 0.5),
            (x + r * 0.9, y - h * 0.5),
            (x + r * 0.3, y - h * 0.22),
            (x - r * 0.3, y - h * 0.22),
        ],
        first,
        label,
    )
    c.disc(x, y - h + r, r, first, label)
    for share, ink in ((0.62, second), (0.22, first)):
        c.ellipse((x - r * share, y - h, x + r * share, y - h * 0.24), ink, label)
    c.box(
        x - r * 0.26,
        y - h * 0.13,
        x + r * 0.26,
        y,
        materials.wood(c.rng, (150, 106, 60), 4),
        Label("balloon", "basket", "wood"),
    )


def ball(c: Canvas, x: float, y: float, r: float) -> None:
    """A beach ball in wedges."""
    label, ink = Label("ball"), c.choose(BRIGHT[:6])
    c.disc(x, y - r, r, (248, 246, 240), label)
    c.ellipse((x - r * 0.45, y - 2 * r, x + r * 0.45, y), ink, label)
    c.disc(x, y - 1.75 * r, r * 0.2, c.choose(BRIGHT[:6]), label)
