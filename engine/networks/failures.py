"""Failures of the researcher's own code, told with the line of that code where they happened."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

from ndissect.store.errors import NDError

#: What torch says where a GPU is asked for and there is none.
NO_GPU = ("NVIDIA driver", "not compiled with CUDA", "No CUDA GPUs", "object on a CUDA device")
_OURS = Path(__file__).resolve().parents[2]


def failure_of_user_code(
    what: str, error: BaseException, folders: list[str], hint: str = "", clean: Callable[[str], str] = str
) -> NDError:
    """The NDError for ``error``, raised by code in ``folders``: its type, text, and the innermost line of theirs.

    ``what`` says what was being done ("the factory net.py:build failed"); ``clean`` rewrites private module names.
    """
    text = clean(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
    place = _syntax_place(error) if isinstance(error, SyntaxError) else _innermost(error, folders)
    if not hint:
        if isinstance(error, ModuleNotFoundError):
            hint = (
                "Install the missing package in the environment that nd runs in, or start nd in the folder that has it"
            )
        elif any(words in text for words in NO_GPU):
            hint = "There is no GPU: build the network on the CPU, torch.load(..., map_location='cpu'); nd moves it"
        else:
            hint = "The error is in the network's own code: run the factory in plain Python to look into it"
    return NDError(f"{what}: {text}{place}", hint)


def _syntax_place(error: SyntaxError) -> str:
    return f" ({error.filename}, line {error.lineno})" if error.filename and "line " not in str(error) else ""


def _innermost(error: BaseException, folders: list[str]) -> str:
    own = [f for f in traceback.extract_tb(error.__traceback__) if _is_theirs(f.filename, folders)]
    if not own:
        return ""
    source = f": {own[-1].line}" if own[-1].line else ""
    return f" ({own[-1].filename}, line {own[-1].lineno}{source})"


def _is_theirs(filename: str, folders: list[str]) -> bool:
    path = Path(filename)
    if not path.is_absolute() or {"site-packages", "dist-packages"} & set(path.parts):
        return False
    if _OURS / "engine" in path.parents:
        return False
    return any(Path(folder) in path.parents for folder in folders)
