"""Which output of a network a text means: classes are written in many ways."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ndissect.store.errors import WrongUse, nearest

# Places has its names as /k/kitchen, Broden as kitchen-s.
_FOLDER, _ENDING = re.compile(r"/[a-z]/"), re.compile(r"-[sc]")
_BLANKS = re.compile(r"[\s_/-]+")
# Names that a message shows where none is alike.
_SHOWN = 5
_NUMBER = re.compile(r"[0-9]{1,9}")


def plain_class(name: str) -> str:
    """``name`` as classes are compared: without case, ``_``, ``-`` and ``/`` as blanks.

    The ending of Broden's scenes and colours, ``kitchen-s``, and the folder of Places, ``/k/kitchen``, do not count.
    """
    name = name.strip().casefold()
    if _ENDING.fullmatch(name[-2:]):
        name = name[:-2]
    return _BLANKS.sub(" ", _FOLDER.sub("", name, count=1) if name[:1] == "/" else name).strip()


class ClassMatching:
    """Finds classes by what they are called: ``names`` of all outputs, and other names of theirs (``ids``), if any.

    The surest way that gives a class counts: its name as it stands, as :func:`plain_class` has it, one of the synonyms
    in it (``tench, Tinca tinca``), its id, its number.
    """

    def __init__(self, names: Sequence[str], ids: Sequence[str] = ()) -> None:
        self.names = tuple(names)
        self._ways: list[dict[str, list[int]]] = [{}, {}, {}, {}]
        for number, name in enumerate(self.names):
            spellings = ({name}, {plain_class(name)}, {plain_class(part) for part in re.split("[,;]", name)})
            for way, some in zip(self._ways, spellings, strict=False):
                for text in some - {""}:
                    way.setdefault(text, []).append(number)
        for number, text in enumerate(ids):
            self._ways[3].setdefault(plain_class(text), []).append(number)

    def numbers(self, text: str) -> tuple[int, ...]:
        """The classes that ``text`` may mean: none, one, or several that are called alike."""
        plain = plain_class(text)
        for way, said in zip(self._ways, (text, plain, plain, plain), strict=True):
            if said in way:
                return tuple(way[said])
        number = int(text) if _NUMBER.fullmatch(text) else -1
        return (number,) if 0 <= number < len(self.names) else ()

    def number(self, text: str) -> int:
        """The class that ``text`` means; WrongUse with the nearest names for none, with the numbers of several."""
        found = self.numbers(text)
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(map(str, found[:8]))
            raise WrongUse(f"{len(found)} classes are called {text!r}", f"say which by its number: {listed}")
        near = nearest(text, list(self.names))
        hint = f"nearest: {', '.join(near)}" if near else f"it has {', '.join(self.names[:_SHOWN])}, ..."
        raise WrongUse(f"the network has no class {text!r} among its {len(self.names)}", hint)
