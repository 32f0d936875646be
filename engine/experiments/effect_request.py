"""What an experiment on effects is asked for. A command line makes it before torch is imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ndissect.engine.run.options import Options


@dataclass(frozen=True)
class EffectRequest:
    """What an experiment on effects is asked for.

    ``store``: where the labels are, None: without labels. ``network``: its spec, None: that of ``options``
    where it names another than the demo's, else that of the store; ``options``: how network, data and machine are used,
    where it differs from what the store says. ``layer``: its name, None: the
    last of the store. ``images``: a folder with a folder for each class, a CSV file ``image,class[,split]``, an
    image file, or several image files; None: the images of the store's data. ``classes``: a file with the names of its
    outputs, by default that of ``options``.
    """

    store: Path | None = None
    network: str | None = None
    options: Options = field(default_factory=Options)
    layer: str | None = None
    images: str | tuple[str, ...] | None = None
    classes: Path | None = None
