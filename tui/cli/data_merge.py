"""``nd data merge``: data sets joined under one concept table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ndissect.store.errors import WrongUse
from ndissect.tui.cli.options import FormatOption, MaxPixelsOption

if TYPE_CHECKING:
    from ndissect.engine.data.merge import JoinedConcept, MergePlan

# Concepts that a line names.
_NAMED = 8


def merge(
    data: Annotated[list[str], typer.Argument(metavar="DATA DATA...", help="The data sets, of any format.")],
    to: Annotated[Path, typer.Option("--output", "-o", help="The folder of the joined data set.", show_default=False)],
    synonyms: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Lines `sofa = couch`, or a CSV table with columns name and canonical."),
    ] = None,
    data_format: FormatOption = None,
    max_pixels: MaxPixelsOption = None,
) -> None:
    """Join data sets: concepts of one name and category are one, and so are those that a file calls synonyms.

    The joined data set is written in Broden's format. Photographs are linked, or copied where that cannot be; label
    maps are written anew.
    """
    from ndissect.engine.data.formats import key_for, open_folder
    from ndissect.engine.data.merge import plan_merge, write_merged
    from ndissect.engine.data.synonyms import read_synonyms
    from ndissect.engine.demo.named import find_named
    from ndissect.store.names import quoted
    from ndissect.tui.cli.output import emit_line, tell
    from ndissect.tui.cli.progress import show_progress

    if len(data) < 2:
        raise WrongUse("one data set is nothing to join", "name two or more: nd data merge A B -o OUT")
    if os.path.lexists(to):
        raise WrongUse(f"{to} exists", "name another folder with -o")
    folders = [find_named(name) for name in data]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise WrongUse("a data set is named twice", "name each once")
    pairs = read_synonyms(synonyms)
    keys = [key_for(folder, data_format) for folder in folders]
    datasets = [open_folder(folder, max_pixels=max_pixels, key=key) for folder, key in zip(folders, keys, strict=True)]
    for dataset in datasets:
        for note in dataset.notes:
            tell(f"note: {dataset.name}: {note}")
    plan = plan_merge(datasets, pairs)
    with show_progress() as progress:
        linked, copied = write_merged(plan, to, progress.step("joining"))
    emit_line(str(to))
    for line in summary(plan):
        tell(line)
    tell(f"photographs: {linked} linked, {copied} copied")
    tell(f"dissect over it: nd dissect NETWORK --data {quoted(to)}")


def summary(plan: MergePlan) -> list[str]:
    """What was joined, in numbers, and what a reader may want to change."""
    from ndissect.store.names import quoted

    lines = [f"{d.name}: {len(d)} images, {len(d.concepts)} concepts" for d in plan.datasets]
    shared, joined = plan.shared, plan.joined
    lines.append(
        f"together: {plan.images} images, {len(plan.concepts)} concepts in {_categories(len(plan.categories))}, "
        f"{len(shared)} of them in several data sets{_some(shared)}"
    )
    if joined:
        lines.append(f"joined within a data set: {len(joined)}{_some(joined)}")
    if plan.several:
        listed = [f"{name} ({', '.join(where)})" for name, where in plan.several.items()]
        more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
        what = f"note: of one name in several categories, kept apart: {'; '.join(listed[:_NAMED])}{more}"
        lines.append(f"{what}; a synonym joins them: name (category) = name (other category)")
    if plan.unused:
        lines.append(f"note: synonyms that mean no concept: {', '.join(plan.unused[:_NAMED])}")
    for dataset in plan.datasets:
        if dataset.grid != plan.grid:
            was, now = (f"{h} x {w}" for h, w in (dataset.grid, plan.grid))
            lines.append(f"note: label maps of {quoted(dataset.name)} were {was}, and are {now} as all others")
    if plan.renamed:
        lines.append(f"note: images of {', '.join(plan.renamed)} have its name before theirs, to be told apart")
    return lines


def _categories(count: int) -> str:
    return "1 category" if count == 1 else f"{count} categories"


def _some(concepts: Sequence[JoinedConcept]) -> str:
    if not concepts:
        return ""
    more = ", ..." if len(concepts) > _NAMED else ""
    return f" ({', '.join(concept.name for concept in concepts[:_NAMED])}{more})"
