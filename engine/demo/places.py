"""Whole scenes: each function composes one place out of things; all of them vary with the canvas's generator."""

from __future__ import annotations

from collections.abc import Callable

from ndissect.engine.demo import indoors, materials, nature, town
from ndissect.engine.demo.canvas import RGB, SIZE, Canvas, Label, shade

GREENS: tuple[RGB, ...] = ((92, 148, 62), (116, 156, 70), (78, 128, 64), (140, 160, 80))
SANDS: tuple[RGB, ...] = ((228, 204, 150), (214, 186, 134), (236, 216, 172))
SEAS: tuple[RGB, ...] = ((44, 110, 168), (38, 132, 160), (66, 130, 190), (60, 100, 130))


def grass(c: Canvas, top: float, bottom: float = SIZE) -> None:
    """A meadow: grass is an object and the material it is made of."""
    c.box(0, top, SIZE, bottom, materials.lawn(c.rng, c.choose(GREENS)), Label("grass", material="grass"))


def sand(c: Canvas, top: float) -> None:
    """A beach: sand is an object and a material."""
    c.box(0, top, SIZE, SIZE, materials.speckle(c.rng, c.choose(SANDS), 0.07), Label("sand", material="sand"))


def sea(c: Canvas, top: float, bottom: float) -> None:
    """The sea, made of water."""
    c.box(0, top, SIZE, bottom, materials.water(c.rng, c.choose(SEAS)), Label("sea", material="water"))


def road(c: Canvas, top: float, bottom: float, *, dark: bool = False) -> None:
    """A road that runs across, of asphalt, with a broken white line."""
    grey = c.choose(((96, 98, 104), (78, 80, 86), (112, 108, 104)))
    c.box(
        0,
        top,
        SIZE,
        bottom,
        materials.speckle(c.rng, shade(grey, 0.6) if dark else grey, 0.07),
        Label("road", material="asphalt"),
    )
    middle, at = (top + bottom) / 2, -c.uniform(0, 16)
    while at < SIZE:
        c.box(at, middle - 0.8, at + 9, middle + 0.8, (232, 228, 214))
        at += 17


def several(c: Canvas, low: int, high: int, margin: float = 6) -> list[float]:
    """Between ``low`` and ``high`` places across the picture, spread out, left to right."""
    count = int(c.rng.integers(low, high + 1))
    room = (SIZE - 2 * margin) / max(1, count)
    return [margin + room * (k + c.uniform(0.15, 0.85)) for k in range(count)]


def street(c: Canvas, *, night: bool = False) -> None:
    """Tall buildings along a road with traffic and people."""
    kerb = c.uniform(70, 80)
    nature.sky(c, kerb, night=night)
    at = -c.uniform(0, 12)
    while at < SIZE:
        wide = c.uniform(24, 40)
        if c.chance(0.88):
            town.building(c, at + wide / 2, kerb, c.uniform(34, 66), wide, lit=night)
        at += wide + 1
    walk = kerb + c.uniform(6, 9)
    pavement = materials.stone(c.rng, c.choose(((176, 172, 166), (156, 156, 160))), 11)
    c.box(0, kerb, SIZE, walk, pavement, Label("sidewalk", material="stone"))
    for x in several(c, 0, 2):
        town.streetlight(c, x, walk, c.uniform(34, 46), lit=night)
    for x in several(c, 0, 2):
        nature.tree(c, x, walk, c.uniform(26, 38), "broad")
    for x in several(c, 0, 3):
        town.person(c, x, walk + c.uniform(0, 2), c.uniform(17, 25))
    road(c, walk, SIZE, dark=night)
    for x in several(c, 1, 2, 14):
        if c.chance(0.25):
            town.bus(c, x, c.uniform(walk + 12, 108), c.uniform(26, 34))
        else:
            town.car(c, x, c.uniform(walk + 10, 108), c.uniform(14, 21))


def village(c: Canvas) -> None:
    """Houses in the green, a fence, a tree, perhaps a car on the road."""
    horizon = c.uniform(56, 68)
    nature.sky(c, horizon)
    grass(c, horizon)
    for x in several(c, 1, 3):
        nature.tree(c, x, horizon + c.uniform(0, 8), c.uniform(24, 42))
    for x in several(c, 1, 2, 12):
        town.house(c, x, horizon + c.uniform(10, 20), c.uniform(38, 58))
    if c.chance(0.4):
        town.fence(c, horizon + c.uniform(22, 28), c.uniform(9, 13))
    if c.chance(0.6):
        road(c, c.uniform(92, 98), SIZE)
        if c.chance(0.8):
            town.car(c, c.uniform(20, 92), c.uniform(102, 109), c.uniform(14, 20))
    for x in several(c, 0, 2):
        town.person(c, x, c.uniform(94, 108), c.uniform(20, 28))


def beach(c: Canvas) -> None:
    """Sand and sea, sunshades, bathers, palms, a sail far out."""
    horizon, shore = c.uniform(34, 48), c.uniform(60, 74)
    nature.sky(c, horizon)
    sea(c, horizon, shore)
    for x in several(c, 0, 2):
        town.boat(c, x, c.uniform(horizon + 4, shore - 4), c.uniform(14, 24), "sail")
    sand(c, shore)
    c.line([(0, shore), (30, shore + 1.5), (64, shore - 1), (SIZE, shore + 1)], 2, (244, 246, 244))
    for x in several(c, 0, 2):
        nature.palm(c, x, c.uniform(82, 104), c.uniform(44, 66))
    for x in several(c, 0, 2):
        town.umbrella(c, x, c.uniform(84, 106), c.uniform(26, 36))
    for x in several(c, 0, 3):
        town.person(c, x, c.uniform(82, 108), c.uniform(22, 32))
    if c.chance(0.4):
        town.ball(c, c.uniform(10, 100), c.uniform(96, 108), c.uniform(4, 7))
    for _ in range(int(c.rng.integers(0, 3))):
        nature.bird(c, c.uniform(8, 104), c.uniform(8, 30), c.uniform(3, 5))


def harbor(c: Canvas) -> None:
    """Boats on the water before hills, perhaps a lighthouse."""
    horizon = c.uniform(34, 50)
    nature.sky(c, horizon)
    if c.chance(0.5):
        nature.mountain(c, horizon + 1, c.uniform(14, 26), snow=False)
    sea(c, horizon, SIZE)
    if c.chance(0.5):
        x = c.uniform(14, 98)
        c.ellipse(
            (x - 18, horizon - 3, x + 18, horizon + 9),
            materials.stone(c.rng, (128, 122, 114), 9),
            Label("mountain", material="stone"),
        )
        town.lighthouse(c, x, horizon + 2, c.uniform(32, 46))
    for y, x in sorted((c.uniform(horizon + 12, 108), x) for x in several(c, 1, 4, 10)):
        town.boat(c, x, y, (y - horizon) * 0.45 + c.uniform(14, 22))
    for _ in range(int(c.rng.integers(0, 4))):
        nature.bird(c, c.uniform(8, 104), c.uniform(6, 30), c.uniform(3, 5))


def forest(c: Canvas) -> None:
    """Many trees, the near ones tall."""
    horizon = c.uniform(52, 66)
    nature.sky(c, horizon, clouds=False)
    grass(c, horizon)
    firs = "fir" if c.chance(0.4) else ""
    for x in several(c, 8, 11, -6):
        nature.tree(c, x, horizon + c.uniform(2, 8), c.uniform(36, 52), firs)
    for y, x in sorted((c.uniform(horizon + 14, 108), x) for x in several(c, 3, 5, -4)):
        nature.tree(c, x, y, c.uniform(56, 84), firs)
    for x in several(c, 0, 1):
        town.person(c, x, c.uniform(96, 109), c.uniform(22, 30))
    for x in several(c, 0, 3):
        nature.flower(c, x, c.uniform(100, 110), c.uniform(9, 13))


def desert(c: Canvas) -> None:
    """Dunes and cacti."""
    horizon = c.uniform(46, 62)
    nature.sky(c, horizon + 8, clouds=c.chance(0.3))
    if c.chance(0.4):
        nature.mountain(c, horizon + 6, c.uniform(16, 30), snow=False)
    sand(c, horizon + 6)
    for _ in range(2):
        x, y = c.uniform(0, SIZE), c.uniform(horizon + 8, 90)
        c.ellipse(
            (x - 60, y - 8, x + 60, y + 40),
            materials.speckle(c.rng, c.choose(SANDS), 0.06),
            Label("sand", material="sand"),
        )
    for y, x in sorted((c.uniform(horizon + 14, 108), x) for x in several(c, 1, 4)):
        nature.cactus(c, x, y, c.uniform(20, 46))
    if c.chance(0.25):
        town.balloon(c, c.uniform(24, 90), c.uniform(40, 58), c.uniform(26, 36))


def mountain_snowy(c: Canvas) -> None:
    """High mountains above firs, or snow in the foreground."""
    base = c.uniform(70, 84)
    nature.sky(c, base)
    nature.mountain(c, base, c.uniform(46, 64))
    if c.chance(0.45):
        c.box(0, base, SIZE, SIZE, materials.speckle(c.rng, c.near((234, 238, 246), 6), 0.03), Label(material="snow"))
    else:
        grass(c, base)
    for y, x in sorted((c.uniform(base + 4, 108), x) for x in several(c, 2, 6)):
        nature.tree(c, x, y, c.uniform(20, 36), "fir")
    if c.chance(0.3):
        town.house(c, c.uniform(24, 88), c.uniform(base + 10, 106), c.uniform(24, 32))
    if c.chance(0.3):
        town.balloon(c, c.uniform(20, 92), c.uniform(36, 52), c.uniform(24, 34))


def park(c: Canvas) -> None:
    """A lawn with benches, people, flowers and trees."""
    horizon = c.uniform(44, 58)
    nature.sky(c, horizon)
    grass(c, horizon)
    for x in several(c, 1, 4):
        nature.tree(c, x, horizon + c.uniform(6, 16), c.uniform(34, 54), "broad")
    for x in several(c, 0, 1, 20):
        town.bench(c, x, c.uniform(84, 98), c.uniform(15, 21))
    for x in several(c, 1, 3):
        town.person(c, x, c.uniform(84, 104), c.uniform(24, 34))
    if c.chance(0.4):
        town.ball(c, c.uniform(10, 100), c.uniform(96, 108), c.uniform(3.5, 6))
    for x in several(c, 2, 7):
        nature.flower(c, x, c.uniform(98, 111), c.uniform(9, 15))
    if c.chance(0.3):
        town.balloon(c, c.uniform(20, 92), c.uniform(34, 46), c.uniform(24, 32))


def night_sky(c: Canvas) -> None:
    """Stars and the moon above dark hills, perhaps a street or a lit house."""
    if c.chance(0.3):
        street(c, night=True)
        return
    ground = c.uniform(78, 94)
    nature.sky(c, ground + 4, night=True)
    if c.chance(0.5):
        x, high = c.uniform(10, 100), c.uniform(20, 44)
        c.polygon(
            [(x - 60, ground + 6), (x, ground - high), (x + 60, ground + 6)],
            c.near((26, 28, 44), 6),
            Label("mountain", material="stone"),
        )
    c.box(0, ground, SIZE, SIZE, materials.lawn(c.rng, c.near((24, 44, 34), 6)), Label("grass", material="grass"))
    if c.chance(0.6):
        town.house(c, c.uniform(26, 86), c.uniform(ground + 6, 108), c.uniform(26, 38), lit=True)
    for x in several(c, 0, 2):
        town.streetlight(c, x, c.uniform(ground + 4, 106), c.uniform(30, 40), lit=True)


def kitchen(c: Canvas) -> None:
    """An oven between cabinets, a window or a clock above, often a table."""
    floor = c.uniform(76, 86)
    indoors.room(c, floor, ("tiles", "tiles", "wood"))
    pane = c.uniform(24, 88)
    if c.chance(0.7):
        indoors.windowpane(c, pane, c.uniform(8, 14), c.uniform(22, 30))
    if c.chance(0.5):
        indoors.clock(c, c.uniform(78, 100) if pane < 56 else c.uniform(12, 34), c.uniform(14, 26), c.uniform(6, 9))
    high, x = c.uniform(28, 34), c.uniform(-6, 4)
    stove = int(c.rng.integers(1, 3))
    for k in range(5):
        wide = high * (0.86 if k == stove else c.uniform(0.8, 1))
        if k == stove:
            indoors.oven(c, x + wide / 2, floor + 4, high)
        else:
            indoors.cabinet(c, x + wide / 2, floor + 4, high, wide)
        x += wide
    if c.chance(0.3):
        indoors.plant(c, c.uniform(10, 100), floor + 3 - high, c.uniform(14, 20))
    if c.chance(0.5):
        x = c.uniform(30, 82)
        if c.chance(0.7):
            indoors.chair(c, x - c.uniform(20, 28), 107, c.uniform(30, 38))
        indoors.table(c, x, 109, c.uniform(20, 26))
    if c.chance(0.4):
        town.person(c, c.uniform(12, 100), 106, c.uniform(52, 66))


def living_room(c: Canvas) -> None:
    """A sofa with pillows, a painting or a window, a lamp, books, a rug."""
    floor = c.uniform(70, 82)
    indoors.room(c, floor, ("wood", "carpet", "wood"))
    if c.chance(0.55):
        indoors.painting(c, c.uniform(30, 82), c.uniform(10, 16), c.uniform(18, 26))
    else:
        indoors.windowpane(c, c.uniform(30, 82), c.uniform(8, 14), c.uniform(28, 38))
    left = c.chance(0.5)
    if c.chance(0.6):
        indoors.bookcase(c, 14 if left else 98, floor + 3, c.uniform(50, 66))
    if c.chance(0.6):
        indoors.rug(c, c.uniform(40, 72), c.uniform(104, 110), c.uniform(60, 92))
    indoors.sofa(c, c.uniform(46, 66), floor + c.uniform(8, 14), c.uniform(28, 36))
    if c.chance(0.75):
        indoors.lamp(c, 100 if left else 12, floor + c.uniform(6, 12), c.uniform(46, 60))
    if c.chance(0.5):
        indoors.plant(c, c.uniform(8, 104), floor + c.uniform(14, 22), c.uniform(22, 32))
    if c.chance(0.45):
        indoors.table(c, c.uniform(36, 76), c.uniform(104, 110), c.uniform(13, 18))
    if c.chance(0.3):
        town.person(c, c.uniform(12, 100), 106, c.uniform(50, 64))


def bedroom(c: Canvas) -> None:
    """A bed with its pillow and blanket, a lamp on a chest, a window, a door or a painting."""
    floor = c.uniform(72, 82)
    indoors.room(c, floor, ("wood", "carpet"))
    if c.chance(0.4):
        indoors.door(c, 16 if c.chance(0.5) else 96, floor, c.uniform(50, 60))
    if c.chance(0.6):
        indoors.windowpane(c, c.uniform(40, 72), c.uniform(8, 14), c.uniform(24, 34))
    elif c.chance(0.7):
        indoors.painting(c, c.uniform(36, 76), c.uniform(12, 20), c.uniform(16, 22))
    if c.chance(0.5):
        x, high = (12.0 if c.chance(0.5) else 100.0), c.uniform(22, 28)
        indoors.cabinet(c, x, floor + 5, high, 24)
        indoors.lamp(c, x, floor + 5 - high, c.uniform(20, 26))
    if c.chance(0.4):
        indoors.rug(c, c.uniform(40, 72), c.uniform(106, 111), c.uniform(60, 96))
    indoors.bed(c, c.uniform(46, 66), floor + c.uniform(12, 22), c.uniform(34, 44))
    if c.chance(0.25):
        indoors.chair(c, c.uniform(14, 98), 108, c.uniform(32, 40))


PLACES: dict[str, Callable[[Canvas], None]] = {
    "street": street,
    "village": village,
    "beach": beach,
    "harbor": harbor,
    "forest": forest,
    "desert": desert,
    "mountain_snowy": mountain_snowy,
    "park": park,
    "night_sky": night_sky,
    "kitchen": kitchen,
    "living_room": living_room,
    "bedroom": bedroom,
}
