"""Files of safetensors: a header, and numbers."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ndissect.engine.checkpoints.limits import Limit, check_header, check_keys
from ndissect.engine.machine.utf8_path import utf8_path
from ndissect.store.errors import NDError

_MOST_TEXT = 300


def looks_like_safetensors(head: bytes) -> bool:
    """Whether a file with these first bytes is one of safetensors."""
    return len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32


def read_safetensors(path: Path, head: bytes, limit: Limit) -> dict[str, Tensor]:
    """The tensors of the file, on the CPU; NDError where it is damaged, or they take more than ``limit``."""
    from safetensors.torch import load_file  # noqa: PLC0415 - only one of the formats needs it

    check_header(head, path)
    try:
        with utf8_path(path) as name:
            state = load_file(name)
    except Exception as error:  # whatever a damaged file leads to
        text = str(error).strip().splitlines()
        said = text[0][:_MOST_TEXT] if text else type(error).__name__
        raise NDError(f"{path} is damaged: {said}", "Copy or download the weights again") from error
    check_keys(state, path)
    needed = sum(value.numel() * value.element_size() for value in state.values())
    limit.check(needed, f"holds {len(state)} tensors that would take")
    return state
