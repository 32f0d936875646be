"""What a user types to name a network, taken apart. No code of the network runs here.

    torchvision:NAME            a network of torchvision with its default weights
    torchvision:NAME@WEIGHTS    with the weights of that name; ``none`` for random ones
    timm:NAME[@TAG]             a network of timm, with its default weights or those of that tag; ``none`` as above
    timm:hf-hub:OWNER/NAME      the same from Hugging Face's hub; timm:local-dir:PATH from a folder
    hf:OWNER/NAME[@REVISION]    a vision network of transformers from Hugging Face's hub; ``none`` as above
    hf:PATH                     the same from a folder
    path/file.py:FACTORY        what FACTORY of a Python file returns; ``~`` is the home folder
    package.module:FACTORY      what FACTORY of a module returns, installed or in the current folder
    demo                        the bundled demo network
    demo-generator              the bundled generator of scenes; demo-labeller, the labeller of these

The text before the last colon names a file if it ends in ``.py``, holds a ``/`` or exists; otherwise it is a module.
"""

from __future__ import annotations

import ast
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ndissect.engine.machine.torchvision_import import without_compiler
from ndissect.store.errors import WrongUse, nearest
from ndissect.store.names import BUNDLED_NETWORKS, quoted

#: How a network of each scheme is written.
FORMS = {
    "torchvision": "torchvision:NAME[@WEIGHTS]",
    "timm": "timm:NAME[@TAG]",
    "hf": "hf:OWNER/NAME",
    "file": "path/file.py:FACTORY",
    "module": "package.module:FACTORY",
    "demo": "demo",
}
#: The hint of an error about the text that names a network.
WRITTEN = f"Networks are written {', '.join(list(FORMS.values())[:-1])} or {list(FORMS.values())[-1]}"

_BY_NAME = tuple(scheme for scheme, form in FORMS.items() if form.startswith(f"{scheme}:"))
# What people write for the scheme of a hub.
_MEANT = {"huggingface": "hf", "transformers": "hf", "hf-hub": "timm:hf-hub", "local-dir": "timm:local-dir"}
_WEIGHTS_FILES = (".pt", ".pth", ".safetensors", ".ckpt", ".tar", ".bin")


@dataclass(frozen=True)
class NetworkSpec:
    """A network as it was named: ``text`` is what the user typed, ``scheme`` a key of FORMS.

    ``target``: NAME, the file, the folder or the module; ``detail``: WEIGHTS, TAG, REVISION or FACTORY, None where none
    is given.
    """

    text: str
    scheme: str
    target: str
    detail: str | None = None


def parse_spec(text: str) -> NetworkSpec:
    """``text`` taken apart; WrongUse, with what was probably meant, where it names no network."""
    if not text.strip():
        raise WrongUse("no network given", WRITTEN)
    if text in BUNDLED_NETWORKS:
        return NetworkSpec(text, "demo", text)
    left, _, right = text.rpartition(":")
    if not left or not right:
        raise _incomplete(text)
    scheme, _, rest = text.partition(":")
    if scheme in _BY_NAME:
        return NetworkSpec(text, scheme, *_name_and_weights(rest))
    if scheme in _MEANT:
        raise WrongUse(f"{text!r} is not a network", f"Did you mean {_MEANT[scheme]}:{rest}? {WRITTEN}")
    if left.endswith(".py") or "/" in left or os.path.exists(left):  # noqa: PTH110 - Path.exists raises where a name is too long
        return NetworkSpec(text, "file", left, right)
    return NetworkSpec(text, "module", left, right)


def _name_and_weights(text: str) -> tuple[str, str | None]:
    """``NAME@WEIGHTS`` taken apart; a folder may have an ``@`` in its own name."""
    name, at, weights = text.rpartition("@")
    if not at or "/" in weights or os.path.isdir(text.removeprefix("local-dir:")):  # noqa: PTH112 - likewise
        return text, None
    return name, weights


def _incomplete(text: str) -> WrongUse:
    path = Path(text.rstrip(":")).expanduser()
    if os.path.isdir(path):  # noqa: PTH112 - likewise
        raise _a_folder(path)
    if path.suffix == ".py" and os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where a name is too long
        factories = _defined_in(path)
        return WrongUse(
            f"{text} does not say which factory builds the network",
            f"Write {quoted(path)}:FACTORY with one of: {', '.join(factories) or 'none defined'}",
        )
    if path.suffix in _WEIGHTS_FILES:
        return WrongUse(
            f"{text} holds weights; the network that they belong to is needed too",
            f"Write NETWORK --weights {quoted(Path(text))}. {WRITTEN}",
        )
    if text.startswith("demo"):
        near = nearest(text, list(BUNDLED_NETWORKS))
        raise WrongUse(f"{text!r} is not a network", f"Did you mean {near[0]}? {WRITTEN}")
    with without_compiler():
        from torchvision.models import list_models  # noqa: PLC0415 - takes a while, only for the suggestion

    near = nearest(text, list_models()) if re.fullmatch(r"\w+", text) else []
    return WrongUse(f"{text!r} is not a network", (f"Did you mean torchvision:{near[0]}? " if near else "") + WRITTEN)


def _a_folder(path: Path) -> WrongUse:
    """The error for a folder in place of a network, which says how the network in it is written."""
    if os.path.isfile(path / "config.json"):  # noqa: PTH113 - likewise
        hint = f"A folder saved by transformers is written hf:{quoted(path)}, one of timm timm:local-dir:{quoted(path)}"
    else:
        hint = WRITTEN
    return WrongUse(f"{path} is a folder, not a network", hint)


def _defined_in(path: Path) -> list[str]:
    """The public functions and classes that a Python file defines; it is not run."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
