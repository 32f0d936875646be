"""Whether a store's network and images are on this machine, looked up without running or importing anything of them."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ndissect.store.names import BUNDLED_NETWORKS
from ndissect.store.text import clean_text

# The packages that networks of each scheme come from, beside torch.
_PACKAGES = {"torchvision": "torchvision", "timm": "timm", "hf": "transformers"}


def missing(provenance: Mapping[str, Any], images: str = "") -> list[str]:
    """What a run of the network that ``provenance`` tells of would lack here, in words; nothing where all is there.

    ``images``: where the images are, where they are not those of the store. Anybody may have written ``provenance``:
    of the paths in it only whether they exist is looked at.
    """
    return list(dict.fromkeys(_missing(provenance, images)))


def _missing(provenance: Mapping[str, Any], images: str) -> Iterator[str]:
    network, data = _part(provenance, "network"), _part(provenance, "data")
    origin, spec = _part(network, "origin"), _text(network, "spec")
    folder = _text(provenance, "folder")
    for package in ("torch", _PACKAGES.get(spec.partition(":")[0], "torch")):
        if importlib.util.find_spec(package) is None:
            yield f"{package}, which is not installed"
    if not spec:
        yield "the network, which the store does not name"
    code = _text(origin, "file") if spec not in BUNDLED_NETWORKS else ""  # which comes with this program
    for what, path in (("the network's code", code), ("its weights", _text(origin, "weights_file"))):
        if path and not _exists(folder, path):
            yield f"{what} at {clean_text(path)}"
    made = _text(data, "name").startswith("demo")  # what is made where it is missing
    path = images or ("" if made else _text(data, "path"))
    if path and not _exists("" if images else folder, path):
        yield f"the images at {clean_text(path)}"


def code_named(provenance: Mapping[str, Any]) -> list[str]:
    """The Python files and modules that a run of the network would run because ``provenance`` names them, as texts to
    show; nothing of what comes with this program or with a library of networks."""
    folder, options, asked = _text(provenance, "folder"), _part(provenance, "options"), _part(provenance, "asked")
    spec = _text(_part(provenance, "network"), "spec")
    own = spec if spec.partition(":")[0] not in (*_PACKAGES, *BUNDLED_NETWORKS) else ""
    labels = asked.get("labels")
    made_by = {"labels": labels[0]} if isinstance(labels, list) and labels else {}
    rules = [_text(options, "map"), _text(options, "labeller"), _text(asked, "map"), _text(made_by, "labels")]
    files = [own.rpartition(":")[0], *(rule.rpartition(":")[0] for rule in rules)]
    named = [file for i, file in enumerate(files) if file.endswith(".py") or (file and not i)]
    return list(dict.fromkeys(clean_text(os.path.join(folder, f) if f.endswith(".py") else f) for f in named))  # noqa: PTH118 - as text


def _part(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = values.get(name)
    return value if isinstance(value, dict) else {}


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""


def _exists(folder: str, path: str) -> bool:
    try:
        return os.path.exists(Path(folder, path))  # noqa: PTH110 - Path.exists raises where a name is too long
    except ValueError:  # a name with a zero byte
        return False
