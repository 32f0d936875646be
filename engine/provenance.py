"""Where a store's numbers come from: enough to run the command again and to see why two results differ."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import torch

from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.device import device_name
from ndissect.engine.dissect import Outcome
from ndissect.engine.networks import FACTORY_SEED
from ndissect.engine.networks.resolve import Network


def _cudnn() -> int | None:
    found: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return found


def provenance(
    network: Network,
    dataset: ConceptDataset,
    outcome: Outcome,
    device: torch.device,
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
            "notes": list(network.notes),
        },
        "data": {
            "name": dataset.name,
            "path": str(dataset.root),
            "images": len(dataset),
            "used": survey.images,
            "skipped": [{"image": name, "why": why} for name, why in survey.skipped],
            "tables_digest": dataset.tables_digest(),
            "content_digest": survey.digest,
        },
        "run": {
            "device": device_name(device),
            "batch": outcome.batch,
            "forward_passes": outcome.passes,
            "arithmetic": "float32",
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
            "cudnn": _cudnn() if device.type == "cuda" else None,
        },
    }
