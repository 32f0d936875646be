"""Which label maps belong to which images, by the names of their files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from ndissect.engine.data.image_files import IMAGE_ENDINGS, stem
from ndissect.engine.data.splits import split_called

_CUTS = "_-. "


@dataclass(frozen=True)
class Pairs:
    """``maps``: of each image that has some, (part, file) of its label maps, in the order of their names.

    The part is what stands between the image's name and the ending, ``hair`` in ``a.hair.png``, or the folder of maps
    that are sorted by parts, ``hair/a.png``. Mostly it is empty.
    ``bare``: images without a map; ``stray``: maps without an image; ``twice``: images that are called like another
    image but for the ending, and are left out.
    """

    maps: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    bare: list[str] = field(default_factory=list)
    stray: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)


def pair(images: Sequence[str], maps: Sequence[str], suffix: str = "") -> Pairs:
    """The ``images`` with their label ``maps``, both paths with ``/`` relative to folders of their own.

    ``suffix``: what the names of maps have at their end besides, such as ``_mask``.
    """
    pairs = Pairs()
    by_stem: dict[str, str] = {}
    for image in images:
        if by_stem.setdefault(stem(image), image) != image:
            pairs.twice.append(image)
    for path in maps:
        name, part = stem(path), ""
        owner = _image_of(name, suffix, by_stem)
        while owner is None and "." in PurePosixPath(name).name:
            name, _, last = name.rpartition(".")
            owner = _image_of(name, suffix, by_stem)
            # a.jpg.png is the map of a.jpg
            part = (f"{last}.{part}" if part else last) if f".{last.lower()}" not in IMAGE_ENDINGS else part
        if owner is None and "/" in path:
            part, _, name = stem(path).partition("/")
            owner = _image_of(name, suffix, by_stem)
            part = "" if split_called(part) else part
        if owner is None:
            pairs.stray.append(path)
        else:
            pairs.maps.setdefault(owner, []).append((part, path))
    pairs.bare.extend(image for image in by_stem.values() if image not in pairs.maps)
    return pairs


def common_suffix(images: Sequence[str], maps: Sequence[str]) -> str:
    """What the names of most ``maps`` have behind that of their image, such as ``_mask``; empty where it is nothing."""
    stems = {stem(image) for image in images}
    endings: Counter[str] = Counter()
    for path in maps:
        name = stem(path)
        if name in stems:
            endings[""] += 1
            continue
        cuts = (at for at in range(len(name) - 1, 0, -1) if name[at] in _CUTS)
        ending = next((name[at:] for at in cuts if name[:at] in stems), None)
        if ending is not None:
            endings[ending if not ending.startswith(".") else ""] += 1
    best, count = endings.most_common(1)[0] if endings else ("", 0)
    return best if 2 * count >= len(maps) else ""


def _image_of(name: str, suffix: str, by_stem: dict[str, str]) -> str | None:
    if suffix and name.endswith(suffix) and (image := by_stem.get(name.removesuffix(suffix))):
        return image
    return by_stem.get(name)
