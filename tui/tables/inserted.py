"""Where a concept can be inserted (ndissect.engine.experiments.insert), as rows by what stood there before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ndissect.store.scores import Floats
from ndissect.tui.tables.how_computed import how_computed

if TYPE_CHECKING:
    from ndissect.engine.experiments.insert import Insertion
    from ndissect.engine.experiments.insertion_counts import ContextChange

#: What a context is called in which the labeller names nothing.
NO_CONCEPT = "none"


@dataclass(frozen=True)
class Row:
    """A context, as ContextChange has it, by its name."""

    context: str
    locations: int
    samples: int
    change: float
    low: float
    high: float
    succeeded: float
    inside: float
    by_location: Floats


@dataclass(frozen=True)
class InsertionReport:
    """An insertion with all that is reported of it; ``store``: which store its units are of."""

    insertion: Insertion
    store: str

    @property
    def title(self) -> str:
        """What was inserted, into what."""
        i = self.insertion
        units = f"{len(i.units)} unit{'s' * (len(i.units) != 1)}"
        samples = f"{i.samples} sample{'s' * (i.samples != 1)}"
        return f"{i.network} {i.layer}: {i.label} inserted by {units}, in {samples}"

    def rows(self) -> list[Row]:
        """The contexts, the largest change first."""
        return [self._row(change) for change in self.insertion.by_context]

    @property
    def all(self) -> Row:
        """The same over all contexts."""
        return self._row(self.insertion.all)

    def _row(self, change: ContextChange) -> Row:
        name = self.context(change.context)
        numbers = change.locations, change.samples, change.change, change.low, change.high
        return Row(name, *numbers, change.succeeded, change.inside, change.by_location)

    def context(self, row: int | None) -> str:
        """What a context is called."""
        if row is None:
            return "all"
        return NO_CONCEPT if row < 0 else self.insertion.concepts[row]

    @property
    def units(self) -> str:
        """The units with their IoUs, the best first."""
        i = self.insertion
        some = ", ".join(f"{unit} ({iou:.3f})" for unit, iou in list(zip(i.units, i.ious, strict=True))[:5])
        more = len(i.units) - 5
        return f"units by IoU with {i.label}: {some}" + (f" and {more} more" if more > 0 else "")

    def notes(self) -> list[str]:
        """How it was computed, a line each."""
        i, everything = self.insertion, self.all
        height, width = self.all.by_location.shape
        rows, columns = i.picture
        square = f"{rows / height:.3g} x {columns / width:.3g} of a picture's {rows} x {columns} pixels"
        said = [
            self.units,
            f"they are set to their {100 * i.quantile:g} % quantile at one location of the map at a time, {i.chosen};"
            f" its square is {square}",
            f"context: what {i.labeller} sees at the middle of that square in the unedited picture",
            f"change: of the pixels of {i.label} in the whole picture, paired with the unedited one;"
            " 95 %: by the jackknife over blocks of samples",
            f"succeeded: insertions with any new pixel of {i.label}; in square: new pixels within the location's own"
            " square",
            f"all contexts: {everything.change:+.4g} pixels at {everything.locations} locations,"
            f" {100 * everything.succeeded:.1f} % succeeded",
            how_computed(i.how, i.reason),
        ]
        if not max(i.ious) > 0:
            said.append(f"no unit of {i.layer} goes with {i.label}: the IoUs of all are 0, and the units are the first")
        return [*said, *i.notes]

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values; NaN for what is not known."""
        i = self.insertion
        return {
            "store": self.store,
            "network": i.network,
            "layer": i.layer,
            "labeller": i.labeller,
            "label": i.label,
            "units": list(i.units),
            "ious": list(i.ious),
            "values": list(i.values),
            "quantile": i.quantile,
            "samples": i.samples,
            "picture": list(i.picture),
            "map": list(self.all.by_location.shape),
            "by_context": [self._json(change) for change in i.by_context],
            "all": self._json(i.all),
            "by_location": self.all.by_location.tolist(),
            "how": i.how,
            "notes": self.notes(),
        }

    def _json(self, change: ContextChange) -> dict[str, Any]:
        return {
            "context": self.context(change.context),
            "locations": change.locations,
            "samples": change.samples,
            "change": change.change,
            "low": change.low,
            "high": change.high,
            "succeeded": change.succeeded,
            "inside": change.inside,
        }
