"""Images as a user names them: files, and ``data:NAME`` for those of the data set. They are read without torch."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.data.image_bombs import MOST_PIXELS, most_bytes
from ndissect.engine.data.image_files import IMAGE_ENDINGS
from ndissect.engine.data.image_headers import orientation, size_of
from ndissect.engine.data.images import BadFile, allow_pixels, decode_image, read_file
from ndissect.store.errors import NDError, WrongUse, nearest

#: What the name of an image of the data set begins with.
OF_DATA = "data:"
# How an image is turned to be upright, by its EXIF orientation. Images of a data set stay as they are stored, as their
# label maps do.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.I)


def check_named(names: Sequence[str]) -> None:
    """WrongUse where one of ``names`` is no file that is there, or not called as an image is; nothing is downloaded."""
    for name in names:
        if name.startswith(OF_DATA):
            continue
        if _URL.match(name):
            raise WrongUse(f"{name} is an address, and images are read from files", "download it, and name the file")
        if os.path.isdir(name):  # noqa: PTH112 - Path.is_dir raises where a name is too long
            raise WrongUse(
                f"{name} is a folder, and an image is a file",
                "name its files; for a folder of a class: --images FOLDER --class NAME",
            )
        if not os.path.exists(name):  # noqa: PTH110 - likewise
            raise WrongUse(f"there is no image file {name}", f"an image of the store's data is written {OF_DATA}NAME")
        if not name.lower().endswith(IMAGE_ENDINGS):
            raise WrongUse(f"{name} is no image by its name", f"those of images end in {', '.join(IMAGE_ENDINGS)}")


def number_in(dataset: ConceptDataset, name: str) -> int:
    """Which image of ``dataset`` is called ``name``, whole or by the end of its path; WrongUse with the nearest."""
    numbers = [i for i, known in enumerate(dataset.names) if known == name]
    if not numbers:
        numbers = [i for i, known in enumerate(dataset.names) if name and known.endswith(f"/{name}")]
    if len(numbers) == 1:
        return numbers[0]
    if numbers:
        several = ", ".join(dataset.names[i] for i in numbers[:4])
        raise WrongUse(f"{len(numbers)} images of {dataset.name} are called {name}: {several}", "name one in full")
    close = nearest(name, list(dataset.names)) or list(dataset.names[:3])
    raise WrongUse(f"no image of {dataset.name} is called '{name}'", f"nearest: {', '.join(close)}")


def read_image(path: Path, max_pixels: int | None = None) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB: the image in a file, upright, of at most ``max_pixels``; NDError where it is none."""
    most = max_pixels or MOST_PIXELS
    allow_pixels(most)
    try:
        data = read_file(path, str(path), most_bytes(most))
        size = size_of(data)
        if size is not None and size[0] * size[1] > most:
            raise BadFile(str(path), f"the image is {size[0]} x {size[1]} pixels, more than {most:,}")
        pixels = decode_image(data, str(path))
        if pixels.shape[0] * pixels.shape[1] > most:
            raise BadFile(str(path), f"the image is {pixels.shape[0]} x {pixels.shape[1]} pixels, more than {most:,}")
    except BadFile as fault:
        hint = (
            "--max-pixels N reads larger ones" if "more than" in fault.what else "images are JPEG, PNG, WebP and such"
        )
        raise NDError(fault.message, hint) from fault
    turned = _TURNS.get(orientation(data))
    return pixels if turned is None else np.array(Image.fromarray(pixels).transpose(turned))
