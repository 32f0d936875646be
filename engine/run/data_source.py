"""The data set that the options name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.data.formats import is_dataset, open_dataset
from ndissect.engine.data.made_labels import own_labels
from ndissect.engine.data.packed import Note
from ndissect.engine.data.photographs import open_photographs
from ndissect.engine.demo.named import find_named
from ndissect.engine.machine.console import Console
from ndissect.engine.run.options import Options
from ndissect.store.errors import NDError, WrongUse

# Images that are tried for their size; and the size that networks are looked at with where none can be read.
_TRIED, _USUAL = 100, (224, 224)


def open_named(options: Options, console: Console) -> ConceptDataset:
    """The data set that ``options.data`` names, packed or not; by itself the demo's, which is made where it is missing.

    Label maps of any size are read on the grid of the protocol that ``options`` name. Where labels are made, by a
    network or by colours, a folder of photographs is a data set as well. WrongUse where there is none of that name, or
    where it could be of several formats; NDError where it cannot be read.
    """
    check_labelling(options)
    with console.progress() as progress:
        folder = find_named(options.data, progress.step("making the demo's images"))
        return open_data(
            folder,
            console.note,
            options.max_pixels,
            key=options.format,
            grid=options.make_protocol().grid,
            progress=progress.step("reading the sizes of images"),
            unlabelled=labels_are_made(options),
        )


def open_data(
    folder: Path,
    note: Note | None,
    max_pixels: int | None,
    *,
    key: str | None = None,
    grid: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
    unlabelled: bool = True,
) -> ConceptDataset:
    """The data set in ``folder``, or, if ``unlabelled``, its photographs where it is of no format of labelled data.

    Otherwise as ndissect.engine.data.formats.open_dataset. WrongUse where there are photographs alone, and labels are
    needed.
    """
    if unlabelled and key is None and folder.is_dir() and not is_dataset(folder):
        return open_photographs(folder, max_pixels)
    return open_dataset(folder, note, max_pixels, key=key, grid=grid, progress=progress)


def labels_are_made(options: Options) -> bool:
    """Whether labels are made of the images, by a network or by colours: then the data may have none."""
    return options.labeller is not None or options.colors


def check_labelling(options: Options) -> None:
    """WrongUse where options say how to label and none says by what."""
    given = {
        "--labeller-classes": options.labeller_classes is not None,
        "--labeller-min": options.labeller_min > 0,
        "--labeller-size": options.labeller_size is not None,
    }
    alone = next((flag for flag, said in given.items() if said), None)
    if alone and options.labeller is None:
        raise WrongUse(f"{alone} is for a labeller, and none is given", "add --labeller NETWORK")


def image_size(dataset: ConceptDataset) -> tuple[int, int]:
    """The size of the first image that can be read, as the network gets it.

    What is wrong with those before it, the reading tells later.
    """
    for index in range(min(len(dataset), _TRIED)):
        with contextlib.suppress(NDError):
            height, width = own_labels(dataset).read(index).image.shape[:2]
            return height, width
    return _USUAL
