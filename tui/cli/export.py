"""``nd export`` and ``nd import``: stores to and from other formats."""

from __future__ import annotations

import io
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ndissect.store.errors import WrongUse
from ndissect.tui.cli.options import ForceOption, StoreOption, complete_layer

if TYPE_CHECKING:
    from ndissect.store.layer_view import LayerView
    from ndissect.store.reader import Store


class Format(StrEnum):
    """What ``nd export`` writes."""

    csv = "csv"
    json = "json"
    parquet = "parquet"
    milan = "milan"


_FORMATS = (
    "csv: the 2017 columns, units from 1, one layer, and no place for a header. json, parquet: all that is known of"
    " each unit, units from 0. milan: a folder of top images and masks for MILAN's code."
)


def export(
    layer: Annotated[
        str | None,
        typer.Argument(
            metavar="LAYER",
            help="csv holds one layer, the others all unless one is named.",
            autocompletion=complete_layer,
        ),
    ] = None,
    store: StoreOption = None,
    format: Annotated[Format, typer.Option("--format", help=_FORMATS)] = Format.csv,
    to: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A file; for milan a folder. Default: the standard output, for text."),
    ] = None,
    effects: Annotated[
        bool,
        typer.Option(
            "--effects", help="What nd ablate has measured: a row for each unit, split and class, or unit and concept."
        ),
    ] = False,
    force: ForceOption = False,
) -> None:
    """Write a store's labels, scores and evidence as CSV with the columns of the 2017 results, as JSON or Parquet.

    With --format milan its top images, as the arrays that MILAN's code describes in words. With --effects what units do
    to the network's classes, or a generator's units to concepts, of all layers unless one is named.
    """
    from ndissect.store import table2017
    from ndissect.store.files import find_store
    from ndissect.store.names import quoted
    from ndissect.store.reader import Store
    from ndissect.tui.cli.output import confirm_replace, tell
    from ndissect.tui.tables.remarks import layer_notes

    if to is None and format in (Format.parquet, Format.milan):
        what = "a folder" if format is Format.milan else "a file"
        raise WrongUse(f"{format.value} is no text: it needs {what}", f"name one: -o {_EXAMPLES[format]}")
    if effects and format is Format.milan:
        raise WrongUse("--effects are numbers, and milan is a format of images", "use csv, json or parquet")
    if to is not None and format is not Format.milan:
        confirm_replace(to, force)
    with Store(find_store(store)) as opened:
        names = [layer] if layer else list(opened.layer_names)
        views = [opened.layer(name) for name in names]
        if effects:
            from ndissect.tui.cli.export_effects import export_effects

            export_effects(opened, views, format.value, to)
            return
        if format is Format.json:
            write_text(to, _as_json(opened, views) + "\n")
        elif format is Format.parquet:
            assert to is not None
            _parquet(to, opened, views)
        elif format is Format.milan:
            assert to is not None
            _milan(to, opened, views, force)
        else:
            if len(views) != 1:
                raise WrongUse(
                    f"a 2017 table holds one layer, {opened.path} has {len(views)}",
                    f"name one: nd export {quoted(names[-1], positional=True)}",
                )
            held = "descriptions" if views[0].descriptions is not None else "IoUs" if views[0].has_ious_alone else ""
            if held:
                raise WrongUse(
                    f"{opened.path} holds {held}, and no counts for a 2017 table",
                    "export them with --format json, or --format parquet",
                )
            text = io.StringIO()
            table2017.write_table(views[0], text)
            write_text(to, text.getvalue())
            tell("units count from 1, as in the 2017 tables")
        for line in layer_notes(views):
            tell(line)


_EXAMPLES = {Format.parquet: "units.parquet", Format.milan: "exemplars"}


def _as_json(store: Store, views: Sequence[LayerView]) -> str:
    from ndissect.tui.cli.output import json_text
    from ndissect.tui.tables import concept_effects
    from ndissect.tui.tables.effects import effects_json
    from ndissect.tui.tables.unit_table import every_unit_json, header

    layers = [
        {
            "layer": view.name,
            "module": view.module,
            "map": view.map_size,
            "judged_on": view.judged_on,
            "summary": view.summary(),
            "units": every_unit_json(view),
            **({"effects": effects_json(view)} if view.effects is not None else {}),
            **({"concept_effects": concept_effects.effects_json(view)} if view.concept_effects is not None else {}),
        }
        for view in views
    ]
    return json_text({**header(store, views), "layers": layers})


def _parquet(to: Path, store: Store, views: Sequence[LayerView]) -> None:
    from ndissect.store.files import atomic, check_writable
    from ndissect.tui.cli.output import tell
    from ndissect.tui.reports import parquet
    from ndissect.tui.tables.unit_table import header, unit_arrays

    parquet.check_pyarrow()
    check_writable(to, 1 << 20)
    with atomic(to) as part:
        parquet.write(part, unit_arrays(views), header(store, views))
    tell(f"wrote {to}")


def _milan(to: Path, store: Store, views: Sequence[LayerView], force: bool) -> None:
    from ndissect.store.files import atomic_folder, check_writable, human_bytes
    from ndissect.tui.cli.output import confirm_replace, tell
    from ndissect.tui.cli.progress import show_progress
    from ndissect.tui.reports import exemplars
    from ndissect.tui.tables.unit_table import header

    def ours(folder: Path) -> bool:
        return exemplars.is_empty(folder) or exemplars.written_by_nd(folder)

    to_be = to.resolve() if to.name in ("", "..") else to.parent.resolve() / to.name
    if to.is_symlink():
        raise WrongUse(f"{to} is a link", "name the folder itself, or one that does not exist yet")
    if to.exists() and not exemplars.is_empty(to):
        if not exemplars.written_by_nd(to):
            raise WrongUse(f"{to} is no folder of exemplars that nd wrote", "name one that does not exist yet")
        confirm_replace(to, force)
    images = exemplars.count_images(views)
    needed = images * exemplars.BYTES_AN_IMAGE
    check_writable(to_be.with_name(f"{to_be.name}.new"), needed)
    with atomic_folder(to_be, ours) as folder, show_progress() as progress:
        progress.start("drawing", images)
        exemplars.write(folder, views, header(store, views), progress.advance)
    tell(f"wrote {to}: {human_bytes(needed)}")


def write_text(to: Path | None, text: str) -> None:
    """``text`` into the file ``to``, whole or not at all, or to the standard output."""
    from ndissect.tui.cli.output import emit, tell

    if to is None:
        emit(text)
        return
    from ndissect.store.files import atomic, check_writable

    check_writable(to, len(text))
    with atomic(to) as part:
        part.write_text(text, encoding="utf-8")
    tell(f"wrote {to}")


def import_table(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE.csv", help="A CSV of the 2017 results, of GAN Dissection, CLIP-Dissect or MILAN."
        ),
    ],
    to: Annotated[Path | None, typer.Option("--output", "-o", help="The store. Default: TABLE.nd.h5 here.")] = None,
    layer: Annotated[
        str | None, typer.Option(help="The layer's name, where the table names none. Default: the table file's.")
    ] = None,
    force: ForceOption = False,
) -> None:
    """Turn a result table of others into a store, without images.

    A published table of 2017 knows the counts of each category's best concept, one of GAN Dissection the IoUs of all
    concepts without counts, and learned coefficients. Descriptions by CLIP-Dissect or MILAN
    are labels without counts, and so without an IoU: nd compare tells where they agree with a dissection.
    """
    from ndissect.store.files import SUFFIX, check_writable
    from ndissect.store.imported import read_imported
    from ndissect.store.names import quoted, safe_name
    from ndissect.store.writer import write_store
    from ndissect.tui.cli.output import confirm_replace, emit_line, tell

    path = to or Path(safe_name(table.stem, SUFFIX))
    dissection = read_imported(table, layer)
    check_writable(path, 1 << 20)
    confirm_replace(path, force)
    write_store(path, dissection)
    emit_line(str(path))
    decimals = dissection.provenance["imported"].get("iou_decimals")
    if decimals is not None:
        tell(f"note: the IoUs of {table.name} are rounded to {decimals} decimals: they are computed from its counts")
    tell(f"next: nd inspect -s {quoted(path)}")
