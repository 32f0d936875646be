"""A data set of image files and label files of any size, as a format other than Broden's lists them.

A format says which concepts there are and, of every image, where it is and what labels it (:class:`ImageRecord`);
:class:`LabelledFiles` is the data set that runs, checks and packs work with. It brings the label maps of an image, of
whatever size, to one grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt


class LabelSource(Protocol):
    """Where one or several label maps of an image come from: a PNG with numbers, polygons in a JSON file, ..."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read for it, below the data set's folder."""
        ...

    def read(self, root: Path, size: tuple[int, int]) -> tuple[npt.NDArray[np.uint16], bytes]:
        """(M, h, w) uint16: concept numbers, 0 is none, at the size that they have; and the bytes that were read.

        ``size``: (H, W) of the image. BadFile (an NDError) names the file and what is wrong with it.
        """
        ...


@dataclass(frozen=True)
class ImageRecord:
    """One image: ``name``, as stores call it; ``file``, below the data set's folder; ``split``: train or val.

    ``sources``: what gives its label maps; ``labels``: numbers of the concepts that cover all of it, never 0.
    """

    name: str
    file: Path
    split: str
    sources: tuple[LabelSource, ...] = ()
    labels: tuple[int, ...] = ()
