"""Finding the store of a run that was asked for again, so that nothing is run twice."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.data.images import read_file
from ndissect.engine.data.name_table import MOST_BYTES
from ndissect.engine.data.samples import LabelledSamples
from ndissect.engine.run.options import Options
from ndissect.store.errors import NDError
from ndissect.store.files import SUFFIX
from ndissect.store.protocol import Protocol
from ndissect.store.reader import Store

# Stores of the current folder that are looked into, the newest first.
_LOOKED_AT = 50


def asked_for(options: Options, protocol: Protocol, dataset: ConceptDataset) -> dict[str, Any]:
    """The part of a request that decides its numbers, as JSON values: stores keep it, to be found by it."""
    return {
        "network": options.network,
        "weights": options.weights.name if options.weights else None,  # what is in it is looked at once it is loaded
        "partial": options.partial,
        "weights_set": [options.weights_key, options.weights_prefix],
        "transform": [options.size, options.mean, options.std, options.bgr],
        "layers": list(options.layers) or None,
        "all_convs": options.all_convs,
        "map": options.map,
        "functional": options.functional,
        "top": options.top,
        "null": options.null,
        "precision": options.precision,
        "decode": options.decode,
        "protocol": protocol.to_json(),
        "version": version("ndissect"),
        "data": dataset.tables_digest(),
        "labels": [
            options.labeller,
            options.labeller_classes.name if options.labeller_classes else None,
            options.labeller_min,
            options.labeller_size,
            options.colors,
        ],
        # Only where it is so: stores from before it could be say nothing of it.
        **({"classes": _names(options.classes)} if options.classes else {}),
        **({"generator": dict(dataset.record)} if isinstance(dataset, LabelledSamples) else {}),
    }


def _names(path: Path) -> list[str]:
    """A file of names, by what is in it; NDError where it cannot be read."""
    data = read_file(path, str(path), MOST_BYTES)
    return [path.name, hashlib.blake2b(data, digest_size=16).hexdigest()]


def find_existing(given: Path | None, asked: dict[str, Any], *, marked: bool = False) -> Path | None:
    """A store of a run that was asked for all of ``asked``: ``given``, else one in the current folder; or None.

    ``marked``: one with marks will do, as a run with ``anyway`` makes; else it is not what was asked for.
    """
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
