"""``nd data init``: a data set of one's own images and masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ndissect.tui.cli.options import ForceOption


def init(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="A folder of images.", show_default=False)],
    masks: Annotated[
        Path, typer.Argument(metavar="MASKS", help="A folder of masks with the same names.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="The data set. Default: in the current folder."),
    ] = None,
    names: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What numbers or colours are called: CSV, JSON, or lines.")
    ] = None,
    force: ForceOption = False,
) -> None:
    """Make a data set of your images and masks, which stay where they are, and say what was found.

    A mask has its image's name: a.png, or several such as a.hair.png. Its pixels are numbers or colours. It may have
    any size in the image's shape. Numbers 0 and 255 are no label unless the names say what they are.
    """
    from ndissect.engine.data.init import default_folder, draft, find_names, write
    from ndissect.engine.data.mask_survey import survey
    from ndissect.store.names import quoted
    from ndissect.tui.cli.output import emit_line, tell
    from ndissect.tui.cli.progress import show_progress

    table = find_names(masks, names)
    with show_progress() as progress:
        seen = survey(images, masks, progress.step("reading masks"), palette_as_colours=table.colours_alone)
    drafted = draft(seen, table)
    for line in drafted.explanation:
        tell(line)
    folder = write(drafted, output or default_folder(images), force=force)
    emit_line(str(folder))
    tell(f"{len(drafted.concepts)} concepts are listed in {folder / 'labels.csv'}: change their names there")
    if seen.bad or seen.other_shape:
        tell(f"see all that is wrong: nd data check {quoted(folder)}")
    tell(f"dissect over it: nd dissect NETWORK --data {quoted(folder)}")
