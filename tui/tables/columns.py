"""The columns of units: what is told of every unit, declared once for all that shows it.

``nd inspect``, the browser, the report's page with its script, JSON and the exports read these declarations. A new
column is a new entry of COLUMNS and nothing else; tests/test_columns.py tries one in every view. The table of 2017
(ndissect.store.table2017) has its own fixed columns.

Nothing heavy is imported here: ``nd --help`` reads the names by which units are sorted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Flag, auto
from typing import TYPE_CHECKING, Any, Literal

from ndissect.tui.tables.formats import chance, interval, iou, number, share, short_number, signed, signed_interval

if TYPE_CHECKING:
    from ndissect.tui.tables.units import Units, Values


class Medium(Flag):
    """Where a column is seen."""

    INSPECT = auto()  # the table of nd inspect
    BROWSE = auto()  # the browser's table
    PAGE = auto()  # the table of the report's page
    DETAILS = auto()  # what the page tells of a unit beside its table
    JSON = auto()  # nd inspect --json, nd export --format json, and what the browser exports
    EXPORT = auto()  # nd export --format parquet; of these columns, --format json has the evidence, too


_EVERYWHERE = Medium.INSPECT | Medium.BROWSE | Medium.PAGE | Medium.JSON | Medium.EXPORT


@dataclass(frozen=True)
class UnitColumn:
    """One thing that is told of every unit.

    ``key``: its name in JSON and exports. ``values``: what it is, of N units: (N,) numbers, NaN where unknown; flags;
    texts; of an interval (N, 2) numbers. A bar draws the number that ``values`` gives.
    ``heading``: the title in tables; the key where none is given.
    ``evidence``: it tells how far the label can be trusted, and is left out where it is known of no unit, but of JSON
    and exports only where it is ``only_known``. ``of_counts``: descriptions have no such thing,
    and nd inspect no such column for them.

    Filters and orders: ``word`` is their name for it (``iou>0.1``, ``cat:object``, ``--sort iou``), "" where they have
    none. ``falling``: the largest come first when the column is sorted by. ``order``: what the browser sorts by where
    that is not the values.

    Text: ``text`` shows a value in a printed table; ``short`` shows it in the browser, as ``text`` does where none is
    given; ``parts`` are the headings of an interval's ends in a pipe.
    ``width``: cells in the browser; ``grows``: it takes the room that is left there. ``drop``: where there is no room,
    the columns with the highest go first, 0 never goes; ``drop_alone``: the same in a table without evidence.

    Page: ``page_heading`` replaces the heading there; ``digits`` is how its script writes a number: "fixed" and so many
    decimals, or "digits" and so many significant ones; ``help`` is told when the mouse rests on the heading.
    ``note`` stands below the browser's table.
    """

    key: str
    values: Callable[[Units], Values]
    kind: Literal["number", "text", "flag", "interval", "bar"] = "number"
    heading: str | None = None
    where: Medium = _EVERYWHERE
    evidence: bool = False
    only_known: bool = False
    of_counts: bool = False
    word: str = ""
    falling: bool = True
    order: Callable[[Units], Values] | None = None
    text: Callable[[Any], str] = str
    short: Callable[[Any], str] | None = None
    parts: tuple[str, ...] = ()
    width: int = 10
    grows: bool = False
    drop: int = 20
    drop_alone: int | None = None
    page_heading: str | None = None
    digits: tuple[Literal["fixed", "digits"], int] = ("digits", 3)
    help: str = ""
    note: str = ""

    @property
    def title(self) -> str:
        """What stands above the column in a table."""
        return self.key if self.heading is None else self.heading

    @property
    def right(self) -> bool:
        """Whether its cells are set to the right, as numbers are."""
        return self.kind in ("number", "interval")


#: The browser has columns of its own for classes, as many as are asked for.
_NOT_BROWSED = Medium.INSPECT | Medium.PAGE | Medium.JSON | Medium.EXPORT
_TOLD = Medium.JSON | Medium.EXPORT | Medium.DETAILS

#: The columns in the order of an export. A table has the most telling ones first: see ``columns_of``.
COLUMNS: tuple[UnitColumn, ...] = (
    UnitColumn(
        "layer", lambda units: units.layers, "text", where=Medium.BROWSE | Medium.PAGE | Medium.EXPORT,
        word="layer", falling=False, drop=5, drop_alone=10,
    ),
    UnitColumn("unit", lambda units: units.unit, word="unit", falling=False, width=5, drop=0),
    UnitColumn(
        "label", lambda units: units.labels, "text", order=lambda units: units.alphabet, falling=False,
        short=lambda name: name or "-", width=12, grows=True, drop=0,
    ),
    UnitColumn("category", lambda units: units.categories, "text", word="cat", falling=False, width=9, drop=3),
    UnitColumn(
        "iou", lambda units: units.iou, heading="IoU", word="iou", of_counts=True,
        text=iou, short=lambda value: f"{value:.3f}" if value > 0 else "-", width=5, drop=0, digits=("fixed", 4),
    ),
    UnitColumn(
        "bar", lambda units: units.iou, "bar", heading="", where=Medium.INSPECT | Medium.BROWSE, of_counts=True,
        drop=6, drop_alone=2,
    ),
    UnitColumn("concept_number", lambda units: units.concept_number, where=Medium.EXPORT),
    UnitColumn("intersection", lambda units: units.behind_label("intersection"), where=Medium.EXPORT),
    UnitColumn("area", lambda units: units.behind_label("area"), where=Medium.EXPORT),
    UnitColumn("concept_area", lambda units: units.concept_area, where=Medium.EXPORT),
    UnitColumn(
        "interval", lambda units: units.interval, "interval", where=Medium.INSPECT | Medium.BROWSE, evidence=True,
        word="low", text=lambda ends: interval(*ends), parts=("low", "high"), width=11, drop=1,
        note="interval of the IoU: 95 %",
    ),
    UnitColumn(
        "p", lambda units: units.evidence("p"), where=_TOLD, evidence=True, word="p", falling=False, text=chance
    ),
    UnitColumn(
        "q", lambda units: units.evidence("q"), evidence=True, word="q", falling=False,
        text=chance, width=6, drop=2, digits=("digits", 2),
        help="false discovery rate against chance", note="q: share of false labels",
    ),
    UnitColumn("iou_low", lambda units: units.evidence("iou_low"), where=_TOLD, evidence=True),
    UnitColumn("iou_high", lambda units: units.evidence("iou_high"), where=_TOLD, evidence=True),
    UnitColumn(
        "stability", lambda units: units.evidence("stability"), evidence=True, word="stability",
        text=share, width=9, drop=7, digits=("fixed", 2), help="share of resamples in which the label stays the best",
    ),
    UnitColumn(
        "train_iou", lambda units: units.evidence("train_iou"), where=Medium.EXPORT | Medium.DETAILS, evidence=True
    ),
    UnitColumn(
        "heldout_iou", lambda units: units.evidence("heldout_iou"), heading="held-out", evidence=True, word="heldout",
        text=share, width=8, drop=4, page_heading="held-out IoU", digits=("fixed", 4),
        help="chosen on train, tried on val", note="held-out: IoU on val",
    ),
    UnitColumn(
        "auprc", lambda units: units.evidence("auprc"), heading="AUPRC", evidence=True, word="auprc",
        text=share, width=5, drop=8, digits=("fixed", 3),
        help="how well the peak activation finds the images that hold the label",
    ),
    UnitColumn(
        "base_rate", lambda units: units.evidence("base_rate"), where=Medium.EXPORT | Medium.DETAILS, evidence=True
    ),
    UnitColumn(
        "similarity", lambda units: units.evidence("similarity"), evidence=True, only_known=True, word="similarity",
        text=share, width=10, drop=10, help="how well a description by others fits, by their measure",
    ),
    UnitColumn(
        "heldout_label", lambda units: units.heldout_labels, "text", where=Medium.EXPORT | Medium.DETAILS, evidence=True
    ),
    UnitColumn(
        "effect", lambda units: units.effect, heading="change", where=_NOT_BROWSED, evidence=True, only_known=True,
        word="effect", falling=False, text=signed, drop=2, page_heading="effect", digits=("fixed", 3),
        help="change of the balanced accuracy, without the unit, of the class that it hurts most",
    ),
    UnitColumn(
        "needed_by", lambda units: units.needed_by, "text", heading="needed by", where=_NOT_BROWSED, evidence=True,
        only_known=True, help="the class that the unit's absence hurts most",
    ),
    UnitColumn(
        "effect_interval", lambda units: units.effect_interval, "interval", heading="95 %", where=Medium.INSPECT,
        evidence=True, only_known=True, text=lambda ends: signed_interval(*ends), parts=("effect_low", "effect_high"),
        drop=9,
    ),
    UnitColumn(
        "effect_low", lambda units: units.effect_interval[:, 0], where=Medium.JSON | Medium.EXPORT, evidence=True,
        only_known=True,
    ),
    UnitColumn(
        "effect_high", lambda units: units.effect_interval[:, 1], where=Medium.JSON | Medium.EXPORT, evidence=True,
        only_known=True,
    ),
    UnitColumn(
        "concept_effect", lambda units: units.concept_effect, heading="effect", evidence=True, only_known=True,
        word="concept_effect", falling=False, text=signed, width=7, drop=2, digits=("fixed", 4),
        help="change of the label's share of pixels without the unit",
        note="effect: change of the concept's share of pixels without the unit",
    ),
    UnitColumn(
        "concept_effect_interval", lambda units: units.concept_effect_interval, "interval", heading="95 %",
        where=Medium.INSPECT, evidence=True, only_known=True, text=lambda ends: signed_interval(*ends),
        parts=("concept_effect_low", "concept_effect_high"), drop=9,
    ),
    UnitColumn(
        "concept_effect_low", lambda units: units.concept_effect_interval[:, 0], where=Medium.JSON | Medium.EXPORT,
        evidence=True, only_known=True,
    ),
    UnitColumn(
        "concept_effect_high", lambda units: units.concept_effect_interval[:, 1], where=Medium.JSON | Medium.EXPORT,
        evidence=True, only_known=True,
    ),
    UnitColumn(
        "coefficient", lambda units: units.coefficient, evidence=True, only_known=True, word="coefficient",
        text=share, width=11, drop=3, digits=("fixed", 3),
        help="learned for the label, from 0 to 1; it is no effect",
        note="coefficient: learned for the concept, no effect",
    ),
    UnitColumn(
        "threshold", lambda units: units.statistic("threshold"), word="threshold", text=number,
        of_counts=True, short=short_number, drop=9,
    ),
    UnitColumn(
        "dead", lambda units: units.statistic("dead"), "flag", where=Medium.INSPECT | _TOLD, word="dead", drop=0,
        of_counts=True, text=lambda dead: "dead" if dead else "",
    ),
    UnitColumn("nan", lambda units: units.statistic("nan"), where=Medium.EXPORT),
    UnitColumn("inf", lambda units: units.statistic("inf"), where=Medium.EXPORT),
    UnitColumn("minimum", lambda units: units.statistic("minimum"), where=Medium.EXPORT),
    UnitColumn("maximum", lambda units: units.statistic("maximum"), where=Medium.EXPORT),
    UnitColumn(
        "images", lambda units: units.known_images, where=Medium.BROWSE, word="images",
        order=lambda units: units.images, text=lambda count: f"{count:.0f}" if count > 0 else "", width=7, drop=11,
        note="images: how many hold the concept; a label that rests on few may win by chance",
    ),
)  # fmt: skip

# What comes before the other columns where the order is not that of COLUMNS.
_FIRST = {
    Medium.INSPECT: (
        *("unit", "label", "category", "iou", "bar", "interval", "q", "needed_by", "effect", "effect_interval"),
        *("concept_effect", "concept_effect_interval", "coefficient", "heldout_iou"),
    ),
    Medium.BROWSE: (
        "layer",
        "unit",
        "label",
        "category",
        "iou",
        "bar",
        "concept_effect",
        "coefficient",
        "interval",
        "q",
        "heldout_iou",
    ),
    Medium.JSON: ("unit", "label", "category", "iou", "threshold", "dead"),
}


def columns_of(medium: Medium) -> tuple[UnitColumn, ...]:
    """The columns that are seen in ``medium``, or in one of several, in its order."""
    return _ordered([column for column in COLUMNS if column.where & medium], _FIRST.get(medium, ()))


def _ordered(columns: list[UnitColumn], first: tuple[str, ...]) -> tuple[UnitColumn, ...]:
    """``columns``, those whose keys are ``first`` before the others."""
    place = {key: i for i, key in enumerate(first)}
    return tuple(sorted(columns, key=lambda column: place.get(column.key, len(place))))


#: The columns by the words that filters have for them.
BY_WORD: dict[str, UnitColumn] = {
    column.word: column
    for column in _ordered(
        [column for column in COLUMNS if column.word],
        ("iou", "unit", "threshold", "images", "q", "p", "interval", "heldout_iou"),
    )
}


def _sorts() -> tuple[str, ...]:
    """The orders of ``nd inspect``: by words, and by two texts; ``report`` is the papers'."""
    first = ("iou", "unit", "label", "category", "threshold", "report")
    numbers = (w for w, column in BY_WORD.items() if column.right and Medium.INSPECT in column.where)
    return tuple(dict.fromkeys((*first, *numbers)))


SORTS = _sorts()
