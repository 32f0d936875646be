"""Where a store's numbers come from: enough to run the command again and to see why two results differ."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import torch

from ndissect.engine.data.color_names import COLOR_MODEL
from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.data.made_labels import MadeLabels
from ndissect.engine.machine.device import device_name
from ndissect.engine.measures import fused
from ndissect.engine.networks import FACTORY_SEED
from ndissect.engine.networks.layers import LayerInfo, maps_made
from ndissect.engine.networks.resolve import Network
from ndissect.engine.run.data_survey import DataSummary
from ndissect.engine.run.settings import THREADS, Outcome, Settings
from ndissect.store.marks import marks_json
from ndissect.store.protocol import Protocol

# What of a network's origin decides its activations, beside its weights.
_CODE = ("model", "torchvision", "timm", "transformers", "factory", "sha256", "functional")

# Images left out that a record names; of more than these it tells how many, as it does of all images.
_SKIPPED = 5_000


def _cudnn() -> int | None:
    number: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return number


def skipped(survey: DataSummary) -> list[dict[str, str]]:
    """The images that were left out and why, as JSON values: the first of them where they are very many."""
    return [{"image": name, "why": why} for name, why in survey.skipped[:_SKIPPED]]


def labels_made(dataset: ConceptDataset) -> dict[str, Any]:
    """How the labels of ``dataset`` are made of its pixels, as JSON values; {} where they are not."""
    return dataset.made.to_json() if isinstance(dataset, MadeLabels) else {}


def origin_of_labels(dataset: ConceptDataset) -> dict[str, Any]:
    """What a store says of labels that nobody made by hand: ``labeller``, a network, and ``colors``, by what model."""
    if not isinstance(dataset, MadeLabels):
        return {}
    made = dataset.made
    said: dict[str, Any] = {}
    if made.network:
        said["labeller"] = {**made.network, "classes": [name for name, _ in made.classes]}
    if made.colors:
        said["colors"] = COLOR_MODEL
    return said


def identity(
    network: Network,
    dataset: ConceptDataset,
    layers: Sequence[str],
    protocol: Protocol,
    settings: Settings,
    maps: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What a run is of, by contents, as JSON values: runs that agree in it count the same.

    ``maps``: how they are made of what layers return that return no maps (ndissect.engine.networks.layers.maps_made).
    """
    made = labels_made(dataset)
    return {
        "program": version("ndissect"),
        "torch": torch.__version__,
        "network": {
            "name": network.name,
            "code": ", ".join(network.origin[k] for k in _CODE if k in network.origin),
            "weights": network.digest,
            "preprocessing": network.preprocess.describe(),
            **({"maps": dict(maps)} if maps else {}),
        },
        "data": {"name": dataset.name, "tables": dataset.tables_digest(), "images": len(dataset)},
        "layers": list(layers),
        "protocol": protocol.to_json(),
        "top images": settings.top,
        "precision": settings.precision,
        "null": settings.null,
        "decoder": "cpu" if settings.jpeg_on is None else settings.jpeg_on.type,
        "device": settings.device.type,
    } | ({"labels": made} if made else {})


def provenance(
    network: Network,
    dataset: ConceptDataset,
    layers: Sequence[LayerInfo],
    outcome: Outcome,
    settings: Settings,
    command: str,
    started: float,
) -> dict[str, Any]:
    """The record as JSON values; ``started`` is in seconds since the epoch, ``command`` as it was typed."""
    survey = outcome.survey
    return {
        "command": command,
        "folder": str(Path.cwd()),
        "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        "network": {
            "spec": network.spec,
            "name": network.name,
            "weights_digest": network.digest,
            "origin": dict(network.origin),
            "preprocess": network.preprocess.describe(),
            "notes": [*network.notes, *outcome.notes],
            "maps": maps_made(layers),
        },
        "marks": marks_json(outcome.marks),
        "data": {
            "name": dataset.name,
            "path": str(dataset.root),
            "images": len(dataset),
            "used": survey.images,
            "skipped": skipped(survey),
            "tables_digest": dataset.tables_digest(),
            "content_digest": survey.digest,
            **origin_of_labels(dataset),
        },
        "run": {
            "device": device_name(settings.device),
            "batch": outcome.batch,
            "forward_passes": outcome.passes,
            "arithmetic": settings.precision,
            "jpeg_decoder": str(settings.jpeg_on or THREADS),
            "plain_tally_because": fused.why_not(),
            "seed": FACTORY_SEED,
            "seconds": outcome.seconds,
        },
        "versions": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "hdf5": h5py.version.hdf5_version,
            **{name: version(name) for name in ("ndissect", "torchvision", "numpy", "h5py", "pillow")},
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": _cudnn() if settings.device.type == "cuda" else None,
        },
    }
