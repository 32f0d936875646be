"""Things in a room, built of parts; each function paints one, standing at (x, y), ``h`` pixels high."""

from __future__ import annotations

from ndissect.engine.demo import materials
from ndissect.engine.demo.canvas import RGB, SIZE, Canvas, Fill, Label, mix, shade
from ndissect.engine.demo.town import BRICKS, BRIGHT, PAINTED, WOODS

WALLS: tuple[RGB, ...] = (
    (232, 222, 200), (196, 214, 210), (220, 196, 176), (240, 234, 222), (168, 186, 206), (206, 212, 168),
    (226, 188, 190),
)  # fmt: skip
WHITE: RGB = (240, 238, 232)


def room(c: Canvas, horizon: float, floors: tuple[str, ...] = ("wood", "tiles", "carpet")) -> None:
    """A wall down to ``horizon`` and a floor below it."""
    if c.chance(0.2):
        c.box(0, 0, SIZE, horizon, materials.brick(c.rng, c.choose(BRICKS), 9), Label("wall", material="brick"))
    else:
        colour = c.choose(WALLS)
        paper = c.chance(0.25)
        fill = materials.fabric(c.rng, colour, "stripes") if paper else materials.speckle(c.rng, colour, 0.015)
        c.box(0, 0, SIZE, horizon, fill, Label("wall", material="paper" if paper else "plaster"))
    kind = floors[int(c.rng.integers(len(floors)))]
    if kind == "wood":
        fill, material = materials.wood(c.rng, c.choose(WOODS), 11), "wood"
    elif kind == "tiles":
        dark = c.choose(((60, 64, 72), (150, 90, 70), (90, 130, 150)))
        fill, material = materials.tiles(c.rng, c.near((230, 226, 216), 8), dark, c.uniform(13, 19)), "ceramic"
    else:
        fill, material = materials.fabric(c.rng, c.choose(((170, 150, 130), (110, 120, 140), (140, 90, 90)))), "fabric"
    c.box(0, horizon, SIZE, SIZE, fill, Label("floor", material=material))
    c.box(0, horizon - 2, SIZE, horizon, c.near(WHITE, 6), Label("wall", material="wood"))


def view(c: Canvas, x0: float, y0: float, x1: float, y1: float, thing: str, material: str) -> None:
    """A landscape inside a frame: ``thing`` is the windowpane or painting, what it shows lies beyond it."""
    width, horizon = x1 - x0, y0 + (y1 - y0) * c.uniform(0.55, 0.75)
    top = c.choose(((110, 170, 226), (236, 166, 120), (150, 190, 220)))
    c.box(
        x0,
        y0,
        x1,
        horizon,
        materials.gradient(top, mix(top, (255, 245, 230), 0.6)),
        Label(thing, "", material, "", "sky"),
    )
    if c.chance(0.6):
        peak = x0 + width * c.uniform(0.3, 0.7)
        c.polygon(
            [(x0 + 0.05 * width, horizon), (peak, y0 + (horizon - y0) * 0.25), (x1 - 0.05 * width, horizon)],
            c.near((104, 114, 134)),
            Label(thing, "", material, "", "mountain"),
        )
    c.box(x0, horizon, x1, y1, c.near((104, 152, 70)), Label(thing, "", material, "", "grass"))
    if c.chance(0.6):
        at = x0 + width * c.uniform(0.25, 0.75)
        c.box(at - 0.6, horizon - 1, at + 0.6, y1 - 1, (96, 66, 42), Label(thing, "", material, "", "tree"))
        c.disc(at, horizon - width * 0.06, width * 0.16, c.near((52, 110, 48)), Label(thing, "", material, "", "tree"))


def windowpane(c: Canvas, x: float, y: float, h: float) -> None:
    """A window in the wall, hung from (x, y): a frame, panes of glass, and what lies outside; perhaps curtains."""
    w = h * c.uniform(0.7, 1.1)
    frame = c.near(WHITE, 6)
    c.box(x - w / 2 - 2, y - 2, x + w / 2 + 2, y + h + 2, frame, Label("windowpane", "frame", "wood"))
    view(c, x - w / 2, y, x + w / 2, y + h, "windowpane", "glass")
    for points in ([(x, y), (x, y + h)], [(x - w / 2, y + h / 2), (x + w / 2, y + h / 2)]):
        c.line(points, 1.2, frame, Label("windowpane", "frame", "wood"))


def painting(c: Canvas, x: float, y: float, h: float) -> None:
    """A framed landscape, hung from (x, y)."""
    w, gilt = h * c.uniform(0.9, 1.4), c.choose(((196, 154, 66), (70, 52, 40), (214, 208, 196)))
    c.box(x - w / 2 - 2, y - 2, x + w / 2 + 2, y + h + 2, gilt, Label("painting", "frame", "wood"))
    view(c, x - w / 2, y, x + w / 2, y + h, "painting", "paper")


def clock(c: Canvas, x: float, y: float, r: float) -> None:
    """A wall clock with its two hands."""
    c.disc(x, y, r, c.choose(BRIGHT), Label("clock", "frame", "metal"))
    c.disc(x, y, r * 0.78, (248, 246, 238), Label("clock"))
    for dx, dy in ((0, -0.6), (0.42, 0.15)):
        c.line([(x, y), (x + dx * r, y + dy * r)], 0.8, (40, 40, 44))


def table(c: Canvas, x: float, y: float, h: float) -> None:
    """A wooden table: top and legs, sometimes under a patterned cloth."""
    timber, wide = c.choose(WOODS), h * c.uniform(0.8, 1.1)
    for side in (-0.86, 0.86):
        c.box(
            x + side * wide - h * 0.06,
            y - h * 0.9,
            x + side * wide + h * 0.06,
            y,
            shade(timber, 0.8),
            Label("table", "leg", "wood"),
        )
    if c.chance(0.3):
        cloth = materials.fabric(c.rng, c.choose(BRIGHT), ("checks", "dots", "stripes")[int(c.rng.integers(3))])
        c.polygon(
            [(x - wide, y - h), (x + wide, y - h), (x + wide * 1.05, y - h * 0.55), (x - wide * 1.05, y - h * 0.55)],
            cloth,
            Label("table", "top", "fabric"),
        )
    else:
        c.box(x - wide, y - h, x + wide, y - h * 0.82, materials.wood(c.rng, timber, 9), Label("table", "top", "wood"))


def chair(c: Canvas, x: float, y: float, h: float) -> None:
    """A chair from the side: back, seat and legs."""
    timber, side = c.choose((*WOODS, *BRIGHT[:4])), -1 if c.chance(0.5) else 1
    w = h * 0.25
    for dx in (-1, 1):
        c.box(
            x + dx * w * 0.9 - h * 0.035,
            y - h * 0.45,
            x + dx * w * 0.9 + h * 0.035,
            y,
            shade(timber, 0.8),
            Label("chair", "leg", "wood"),
        )
    at = x - side * w * 0.9
    c.box(at - h * 0.05, y - h, at + h * 0.05, y - h * 0.42, timber, Label("chair", "back", "wood"))
    c.box(x - w, y - h * 0.52, x + w, y - h * 0.42, materials.wood(c.rng, timber, 20), Label("chair", "seat", "wood"))


def sofa(c: Canvas, x: float, y: float, h: float) -> None:
    """A sofa of fabric: back, seat, arms, and a pillow or two."""
    colour, w = c.choose((*BRIGHT[:8], (150, 130, 110), (108, 120, 110))), h * c.uniform(0.95, 1.2)
    cloth = materials.fabric(c.rng, colour)
    for side in (-0.8, 0.8):
        c.box(x + side * w - 1, y - 4, x + side * w + 1, y, (70, 50, 36), Label("sofa", "leg", "wood"))
    c.box(x - w * 0.9, y - h, x + w * 0.9, y - h * 0.4, cloth, Label("sofa", "back", "fabric"))
    c.box(
        x - w * 0.85,
        y - h * 0.48,
        x + w * 0.85,
        y - h * 0.1,
        materials.fabric(c.rng, shade(colour, 1.12)),
        Label("sofa", "seat", "fabric"),
    )
    c.line([(x, y - h * 0.48), (x, y - h * 0.1)], 0.7, shade(colour, 0.7))
    for side in (-1, 1):
        c.box(
            x + side * w - h * 0.12,
            y - h * 0.68,
            x + side * w + h * 0.12,
            y - h * 0.08,
            materials.fabric(c.rng, shade(colour, 0.86)),
            Label("sofa", "arm", "fabric"),
        )
    for side in (-0.55, 0.55):
        if c.chance(0.6):
            pillow(c, "sofa", x + side * w, y - h * 0.46, h * 0.3)


def pillow(c: Canvas, thing: str, x: float, y: float, h: float) -> None:
    """A pillow on ``thing``."""
    cloth = materials.fabric(
        c.rng, c.choose((*BRIGHT, *PAINTED)), ("", "stripes", "checks", "dots")[int(c.rng.integers(4))]
    )
    c.polygon(
        [
            (x - h * 0.62, y),
            (x - h * 0.5, y - h),
            (x, y - h * 0.9),
            (x + h * 0.5, y - h),
            (x + h * 0.62, y),
            (x, y + h * 0.08),
        ],
        cloth,
        Label(thing, "pillow", "fabric"),
    )


def bed(c: Canvas, x: float, y: float, h: float) -> None:
    """A bed from the side: headboard, pillow, blanket of fabric, wooden frame and legs."""
    timber, w = c.choose(WOODS), h * c.uniform(0.95, 1.15)
    side = -1 if c.chance(0.5) else 1
    grain = materials.wood(c.rng, timber, 12)
    c.box(x + side * w - 2, y - h, x + side * w + 2, y, grain, Label("bed", "back", "wood"))
    for end in (-0.95, 0.93):
        c.box(x + end * w - 1.5, y - h * 0.3, x + end * w + 1.5, y, shade(timber, 0.8), Label("bed", "leg", "wood"))
    c.box(x - w, y - h * 0.36, x + w, y - h * 0.16, grain, Label("bed", "frame", "wood"))
    c.box(x - w, y - h * 0.58, x + w, y - h * 0.34, c.near(WHITE, 6), Label("bed", material="fabric"))
    pillow(c, "bed", x + side * w * 0.72, y - h * 0.55, h * 0.24)
    cloth = materials.fabric(c.rng, c.choose(BRIGHT), ("", "stripes", "checks", "dots")[int(c.rng.integers(4))])
    left, right = sorted((x - side * w, x + side * w * 0.45))
    c.polygon(
        [(left, y - h * 0.62), (right, y - h * 0.64), (right, y - h * 0.24), (left, y - h * 0.2)],
        cloth,
        Label("bed", "top", "fabric"),
    )


def lamp(c: Canvas, x: float, y: float, h: float) -> None:
    """A lamp with a fabric shade on a metal pole."""
    colour = c.choose(((250, 226, 160), (240, 200, 150), *BRIGHT[:4]))
    c.ellipse((x - h * 0.13, y - h * 0.05, x + h * 0.13, y + h * 0.01), (70, 66, 64), Label("lamp", "pole", "metal"))
    c.line([(x, y - h * 0.02), (x, y - h * 0.75)], max(1.2, h * 0.04), (80, 76, 72), Label("lamp", "pole", "metal"))
    c.polygon(
        [(x - h * 0.13, y - h), (x + h * 0.13, y - h), (x + h * 0.24, y - h * 0.66), (x - h * 0.24, y - h * 0.66)],
        materials.gradient(shade(colour, 0.95), shade(colour, 1.25)),
        Label("lamp", "shade", "fabric"),
    )


def cabinet(c: Canvas, x: float, y: float, h: float, w: float = 0) -> None:
    """A wooden chest with drawers and handles, or doors and handles."""
    timber, w = c.choose((*WOODS, (222, 216, 202), (120, 150, 160))), w or h * c.uniform(0.8, 1.3)
    c.box(
        x - w / 2,
        y - h,
        x + w / 2,
        y,
        materials.wood(c.rng, shade(timber, 0.84), 30),
        Label("cabinet", material="wood"),
    )
    front = materials.wood(c.rng, timber, 40)
    columns, rows, name = (1, 3, "drawer") if c.chance(0.5) else (2, 1, "door")
    for i in range(columns):
        for j in range(rows):
            x0, x1 = (x - w / 2 + w * (i + k) / columns for k in (0.06, 0.94))
            y0, y1 = (y - h + h * 0.96 * (j + k) / rows for k in (0.1, 0.95))
            c.box(x0, y0, x1, y1, front, Label("cabinet", name, "wood"))
            at = ((x0 + x1) / 2, (y0 + y1) / 2) if rows > 1 else ((x1 - 2.5, x0 + 2.5)[i], (y0 + y1) / 2)
            c.disc(*at, 1.3, (214, 190, 120), Label("cabinet", name, "metal", "handle"))
    c.box(x - w / 2 - 1, y - h - 1.5, x + w / 2 + 1, y - h + 1, shade(timber, 1.1), Label("cabinet", "top", "wood"))


def oven(c: Canvas, x: float, y: float, h: float) -> None:
    """An oven: a metal front, a glass door with a handle, knobs, and rings on the top."""
    steel = c.choose(((206, 208, 212), (70, 72, 78), (236, 234, 230)))
    w = h * 0.86
    c.box(x - w / 2, y - h, x + w / 2, y, materials.metal(c.rng, steel), Label("oven", material="metal"))
    c.box(
        x - w * 0.4,
        y - h * 0.66,
        x + w * 0.4,
        y - h * 0.12,
        materials.glass(c.rng, (64, 58, 60)),
        Label("oven", "door", "glass"),
    )
    c.box(x - w * 0.36, y - h * 0.75, x + w * 0.36, y - h * 0.7, (180, 182, 188), Label("oven", "handle", "metal"))
    for k in range(4):
        c.disc(x - w * 0.3 + k * w * 0.2, y - h * 0.86, h * 0.04, (40, 40, 44))
    c.box(x - w / 2, y - h - 1.5, x + w / 2, y - h, (46, 46, 50), Label("oven", "top", "glass"))


def plant(c: Canvas, x: float, y: float, h: float) -> None:
    """A plant in a ceramic pot."""
    pot, green = (
        c.choose(((190, 104, 66), (232, 228, 220), (70, 110, 150))),
        c.choose(((62, 134, 60), (46, 108, 62), (104, 150, 62))),
    )
    r, neck = h * 0.2, y - h * 0.34
    for dx, dy in ((-1.5, -1.0), (1.5, -1.1), (-0.9, -2.1), (0.9, -2.2), (0, -2.9)):
        tip = (x + dx * r, neck + dy * r)
        c.polygon(
            [
                (x, neck),
                (x + dx * r * 0.3 - r * 0.32, neck + dy * r * 0.6),
                tip,
                (x + dx * r * 0.6 + r * 0.3, neck + dy * r * 0.5),
            ],
            c.near(green, 12),
            Label("plant", "leaf", "foliage"),
        )
    c.polygon(
        [(x - r, neck), (x + r, neck), (x + r * 0.7, y), (x - r * 0.7, y)],
        materials.gradient(shade(pot, 1.1), shade(pot, 0.8)),
        Label("plant", "pot", "ceramic"),
    )


def rug(c: Canvas, x: float, y: float, w: float) -> None:
    """A patterned rug on the floor."""
    cloth: Fill = materials.fabric(c.rng, c.choose(BRIGHT[:8]), ("stripes", "checks", "dots")[int(c.rng.integers(3))])
    h = w * 0.24
    c.polygon(
        [(x - w * 0.42, y - h), (x + w * 0.42, y - h), (x + w * 0.5, y), (x - w * 0.5, y)],
        cloth,
        Label("rug", material="fabric"),
    )


def bookcase(c: Canvas, x: float, y: float, h: float) -> None:
    """Shelves of books."""
    timber, w = c.choose(WOODS), h * c.uniform(0.45, 0.65)
    c.box(x - w / 2, y - h, x + w / 2, y, materials.wood(c.rng, timber, 30), Label("bookcase", "frame", "wood"))
    rows = int(c.rng.integers(3, 5))
    for j in range(rows):
        x0, x1 = x - w * 0.44, x + w * 0.44
        y0, y1 = (y - h + h * (j + k) / rows for k in (0.1, 0.93))
        c.box(x0, y0, x1, y1, shade(timber, 0.5), Label("bookcase", material="wood"))
        at = x0 + 0.5
        while at < x1 - 2:
            thick = c.uniform(1.6, 3.2)
            if c.chance(0.88):
                c.box(
                    at,
                    y0 + (y1 - y0) * c.uniform(0.05, 0.35),
                    min(x1, at + thick),
                    y1,
                    c.choose(BRIGHT),
                    Label("bookcase", material="paper"),
                )
            at += thick + 0.3


def door(c: Canvas, x: float, y: float, h: float) -> None:
    """A wooden door in its frame, with a handle."""
    timber, w = c.choose((*WOODS, WHITE, *BRIGHT[:4])), h * 0.42
    c.box(x - w / 2 - 2, y - h - 2, x + w / 2 + 2, y, shade(timber, 1.15), Label("door", "frame", "wood"))
    c.box(
        x - w / 2, y - h, x + w / 2, y, materials.wood(c.rng, timber, 60, upright=True), Label("door", material="wood")
    )
    for low, up in ((0.08, 0.45), (0.52, 0.92)):
        c.box(x - w * 0.34, y - h * up, x + w * 0.34, y - h * low, shade(timber, 0.85))
    c.disc(x + w * 0.4, y - h * 0.47, 1.4, (226, 196, 110), Label("door", "handle", "metal"))
