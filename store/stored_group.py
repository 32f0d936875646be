"""A group of an open store, whose parts are read with the type, the shape and the range that they must have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ndissect.store import limits
from ndissect.store.errors import NDError
from ndissect.store.hdf5 import Axis, Checked
from ndissect.store.limits import Limit
from ndissect.store.parts import AXES, Group

# The kinds of numpy types that are accepted for each that is written, by the first letter of its name: integers (where
# none is negative also the booleans of h5py), floats, strings.
_ACCEPTED = {"i": "iu", "u": "iub", "f": "f", "s": "S"}


class StoredGroup:
    """The parts of ``checked``, which is a group of the kind ``group``; every error names the file and the part.

    ``lengths``: the axes that are known, by their letters; the others are only kept within their limits.
    """

    def __init__(self, checked: Checked, group: Group, lengths: Mapping[str, Axis] | None = None) -> None:
        self.checked = checked
        self._group = group
        self._lengths = AXES | dict(lengths or {})

    @classmethod
    def inside(cls, parent: Checked, group: Group, lengths: Mapping[str, Axis] | None = None) -> StoredGroup:
        """The group of that name in ``parent``; NDError where it is missing or of another encoding-type."""
        return cls(parent.group(group.name, group.kind), group, lengths)

    def shape(self, name: str) -> tuple[Axis, ...]:
        """The shape that part ``name`` must have."""
        return tuple(self._lengths[letter] for letter in self._group.part(name).axes)

    def measure(self, name: str) -> tuple[int, ...]:
        """The shape that part ``name`` has. From now on, what shares an axis with it must be as long."""
        shape = tuple(int(n) for n in self.dataset(name).shape)
        self._lengths |= dict(zip(self._group.part(name).axes, shape, strict=True))
        return shape

    def dataset(self, name: str, chunk: Limit = limits.CHUNK) -> h5py.Dataset:
        """The dataset of part ``name``, checked; see :meth:`Checked.dataset`."""
        return self.checked.dataset(name, self.shape(name), self._kinds(name), chunk)

    def read(self, name: str, at: Any = (), chunk: Limit = limits.CHUNK, most: Limit = limits.READ) -> npt.NDArray[Any]:
        """Part ``name``, or ``at`` of it, in the type that a writer gives it."""
        values = self.checked.read(name, self.shape(name), self._kinds(name), at, chunk, most)
        return values.astype(self._group.part(name).dtype)

    def counts(self, name: str, at: Any = (), *, least: int = 0, most: Limit = limits.READ) -> npt.NDArray[np.int64]:
        """Part ``name``, or ``at`` of it: integers of which none is below ``least``."""
        return self.checked.counts(name, self.shape(name), at, least=least, most=most)

    def rows(self, name: str, count: int, *, least: int = -1) -> npt.NDArray[np.int32]:
        """Part ``name``: rows of a table of ``count`` rows, or -1 for none if ``least`` is -1."""
        return self.checked.rows(name, self.shape(name), count, least=least)

    def shares(self, name: str, *, unknown: bool) -> npt.NDArray[Any]:
        """Part ``name``: floats between 0 and 1, or, where some may be ``unknown``, NaN."""
        values = self.read(name)
        if not ((values >= 0) & (values <= 1) | (np.isnan(values) & unknown)).all():
            raise self.broken(name, "holds what is no share between 0 and 1")
        return values

    def strings(self, name: str) -> tuple[str, ...]:
        """Part ``name``, a small table of strings."""
        return self.checked.strings(name, self.shape(name)[0])

    def sentence(self, name: str) -> str:
        """Part ``name``, a short text."""
        return self.checked.sentence(name, limits.NAME)

    def json(self, name: str, limit: Limit) -> Any:
        """Part ``name``, JSON of at most ``limit`` bytes."""
        return self.checked.json(name, limit)

    def broken(self, name: str, what: str) -> NDError:
        """The error that ``what`` is wrong with part ``name``."""
        return self.checked.broken(name, what)

    def _kinds(self, name: str) -> str:
        return _ACCEPTED[self._group.part(name).dtype[0]]
