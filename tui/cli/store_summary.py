"""A store summed up after a run: its layers, and what to look at next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ndissect.store.files import find_store
from ndissect.store.names import quoted
from ndissect.tui.cli import output
from ndissect.tui.cli.output import PrintedTable

# As stores call the decoder of an exact run.
_THREADS = "cpu threads"


def _drift(provenance: Mapping[str, Any]) -> list[str]:
    """What another arithmetic or decoder changed, a line a layer; nothing where neither was tried."""
    run = provenance.get("run")
    drift = run.get("drift", []) if isinstance(run, dict) else []
    return [
        f"{d['layer']}: {_departure(d)} on {d['images']} images: {d['labels']} of {d['units']} labels "
        f"change, IoUs by up to {d['iou']:.2g}"
        for d in drift
    ]


def _departure(drift: Mapping[str, Any]) -> str:
    """What is compared with what; stores of older versions name no decoder."""
    decoder = drift.get("decoder", _THREADS)
    return f"{drift['precision']} against fp32" if decoder == _THREADS else f"JPEGs decoded on {decoder}"


def print_summary(path: Path, json: bool) -> None:
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
