"""The labels of many images in one place, a row an image, to be looked up there by any of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndissect.engine.passes.labels import LabelBatch, Labelling, run_lengths

# Rows of a store that has to grow and was not told for how many images it is.
_FEW = 64
# What is kept of a LabelBatch.
_KEPT = ("pixels", "image_level", "area", "present")


class LabelStore:
    """Labels on ``device``, of ``expected`` images or more.

    Memory for the expected images is asked for at once. A host gives it as it is filled, and is asked for no more than
    ``most`` bytes of it, if that is known; a GPU gives it all.
    """

    def __init__(self, device: torch.device | str = "cpu", expected: int = 0, most: int | None = None) -> None:
        self.device = torch.device(device)
        self._expected, self._most = expected, most
        self._row_of = np.full(1, -1, np.int64)  # by image, -1 where it is not there
        self._filled = 0
        self._kept: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return self._filled

    @property
    def spare(self) -> int:
        """For how many more images there is room."""
        return len(self._kept["pixels"]) - self._filled if self._kept else 0

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken, but for what is small."""
        return self._bytes(self._filled, len(self._kept["pixels"]), self._kept) if self._kept else 0

    def needs(self, labels: LabelBatch) -> int:
        """Bytes of memory taken while ``labels`` are added, and after that."""
        rows = self._filled + len(labels.pixels)
        if not self._kept:
            return self._bytes(rows, self._room_at_first(rows, vars(labels)), vars(labels))
        room, wide = len(self._kept["pixels"]), self._kept["pixels"].shape[2]
        if rows <= room and labels.pixels.shape[2] <= wide:
            return self._bytes(rows, room, self._kept)
        like = vars(labels) if labels.pixels.shape[2] > wide else self._kept
        return self.nbytes + self._bytes(rows, self._room_after(rows, room), like)

    def _bytes(self, rows: int, room: int, like: dict[str, Tensor]) -> int:
        """Of so many rows, with room for so many, of such labels."""
        return self._row_bytes(like) * (rows if self.device.type == "cpu" else room)

    def _row_bytes(self, like: dict[str, Tensor]) -> int:
        """Of one image: labels of pixels, areas in 32 bits, and on a host a byte a pixel for their runs."""
        pixels = like["pixels"]
        a_pixel = pixels.shape[2] * pixels.element_size() + (self.device.type == "cpu")
        return pixels.shape[1] * a_pixel + 4 * like["area"].shape[1]

    def _room_at_first(self, rows: int, like: dict[str, Tensor]) -> int:
        if self._most is None or self.device.type != "cpu":
            return max(rows, self._expected)
        return max(rows, min(self._expected, self._most // self._row_bytes(like)))

    def _room_after(self, rows: int, room: int) -> int:
        return room if rows <= room else max(2 * room, rows, _FEW)

    def add(self, images: Sequence[int] | npt.NDArray[np.int64], labels: LabelBatch) -> None:
        """Take the labels of images that are not there yet, by number in the data set."""
        if not len(images):
            return
        rows, labels = slice(self._filled, self._filled + len(images)), labels.to(self.device)
        given = {name: getattr(labels, name) for name in _KEPT}
        if self.device.type == "cpu":
            given["runs"] = run_lengths(labels)
        if not self._kept:
            room = self._room_at_first(rows.stop, given)
            kinds = {name: torch.int32 if name == "area" else some.dtype for name, some in given.items()}
            self._kept = {name: self._empty(room, some.shape[1:], kinds[name]) for name, some in given.items()}
        for name, some in given.items():
            self._grow(name, rows.stop, some)
            _write(self._kept[name][rows], some)
        numbers = np.asarray(images, np.int64)
        if numbers.max() >= len(self._row_of):
            more = max(int(numbers.max()) + 1, 2 * len(self._row_of), self._expected) - len(self._row_of)
            self._row_of = np.append(self._row_of, np.full(more, -1, np.int64))
        self._row_of[numbers] = np.arange(rows.start, rows.stop)
        self._filled = rows.stop

    def _empty(self, rows: int, shape: Sequence[int], kind: torch.dtype) -> Tensor:
        return torch.empty((rows, *shape), dtype=kind, device=self.device)

    def _grow(self, name: str, rows: int, some: Tensor) -> None:
        """Make room for so many rows as wide as those of ``some``, if there is not."""
        kept = self._kept[name]
        shape = [max(a, b) for a, b in zip(kept.shape[1:], some.shape[1:], strict=True)]
        room = self._room_after(rows, len(kept))
        if [room, *shape] != list(kept.shape):
            self._kept[name] = self._empty(room, shape, kept.dtype)
            _write(self._kept[name][: self._filled], kept[: self._filled])

    def clear(self) -> None:
        """Let go of everything."""
        self._row_of, self._filled, self._kept = np.full(1, -1, np.int64), 0, {}

    def _rows(self, images: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        last = len(self._row_of) - 1
        return np.where(images <= last, self._row_of[np.minimum(images, last)], -1)

    def lacks(self, images: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Those of ``images`` that are not there, each once."""
        return np.unique(images[self._rows(images) < 0])

    def add_from(self, other: LabelStore, images: npt.NDArray[np.int64]) -> None:
        """Take the labels of ``images``, not there yet, from another store."""
        if len(images):
            rows = torch.from_numpy(other._rows(images)).to(other.device)
            kept = {name: tensor.index_select(0, rows) for name, tensor in other._kept.items() if name in _KEPT}
            self.add(images, _batch(kept))

    def labelling(self, images: npt.NDArray[np.int64], slots: npt.NDArray[np.int64]) -> Labelling:
        """N images under the labels of ``images`` (P, N), all of which are there, for ``slots`` (P, N)."""
        # The host does not wait: what is copied from memory that is not page-locked is taken out of it at once.
        row, slot = (torch.from_numpy(x).to(self.device, non_blocking=True) for x in (self._rows(images), slots))
        filled = {name: kept[: self._filled] for name, kept in self._kept.items()}
        return Labelling(_batch(filled), row, slot, filled.get("runs"))


def _batch(tensors: dict[str, Tensor]) -> LabelBatch:
    """Kept tensors as labels, in group 0."""
    group = torch.zeros(len(tensors["area"]), dtype=torch.int64, device=tensors["area"].device)
    return LabelBatch(**{name: tensors[name] for name in _KEPT}, group=group)


def _write(into: Tensor, narrow: Tensor) -> None:
    """Write ``narrow`` into rows that may be wider, which then end in zeros."""
    if narrow.shape[-1] < into.shape[-1]:
        into.zero_()
        into = into[..., : narrow.shape[-1]]
    into.copy_(narrow)
