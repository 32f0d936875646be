"""Weights from a file into a network: tensors only, never code, and never silently incomplete."""

from __future__ import annotations

import argparse
import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO, cast

import torch
from torch import Tensor, nn

from ndissect.engine.machine.utf8_path import utf8_path
from ndissect.engine.networks.checkpoint_size import (
    CountedPickle,
    Limit,
    check_header,
    check_zip,
    limit_of,
    plain_tensors,
)
from ndissect.store.errors import NDError
from ndissect.store.regular import open_regular

# The names under which training scripts keep a state dict inside a checkpoint, the most explicit first.
WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "net_state_dict",
    "weights", "params", "state_dict_ema", "model_ema", "ema_state_dict", "ema",
)  # fmt: skip
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
_LISTED = 40
_SHOWN, _MOST_TEXT = 60, 300


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a weights file and where in it they were: ``key`` is "" or e.g. ``state_dict``."""

    state: dict[str, Tensor]
    key: str
    sha256: str


@dataclass(frozen=True)
class Fit:
    """The keys that ``apply_state`` left out: without a value, without a place in the network, or of another shape."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]


def load_state(path: Path) -> dict[str, Tensor]:
    """The state dict in ``path`` (.safetensors, .pt, .pth, ...), on the CPU, without its wrappers.

    Raises NDError where the file is missing, truncated, no checkpoint, or a pickle that holds code.
    """
    return read_checkpoint(path).state


def read_checkpoint(path: Path, max_bytes: int | None = None, *, key: str | None = None) -> Checkpoint:
    """The tensors of ``path`` and their provenance; errors as ``load_state``.

    ``max_bytes``: what they may take in memory; by default 16 GB, and 8 times what the file has.
    """
    try:
        with open_regular(path) as file:
            limit = limit_of(file, path, max_bytes)
            head = file.read(64)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            content = _read_safetensors(path, head) if _looks_like_safetensors(head) else _read_torch(file, head, limit)
    except OSError as error:
        raise NDError(
            f"cannot read the weights {path}: {error.strerror}", "Check the path given to --weights"
        ) from error
    state, key = _unwrap(content, path)
    return Checkpoint(plain_tensors(state, limit), key, digest)


def apply_state(
    module: nn.Module, state: Mapping[str, Tensor], source: str, partial: bool = False, *, prefix: str | None = None
) -> Fit:
    """Loads ``state`` into ``module`` (cast to its dtypes) and returns what did not fit; prefixes are undone.

    Raises NDError listing every key that is missing, unexpected or of another shape, unless ``partial``; and in any
    case where no key fits. A missing ``num_batches_tracked`` is fine: it plays no part in a forward pass.
    """
    own = module.state_dict()
    state = undo_prefixes(module, state)
    unexpected = [k for k in state if k not in own]
    mismatched = [k for k in state if k in own and isinstance(own[k], Tensor) and state[k].shape != own[k].shape]
    missing = [k for k in own if k not in state and not k.endswith(("num_batches_tracked", "_extra_state"))]
    fitting = {k: v for k, v in state.items() if k in own and k not in set(mismatched)}
    if not fitting:
        raise NDError(
            f"{source} holds other weights: none of its {len(state)} keys fits the network "
            f"(file: {', '.join(list(state)[:3])} ...; network: {', '.join(list(own)[:3])} ...)",
            "Give the weights of this architecture, or the network that these weights belong to",
        )
    if (missing or unexpected or mismatched) and not partial:
        shapes = [f"{k} (file {_shape(state[k])}, network {_shape(own[k])})" for k in mismatched]
        lists = [
            _listing("missing in the file", missing),
            _listing("not in the network", unexpected),
            _listing("of another shape", shapes),
        ]
        raise NDError(
            f"{source} does not fit the network: " + "; ".join(text for text in lists if text),
            "--partial loads what fits and leaves the rest as the network was built",
        )
    module.load_state_dict(fitting, strict=False)
    return Fit(tuple(missing), tuple(unexpected), tuple(mismatched))


def undo_prefixes(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` without ``module.``, ``_orig_mod.`` ...: what wrapping a network for training puts into its keys.

    A prefix of all keys goes only if the network itself has no child of that name. ``module.`` also goes from the
    middle, where a part of the network was wrapped (PyTorch's ImageNet example wraps the features of AlexNet and VGG),
    and where that makes a key the network's own.
    """
    children = {name for name, _ in module.named_children()}
    result = dict(state)
    while result:
        prefixes = [p for p in PREFIXES if p[:-1] not in children and all(k.startswith(p) for k in result)]
        if not prefixes:
            break
        result = {k.removeprefix(prefixes[0]): v for k, v in result.items()}
    return _without_wrapped_parts(module, result)


def _without_wrapped_parts(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """``state`` with ``module.`` taken out of each key that becomes a key of the network by that."""
    own = set(module.state_dict())
    plain = {key: _unwrapped_key(module, key) for key in state if key not in own}
    claimed = [*(key for key in state if key in own), *plain.values()]
    moved = {key: to for key, to in plain.items() if to in own and claimed.count(to) == 1} if plain else {}
    return {moved.get(key, key): value for key, value in state.items()}


def _unwrapped_key(module: nn.Module, key: str) -> str:
    """``key`` without every part ``module`` for which the network has no child of that name there."""
    at: nn.Module | None = module
    kept = []
    for part in key.split("."):
        child = at._modules.get(part) if at is not None else None
        if part == "module" and child is None:
            continue
        kept.append(part)
        at = child
    return ".".join(kept)


def digest_of(module: nn.Module) -> str:
    """sha256 of the network's state dict: for each key in sorted order its name, dtype, shape and bytes."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"{key}\0{value.dtype}\0{tuple(value.shape)}\0".encode("utf-8", "surrogatepass"))
            if value.numel():
                digest.update(value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
        else:
            digest.update(f"{key}\0{type(value).__name__}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _looks_like_safetensors(head: bytes) -> bool:
    return len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32


def _read_safetensors(path: Path, head: bytes) -> object:
    from safetensors.torch import load_file  # noqa: PLC0415 - only one of the two formats needs it

    check_header(head, path)
    try:
        with utf8_path(path) as name:
            return load_file(name)
    except Exception as error:  # whatever a damaged file leads to
        raise NDError(f"{path} is damaged: {_first_line(error)}", "Copy or download the weights again") from error


def _read_torch(file: BufferedReader, head: bytes, limit: Limit) -> object:
    path = limit.path
    if head.startswith(b"version https://git-lfs"):
        raise NDError(f"{path} is a Git LFS pointer, not the weights themselves", "Fetch them with: git lfs pull")
    if not head.startswith((b"PK", b"\x80")):
        raise NDError(
            f"{path} is not a checkpoint: it begins with {head[:16]!r}",
            "Give a .safetensors file or a state dict saved by torch.save",
        )
    if head.startswith(b"PK"):
        check_zip(file, limit)
        file.seek(0)
    try:
        # Namespace: the arguments which many training scripts save beside the weights; plain attributes, no code.
        # A file object: by a path, torch.load would choose the format by the suffix.
        with torch.serialization.safe_globals([argparse.Namespace]), _quiet():
            source = file if head.startswith(b"PK") else CountedPickle(file, limit)
            return torch.load(cast(IO[bytes], source), map_location="cpu", weights_only=True)
    except NDError:
        raise
    except Exception as error:
        text = str(error)
        if "weights_only" in text.lower() or "Unsupported" in text or "unsupported" in text:
            name = _refused_name(text)
            raise NDError(
                f"{path} holds more than tensors{name}; reading it could run code, so it was not read",
                "If you trust its source, torch.load it with weights_only=False and torch.save the tensors alone: "
                'module.state_dict() of a whole module, checkpoint["state_dict"] of a checkpoint',
            ) from error
        raise NDError(
            f"{path} is damaged or not a checkpoint: {_first_line(error)}", "Copy or download the weights again"
        ) from error


def _quiet() -> warnings.catch_warnings[None]:
    """Suppress torch's warnings about old pickles, which are for its own developers."""
    return warnings.catch_warnings(action="ignore")


def _refused_name(text: str) -> str:
    for mark in ("Unsupported global: GLOBAL ", "Unsupported class ", "Trying to load unsupported GLOBAL "):
        if mark in text:
            named = text.split(mark, 1)[1].split(maxsplit=1) or [""]
            return f" ({named[0][:_SHOWN].rstrip('.,')})"
    return ""


def _unwrap(content: object, path: Path, depth: int = 0, at: str = "") -> tuple[dict[str, Tensor], str]:
    if isinstance(content, dict):
        named = _named(content)
        known: dict[tuple[int, int], bool] = {}
        inner = [k for k in WRAPPERS if _holds_tensors(named.get(k), known)]
        tensors = {k: v for k, v in named.items() if isinstance(v, Tensor)}
        if not inner and not tensors:
            inner = [k for k, v in named.items() if _holds_tensors(v, known)]
            if len(inner) > 1:
                raise NDError(
                    f"{path} holds several sets of weights: {_first_names(inner)}",
                    'Save the one to dissect: torch.save(torch.load(FILE)["NAME"], "weights.pt")',
                )
        if inner and depth < 4:
            return _unwrap(named[inner[0]], path, depth + 1, f"{at}.{inner[0]}" if at else inner[0])
        if tensors:
            return tensors, at
    kind = f"a {type(content).__name__}" + (
        f" with {_first_names(list(_named(content)))}" if isinstance(content, dict) and content else ""
    )
    raise NDError(f"{path} holds no state dict: {kind}", "Give a file saved by torch.save(network.state_dict(), FILE)")


def _named(content: dict[object, object]) -> dict[str, object]:
    """The entries whose keys are names or numbers, by name."""
    # Of the base class: a file may give a dictionary attributes that hide its methods.
    return {str(k): v for k, v in dict.items(content) if isinstance(k, str) or (type(k) is int and abs(k) < 10**9)}


def _holds_tensors(value: object, known: dict[tuple[int, int], bool], depth: int = 0) -> bool:
    """Whether a dictionary of names, or a dictionary in it, holds tensors; each is looked through once."""
    if not isinstance(value, dict):
        return False
    at = (id(value), depth)
    if at not in known:
        named = all(isinstance(k, str) for k in dict.keys(value))
        known[at] = named and any(
            isinstance(v, Tensor) or (depth < 3 and _holds_tensors(v, known, depth + 1)) for v in dict.values(value)
        )
    return known[at]


def _first_names(names: list[str]) -> str:
    return ", ".join(name[:_SHOWN] for name in names[:6]) + (", ..." if len(names) > 6 else "")


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "scalar"


def _listing(title: str, keys: list[str]) -> str:
    if not keys:
        return ""
    more = f", and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return f"{len(keys)} {title}: {', '.join(keys[:_LISTED])}{more}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:_MOST_TEXT] if str(error).strip() else type(error).__name__
