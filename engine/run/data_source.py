"""The data set that the options name."""

from __future__ import annotations

import contextlib

from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.data.formats import open_dataset
from ndissect.engine.demo.named import find_named
from ndissect.engine.machine.console import Console
from ndissect.engine.run.options import Options
from ndissect.store.errors import NDError

# Images that are tried for their size; and the size that networks are looked at with where none can be read.
_TRIED, _USUAL = 100, (224, 224)


def open_named(options: Options, console: Console) -> ConceptDataset:
    """The data set that ``options.data`` names, packed or not; by itself the demo's, which is made where it is missing.

    Label maps of any size are read on the grid of the protocol that ``options`` name. WrongUse where there is no data
    set of that name, or where it could be of several formats; NDError where it cannot be read.
    """
    with console.progress() as progress:
        folder = find_named(options.data, progress.step("making the demo's images"))
        return open_dataset(
            folder,
            console.note,
            options.max_pixels,
            key=options.format,
            grid=options.make_protocol().grid,
            progress=progress.step("reading the sizes of images"),
        )


def image_size(dataset: ConceptDataset) -> tuple[int, int]:
    """The size of the first image that can be read; what is wrong with those before it, the reading tells later."""
    for index in range(min(len(dataset), _TRIED)):
        with contextlib.suppress(NDError):
            height, width = dataset.read(index).image.shape[:2]
            return height, width
    return _USUAL
