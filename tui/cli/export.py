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
    from ndissect.store.reader import LayerView, Store


class Format(StrEnum):
    """What ``nd export`` writes."""

    csv = "csv"
    json = "json"


def export(
    layer: Annotated[
        str | None,
        typer.Argument(
            metavar="LAYER", help="csv holds one layer, json all unless one is named.", autocompletion=complete_layer
        ),
    ] = None,
    store: StoreOption = None,
    format: Annotated[
        Format, typer.Option("--format", help="csv: the 2017 columns, units from 1. json: units from 0.")
    ] = Format.csv,
    to: Annotated[Path | None, typer.Option("--output", "-o", help="A file. Default: the standard output.")] = None,
    force: ForceOption = False,
) -> None:
    """Write a store's labels and scores as CSV with the columns of the 2017 results, or as JSON."""
    from ndissect.store import table2017
    from ndissect.store.files import find_store
    from ndissect.store.reader import Store
    from ndissect.tui.cli.output import confirm_replace, tell

    if to is not None:
        confirm_replace(to, force)
    with Store(find_store(store)) as opened:
        names = [layer] if layer else list(opened.layer_names)
        views = [opened.layer(name) for name in names]
        if format is Format.json:
            _write(to, _as_json(opened, views) + "\n")
            return
        if len(views) != 1:
            raise WrongUse(
                f"a 2017 table holds one layer, {opened.path} has {len(views)}", f"name one: nd export {names[-1]}"
            )
        text = io.StringIO()
        table2017.write_table(views[0], text)
        _write(to, text.getvalue())
        tell("units count from 1, as in the 2017 tables")


def _as_json(store: Store, views: Sequence[LayerView]) -> str:
    from ndissect.tui.cli.output import json_text
    from ndissect.tui.views import best_json, unit_json

    layers = [
        {
            "layer": view.name,
            "module": view.module,
            "map": view.map_size,
            "summary": view.summary(),
            "units": [{**unit_json(view, u), "best": best_json(view, u)} for u in range(view.units)],
        }
        for view in views
    ]
    value = {
        "store": str(store.path),
        "units": "counted from 0",
        "protocol": store.protocol.to_json(),
        "provenance": store.provenance,
        "layers": layers,
    }
    return json_text(value)


def _write(to: Path | None, text: str) -> None:
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
    table: Annotated[Path, typer.Argument(metavar="TABLE.csv", help="A CSV with the columns of the 2017 results.")],
    to: Annotated[Path | None, typer.Option("--output", "-o", help="The store. Default: TABLE.nd.h5 here.")] = None,
    layer: Annotated[str | None, typer.Option(help="The layer's name. Default: the table file's.")] = None,
    force: ForceOption = False,
) -> None:
    """Turn a published 2017 result table into a store. It knows each category's best concept and no images."""
    from ndissect.store.files import SUFFIX, check_writable
    from ndissect.store.table2017 import read_table
    from ndissect.store.writer import write_store
    from ndissect.tui.cli.output import confirm_replace, emit, tell

    path = to or Path(f"{table.stem}{SUFFIX}")
    dissection = read_table(table, layer or table.stem)
    check_writable(path, 1 << 20)
    confirm_replace(path, force)
    write_store(path, dissection)
    emit(f"{path}\n")
    tell(f"next: nd inspect -s {path}")
