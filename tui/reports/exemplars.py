"""Top images with masks as the folders of arrays that MILAN's code reads (Hernandez et al., ICLR 2022)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from ndissect.store.errors import NDError
from ndissect.store.layer_view import LayerView
from ndissect.store.names import safe_name
from ndissect.tui.pictures.overlay import enlarge
from ndissect.tui.pictures.sheets import unit_panels

#: Height and width of all images and masks: what that code makes, and what its networks were trained on.
SIDE = 224
#: What an image and its mask take on the disk.
BYTES_AN_IMAGE = 4 * SIDE * SIDE
#: Beside the layers' folders: where the arrays come from. Its readers look into folders alone.
ABOUT = "about.json"
ENCODING = "ndissect-exemplars"
_ARRAYS = ("images.npy", "masks.npy", "units.npy")


def count_images(layers: Sequence[LayerView]) -> int:
    """How many images :func:`write` will write."""
    return sum(view.units * _images_a_unit(view) for view in layers)


def write(
    folder: Path,
    layers: Sequence[LayerView],
    header: dict[str, Any],
    drawn: Callable[[int], object] = lambda images: None,
) -> None:
    """Fill the empty ``folder``: for each layer a folder of its name with three arrays, and what they are of.

    ``images.npy`` (U, n, 3, H, W) uint8: RGB, the unit's highest peak first; ``masks.npy`` (U, n, 1, H, W) uint8: 1 in
    the unit's mask, else 0; ``units.npy`` (U,) int64: 0 to U - 1. A unit with fewer images than others has black ones
    with empty masks at its end. ``drawn`` is told how many images have been written, after each unit. NDError where
    the store holds no top images.
    """
    for view in layers:
        place = folder / folder_name(view.name)
        place.mkdir()
        shape = (view.units, _images_a_unit(view))
        with (place / _ARRAYS[0]).open("wb") as images, (place / _ARRAYS[1]).open("wb") as masks:
            _begin(images, (*shape, 3, SIDE, SIDE))
            _begin(masks, (*shape, 1, SIDE, SIDE))
            for unit in range(view.units):
                shown, fired = _unit(view, unit, shape[1])
                images.write(shown.tobytes())
                masks.write(fired.tobytes())
                drawn(shape[1])
        np.save(place / _ARRAYS[2], np.arange(view.units, dtype=np.int64))
    about = {"encoding-type": ENCODING, "layers": {folder_name(view.name): view.name for view in layers}, **header}
    (folder / ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")


def folder_name(layer: str) -> str:
    """The name of a layer's folder: the layer's own, with what would lead out of the place escaped."""
    name = "".join(c if c.isprintable() and c not in "%/\\" else _escaped(c) for c in layer)
    return safe_name(f"{_escaped(name[0])}{name[1:]}" if name[:1] in tuple(".-~") else name)


def _escaped(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def is_empty(folder: Path) -> bool:
    """Whether ``folder`` is one, with nothing in it."""
    return folder.is_dir() and not any(folder.iterdir())


def written_by_nd(folder: Path) -> bool:
    """Whether ``folder`` holds such arrays and nothing else, so that no other work is lost with it."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if about["encoding-type"] != ENCODING:
            return False
        layers = [entry for entry in folder.iterdir() if entry.name != ABOUT]
        return not any(map(Path.is_symlink, layers)) and all(
            file.name in _ARRAYS for layer in layers for file in layer.iterdir()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _images_a_unit(view: LayerView) -> int:
    if not view.units:
        raise NDError(f"{view.name} has no units", "name other layers")
    return max(len(view.peaks(unit)[0]) for unit in range(view.units))


def _begin(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """The head of a uint8 array, whose bytes follow. A file in memory would end the program where the disk is full."""
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _unit(view: LayerView, unit: int, count: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """The images (n, 3, H, W) and masks (n, 1, H, W) of one unit."""
    images = np.zeros((count, 3, SIDE, SIDE), np.uint8)
    masks = np.zeros((count, 1, SIDE, SIDE), np.uint8)
    for i, panel in enumerate(unit_panels(view, unit, images=count)):
        resized = Image.fromarray(panel.image).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        images[i] = np.asarray(resized).transpose(2, 0, 1)
        masks[i, 0] = enlarge(panel.mask, SIDE, SIDE)
    return images, masks
