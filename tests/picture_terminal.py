"""Reads what was written to a terminal as one does that shows pictures: kitty's, iTerm2's, sixels, and text over them.

screen = PictureTerminal(80, 24)
screen.feed(raw)
screen.pictures   # what is seen, by the cell of the upper left corner
"""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from rich.cells import cell_len

CELL = (10, 20)
_TOKEN = re.compile(
    r"\x1b_G(?P<kitty>.*?)\x1b\\|\x1b\]1337;File=(?P<iterm>.*?)\x07|\x1bP(?P<sixel>.*?)\x1b\\"
    r"|\x1b\[(?P<csi>[0-?]*[ -/]*[@-~])|\x1b\](?P<osc>.*?)(?:\x07|\x1b\\)|\x1b(?P<escape>[78=>c])"
    r"|(?P<text>[^\x1b])",
    re.DOTALL,
)


@dataclass
class PictureTerminal:
    """``pixels``: (H, W, 4) of pictures that lie in cells; ``kept``: kitty's, (left, top, above, picture) by number."""

    columns: int
    lines: int
    x: int = 0
    y: int = 0
    kept: dict[int, tuple[int, int, int, Image.Image]] = field(default_factory=dict)
    sent: list[tuple[str, int, int, Image.Image]] = field(default_factory=list)
    pixels: np.ndarray = field(init=False)
    _saved: tuple[int, int] = (0, 0)
    _keys: dict[str, str] = field(default_factory=dict)
    _payload: str = ""

    def __post_init__(self) -> None:
        self.pixels = np.zeros((self.lines * CELL[1], self.columns * CELL[0], 4), np.uint8)

    def feed(self, raw: str) -> PictureTerminal:
        """Take what was written."""
        for token in _TOKEN.finditer(raw):
            kind, value = token.lastgroup, token[token.lastgroup or 0]
            if kind == "text":
                self._text(value)
            elif kind == "csi" and value[-1] == "H":
                line, _, column = value[:-1].partition(";")
                self.y, self.x = int(line or 1) - 1, int(column or 1) - 1
            elif kind == "escape" and value == "7":
                self._saved = self.x, self.y
            elif kind == "escape" and value == "8":
                self.x, self.y = self._saved
            elif kind == "kitty":
                self._kitty(value)
            elif kind == "iterm":
                self._iterm(value)
            elif kind == "sixel":
                self._lay("sixel", sixels(value))
        return self

    def _text(self, character: str) -> None:
        if character == "\n":
            self.x, self.y = 0, self.y + 1
        elif character >= " ":
            for _ in range(cell_len(character)):
                left, top = self.x * CELL[0], self.y * CELL[1]
                self.pixels[top : top + CELL[1], left : left + CELL[0]] = 0
                self.x += 1

    def _kitty(self, said: str) -> None:
        keys, _, payload = said.partition(";")
        named = dict(key.split("=") for key in keys.split(","))
        assert len(payload) <= 4096
        if named.get("a") == "d":
            assert named["d"] == "I"
            del self.kept[int(named["i"])]  # an error where it is not there
            return
        self._keys = named if "a" in named else self._keys
        self._payload += payload
        if named["m"] == "0":
            assert (self._keys["a"], self._keys["f"], self._keys["q"], self._keys["C"]) == ("T", "100", "2", "1")
            picture = _png(self._payload).resize((int(self._keys["c"]) * CELL[0], int(self._keys["r"]) * CELL[1]), 0)
            self.kept[int(self._keys["i"])] = (self.x, self.y, int(self._keys["z"]), picture)
            self.sent.append(("kitty", self.x, self.y, picture))
            self._payload = ""

    def _iterm(self, said: str) -> None:
        keys, _, payload = said.partition(":")
        named = dict(key.split("=") for key in keys.split(";"))
        assert int(named["size"]) == len(base64.b64decode(payload))
        assert named["inline"] == named["doNotMoveCursor"] == "1"
        self._lay("iterm", _png(payload).resize((int(named["width"]) * CELL[0], int(named["height"]) * CELL[1]), 0))

    def _lay(self, way: str, picture: Image.Image) -> None:
        self.sent.append((way, self.x, self.y, picture))
        left, top = self.x * CELL[0], self.y * CELL[1]
        assert top + picture.height <= (self.lines - 1) * CELL[1], "it would scroll"
        self.pixels[top : top + picture.height, left : left + picture.width] = np.asarray(picture.convert("RGBA"))

    @property
    def seen(self) -> Image.Image | None:
        """The picture on the screen, None where there is none."""
        shown = Image.fromarray(self.pixels)
        for left, top, _, picture in sorted(self.kept.values(), key=lambda kept: kept[2]):
            layer = Image.new("RGBA", shown.size)
            layer.paste(picture.convert("RGBA"), (left * CELL[0], top * CELL[1]))
            shown = Image.alpha_composite(shown, layer)
        box = shown.getbbox()
        return shown.crop(box).convert("RGB") if box else None


def sixels(said: str) -> Image.Image:
    """The picture of what stands between ESC P and ESC backslash; colours of a hundred steps."""
    match = re.match(r'[\d;]*q"1;1;(\d+);(\d+)', said)
    assert match
    width, height = int(match[1]), int(match[2])
    pixels, colors = np.zeros((height + 6, width, 3), np.uint8), {}
    x = y = now = 0
    for token in re.finditer(r"#(\d+);2;(\d+);(\d+);(\d+)|#(\d+)|!(\d+)([?-~])|([?-~])|(\$)|(-)", said[match.end() :]):
        if token[1] or token[5]:
            now = int(token[1] or token[5])
            if token[1]:
                colors[now] = [round(int(part) * 255 / 100) for part in token.group(2, 3, 4)]
        elif token[9] or token[10]:
            x, y = 0, y + (6 if token[10] else 0)
        else:
            count, bits = int(token[6] or 1), ord(token[7] or token[8]) - 63
            for row in range(6):
                if bits >> row & 1:
                    pixels[y + row, x : x + count] = colors[now]
            x += count
    assert not pixels[height:].any()
    return Image.fromarray(pixels[:height])


def _png(payload: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(payload)), formats=("PNG",))
