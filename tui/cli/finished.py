"""Runs that have ended: finding the one that was asked for again, and summing a store up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ndissect.store.errors import NDError
from ndissect.store.files import SUFFIX, find_store
from ndissect.store.names import quoted
from ndissect.tui.cli import output
from ndissect.tui.cli.output import PrintedTable

# Stores of the current folder that are looked into, the newest first.
_LOOKED_AT = 50


def find(given: Path | None, asked: dict[str, Any], marked: bool = False) -> Path | None:
    """A store of a run that was asked for all of ``asked``: ``given``, else one in the current folder; or None.

    ``marked``: one with marks will do, as a run with --anyway makes; else it is not what was asked for.
    """
    from ndissect.store.reader import Store

    if given is None:
        paths = sorted(Path().glob(f"*{SUFFIX}"), key=lambda p: -p.stat().st_mtime)[:_LOOKED_AT]
    else:
        paths = [given] if given.is_file() else []
    for path in paths:
        try:
            with Store(path) as store:
                there = store.provenance.get("asked")
                if store.marks and not marked:
                    continue
                if isinstance(there, dict) and all(there.get(name, ...) == value for name, value in asked.items()):
                    return path
        except NDError:
            continue
    return None


def _drift(provenance: Mapping[str, Any]) -> list[str]:
    """What a faster arithmetic changed, a line a layer; nothing where float32 was used."""
    run = provenance.get("run")
    drift = run.get("drift", []) if isinstance(run, dict) else []
    return [
        f"{d['layer']}: {d['precision']} against fp32 on {d['images']} images: {d['labels']} of {d['units']} labels "
        f"change, IoUs by up to {d['iou']:.2g}"
        for d in drift
    ]


def summary(path: Path, json: bool) -> None:
    """Print the layers of the store ``path``, and what to look at next."""
    from ndissect.store.concepts import report_order
    from ndissect.store.reader import Store
    from ndissect.tui.cli.inspect import layers_json, layers_table
    from ndissect.tui.tables.remarks import UNIQUE, UNITS_FROM_0, cautions, evidence_line, protocol_line
    from ndissect.tui.tables.views import best_unit

    with Store(find_store(path)) as store:
        views = [store.layer(name) for name in store.layer_names]
        if json:
            output.print_json(layers_json(store, views))
            return
        columns, rows = layers_table(views, report_order(store.concepts.categories))
        last = views[-1]
        layer = quoted(last.name, positional=True)
        unit = quoted(f"{last.name}:{best_unit(last)[0] or 0}", positional=True)
        notes = [
            UNIQUE,
            evidence_line(store),
            f"{UNITS_FROM_0}; {protocol_line(store.protocol)}",
            *cautions(views),
            *_drift(store.provenance),
            f"next: nd inspect {layer}    nd overlay {unit}",
        ]
        output.print_table(PrintedTable(columns, rows, notes=notes), notes_in_logs=True)
