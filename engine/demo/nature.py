"""The sky and what grows under it; each function paints one thing, standing at (x, y), ``h`` pixels high."""

from __future__ import annotations

import math

from ndissect.engine.demo import materials
from ndissect.engine.demo.canvas import RGB, SIZE, Canvas, Label, Point, mix, shade

LEAVES: tuple[RGB, ...] = ((58, 122, 48), (42, 100, 46), (88, 140, 52), (150, 144, 46), (196, 108, 36))


def sky(c: Canvas, bottom: float, *, clouds: bool = True, night: bool = False) -> None:
    """The sky down to ``bottom``, with the sun and clouds or the moon and stars."""
    if night:
        top: RGB = c.choose(((10, 14, 40), (18, 14, 48), (6, 10, 26)), 6)
        c.box(0, 0, SIZE, bottom, materials.gradient(top, shade(top, 2.2)), Label("sky"))
        for _ in range(int(c.rng.integers(30, 80))):
            c.disc(c.uniform(0, SIZE), c.uniform(0, bottom), c.uniform(0.3, 0.8), c.choose(((255, 250, 220),)))
        if c.chance(0.8):
            x, y, r = c.uniform(14, 98), c.uniform(12, 34), c.uniform(6, 11)
            c.disc(x, y, r, c.choose(((246, 240, 206),)), Label("moon"))
            for dx, dy, share in ((-0.3, -0.2, 0.24), (0.35, 0.3, 0.18), (0.1, -0.45, 0.13)):
                c.disc(x + dx * r, y + dy * r, share * r, (222, 214, 178))
        return
    top = c.choose(((74, 142, 218), (96, 164, 226), (58, 118, 200), (150, 176, 204), (238, 150, 96)), 12)
    low = mix(top, (255, 240, 220), 0.62)
    c.box(0, 0, SIZE, bottom, materials.gradient(top, low), Label("sky"))
    if c.chance(0.45):
        r = c.uniform(5, 9)
        x, y = c.uniform(10, 102), c.uniform(8, 26)
        c.disc(x, y, r * 1.45, mix(top, (255, 226, 120), 0.55))
        c.disc(x, y, r, c.near((255, 216, 70), 10), Label("sun"))
    if clouds:
        for _ in range(int(c.rng.integers(0, 4))):
            cloud(c, c.uniform(0, SIZE), c.uniform(8, max(10, bottom * 0.6)), c.uniform(7, 15))


def cloud(c: Canvas, x: float, y: float, h: float) -> None:
    """A cloud of a few puffs with a flat, greyer underside."""
    white = c.near((246, 247, 250), 8)
    label = Label("cloud")
    for dx, r in ((-0.9, 0.36), (-0.3, 0.55), (0.4, 0.46), (0.95, 0.3)):
        c.disc(x + dx * h, y - r * h * 0.5, r * h, white, label)
    c.ellipse((x - 1.3 * h, y - 0.3 * h, x + 1.3 * h, y + 0.25 * h), shade(white, 0.9), label)


def bird(c: Canvas, x: float, y: float, h: float) -> None:
    """A gull in flight: a body and two wings."""
    ink = c.choose(((40, 42, 52), (235, 235, 240)), 8)
    c.ellipse((x - 0.5 * h, y - 0.2 * h, x + 0.5 * h, y + 0.2 * h), ink, Label("bird", "torso"))
    for side in (-1, 1):
        points = [(x, y - 0.1 * h), (x + side * 0.7 * h, y - 0.7 * h), (x + side * 1.4 * h, y - 0.3 * h), (x, y)]
        c.polygon(points, shade(ink, 0.85), Label("bird", "wing"))


def mountain(c: Canvas, base: float, h: float, *, snow: bool = True) -> None:
    """A ridge of two or three mountains across the picture, capped with snow."""
    for _ in range(int(c.rng.integers(2, 4))):
        x, height = c.uniform(5, 107), h * c.uniform(0.6, 1)
        wide = height * c.uniform(1.0, 1.5)
        rock = c.choose(((104, 110, 124), (122, 112, 104), (84, 98, 118)), 10)
        peak = (x, base - height)
        c.polygon(
            [(x - wide, base), peak, (x + wide, base)],
            materials.speckle(c.rng, rock, 0.1),
            Label("mountain", material="stone"),
        )
        c.polygon([peak, (x + wide, base), (x + wide * 0.25, base)], shade(rock, 0.78))
        if snow:
            cut = c.uniform(0.3, 0.5)
            cap = [(x - wide * cut, base - height * (1 - cut)), peak, (x + wide * cut, base - height * (1 - cut))]
            cap += [
                (x + wide * cut * 0.4, base - height * (0.85 - cut)),
                (x, base - height * (1.1 - cut)),
                (x - wide * cut * 0.4, base - height * (0.8 - cut)),
            ]
            c.polygon(cap, c.near((240, 244, 250), 6), Label("mountain", "peak", "snow"))


def tree(c: Canvas, x: float, y: float, h: float, kind: str = "") -> None:
    """A broad-leaved tree or a fir: a wooden trunk and a crown of foliage."""
    kind = kind or ("fir" if c.chance(0.3) else "broad")
    bark = c.choose(((96, 66, 42), (78, 58, 44), (120, 92, 66)))
    leaves = c.choose(LEAVES if kind == "broad" else LEAVES[:2])
    crown = Label("tree", "crown", "foliage")
    thick = h * c.uniform(0.05, 0.08)
    c.polygon(
        [(x - thick, y), (x - thick * 0.7, y - h * 0.55), (x + thick * 0.7, y - h * 0.55), (x + thick, y)],
        materials.wood(c.rng, bark, 5, upright=True),
        Label("tree", "trunk", "wood"),
    )
    leafy = materials.foliage(c.rng, leaves)
    if kind == "fir":
        for k in range(4):
            top, wide = y - h * (1 - 0.17 * k), h * (0.15 + 0.075 * k)
            c.polygon([(x, top), (x + wide, top + h * 0.33), (x - wide, top + h * 0.33)], leafy, crown)
        return
    r = h * c.uniform(0.25, 0.33)
    for dx, dy, share in ((-0.6, 0.35, 0.72), (0.6, 0.3, 0.75), (0, 0, 1), (0, -0.45, 0.75)):
        c.disc(x + dx * r, y - h * 0.66 + dy * r, share * r, leafy, crown)


def palm(c: Canvas, x: float, y: float, h: float) -> None:
    """A palm: a leaning trunk and a fan of leaves."""
    lean = h * c.uniform(-0.25, 0.25)
    bark, leaf = c.near((140, 104, 66)), c.near((66, 138, 60))
    stem: list[Point] = [(x + lean * t * t, y - h * 0.8 * t) for t in (0, 0.25, 0.5, 0.75, 1)]
    c.line(stem, h * 0.06, bark, Label("palm", "trunk", "wood"))
    top_x, top_y = stem[-1]
    for angle in (-2.9, -2.3, -1.6, -0.9, -0.25, 0.35, 2.8):
        dx, dy = math.cos(angle) * h * 0.38, math.sin(angle) * h * 0.24
        middle = (top_x + dx * 0.6, top_y + dy * 0.9 - h * 0.06)
        tip = (top_x + dx, top_y + dy * 0.6 + h * 0.09)
        c.polygon(
            [(top_x, top_y - h * 0.02), middle, tip, (middle[0], middle[1] + h * 0.07), (top_x, top_y + h * 0.03)],
            c.near(leaf, 12),
            Label("palm", "leaf", "foliage"),
        )


def cactus(c: Canvas, x: float, y: float, h: float) -> None:
    """A column with two raised arms."""
    green = c.near((74, 132, 78))
    w = h * 0.12
    for side in (-1, 1):
        if c.chance(0.85):
            low, up = y - h * c.uniform(0.3, 0.5), y - h * c.uniform(0.65, 0.85)
            c.line(
                [(x, low), (x + side * 2.6 * w, low), (x + side * 2.6 * w, up)],
                w * 1.2,
                shade(green, 0.92),
                Label("cactus", "arm"),
            )
    c.ellipse((x - w, y - h, x + w, y - h + 2 * w), green, Label("cactus", "trunk"))
    c.box(x - w, y - h + w, x + w, y, green, Label("cactus", "trunk"))
    for dx in (-0.5, 0, 0.5):
        c.line([(x + dx * w, y - h + w), (x + dx * w, y)], 0.5, shade(green, 0.75))


def flower(c: Canvas, x: float, y: float, h: float) -> None:
    """A flower on its stem, with petals, a heart and a leaf."""
    petal = c.choose(((226, 60, 70), (244, 196, 44), (236, 130, 180), (150, 80, 190), (246, 240, 240)))
    c.line([(x, y), (x, y - h * 0.7)], max(1, h * 0.07), (60, 128, 54), Label("flower", "leaf", "foliage"))
    r = h * 0.2
    for k in range(6):
        angle = k * math.pi / 3
        c.disc(x + math.cos(angle) * r, y - h * 0.75 + math.sin(angle) * r, r * 0.72, petal, Label("flower", "petal"))
    c.disc(x, y - h * 0.75, r * 0.55, (250, 210, 60), Label("flower", "head"))
