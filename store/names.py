"""Names and words that others chose (layers, data sets, files), made fit to be a file's name or a word of a shell."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

#: The networks that come with this program, by the names that are typed: they are the same whenever they are called so.
BUNDLED_NETWORKS = ("demo", "demo-generator", "demo-labeller")

# File systems take 255 bytes; hidden files beside one carry its name with something added.
_MOST_BYTES = 200


def safe_name(text: str, ending: str = "") -> str:
    """A file name made of ``text``, then ``ending``, for a file that lies in one folder whatever ``text`` says.

    It holds no separator and nothing that does not show (control, format, bidirectional characters). It starts with no
    dot, dash or tilde, is at most 200 bytes long, and more than ``ending``. A name that would be longer is cut and kept
    apart by a digest.
    """
    name = "".join("_" if c in "/\\" or not c.isprintable() else c for c in text).strip()
    name = name.lstrip("._-~ ") if name[:1] in tuple(".-~") else name
    name = name or "unnamed"
    whole = len(os.fsencode(name + ending))
    if whole > _MOST_BYTES:
        import hashlib  # noqa: PLC0415 - names are hardly ever so long

        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        while len(os.fsencode(f"{name}~{digest}{ending}")) > _MOST_BYTES:
            name = name[:-1]
        name = f"{name}~{digest}"
    return name + ending


def quoted(word: str | Path, *, positional: bool = False) -> str:
    """``word`` as one word of a command that a person may paste into a shell.

    A path that starts with a dash gets ``./`` before it, so that it is no option. ``positional``: ``word`` is a name
    that stands where an option may; after a dash ``--`` says that it is none.
    """
    text = str(word)
    if isinstance(word, Path) and text.startswith("-"):
        text = f"./{text}"
    return f"-- {shlex.quote(text)}" if positional and text.startswith("-") else shlex.quote(text)


def retyped(command: str) -> str:
    """A command of nd that another program has noted down, each word quoted; "" where it cannot be run.

    Anybody may have written it. After quoting, what a shell would obey is a word like any other.
    """
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    return shlex.join(words) if words[:1] == ["nd"] else ""
