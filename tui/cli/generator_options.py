"""The options that commands on generators share: the store of one, its layer, and how it is opened."""

from __future__ import annotations

from pathlib import Path

from ndissect.store.errors import WrongUse
from ndissect.store.files import SUFFIX, find_store

#: The fields of Options that decide how the generator of a store is opened, and how the machine is used.
FIELDS = (
    "weights weights_key weights_prefix anyway seed truncation latent latents encode class_of"
    " labeller labeller_classes labeller_min labeller_size device batch_size"
)


def store_and_layer(text: str | None, store: Path | None) -> tuple[Path, str | None]:
    """The store and the layer that ``STORE:LAYER``, ``STORE`` or ``LAYER`` name; None: the store's last layer.

    ``store``: that of ``-s``. Where none is named it is found as everywhere. WrongUse where there is none, or two.
    """
    if text is None:
        return find_store(store), None
    name, colon, layer = text.rpartition(":")
    given = name if colon and name.endswith(SUFFIX) else text if text.endswith(SUFFIX) else None
    if given is None:
        return find_store(store), text
    if store is not None:
        raise WrongUse(f"two stores are named: {given} and {store}", "name one of them")
    return find_store(Path(given)), (layer or None) if name == given else None
