"""The most that a store may hold of anything: what a writer stays below, and what a reader refuses to take in.

A file of a few kilobytes can claim, or really unpack to, gigabytes. These numbers are far above every real dissection
and low enough that the largest store within them is read in seconds. FORMAT.md states them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ndissect.store.concepts import ConceptTable
from ndissect.store.errors import NDError, WrongUse


@dataclass(frozen=True)
class Limit:
    """At most ``most`` of ``things``, a plural in the words of an error message."""

    most: int
    things: str


#: `all`, or `train` and `val`, is what `nd` writes; a data set of many sources may be split by source.
GROUPS = Limit(32, "image groups")
#: Every convolution of the deepest torchvision network makes 272 layers.
LAYERS = Limit(1024, "layers")
#: Broden has 6, COCO's supercategories are 27.
CATEGORIES = Limit(256, "categories")
#: Label maps are 16 bits deep, and 0 is no concept.
CONCEPTS = Limit((1 << 16) - 1, "concepts")
#: Of all layers together. All convolutions of ResNet-50 have 26,560.
UNITS = Limit(1 << 17, "units")
#: Units times categories, of all layers together: the tables of the best concepts are held in memory.
BEST = Limit(1 << 22, "best concepts (units x categories)")
#: What `--top` offers at most.
TOP = Limit(1000, "top images a unit")
#: Distinct ones of all layers; ImageNet has 1.3 million, of which the top ones are a part.
IMAGES = Limit(1 << 20, "images")
#: Broden has up to 10 an image; masks that overlap one another take more.
LABEL_MAPS = Limit(256, "label maps an image")
IMAGE_LABELS = Limit(4096, "image labels an image")
#: What `--null` offers is less.
PAIRINGS = Limit(1000, "wrong pairings")
#: ImageNet-21k has 21,843.
CLASSES = Limit(1 << 16, "classes")
#: Weights of a linear head: 21,843 classes x 2,048 units are 45 million. A larger head is left out of the store.
HEAD = Limit(1 << 26, "weights of a head")
#: Sets of units that were taken away; the single units are most of them.
ABLATIONS = Limit(1 << 17, "ablations")
ABLATED = Limit(1 << 22, "units of all ablations")
#: 4,096 units x 1,000 classes in 2 splits are 8 million.
EFFECTS = Limit(1 << 24, "effects (splits x ablations x classes)")
#: 4,096 units that a generator's pictures were made without x 1,197 concepts are 5 million; the same of coefficients,
#: and of IoUs that were given without counts.
CONCEPT_EFFECTS = Limit(1 << 24, "values (units x concepts)")
#: Of the label grid and of activation maps; Cityscapes' label maps are 1024 x 2048.
SIDE = Limit(4096, "pixels on a side")
PIXELS = Limit(1 << 22, "pixels")
#: Bytes of the label maps of one image, which are unpacked together.
LABEL_BYTES = Limit(1 << 26, "bytes of label maps an image")

#: Bytes of the name of a concept, a category, a group, a layer or a module.
NAME = Limit(1024, "bytes a name")
#: Bytes of the name of an image, which may be a path: as long as Linux lets one be.
IMAGE_NAME = Limit(4096, "bytes a name")
#: Bytes of all names of one table that is read as a whole: 65,535 of 128 bytes, the length that all are padded to.
TEXT = Limit(1 << 23, "bytes of names")
#: Bytes of JSON. A protocol takes 300 bytes; a provenance lists the images that were skipped.
PROTOCOL = Limit(1 << 17, "bytes of JSON")
PROVENANCE = Limit(1 << 22, "bytes of JSON")
#: Where effects come from.
ORIGIN = Limit(1 << 17, "bytes of JSON")
#: Lists and objects in one another. `nd` writes 5.
DEPTH = Limit(32, "levels of JSON")

#: Bytes of one thumbnail; `nd` writes at most 227 x 227 pixels, some 30 kB.
THUMBNAIL = Limit(1 << 18, "bytes a thumbnail")
THUMBNAIL_SIDE = Limit(1024, "pixels on a side of a thumbnail")

#: Values that are read at once: 100,000 units x 6 categories x 32 blocks x 3 leading concepts are 58 million.
READ = Limit(1 << 26, "values to be read at once")
#: The same for a program that asks for a layer as a whole: 100,000 units x 1,197 concepts in 2 groups are 240 million.
LAYER = Limit(1 << 28, "values to be read at once")
#: Bytes that one chunk of a packed dataset unpacks to: HDF5 keeps so much, and unpacks more again for every row.
CHUNK = Limit(1 << 20, "bytes a chunk")
#: Of a dataset, and of one image's label maps: each is looked up by itself.
CHUNKS = Limit(1 << 14, "chunks")
IMAGE_CHUNKS = Limit(1 << 8, "chunks an image")
#: Bytes that all packed datasets of a store unpack to, but for the label maps; values of them that are read at once,
#: or in all of those that are read as a whole.
UNPACKED = Limit(1 << 28, "unpacked bytes")
UNPACKED_READ = Limit(1 << 24, "packed values to be read at once")
#: Bytes of a table that is imported: 26,560 units of the 2017 authors' columns take 8 million.
TABLE = Limit(1 << 26, "bytes")
#: Pixels of label maps and masks that a page of the terminal UI takes for its counts: beyond, it shows no more of them.
PAGE_PIXELS = 1 << 27


def check_plan(
    *,
    layers: Sequence[str],
    units: Sequence[int],
    map_sizes: Sequence[tuple[int, int]],
    concepts: ConceptTable,
    grid: tuple[int, int],
    top: int,
    images: Sequence[str],
) -> None:
    """Raise WrongUse where a dissection would make a store beyond the limits: before anything is counted.

    ``layers``, ``units``, ``map_sizes``: of each layer; ``top``: top images a unit; ``images``: those of the data set.
    """
    fewer = "dissect fewer layers at a time"
    check_names(concepts.name, NAME, "the concepts")
    check_names(concepts.categories, NAME, "the categories")
    check_names(layers, NAME, "the layers")
    check_names(images, IMAGE_NAME, "the images")
    distinct = min(len(images), sum(units) * top)
    for amount, limit, hint in (
        (len(units), LAYERS, fewer),
        (sum(units), UNITS, fewer),
        (sum(units) * len(concepts.categories), BEST, fewer),
        (len(concepts), CONCEPTS, "use a data set of fewer concepts"),
        (len(concepts.categories), CATEGORIES, "use a data set of fewer categories"),
        (top, TOP, f"use --top {TOP.most} or less"),
        (distinct, IMAGES, "keep fewer top images: --top"),
    ):
        if amount > limit.most:
            what = f"the store would hold {amount:,} {limit.things}, the limit is {limit.most:,}"
            raise WrongUse(what, hint)
    for size, what, hint in (
        (grid, "a label grid", "choose a coarser one, for example --grid 112"),
        *((size, "activation maps", "choose layers with smaller maps, or a smaller --size") for size in map_sizes),
    ):
        if too_large(size):
            height, width = size
            raise WrongUse(f"{what} of {height} x {width} is more than a store may hold: {size_limit()}", hint)


def check_effects(splits: int, ablations: Sequence[int], classes: int) -> None:
    """Raise WrongUse where effects would be more than a store may hold; ``ablations``: the units of each."""
    for amount, limit in (
        (len(ablations), ABLATIONS),
        (sum(ablations), ABLATED),
        (splits * len(ablations) * classes, EFFECTS),
    ):
        if amount > limit.most:
            what = f"the store would hold {amount:,} {limit.things}, the limit is {limit.most:,}"
            raise WrongUse(what, "ablate fewer units of the layer")


def check_concept_values(*shapes: tuple[int, ...]) -> None:
    """Raise WrongUse where an array of units by concepts, of one of these shapes, is more than a store may hold."""
    for shape in shapes:
        if math.prod(shape) > CONCEPT_EFFECTS.most:
            what = f"the store would hold {math.prod(shape):,} {CONCEPT_EFFECTS.things}"
            raise WrongUse(f"{what}, the limit is {CONCEPT_EFFECTS.most:,}", "take fewer units of the layer")


def fits_classes(names: Sequence[str]) -> bool:
    """Whether a store can hold the names of a network's classes: they are no reason not to write the rest."""
    longest = max((len(name.encode("utf-8", "replace")) for name in names), default=0)
    return len(names) <= CLASSES.most and longest <= NAME.most and longest * len(names) <= TEXT.most


def too_large(size: tuple[int, int]) -> bool:
    """Whether a grid or map of (H, W) is beyond the limits."""
    return max(size) > SIDE.most or size[0] * size[1] > PIXELS.most


def size_limit() -> str:
    """The limits of a grid or map in words."""
    return f"at most {SIDE.most:,} {SIDE.things} and {PIXELS.most:,} {PIXELS.things}"


def check_names(names: Sequence[str], limit: Limit, what: str) -> None:
    """Raise NDError where one of the ``names`` is too long, or, padded to the longest, all of them together are."""
    longest = max((len(name.encode("utf-8", "replace")) for name in names), default=0)
    if longest > limit.most:
        raise NDError(f"the longest name of {what} has {longest:,} bytes, a store holds {limit.most:,}", "shorten it")
    if limit is NAME and longest * len(names) > TEXT.most:
        raise NDError(
            f"the names of {what} take {longest * len(names):,} bytes, all as long as the longest;"
            f" a store holds {TEXT.most:,}",
            "shorten the longest of them",
        )
