"""The null: the same masks with other images' labels, which tells how well chance does.

An image's mask is paired with the labels of another image of the same source. Across sources a unit that merely tells
one source from another (close-ups from streets) would look like a detector of whatever that source labels, and
categories that a source does not label at all would drop out of the union; within one, what is shuffled is all that a
label can follow beyond its source: which image it is. A unit that fires where roads mostly are, at the bottom of any
street picture, gains nothing on its null by that.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

#: Pairings of the null where nothing else is asked for.
PAIRINGS = 4


def null_images(names: Sequence[str], count: int) -> npt.NDArray[np.int64]:
    """(count, N): for each image another of its source, the first folder of its name; every image once a row.

    Fixed: it depends on the names and their order alone. A source of one image is paired with others such; a single
    image left over stays as it is.
    """
    sources: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        sources.setdefault(name.partition("/")[0] if "/" in name else "", []).append(i)
    alone = [i for images in sources.values() if len(images) == 1 for i in images]
    parts = {source: images for source, images in sources.items() if len(images) > 1}
    if alone:
        parts["/"] = alone  # no folder is called so
    paired = np.tile(np.arange(len(names)), (count, 1))
    for source, images in parts.items():
        seed = zlib.crc32(source.encode("utf-8", "surrogateescape"))
        for p in range(count):
            order = np.random.default_rng([p, seed]).permutation(images)
            paired[p, order] = np.roll(order, 1)  # one cycle through all of them: none keeps its own labels
    return paired
