"""Weights from a file into a network, never silently incomplete."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ndissect.engine.checkpoints.read import Checkpoint, read_checkpoint
from ndissect.engine.networks.prefixes import NOT_NEEDED, Under, fullest_prefix, is_of_wrappers, under_prefix
from ndissect.store.errors import NDError

_LISTED = 40


@dataclass(frozen=True)
class Fit:
    """The keys that ``apply_state`` left out: without a value, without a place in the network, or of another shape.

    ``prefix``: what the names in the file begin with; ``outside``: the names there that do not.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    prefix: str = ""
    outside: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadedWeights:
    """What a file gave to a network: ``origin`` for the provenance, ``notes`` for the user, and the keys ``left_out``.

    Those are keys of the network to which the file gave no value.
    """

    origin: dict[str, str]
    notes: tuple[str, ...]
    left_out: tuple[str, ...]


def load_weights(
    module: nn.Module,
    path: Path,
    *,
    partial: bool = False,
    max_bytes: int | None = None,
    key: str | None = None,
    prefix: str | None = None,
) -> LoadedWeights:
    """Load the weights in ``path`` into ``module``: the set that ``key`` names, under ``prefix``.

    ``partial`` and errors as ``apply_state``; ``max_bytes`` and errors as ``read_checkpoint``.
    """
    checkpoint = read_checkpoint(path, max_bytes, key=key)
    fit = apply_state(module, checkpoint.state, str(path), partial, prefix=prefix)
    origin = {"weights_file": str(path.resolve()), "weights_sha256": checkpoint.sha256}
    if checkpoint.key:
        origin["weights_key"] = checkpoint.key
    if fit.prefix:
        origin["weights_prefix"] = fit.prefix
    if fit.outside:
        origin["weights_outside"] = ", ".join(fit.outside)
    notes = _notes(checkpoint, fit)
    for title, keys in (("missing", fit.missing), ("unexpected", fit.unexpected), ("mismatched", fit.mismatched)):
        if keys:
            origin[f"weights_{title}"] = ", ".join(keys)
            notes.append(
                f"--partial: {len(keys)} {title} {'key' if len(keys) == 1 else 'keys'} left out: {', '.join(keys)}"
            )
    return LoadedWeights(origin, tuple(notes), (*fit.missing, *fit.mismatched))


def _notes(checkpoint: Checkpoint, fit: Fit) -> list[str]:
    """What of the file was taken for the network's weights, where it holds more."""
    notes = []
    if checkpoint.others:
        notes.append(
            f"Of the sets of weights in the file '{checkpoint.key}' is taken; there are also "
            f"{_first(checkpoint.others)}: --weights-key chooses"
        )
    if fit.outside or not is_of_wrappers(fit.prefix):
        outside = f"; {len(fit.outside)} outside of it: {_first(fit.outside)}" if fit.outside else ""
        notes.append(f"The network's weights are those under '{fit.prefix}' in the file{outside}")
    if checkpoint.unread:
        notes.append(f"Not read of the file, as they are no tensors: {_first(checkpoint.unread)}")
    return notes


def apply_state(
    module: nn.Module, state: Mapping[str, Tensor], source: str, partial: bool = False, *, prefix: str | None = None
) -> Fit:
    """Load ``state`` into ``module`` (cast to its dtypes) and return what did not fit; prefixes are undone.

    ``prefix``: what the network's names begin with in ``state``; by default the one under which all of them are, as
    ndissect.engine.networks.prefixes says, and errors as there. Raises NDError listing every key that is missing,
    unexpected or of another shape, unless ``partial``; and in any case where no key fits. A missing
    ``num_batches_tracked`` is fine: it plays no part in a forward pass.
    """
    own = module.state_dict()
    under = under_prefix(own, state, source, prefix)
    weights = under.state
    unexpected = [k for k in weights if k not in own]
    shapes = {k: v.shape for k, v in own.items() if isinstance(v, Tensor)}
    mismatched = [k for k, v in weights.items() if k in shapes and v.shape != shapes[k]]
    missing = [k for k in own if k not in weights and not k.endswith(NOT_NEEDED)]
    fitting = {k: v for k, v in weights.items() if k in own and k not in set(mismatched)}
    if not fitting:
        raise _none_fits(own, state, under, source)
    if (missing or unexpected or mismatched) and not partial:
        differing = [f"{k} (file {_shape(weights[k])}, network {_shape(own[k])})" for k in mismatched]
        lists = [
            _listing("missing in the file", missing),
            _listing("not in the network", unexpected),
            _listing("of another shape", differing),
        ]
        where = f" under '{under.prefix}'" if under.prefix else ""
        raise NDError(
            f"{source} does not fit the network{where}: " + "; ".join(text for text in lists if text),
            _other_prefix(own, state, under, len(fitting))
            or "--partial loads what fits and leaves the rest as the network was built",
        )
    module.load_state_dict(fitting, strict=False)
    return Fit(tuple(missing), tuple(unexpected), tuple(mismatched), under.prefix, under.outside)


def _none_fits(own: Mapping[str, object], state: Mapping[str, Tensor], under: Under, source: str) -> NDError:
    where = f" under '{under.prefix}'" if under.prefix else ""
    return NDError(
        f"{source} holds other weights: none of its {len(under.state)} keys{where} fits the network "
        f"(file: {', '.join(list(state)[:3])} ...; network: {', '.join(list(own)[:3])} ...)",
        _other_prefix(own, state, under, 0)
        or "Give the weights of this architecture, or the network that these weights belong to",
    )


def _other_prefix(own: Mapping[str, object], state: Mapping[str, Tensor], under: Under, fitting: int) -> str:
    """A hint at the prefix under which more of the network's weights are than the ``fitting`` ones, or ""."""
    prefix, count = fullest_prefix(own, state)
    if count <= fitting or prefix == under.prefix:
        return ""
    return f"{count} of the network's {len(own)} are under '{prefix}': --weights-prefix {prefix} --partial loads them"


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


def _shape(value: object) -> str:
    return ("x".join(map(str, value.shape)) or "scalar") if isinstance(value, Tensor) else "no tensor"


def _first(names: tuple[str, ...]) -> str:
    """The first of ``names``, and how many more there are."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _listing(title: str, keys: list[str]) -> str:
    return f"{len(keys)} {title}: {_first(tuple(keys))}" if keys else ""
