"""A network as its code made it, made ready to be watched: plain Python, with values, in eval mode and float32."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import torch
from torch import Tensor, fx, nn

from ndissect.engine.networks.failures import failure_of_user_code
from ndissect.store.errors import NDError

_WIDTHS = {torch.float16: "half precision", torch.bfloat16: "half precision", torch.float64: "double precision"}


def watchable(module: nn.Module, spec: str) -> nn.Module:
    """The network itself, without the wrapper that trained or compiled it, whose layers nd can name and hook.

    NDError for a network whose layers cannot be watched, and for one without values.
    """
    while isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel) or hasattr(module, "_orig_mod"):
        inner = module._orig_mod if hasattr(module, "_orig_mod") else module.module
        assert isinstance(inner, nn.Module)
        module = inner
    if isinstance(module, torch.jit.ScriptModule):
        raise NDError(
            f"{spec} is a TorchScript module, whose layers cannot be watched", "Return the Python module instead"
        )
    values = (*module.parameters(), *module.buffers())
    if any(isinstance(v, nn.UninitializedParameter | nn.UninitializedBuffer) for v in values):
        raise NDError(f"{spec} has lazy layers without weights yet", "Run the network once on an image in the factory")
    if any(v.device.type == "meta" for v in values):
        raise NDError(
            f"{spec} has weights on the meta device, which have no values",
            "Build it on the CPU, and load its weights in the factory or by --weights FILE",
        )
    return module


def exported(what: str) -> NDError:
    """The error for a network that ``torch.export`` made a graph of operations of."""
    return NDError(
        f"{what} is an exported program, whose layers have become operations that cannot be watched",
        "Return the Python module that was exported",
    )


def set_to_run(module: nn.Module, spec: str) -> list[str]:
    """Puts ``module`` into eval mode and float32, without gradients and compiler; what the user should be told of that.

    NDError for an exported program, which has no modes, and where the network's own code fails on the way.
    """
    notes = []
    _own_values(module)
    values = (*module.parameters(), *module.buffers())
    for width in dict.fromkeys(_WIDTHS[v.dtype] for v in values if v.dtype in _WIDTHS):
        notes.append(f"The network is in {width}: it runs in float32 here")
    try:
        if notes:
            nn.Module.float(module)
        module.eval()  # of which some return nothing
        nn.Module.requires_grad_(module, False)
    except Exception as error:
        if isinstance(module, fx.GraphModule):  # of torch.export
            raise exported(spec) from error
        raise failure_of_user_code(f"{spec} cannot be put into eval mode", error, []) from error
    _without_compiling()
    return notes


def _own_values(module: nn.Module) -> None:
    """Weights that were made in inference mode can be changed there alone; ``module`` gets copies of them."""
    copies: dict[int, Tensor] = {}
    with torch.no_grad():
        for layer in module.modules():
            for values in (layer._parameters, layer._buffers):
                for name, value in values.items():
                    if value is None or not value.is_inference():
                        continue
                    if id(value) not in copies:
                        copy = value.clone()
                        copies[id(value)] = nn.Parameter(copy, False) if isinstance(value, nn.Parameter) else copy
                    values[name] = copies[id(value)]  # type: ignore[assignment]


def _without_compiling() -> None:
    """From now on what the network's code had compiled runs as plain Python, in which layers can be watched."""
    if "torch._dynamo" in sys.modules:
        set_stance: Any = torch.compiler.set_stance
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            set_stance("force_eager")
