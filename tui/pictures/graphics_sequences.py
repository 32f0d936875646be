"""Pictures as terminals take them: kitty's graphics protocol, iTerm2's inline pictures, sixels.

kitty's is written here, and not left to textual-image, whose pictures stay in the terminal's memory and need
placeholders that few terminals know. Sixels are made by that package.

https://sw.kovidgoyal.net/kitty/graphics-protocol/ https://iterm2.com/documentation-images.html
"""

from __future__ import annotations

import base64
import io

from PIL import Image

from ndissect.tui.pictures.graphics import sixel_encoder

# The most characters of a picture in one of kitty's sequences.
_CHUNK = 4096


def at(left: int, top: int, drawn: str) -> str:
    """``drawn`` with its upper left corner in the cell ``left``, ``top`` (from 0); the cursor stays where it was."""
    return f"\x1b7\x1b[{top + 1};{left + 1}H{drawn}\x1b8"


def erased(left: int, top: int, columns: int, lines: int) -> str:
    """Blanks over so many cells, which take away what sixels or iTerm2's pictures show there."""
    blanks = "".join(f"\x1b[{top + line + 1};{left + 1}H{' ' * columns}" for line in range(lines))
    return f"\x1b7\x1b[0m{blanks}\x1b8"


def kitty_picture(picture: Image.Image, number: int, columns: int, lines: int, *, above: int = 0) -> str:
    """``picture`` scaled to ``columns`` x ``lines`` cells, which the terminal keeps as ``number`` (1 to 2^32 - 1).

    ``above``: of pictures at the same place, that with the larger one is seen.
    """
    payload = base64.b64encode(_png(picture)).decode("ascii")
    chunks = [payload[start : start + _CHUNK] for start in range(0, len(payload), _CHUNK)]
    # q=2: the terminal does not answer, C=1: the cursor does not move
    keys = f"a=T,f=100,i={number},c={columns},r={lines},z={above},C=1,q=2,"
    sequences = []
    for index, chunk in enumerate(chunks):
        more = int(index < len(chunks) - 1)
        sequences.append(f"\x1b_G{keys if index == 0 else ''}m={more};{chunk}\x1b\\")
    return "".join(sequences)


def kitty_removal(number: int) -> str:
    """The picture ``number`` taken off the screen, and out of the terminal's memory."""
    return f"\x1b_Ga=d,d=I,i={number},q=2\x1b\\"


def iterm_picture(picture: Image.Image, columns: int, lines: int) -> str:
    """``picture`` scaled to ``columns`` x ``lines`` cells, in the place of what they show."""
    data = _png(picture)
    keys = f"inline=1;size={len(data)};width={columns};height={lines};preserveAspectRatio=0;doNotMoveCursor=1"
    return f"\x1b]1337;File={keys}:{base64.b64encode(data).decode('ascii')}\x07"


def sixel_picture(picture: Image.Image) -> str:
    """``picture``, of at most 256 colours of a palette, pixel by pixel."""
    encoder = sixel_encoder()
    assert encoder is not None, "choose_protocol lets nobody come here without"
    return encoder(picture)


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=3)
    return file.getvalue()
