"""The parts of a store: each group and dataset with its name in the file, its type and its axes.

The writer and the reader both go by this table, and FORMAT.md, to which a test compares it, says what the numbers mean.
A name here is what lies on disk. ``field`` says where the value lies in memory, and may change without the format.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ndissect.store import limits
from ndissect.store.counts import BLOCKS, PER_CATEGORY, JudgedOn
from ndissect.store.limits import Limit

#: What this program writes. The first number changes when older readers would misread the file.
VERSION = "1.4"

#: How long an axis may be, by its letter in FORMAT.md: always the same, or at most.
AXES: dict[str, int | Limit] = {
    "layers": limits.LAYERS,
    "G": limits.GROUPS,
    "C": limits.CONCEPTS,
    "K": limits.CATEGORIES,
    "U": limits.UNITS,
    "n": limits.TOP,
    "D": limits.IMAGES,
    "M": limits.LABEL_MAPS,
    "L": limits.IMAGE_LABELS,
    "P": limits.PAIRINGS,
    "h": limits.SIDE,
    "w": limits.SIDE,
    "H": limits.SIDE,
    "W": limits.SIDE,
    "B": Limit(1 << 62, "bytes"),  # thumbnails are read one at a time: how long they are together is no matter
    "S": BLOCKS,
    "3": PER_CATEGORY,
    "Y": limits.CLASSES,
    "F": limits.GROUPS,
    "E": limits.ABLATIONS,
    "N": limits.ABLATED,
    "A": limits.UNITS,
    "R": limits.CONCEPTS,
    "X": limits.UNITS,
    "2": 2,
}


@dataclass(frozen=True)
class Part:
    """A dataset: ``name`` on disk, the ``dtype`` that is written, and its axes, ``dims``, as letters of AXES.

    ``dtype``: a numpy type; ``string``; or ``uint32 or int64``, the smaller that holds all values. ``field``: where
    the value lies in what is written, a dotted path from the dissection or the layer; empty where the writer makes it.
    ``packed``: one deflated chunk for each row; all else is contiguous.
    """

    name: str
    dtype: str
    dims: str
    field: str = ""
    packed: bool = False

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """The letters of its axes; none for a scalar."""
        return tuple(self.dims.split())


@dataclass(frozen=True)
class Group:
    """A group: ``path`` in the file, where ``<layer>`` stands for each layer's name; ``kind``: its encoding-type.

    ``optional``: absent from some stores; ``since``: the format version that added it.
    """

    path: str
    kind: str
    parts: tuple[Part, ...] = ()
    optional: bool = False
    since: str = "1.0"

    @property
    def name(self) -> str:
        """Its name in the group that holds it."""
        return self.path.rpartition("/")[2]

    def part(self, name: str) -> Part:
        """The part that is called ``name`` on disk."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Part]:
        return {part.name: part for part in self.parts}

    def written(self, field: str) -> str:
        """The name on disk of the part whose value lies in ``field``."""
        return next(part.name for part in self.parts if part.field == field)


ROOT = Group(
    "/",
    "ndissect-store",
    (
        Part("provenance", "string", ""),
        Part("protocol", "string", ""),
        Part("groups", "string", "G", "groups"),
        Part("layer_names", "string", "layers"),
    ),
)
CONCEPTS = Group(
    "concepts",
    "ndissect-concepts",
    (
        Part("number", "int32", "C", "concepts.number"),
        Part("category", "int32", "C", "concepts.category"),
        Part("name", "string", "C", "concepts.name"),
        Part("categories", "string", "K", "concepts.categories"),
        Part("area", "int64", "G C", "concept_counts.area"),
        Part("images", "int64", "G C", "concept_counts.images"),
    ),
)
BY_BLOCK = Group(
    "blocks",
    "ndissect-blocks",
    (Part("images", "int64", "S", "blocks.images"), Part("concept_area", "int64", "S C", "blocks.concept_area")),
    optional=True,
    since="1.1",
)
IMAGES_BY_BLOCK = Group(
    "block_images",
    "ndissect-block-images",
    (Part("concept_images", "int64", "S C", "blocks.concept_images"),),
    optional=True,
    since="1.2",
)
CLASSES = Group(
    "classes",
    "ndissect-classes",
    (Part("name", "string", "Y", "names"), Part("source", "string", "", "source")),
    optional=True,
    since="1.3",
)
IMAGES = Group(
    "images",
    "ndissect-images",
    (
        Part("index", "int64", "D", "images.index"),
        Part("name", "string", "D", "images.name"),
        Part("split", "string", "D", "images.split"),
        Part("thumbnails", "uint8", "B"),
        Part("thumbnail_end", "int64", "D"),
        Part("label_maps", "uint16", "D M H W", "images.label_maps", packed=True),
        Part("image_labels", "uint16", "D L", "images.image_labels"),
    ),
    optional=True,
)
LAYERS = Group("layers", "ndissect-layers")
LAYER = Group(
    "layers/<layer>",
    "ndissect-layer",
    (
        Part("threshold", "float64", "U", "statistics.threshold"),
        Part("dead", "uint8", "U", "statistics.dead"),
        Part("nan", "int64", "U", "statistics.nan"),
        Part("inf", "int64", "U", "statistics.inf"),
        Part("minimum", "float32", "U", "statistics.minimum"),
        Part("maximum", "float32", "U", "statistics.maximum"),
    ),
)
#: The encoding-type of a layer by what it is judged on. Programs that know pixels alone refuse the second, whose counts
#: they would misread.
LAYER_KINDS: dict[JudgedOn, str] = {"pixels": LAYER.kind, "images": "ndissect-image-layer"}
BEST = Group(
    "layers/<layer>/best",
    "ndissect-best",
    (
        Part("concept", "int32", "U K", "best.concept"),
        Part("intersection", "int64", "U K", "best.intersection"),
        Part("area", "int64", "U K", "best.area"),
    ),
)
COUNTS = Group(
    "layers/<layer>/counts",
    "ndissect-counts",
    (
        Part("intersection", "uint32 or int64", "G U C", "counts.intersection"),
        Part("area", "int64", "G U", "counts.area"),
        Part("area_in_category", "int64", "G U K", "counts.area_in_category"),
    ),
    optional=True,
)
TOP = Group(
    "layers/<layer>/top",
    "ndissect-top",
    (
        Part("image", "int32", "U n", "top.image"),
        Part("peak", "float32", "U n", "top.peak"),
        Part("map", "float32", "U n h w", "top.maps"),
    ),
    optional=True,
)
ROWS = Group(
    "layers/<layer>/rows",
    "ndissect-axis",
    (
        Part("position", "float64", "h", "positions"),
        Part("cell", "int64", "H", "cell"),
        Part("weight", "float32", "H", "weight"),
    ),
    optional=True,
)
COLUMNS = Group(
    "layers/<layer>/columns",
    "ndissect-axis",
    (
        Part("position", "float64", "w", "positions"),
        Part("cell", "int64", "W", "cell"),
        Part("weight", "float32", "W", "weight"),
    ),
    optional=True,
)
EVIDENCE = Group(
    "layers/<layer>/evidence",
    "ndissect-evidence",
    (
        Part("p", "float64", "U", "evidence.p"),
        Part("q", "float64", "U", "evidence.q"),
        Part("iou_low", "float64", "U", "evidence.iou_low"),
        Part("iou_high", "float64", "U", "evidence.iou_high"),
        Part("stability", "float64", "U", "evidence.stability"),
        Part("heldout_concept", "int32", "U", "evidence.heldout_concept"),
        Part("train_iou", "float64", "U", "evidence.train_iou"),
        Part("heldout_iou", "float64", "U", "evidence.heldout_iou"),
        Part("auprc", "float64", "U", "evidence.auprc"),
        Part("base_rate", "float64", "U", "evidence.base_rate"),
    ),
    optional=True,
    since="1.1",
)
LEADING = Group(
    "layers/<layer>/leading",
    "ndissect-leading",
    (
        Part("concept", "int32", "U K 3", "leading.concept"),
        Part("intersection", "uint32 or int64", "U S K 3", "leading.intersection"),
        Part("area", "uint32 or int64", "U S K", "leading.area"),
    ),
    optional=True,
    since="1.1",
)
NULL = Group(
    "layers/<layer>/null",
    "ndissect-null",
    (
        Part("concept", "int32", "P U", "null.concept"),
        Part("intersection", "int64", "P U", "null.intersection"),
        Part("area", "int64", "P U", "null.area"),
        Part("concept_area", "int64", "P U", "null.concept_area"),
    ),
    optional=True,
    since="1.1",
)
HEAD = Group(
    "layers/<layer>/head",
    "ndissect-head",
    (Part("weight", "float32", "Y U", "head.weight"), Part("bias", "float32", "Y", "head.bias")),
    optional=True,
    since="1.3",
)
EFFECTS = Group(
    "layers/<layer>/effects",
    "ndissect-effects",
    (
        Part("origin", "string", ""),
        Part("unit", "int32", "N"),
        Part("unit_end", "int64", "E"),
        Part("splits", "string", "F", "splits"),
        Part("images", "uint32 or int64", "F Y", "images"),
        Part("hits", "uint32 or int64", "F Y", "hits"),
        Part("false", "uint32 or int64", "F Y", "false"),
        Part("hits_without", "uint32 or int64", "F E Y", "hits_without"),
        Part("false_without", "uint32 or int64", "F E Y", "false_without"),
        Part("score", "float32", "F Y", "score"),
        Part("score_without", "float32", "F E Y", "score_without"),
        Part("low", "float32", "F E Y", "low"),
        Part("high", "float32", "F E Y", "high"),
    ),
    optional=True,
    since="1.3",
)
IOUS = Group("layers/<layer>/ious", "ndissect-ious", (Part("iou", "float64", "U C", "ious"),), True, "1.4")
CONCEPT_EFFECTS = Group(
    "layers/<layer>/concept_effects",
    "ndissect-concept-effects",
    (
        Part("how", "string", "", "how"),
        Part("samples", "int64", "", "samples"),
        Part("unit", "int32", "A", "units"),
        Part("before", "float64", "C", "before"),
        Part("after", "float64", "A C", "after"),
        Part("low", "float64", "A C", "low"),
        Part("high", "float64", "A C", "high"),
        Part("coefficient_concept", "int32", "R", "coefficient_concepts"),
        Part("coefficient", "float64", "R U"),
    ),
    optional=True,
    since="1.4",
)
EFFECT_PICTURES = Group(
    "layers/<layer>/effect_pictures",
    "ndissect-effect-pictures",
    (
        Part("unit", "int32", "X", "units"),
        Part("pictures", "uint8", "B"),
        Part("picture_end", "int64", "X 2"),
    ),
    optional=True,
    since="1.4",
)

#: Every group of a store.
GROUPS = (
    ROOT,
    CONCEPTS,
    BY_BLOCK,
    IMAGES_BY_BLOCK,
    CLASSES,
    IMAGES,
    LAYERS,
    LAYER,
    BEST,
    COUNTS,
    TOP,
    ROWS,
    COLUMNS,
    EVIDENCE,
    LEADING,
    NULL,
    HEAD,
    EFFECTS,
    IOUS,
    CONCEPT_EFFECTS,
    EFFECT_PICTURES,
)
