"""A store opened for reading: what it holds as numpy arrays, each part read when it is asked for.

Opening a store costs a few milliseconds, however large it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ndissect.store import limits, parts
from ndissect.store.concepts import ConceptTable
from ndissect.store.counts import Blocks, ConceptCounts
from ndissect.store.effects import Classes
from ndissect.store.errors import NDError, WrongUse, nearest
from ndissect.store.hdf5 import Checked, member_name, open_hdf5
from ndissect.store.images import StoredImages
from ndissect.store.layer_view import LayerView
from ndissect.store.marks import Mark, read_marks
from ndissect.store.protocol import Protocol
from ndissect.store.stored_effects import read_classes
from ndissect.store.stored_group import StoredGroup

#: The format versions that this program reads: any 1.x.
READS_MAJOR = 1


class Store:
    """A store opened for reading: ``with Store(path) as store: store.layer("layer4").labels``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_hdf5(path)
        self._sizes: dict[str, tuple[int, int]] = {}
        self._units, self._best = 0, 0
        try:
            self._root = Checked(path, self._file, self._file.id.get_filesize())
            self._check_version()
            self.layer_names = self._root.strings("layer_names", limits.LAYERS)
            self.groups = self._root.strings("groups", limits.GROUPS)
            if len(set(self.layer_names)) < len(self.layer_names):
                raise self._root.broken("layer_names", "names a layer twice")
        except BaseException:
            self.close()
            raise

    def _check_version(self) -> None:
        if self._root.text("encoding-type") != parts.ROOT.kind:
            raise NDError(f"{self.path} is an HDF5 file, but not an ndissect store", "a store is what nd dissect wrote")
        version = self._root.text("encoding-version") or ""
        major = version.partition(".")[0]
        if not re.fullmatch("[1-9][0-9]{0,8}", major):
            raise self._root.broken("@encoding-version", f"is no version: {version[:40]!r}")
        if int(major) > READS_MAJOR:
            raise NDError(
                f"{self.path} has the store format {version}; this program reads {READS_MAJOR}.x",
                "update nd: pip install --upgrade ndissect",
            )

    def close(self) -> None:
        """Close the file; views that were read stay valid."""
        self._file.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @cached_property
    def protocol(self) -> Protocol:
        """What was computed."""
        try:
            return Protocol.from_json(self._root.json("protocol", limits.PROTOCOL))
        except (ValueError, KeyError, TypeError, IndexError) as e:
            raise self._root.broken("protocol", f"is no protocol ({e})") from e

    @cached_property
    def provenance(self) -> Mapping[str, Any]:
        """Where the numbers came from: command, network, data, versions, device, timing."""
        value = self._root.json("provenance", limits.PROVENANCE)
        if not isinstance(value, dict):
            raise self._root.broken("provenance", "is not a JSON object")
        return value

    @cached_property
    def marks(self) -> tuple[Mark, ...]:
        """What the run was warned of and went on in spite of (``--anyway``), by layer; none for most stores."""
        return read_marks(self.provenance.get("marks"), self.layer_names)

    @cached_property
    def grid(self) -> tuple[int, int] | None:
        """The label grid (H, W), None for an imported table."""
        return self._root.size("grid")

    @cached_property
    def concepts(self) -> ConceptTable:
        """The concepts of the data set."""
        g = StoredGroup.inside(self._root, parts.CONCEPTS)
        g.measure("name")
        name, categories = g.strings("name"), g.strings("categories")
        number = g.rows("number", limits.CONCEPTS.most + 1, least=1)
        if (np.diff(number) <= 0).any():
            raise g.broken("number", "is not in rising order")
        return ConceptTable(number, name, g.rows("category", len(categories), least=0), categories)

    @cached_property
    def concept_counts(self) -> ConceptCounts:
        """Pixels and images of each concept, (G, C)."""
        g = StoredGroup.inside(self._root, parts.CONCEPTS, self.lengths)
        return ConceptCounts(g.counts("area"), g.counts("images", least=-1))

    @cached_property
    def blocks(self) -> Blocks | None:
        """What the labels hold by image block; None where counts were not kept by block."""
        if not self._root.has(parts.BY_BLOCK.name):
            return None
        g = StoredGroup.inside(self._root, parts.BY_BLOCK, self.lengths)
        held = None
        if self._root.has(parts.IMAGES_BY_BLOCK.name):
            held = StoredGroup.inside(self._root, parts.IMAGES_BY_BLOCK, self.lengths).counts("concept_images")
        return Blocks(g.counts("images"), g.counts("concept_area"), held)

    @cached_property
    def classes(self) -> Classes | None:
        """The network's outputs; None where there are none or nothing is told of them."""
        return read_classes(self._root)

    @property
    def lengths(self) -> dict[str, int]:
        """How many image groups, concepts and categories there are, by their letters in ndissect.store.parts."""
        return {"G": len(self.groups), "C": len(self.concepts), "K": len(self.concepts.categories)}

    @cached_property
    def _layers(self) -> Checked:
        return self._root.group(parts.LAYERS.name, parts.LAYERS.kind)

    def layer(self, name: str) -> LayerView:
        """The layer ``name``; WrongUse with the nearest names where the store has none of that name."""
        if name not in self.layer_names:
            close = nearest(name, list(self.layer_names)) or list(self.layer_names)[:8]
            raise WrongUse(f"no layer '{name}' in {self.path}", f"it has: {', '.join(close)}")
        return LayerView(self, name, self._layers.group(member_name(name), *parts.LAYER_KINDS.values()))

    @property
    def has_images(self) -> bool:
        """Whether thumbnails of top images are in the store: not for an imported table."""
        return self._root.has(parts.IMAGES.name)

    @cached_property
    def images(self) -> StoredImages:
        """The top images of all layers; NDError where the store has none."""
        return StoredImages(self._root, self.grid)

    def broken(self, name: str, what: str) -> NDError:
        """The error that ``what`` is wrong with the dataset ``name`` of the root."""
        return self._root.broken(name, what)

    def count_units(self, layer: str, units: int, categories: int) -> None:
        """Remember the size of a layer; NDError where all layers that were looked at are more than a store may hold."""
        before = self._sizes.get(layer, (0, 0))
        self._sizes[layer] = after = (units, units * categories)
        self._units += after[0] - before[0]
        self._best += after[1] - before[1]
        self._root.demand("layers", self._units, limits.UNITS)
        self._root.demand("layers", self._best, limits.BEST)
