"""``nd data images``: which images of a data set hold a concept, and how much of each it covers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ndissect.store.errors import WrongUse
from ndissect.tui.cli.options import FormatOption, JsonOption, LimitOption, MaxPixelsOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ndissect.engine.data.concept_images import ConceptImages
    from ndissect.engine.data.dataset import ConceptDataset
    from ndissect.store.errors import NDError

DataArgument = Annotated[str, typer.Argument(metavar="DATA", help="The folder of a data set, or a name of one.")]
CategoryOption = Annotated[
    str | None, typer.Option("--category", help="The concept's category, where several have its name.")
]
SplitOption = Annotated[str | None, typer.Option("--split", metavar="train|val", help="Only images of this split.")]

# Labels that could not be read, which are named one by one.
_NAMED = 5


def images(
    data: DataArgument,
    concept: Annotated[str, typer.Argument(metavar="CONCEPT", help="A concept by its name or number.")],
    category: CategoryOption = None,
    split: SplitOption = None,
    limit: LimitOption = None,
    data_format: FormatOption = None,
    max_pixels: MaxPixelsOption = None,
    json: JsonOption = False,
) -> None:
    """List the images that hold a concept and the share of each that it covers, the largest share first.

    Shares are of the label grid, by the rule by which concepts are counted: an image-level label covers all of it.
    """
    from ndissect.engine.data.concept_images import concept_row, described
    from ndissect.store.names import quoted
    from ndissect.tui.cli import output
    from ndissect.tui.tables.formats import share

    dataset = open_data(data, data_format, max_pixels)
    row = concept_row(dataset.concepts, concept, category)
    of_concept = scan(dataset, row, split)
    shown = of_concept.images[: output.rows_to_print(limit, json)]
    rows = [[dataset.names[i.index], dataset.splits[i.index], i.coverage] for i in shown]
    if json:
        output.print_json(
            {
                "path": str(dataset.root),
                "concept": {
                    "number": int(dataset.concepts.number[row]),
                    "name": dataset.concepts.name[row],
                    "category": dataset.concepts.category_of(row),
                },
                "held_by": len(of_concept.images),
                "images": [{"image": name, "split": part, "coverage": value} for name, part, value in rows],
                "unreadable": [error.message for error in of_concept.unreadable],
            }
        )
        return
    of = sum(split in (None, part) for part in dataset.splits)
    area = sum(image.coverage for image in of_concept.images)
    held_by = f"in {len(of_concept.images)} of {of} images, {area:.4g} images' area in all"
    notes = [f"{described(dataset.concepts, row)}: {held_by}"]
    if len(shown) < len(of_concept.images):
        notes.insert(0, f"{len(shown)} of {len(of_concept.images)} images; --limit 0 shows all")
    name = quoted(dataset.concepts.label(row), positional=True)
    which = f" --format {data_format}" if data_format else ""
    notes.append(f"see them: nd data show {quoted(data, positional=True)} {name}{which}")
    columns = [
        output.PrintedColumn("image", wraps=True),
        output.PrintedColumn("split"),
        output.PrintedColumn("coverage", share, right=True),
    ]
    output.print_table(output.PrintedTable(columns, rows, title=str(dataset.root), notes=notes))
    tell_unreadable(of_concept.unreadable)


def open_data(data: str, data_format: str | None, max_pixels: int | None) -> ConceptDataset:
    """The data set that a user names, by its pack where there is one; its notes are told."""
    from ndissect.engine.data.formats import open_dataset
    from ndissect.engine.demo.named import find_named
    from ndissect.tui.cli.output import tell
    from ndissect.tui.cli.progress import show_progress

    notes: list[str] = []
    with show_progress() as progress:
        reading = progress.step("reading the sizes of images")
        dataset = open_dataset(find_named(data), notes.append, max_pixels, key=data_format, progress=reading)
    for note in notes:
        tell(f"note: {note}")
    return dataset


def scan(dataset: ConceptDataset, row: int, split: str | None = None) -> ConceptImages:
    """The images of the concept ``row``, all label maps of ``split`` being read; WrongUse for another split."""
    from ndissect.engine.data.concept_images import images_of_concept
    from ndissect.tui.cli.progress import show_progress

    if split not in (None, "train", "val"):
        raise WrongUse(f"--split {split} is no split", "it is train or val")
    with show_progress() as progress:
        return images_of_concept(dataset, row, split=split, progress=progress.step("looking at labels"))


def tell_unreadable(errors: Sequence[NDError]) -> None:
    """Say which images' labels could not be read."""
    from ndissect.tui.cli.output import tell

    if errors:
        named = "; ".join(error.message for error in errors[:_NAMED])
        more = f"; and {len(errors) - _NAMED} more" if len(errors) > _NAMED else ""
        tell(f"note: the labels of {len(errors)} images cannot be read, they are left out: {named}{more}")
