"""``nd data show``: images of a data set with their label maps, as one PNG."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ndissect.store.errors import WrongUse, nearest
from ndissect.tui.cli.data_images import CategoryOption, DataArgument, SplitOption, open_data, scan, tell_unreadable
from ndissect.tui.cli.options import ForceOption, FormatOption, JsonOption, MaxPixelsOption

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL.Image import Image

    from ndissect.engine.data.concept_images import HeldConcept
    from ndissect.engine.data.dataset import ConceptDataset
    from ndissect.tui.pictures.label_picture import LabelPanel, NamedMask
    from ndissect.tui.pictures.overlay import Pixels

# The longer side of an image alone, and of one of several, in pixels.
_ALONE, _BESIDE = 720, 400


def show(
    data: DataArgument,
    what: Annotated[
        str | None,
        typer.Argument(metavar="[IMAGE|CONCEPT]", help="An image by its name, or a concept. Default: a few images."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--output", "-o", help="The PNG. Default: DATA-WHAT.png here, drawn anew each time.")
    ] = None,
    count: Annotated[int, typer.Option("--images", "-n", min=1, max=100, help="How many images at most.")] = 10,
    category: CategoryOption = None,
    split: SplitOption = None,
    force: ForceOption = False,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in an image viewer.")] = False,
    data_format: FormatOption = None,
    max_pixels: MaxPixelsOption = None,
    json: JsonOption = False,
) -> None:
    """Draw an image with its label maps, a panel a category, or the images that a concept covers most.

    Without either: a few images that lie evenly over the data set, each with one category.
    """
    from ndissect.store.names import safe_name
    from ndissect.tui.cli import output
    from ndissect.tui.pictures import overlay as drawing

    dataset = open_data(data, data_format, max_pixels)
    draw, title = _subject(_Picture(dataset, count, split), dataset, what, category)
    named = dataset.name if what is None else f"{dataset.name}-{Path(title).stem}"
    path = to or Path(safe_name(named, ".png"))
    if to is not None or not drawing.drawn_by_nd(path):
        output.confirm_replace(path, force)
    drawing.save_png(draw(), path, {"Title": title, "Source": str(dataset.root)})
    if json:
        output.print_json({"path": str(path), "title": title})
    else:
        output.emit_line(str(path))
    if open_it:
        from ndissect.tui.pictures.viewer import open_image

        output.tell(open_image(path))


def _subject(
    picture: _Picture, dataset: ConceptDataset, what: str | None, category: str | None
) -> tuple[Callable[[], Image], str]:
    """What is drawn, and what it is called: an image, a concept, or a few images where ``what`` is None."""
    from ndissect.engine.data.concept_images import find_concept, image_index

    if what is None:
        return picture.some, dataset.name
    row = None if what in dataset.names else find_concept(dataset.concepts, what, category)
    if row is not None:
        return partial(picture.concept, row), dataset.concepts.label(row)
    index = image_index(dataset.names, what) if category is None else None
    if index is None:
        raise _neither(dataset, what, category)
    return partial(picture.image, index), dataset.names[index]


def _neither(dataset: ConceptDataset, what: str, category: str | None) -> WrongUse:
    """The error for what is neither an image nor a concept, with the nearest names of both."""
    from ndissect.engine.data.concept_images import concept_row

    if category is not None:
        concept_row(dataset.concepts, what, category)  # says what is wrong
    concepts = [dataset.concepts.label(i) for i in range(len(dataset.concepts))]
    ends = {name.rpartition("/")[2]: name for name in dataset.names}
    near = list(dict.fromkeys([*nearest(what, concepts, 3), *(ends[end] for end in nearest(what, list(ends), 2))]))
    return WrongUse(
        f"{dataset.name} has no image and no concept '{what}'",
        f"nearest: {', '.join(near)}" if near else "nd data info names concepts, nd data images lists images",
    )


class _Picture:
    """Draws images of ``dataset``, at most ``count`` in a sheet, of ``split`` where one is given."""

    def __init__(self, dataset: ConceptDataset, count: int, split: str | None) -> None:
        if split not in (None, "train", "val"):
            raise WrongUse(f"--split {split} is no split", "it is train or val")
        self._dataset, self._count, self._split = dataset, count, split

    def image(self, index: int) -> Image:
        """Image ``index``, once for each category of its labels."""
        from ndissect.tui.pictures.label_picture import LabelPanel, label_sheet

        pixels, held = self._read(index)
        panels = [LabelPanel(category, pixels, masks) for category, masks in self._by_category(held).items()]
        size = f"{pixels.shape[0]} x {pixels.shape[1]} pixels, {self._dataset.splits[index]}"
        subtitle = "\n".join(filter(None, [size, self._whole(held)]))
        panels = panels or [LabelPanel("", pixels, ())]
        side = _ALONE if len(panels) == 1 else _BESIDE
        return label_sheet(panels, self._dataset.names[index], subtitle, side=side, columns=min(3, len(panels)))

    def concept(self, row: int) -> Image:
        """The images that the concept ``row`` covers most, with its mask."""
        from ndissect.engine.data.concept_images import described
        from ndissect.tui.pictures.overlay import Panel, contact_sheet

        of_concept = scan(self._dataset, row, self._split)
        panels = []
        for one in of_concept.images[: self._count]:
            pixels, held = self._read(one.index)
            mask = next(concept.mask for concept in held if concept.row == row)
            share = f"{100 * one.coverage:.3g} %"
            panels.append(Panel(pixels, mask, None, f"{share}  {self._dataset.names[one.index]}"))
        tell_unreadable(of_concept.unreadable)
        said = f"in {len(of_concept.images)} images" + (f" of {self._split}" if self._split else "")
        said += f", the {len(panels)} that it covers most" if len(panels) < len(of_concept.images) else ""
        return contact_sheet(panels, described(self._dataset.concepts, row), f"{self._dataset.name}: {said}", side=220)

    def some(self) -> Image:
        """A few images that lie evenly over the data set, each with the first category that its label maps have."""
        from ndissect.tui.pictures.label_picture import label_sheet

        indices = [i for i in range(len(self._dataset)) if self._split in (None, self._dataset.splits[i])]
        count = min(self._count, len(indices))
        chosen = [indices[(2 * i + 1) * len(indices) // (2 * count)] for i in range(count)]
        panels = [self._panel(index) for index in chosen]
        title = f"{self._dataset.name}: {count} of {len(indices)} images"
        return label_sheet(panels, title, columns=4, side=_BESIDE * 3 // 4)

    def _panel(self, index: int) -> LabelPanel:
        from ndissect.tui.pictures.label_picture import LabelPanel

        pixels, held = self._read(index)
        categories = self._by_category(held)
        category = next(iter(categories), None)
        name = self._dataset.names[index]
        return LabelPanel(f"{category}: {name}" if category else name, pixels, categories.get(category or "", []))

    def _read(self, index: int) -> tuple[Pixels, list[HeldConcept]]:
        from ndissect.engine.data.concept_images import held_concepts
        from ndissect.engine.data.dataset import Labels

        sample = self._dataset.read(index)
        return sample.image, held_concepts(self._dataset, Labels(index, sample.maps, sample.labels))

    def _by_category(self, held: Sequence[HeldConcept]) -> dict[str, list[NamedMask]]:
        """The masks by category, in report order; those of image-level labels are left out, as are empty categories."""
        from ndissect.store.concepts import report_order
        from ndissect.tui.pictures.label_picture import NamedMask

        concepts = self._dataset.concepts
        by_category: dict[str, list[NamedMask]] = {category: [] for category in report_order(concepts.categories)}
        for one in held:
            if not one.whole:
                by_category[concepts.category_of(one.row)].append(NamedMask(concepts.label(one.row), one.mask))
        return {category: masks for category, masks in by_category.items() if masks}

    def _whole(self, held: Sequence[HeldConcept]) -> str:
        """The image-level labels in a line; "" for none."""
        from ndissect.engine.data.concept_images import described

        named = [described(self._dataset.concepts, one.row) for one in held if one.whole]
        return f"the whole image: {', '.join(named)}" if named else ""
