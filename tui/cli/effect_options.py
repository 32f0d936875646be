"""The options that ``nd why``, ``nd ablate`` and ``nd attack`` share: the store, the network, its data and classes."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ndissect.engine.experiments.effect_request import EffectRequest
from ndissect.engine.run.options import Options
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.files import SUFFIX, find_store
from ndissect.tui.cli.options import StoreOption
from ndissect.tui.cli.run_options import takes_options

if TYPE_CHECKING:
    from ndissect.store.layer_view import LayerView

#: The fields of Options that decide what network and data are, and how the machine is used.
FIELDS = (
    "data format weights weights_key weights_prefix partial anyway size mean std bgr classes map functional"
    " device memory batch_size workers skip_bad max_pixels max_weights"
)
# Stores of the current folder that are looked into, the newest first.
_LOOKED_AT = 50
_TEXTS = {
    "data": "The images. Default: those that the store's labels are of.",
    "memory": "For activations: 8GB. Default: half of what is free.",
}

NetworkOption = Annotated[
    str | None,
    typer.Option("--network", metavar="NETWORK", help="As nd dissect takes it. Default: the network of the store."),
]
ImagesOption = Annotated[
    str | None,
    typer.Option(
        "--images", metavar="DIR", help="Images of the classes: a folder a class, or a CSV file image,class[,split]."
    ),
]


def takes_effect_options(
    *, first: str = "", also: str = "", store_in: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command ``f(request, own parameters ...)`` the flags that make its EffectRequest, and its own.

    The store is found before the command is called. ``first`` names the parameters that the help lists first, ``also``
    more fields of Options. ``store_in``: a parameter in which the store may stand before what it is for:
    ``STORE.nd.h5:layer4``.

        @takes_effect_options(first="layer")
        def ablate(request: EffectRequest, layer: Annotated[str, typer.Argument()], json: JsonOption = False) -> None:
            request = replace(request, layer=layer)
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

        def with_request(options: Options, /, **given: Any) -> None:
            store, network, images = (given.pop(name) for name in ("store", "network", "images"))
            if store_in is not None:
                store, given[store_in] = named_store(given[store_in], store)
            request = EffectRequest(find_labels(store, network), network, options, images=images)
            command(request, **given)

        with_request.__name__, with_request.__doc__ = command.__name__, command.__doc__
        with_request.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter("options", inspect.Parameter.KEYWORD_ONLY, annotation=Options),
                *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own),
                *(
                    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
                    for name, kind in (("store", StoreOption), ("network", NetworkOption), ("images", ImagesOption))
                ),
            ]
        )
        fields = " ".join(dict.fromkeys(f"{FIELDS} {also}".split()))
        return takes_options(only=fields, first=f"{first} store network images", texts=_TEXTS)(with_request)

    return decorate


def named_store(text: str | None, store: Path | None) -> tuple[Path | None, str | None]:
    """The store that ``text`` begins with, and what follows it: ``STORE.nd.h5:layer4:3,7``, or ``STORE.nd.h5``.

    ``store``: that of ``-s``, which is the one where ``text`` names none. WrongUse where both do.
    """
    name, colon, rest = (text or "").partition(f"{SUFFIX}:")
    if not colon and not (text or "").endswith(SUFFIX):
        return store, text
    given = f"{name}{SUFFIX}" if colon else name
    if store is not None:
        raise WrongUse(f"two stores are named: {given} and {store}", "name one of them")
    return Path(given), rest or None


@contextlib.contextmanager
def labelled_layer(store: Path | None, layer: str) -> Iterator[LayerView | None]:
    """The layer in the store, for the block; None where there is no store, or the layer is not in it.

    What was computed meanwhile is not lost where the store can no longer be read: a line says why there are no labels.
    """
    from ndissect.store.reader import Store
    from ndissect.tui.cli.output import tell

    with contextlib.ExitStack() as stack:
        view = None
        if store is not None:
            try:
                opened = stack.enter_context(Store(store))
                view = opened.layer(layer) if layer in opened.layer_names else None
            except NDError as e:
                tell(f"units have no labels: {e.message}")
        yield view


def find_labels(given: Path | None, network: str | None) -> Path | None:
    """The store with the labels: ``given``, else $ND_STORE, else the newest ``*.nd.h5`` of the current folder.

    Where a network is named, and no store, the newest of that network; None where there is none: it goes without
    labels. WrongUse where there is neither a store nor a network.
    """
    if network is None or given is not None or os.environ.get("ND_STORE"):
        return find_store(given)
    stores = (path for path in Path().glob(f"*{SUFFIX}") if path.is_file())
    newest = sorted(stores, key=lambda path: -path.stat().st_mtime)[:_LOOKED_AT]
    return next((path for path in newest if _is_of(path, network)), None)


def _is_of(path: Path, network: str) -> bool:
    """Whether the labels in the store ``path`` are of the network that is written ``network``."""
    from ndissect.store.reader import Store

    with contextlib.suppress(NDError), Store(path) as store:
        said = store.provenance.get("network")
        return isinstance(said, dict) and said.get("spec") == network
    return False
