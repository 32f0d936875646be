"""Files of painted pictures: how they are called, and the commands that make them again."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ndissect.store.files import SUFFIX
from ndissect.store.names import quoted, safe_name
from ndissect.tui.app.painting_edits import PaintEdit, Painting, rectangles


def new_file_name(folder: Path, store: Path, layer: str, sample: int) -> str:
    """The name of a PNG file in ``folder`` that is not there yet, nor is a file of edits (``.json``) beside it."""
    stem = safe_name(f"{store.name.removesuffix(SUFFIX)}-{layer}-{sample}")
    name, number = stem, 1
    while any(os.path.lexists(folder / f"{name}{ending}") for ending in (".png", ".json")):
        number += 1
        name = f"{stem}-{number}"
    return f"{name}.png"


def again(store: Path, edits: str) -> str:
    """The command that paints what the file ``edits`` holds."""
    return f"nd paint {quoted(store)} --edits {quoted(Path(edits))} -o OUT.png"


def replay_command(store: Path, layer: str, sample: int, edits: Sequence[PaintEdit], units: int, output: str) -> str:
    """The command that paints ``edits`` on the sample by ``units`` units into the file ``output``.

    An edit of cells that are no rectangle is written as one edit for each of its rectangles, which comes to the same.
    """
    words = ["nd paint", quoted(store), f"--sample {sample}", f"--layer {quoted(layer)}", f"--units {units}"]
    for edit in edits:
        for region in rectangles(edit.cells):
            words += [f"--{edit.action}", quoted(edit.concept), "--region", ",".join(map(str, region))]
            words += ["--strength", f"{edit.strength:g}"]
    return " ".join([*words, "-o", quoted(Path(output))])


def unsaved_lines(store: Path, layer: str, units: int, paintings: Mapping[int, Painting]) -> list[str]:
    """A line for each sample whose edits are in no file, with the command that paints them."""
    lines = []
    for sample, painting in sorted(paintings.items()):
        if painting.unsaved:
            command = replay_command(store, layer, sample, painting.edits, units, "OUT.png")
            lines.append(f"sample {sample} has edits that are not saved; this paints them: {command}")
    return lines
